"""From codes to strength: which values are the weakest and the strongest color."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from saliency_widgets.render.quantize import LEVELS, ZERO


def histogram(codes: ArrayLike, signed: bool) -> NDArray[np.int64]:
    """Count the pixels of each level.

    Args:
        codes: Codes 0 to 65534, any shape.
        signed: True counts magnitudes ``|code - 32767|``, 0 to 32767.

    Returns:
        ``(65535,)`` or, signed, ``(32768,)`` counts.
    """
    c = np.asarray(codes).astype(np.int64).ravel()
    if signed:
        return np.bincount(np.abs(c - ZERO), minlength=ZERO + 1)
    return np.bincount(c, minlength=LEVELS + 1)


def clip_limits(codes: ArrayLike, signed: bool, clip: Sequence[float]) -> tuple[int, int]:
    """The levels at two percentiles, by histogram: no sorting, and the same answer in the browser.

    The level at ``p`` percent of ``n`` pixels is the smallest one that at least ``max(1, ceil(p n / 100))``
    pixels don't exceed.

    Args:
        codes: Codes 0 to 65534, at least one.
        signed: True takes the percentiles of the magnitudes ``|code - 32767|``.
        clip: The two percentiles, 0 to 100.

    Returns:
        ``(lo, hi)`` in code units, for a signed map in units of magnitude.

    Raises:
        ValueError: There are no codes, or a percentile is outside 0 to 100, or the first exceeds the second.
    """
    low, high = float(clip[0]), float(clip[1])
    if not 0 <= low <= high <= 100:
        raise ValueError(f"clip: expected two rising percentiles from 0 to 100, got {tuple(clip)!r}.")
    cumulative = np.cumsum(histogram(codes, signed))
    n = int(cumulative[-1])
    if n == 0:
        raise ValueError("codes: expected at least one pixel, got an empty map.")
    ranks = [min(n, max(1, math.ceil(p * n / 100))) for p in (low, high)]
    lo, hi = np.searchsorted(cumulative, ranks, side="left")
    return int(lo), int(hi)


def strength(codes: ArrayLike, signed: bool, limits: tuple[float, float]) -> NDArray[np.float64]:
    """Where each code stands on the color scale.

    Unsigned: ``t = clamp((code - lo) / (hi - lo), 0, 1)``. Signed: the same on the magnitude gives ``s``, and
    ``t = 0.5 + 0.5 sign s``. Where the limits meet, everything above them is at full strength.

    Args:
        codes: Codes, any shape; fractions of a code are allowed (a color bar is made of them).
        signed: Whether 32767 is zero.
        limits: ``(lo, hi)`` of `clip_limits`.

    Returns:
        ``t`` from 0 to 1, in the shape of ``codes``; in a signed map 0.5 is zero.
    """
    c = np.asarray(codes, dtype=np.float64)
    level = np.abs(c - ZERO) if signed else c
    lo, hi = limits
    s = np.clip((level - lo) / (hi - lo), 0.0, 1.0) if hi > lo else (level > lo).astype(np.float64)
    return 0.5 + 0.5 * np.sign(c - ZERO) * s if signed else s


def magnitude(t: NDArray[np.float64], signed: bool) -> NDArray[np.float64]:
    """How far from nothing: ``t`` itself, or ``|2t - 1|`` in a signed map. Threshold and opacity go by it."""
    return np.abs(2.0 * t - 1.0) if signed else t
