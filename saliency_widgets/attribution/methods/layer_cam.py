"""Layer-CAM."""

from __future__ import annotations

from collections.abc import Iterator

from saliency_widgets.attribution.query import LAYER, RESHAPE, Query
from saliency_widgets.attribution.registry import Estimate, method


@method(
    title="Layer-CAM",
    unit="passes",
    params=(LAYER, RESHAPE),
    sign="positive",
    needs=("layer",),
    blank="the gradient-weighted activation is zero at this layer",
)
def layer_cam(query: Query, layer: str | None, reshape: object) -> Iterator[Estimate]:
    r"""Grad-CAM with a weight for each location, which stays sharp at shallow layers.

    With A_k the channels of the layer's output:

    .. math:: a_{ij} = \sum_k \max(\partial F / \partial A_{k,ij}, 0) \, A_{k,ij}

    The paper's ReLU is left to the display (sign "positive"); after a ReLU layer, no value is negative.

    Source: Jiang, Zhang, Hou, Cheng and Wei, "LayerCAM: Exploring Hierarchical Class Activation Maps for
    Localization", 2021.

    Yields:
        One estimate; values of shape (B, 1, h, w), at the resolution of the layer named in ``layer``.

    Raises:
        ValueError: The layer does not exist, or its output is not spatial.
    """
    point = query.at_layer(layer, reshape)
    values = (point.gradient.clamp(min=0) * point.activation).sum(1, keepdim=True)
    yield Estimate(values, score=point.score, layer=point.layer, notes=point.notes)
