"""One color scale for several maps, and one map minus another."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from saliency_widgets.render.quantize import LEVELS, ZERO, Quantized, dequantize, quantize


def shared_ends(maps: Sequence[Quantized], clip: Sequence[float]) -> tuple[float, float]:
    """The values at two percentiles of all the maps' pixels together.

    The value at ``p`` percent of ``n`` pixels is the smallest one that at least ``max(1, ceil(p n / 100))`` pixels
    don't exceed, as in :func:`~saliency_widgets.render.clip_limits` for one map.

    Args:
        maps: The maps, all signed or none of them; of signed ones it is about magnitudes.
        clip: The two percentiles, 0 to 100.

    Returns:
        ``(lo, hi)`` in the maps' own unit.

    Raises:
        ValueError: There are no maps, some are signed and others not, or a percentile is outside 0 to 100.
    """
    if not maps or len({map_.signed for map_ in maps}) > 1:
        raise ValueError("maps: expected at least one, and all of them signed or none: colors mean one thing.")
    low, high = float(clip[0]), float(clip[1])
    if not 0 <= low <= high <= 100:
        raise ValueError(f"clip: expected two rising percentiles from 0 to 100, got {tuple(clip)!r}.")
    values = np.sort(np.concatenate([_sizes(map_).ravel() for map_ in maps]))
    n = len(values)
    lo, hi = (float(values[min(n, max(1, math.ceil(p * n / 100))) - 1]) for p in (low, high))
    return lo, hi


def limits_of(quantized: Quantized, ends: tuple[float, float]) -> tuple[float, float]:
    """The ends of a shared scale as levels of one map, fractions of a level included.

    Args:
        quantized: The map.
        ends: What :func:`shared_ends` gave.
    """
    if quantized.high <= 0:
        return 0.0, 0.0
    top = ZERO if quantized.signed else LEVELS
    return ends[0] / quantized.high * top, ends[1] / quantized.high * top


def difference(a: Quantized, b: Quantized, units: tuple[float, float] = (1.0, 1.0)) -> Quantized:
    """One map minus another, ``a / units[0] - b / units[1]``, as a signed map.

    Args:
        a: A map (H, W).
        b: Another of the same size.
        units: What each is divided by; 1 where their numbers can be compared as they are.

    Raises:
        ValueError: The maps differ in size.
    """
    if a.codes.shape != b.codes.shape:
        raise ValueError(
            f"difference: one map is {_size(a)} and the other {_size(b)} (height x width). Compare maps of inputs that "
            f"the model sees in one size."
        )
    return quantize(dequantize(a) / units[0] - dequantize(b) / units[1], signed=True)


def _sizes(quantized: Quantized) -> np.ndarray:
    """What each pixel's level stands for, without its sign."""
    if quantized.signed:
        return np.abs(quantized.codes.astype(np.int64) - ZERO) / ZERO * quantized.high
    return quantized.codes / LEVELS * quantized.high


def _size(quantized: Quantized) -> str:
    return "{} x {}".format(*quantized.codes.shape)
