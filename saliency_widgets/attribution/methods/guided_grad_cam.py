"""Guided Grad-CAM."""

from __future__ import annotations

from collections.abc import Iterator

from torch.nn import functional as F

from saliency_widgets.attribution.query import LAYER, RESHAPE, Query
from saliency_widgets.attribution.reduction import unseen
from saliency_widgets.attribution.registry import Estimate, get_method, method


@method(
    title="Guided Grad-CAM",
    unit="passes",
    params=(LAYER, RESHAPE),
    needs=("relu", "layer", "image"),
    blank="no edge of Guided Backprop lies where Grad-CAM is positive",
)
def guided_grad_cam(query: Query, layer: str | None, reshape: object) -> Iterator[Estimate]:
    r"""The edges of Guided Backprop, limited to where Grad-CAM shows evidence for the class.

    .. math:: a = g \cdot \mathrm{up}(\max(c, 0))

    with g from Guided Backprop, c from Grad-CAM and up bilinear interpolation to the input's size.

    Source: Selvaraju et al., "Grad-CAM", 2017, section 3.2.

    Yields:
        One estimate; values of shape (B, C, H, W).

    Raises:
        ValueError: The inputs are not images, or Guided Backprop or Grad-CAM raises it.
    """
    if query.inputs.ndim != 4:
        raise ValueError(
            f"method: Guided Grad-CAM needs images (N, C, H, W), got inputs of shape "
            f"{tuple(query.inputs.shape)}. "
            f"For several inputs, pass the image as explain=; otherwise use 'guided_backprop'."
        )
    (cam,) = get_method("grad_cam").run(query, layer=layer, reshape=reshape)
    (guided,) = get_method("guided_backprop").run(query)
    size = tuple(query.inputs.shape[-2:])
    mask = F.interpolate(cam.values.clamp(min=0), size=size, mode="bilinear", align_corners=False)
    hidden = unseen(cam.values, "positive")
    notes = (*cam.notes, f"Grad-CAM: {hidden}") if hidden else cam.notes
    yield Estimate(guided.values * mask, evaluations=2, score=cam.score, notes=notes)
