"""Clip limits, which get the weakest and the strongest color, and the strength of each code between them."""

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
        signed: Whether to count magnitudes ``|code - 32767|``, 0 to 32767.

    Returns:
        The counts, shape ``(65535,)``, or ``(32768,)`` if signed.
    """
    c = np.asarray(codes).astype(np.int64).ravel()
    if signed:
        return np.bincount(np.abs(c - ZERO), minlength=ZERO + 1)
    return np.bincount(c, minlength=LEVELS + 1)


def clip_limits(codes: ArrayLike, signed: bool, clip: Sequence[float]) -> tuple[int, int]:
    """Return the levels at two percentiles, from a histogram: no sorting, and the same result in the browser.

    The level at ``p`` percent of ``n`` pixels is the smallest one that at least ``max(1, ceil(p n / 100))``
    pixels don't exceed.

    Args:
        codes: Codes 0 to 65534, at least one.
        signed: Whether to take the percentiles of the magnitudes ``|code - 32767|``.
        clip: The two percentiles, 0 to 100.

    Returns:
        The limits ``(lo, hi)`` in code units, or in units of magnitude for a signed map.

    Raises:
        ValueError: ``codes`` is empty, a percentile is outside 0 to 100, or the first exceeds the second.
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
    """Return the position of each code on the color scale.

    Unsigned: ``t = clamp((code - lo) / (hi - lo), 0, 1)``. Signed: the same formula for the magnitude gives ``s``,
    and ``t = 0.5 + 0.5 sign s``. If the limits are equal, everything above them is at full strength.

    Args:
        codes: Codes, any shape; fractions of a code are allowed, as in a color bar.
        signed: Whether 32767 is zero.
        limits: The limits ``(lo, hi)`` from `clip_limits`.

    Returns:
        The strength ``t`` from 0 to 1, in the shape of ``codes``; 0.5 is zero in a signed map.
    """
    c = np.asarray(codes, dtype=np.float64)
    level = np.abs(c - ZERO) if signed else c
    lo, hi = limits
    s = np.clip((level - lo) / (hi - lo), 0.0, 1.0) if hi > lo else (level > lo).astype(np.float64)
    return 0.5 + 0.5 * np.sign(c - ZERO) * s if signed else s


def magnitude(t: NDArray[np.float64], signed: bool) -> NDArray[np.float64]:
    """Return the magnitude used for threshold and opacity: ``t`` itself, or ``|2t - 1|`` in a signed map."""
    return np.abs(2.0 * t - 1.0) if signed else t
