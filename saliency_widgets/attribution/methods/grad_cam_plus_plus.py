"""Grad-CAM++."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from saliency_widgets.attribution.query import LAYER, RESHAPE, Query
from saliency_widgets.attribution.registry import Estimate, method


@method(
    title="Grad-CAM++",
    unit="passes",
    params=(LAYER, RESHAPE),
    sign="positive",
    needs=("layer",),
    aliases=("gradcam_pp",),
    blank="the gradient-weighted activation is zero at this layer",
)
def grad_cam_plus_plus(query: Query, layer: str | None, reshape: object) -> Iterator[Estimate]:
    r"""Grad-CAM with weights that do not fade for small or repeated objects.

    With A_k the channels of the layer's output and g = dF / dA, each at its location ij:

    .. math:: a = \sum_k w_k A_k, \qquad w_k = \sum_{ij} \alpha_{k,ij} \max(g_{k,ij}, 0), \qquad
        \alpha_{k,ij} = \frac{g_{k,ij}^2}{2 g_{k,ij}^2 + g_{k,ij}^3 \sum_{i'j'} A_{k,i'j'}}

    and alpha = 0 where its denominator is 0. The paper derives alpha for exp(F), with F a piecewise linear function
    of A, and weights with the gradient of exp(F): a positive factor exp(F) per sample, which is left out here. After a
    ReLU, alpha lies in [0, 1/2]; at a layer with negative outputs, the denominator can approach 0 and one location can
    outweigh all others. The paper's ReLU is left to the display (sign "positive").

    Source: Chattopadhay, Sarkar, Howlader and Balasubramanian, "Grad-CAM++: Generalized Gradient-based Visual
    Explanations for Deep Convolutional Networks", 2018.

    Yields:
        One estimate; values of shape (B, 1, h, w), at the resolution of the layer named in ``layer``.

    Raises:
        ValueError: The layer does not exist, or its output is not spatial.
    """
    point = query.at_layer(layer, reshape)
    # The fraction is reduced by g^2, as g^2 and g^3 underflow long before g does.
    denominator = 2 + point.gradient * point.activation.sum(point.grid, keepdim=True)
    counts = (point.gradient > 0) & (denominator != 0)
    weights = torch.where(counts, point.gradient / denominator, 0).sum(point.grid, keepdim=True)
    yield Estimate(
        (weights * point.activation).sum(1, keepdim=True), score=point.score, layer=point.layer, notes=point.notes
    )
