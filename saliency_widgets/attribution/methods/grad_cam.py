"""Grad-CAM."""

from __future__ import annotations

from collections.abc import Iterator

from saliency_widgets.attribution.query import LAYER, RESHAPE, Query
from saliency_widgets.attribution.registry import Estimate, method


@method(
    title="Grad-CAM",
    unit="passes",
    params=(LAYER, RESHAPE),
    sign="positive",
    needs=("layer",),
    blank="the gradient-weighted activation is zero at this layer",
)
def grad_cam(query: Query, layer: str | None, reshape: object) -> Iterator[Estimate]:
    r"""The regions where a convolutional layer shows evidence for the class: coarse and class-specific.

    With A_k the channels of the layer's output and h, w its size; for volumes, over a third axis too:

    .. math:: a = \sum_k \alpha_k A_k, \qquad \alpha_k = \frac{1}{hw} \sum_{ij} \partial F / \partial A_{k,ij}

    The paper's ReLU is left to the display (sign "positive"), so that evidence against the class can be shown too.

    Source: Selvaraju, Cogswell, Das, Vedantam, Parikh and Batra, "Grad-CAM: Visual Explanations from Deep Networks via
    Gradient-based Localization", 2017.

    Yields:
        One estimate; values of shape (B, 1, h, w), at the resolution of the layer named in ``layer``; for volumes,
        (B, 1, d, h, w).

    Raises:
        ValueError: The layer does not exist, or its output is not spatial.
    """
    point = query.at_layer(layer, reshape)
    weights = point.gradient.mean(point.grid, keepdim=True)
    yield Estimate(
        (weights * point.activation).sum(1, keepdim=True), score=point.score, layer=point.layer, notes=point.notes
    )
