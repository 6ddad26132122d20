"""Similarity of two maps."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

CONSTANT = "the map is constant, so it can't be ranked."
"""Why a rank correlation with a map is NaN."""


def spearman(a: Tensor, b: Tensor) -> float:
    """Return Spearman's rank correlation of two maps: how similarly they order their values, independent of scale.

    Args:
        a: A map of any shape. Equal values share the mean of their ranks.
        b: A map of the same shape.

    Returns:
        A number from -1 to 1; NaN if a map is constant.
    """
    x, y = _ranks(a), _ranks(b)
    scale = float(x.square().sum() * y.square().sum()) ** 0.5
    return float((x * y).sum()) / scale if scale > 0 else float("nan")


def _ranks(values: Tensor) -> Tensor:
    """Return centered ranks; equal values share their mean rank."""
    _, which, counts = torch.unique(values.detach().flatten().cpu(), return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    ranks = (last - (counts - 1) / 2)[which]
    return ranks - ranks.mean()


_WINDOW = 7


def ssim(a: Tensor, b: Tensor) -> float:
    r"""Return the structural similarity of two maps, each scaled to [0, 1] first.

    .. math:: \frac{(2 \mu_a \mu_b + c_1)(2 \sigma_{ab} + c_2)}
        {(\mu_a^2 + \mu_b^2 + c_1)(\sigma_a^2 + \sigma_b^2 + c_2)}

    in windows of 7 pixels along each axis, averaged; c1 = 0.01², c2 = 0.03².

    Source: Wang, Bovik, Sheikh and Simoncelli, "Image Quality Assessment: From Error Visibility to Structural
    Similarity", 2004.

    Args:
        a: A map, shape (H, W) or (D, H, W), each side at least 7.
        b: A map of the same shape.

    Returns:
        A number from -1 to 1; NaN if a map is constant or smaller than a window.
    """
    if min(a.shape) < _WINDOW or bool(a.max() == a.min()) or bool(b.max() == b.min()):
        return float("nan")
    wide = (m.detach().cpu().double() for m in (a, b))
    x, y = (((m - m.min()) / (m.max() - m.min()))[None, None] for m in wide)

    def mean(values: Tensor) -> Tensor:
        return (F.avg_pool3d if a.ndim == 3 else F.avg_pool2d)(values, _WINDOW, stride=1)

    size = _WINDOW**a.ndim
    mx, my = mean(x), mean(y)
    vx, vy, both = (
        (mean(p) - q) * size / (size - 1) for p, q in ((x * x, mx * mx), (y * y, my * my), (x * y, mx * my))
    )
    c1, c2 = 0.01**2, 0.03**2
    local = (2 * mx * my + c1) * (2 * both + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    return float(local.mean())
