"""A color scale shared by several maps, and the difference of two maps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from saliency_widgets.render.quantize import LEVELS, ZERO, Quantized, dequantize, quantize


def shared_ends(maps: Sequence[Quantized], clip: Sequence[float]) -> tuple[float, float]:
    """Return the values at two percentiles of the pixels of all maps together.

    The value at ``p`` percent of ``n`` pixels is the smallest one that at least ``max(1, ceil(p n / 100))`` pixels
    don't exceed, as in :func:`~saliency_widgets.render.clip_limits` for one map.

    Args:
        maps: The maps, all signed or all unsigned; signed maps are ranked by magnitude.
        clip: The two percentiles, 0 to 100.

    Returns:
        The ends ``(lo, hi)`` of the scale, in the maps' own unit.

    Raises:
        ValueError: ``maps`` is empty or mixes signed and unsigned maps, or ``clip`` is not ascending within 0 to 100.
    """
    if not maps or len({map_.signed for map_ in maps}) > 1:
        raise ValueError(
            "maps: expected at least one, and either all signed or all unsigned, so that colors have one meaning."
        )
    low, high = float(clip[0]), float(clip[1])
    if not 0 <= low <= high <= 100:
        raise ValueError(f"clip: expected two rising percentiles from 0 to 100, got {tuple(clip)!r}.")
    values = np.sort(np.concatenate([_sizes(map_).ravel() for map_ in maps]))
    n = len(values)
    lo, hi = (float(values[min(n, max(1, math.ceil(p * n / 100))) - 1]) for p in (low, high))
    return lo, hi


def limits_of(quantized: Quantized, ends: tuple[float, float]) -> tuple[float, float]:
    """Return the ends of a shared scale as levels of one map, including fractions of a level.

    Args:
        quantized: The map.
        ends: The result of :func:`shared_ends`.
    """
    if quantized.high <= 0:
        return 0.0, 0.0
    top = ZERO if quantized.signed else LEVELS
    return ends[0] / quantized.high * top, ends[1] / quantized.high * top


def difference(a: Quantized, b: Quantized, units: tuple[float, float] = (1.0, 1.0)) -> Quantized:
    """Return one map minus another, ``a / units[0] - b / units[1]``, as a signed map.

    Args:
        a: A map (H, W).
        b: Another map of the same size.
        units: The divisor of each map; 1 if the maps' numbers are directly comparable.

    Raises:
        ValueError: The maps differ in size.
    """
    if a.codes.shape != b.codes.shape:
        raise ValueError(
            f"difference: one map is {_size(a)} and the other {_size(b)} (height x width). Compare maps of model "
            f"inputs of the same size."
        )
    return quantize(dequantize(a) / units[0] - dequantize(b) / units[1], signed=True)


def _sizes(quantized: Quantized) -> np.ndarray:
    """Return the absolute value of each pixel."""
    if quantized.signed:
        return np.abs(quantized.codes.astype(np.int64) - ZERO) / ZERO * quantized.high
    return quantized.codes / LEVELS * quantized.high


def _size(quantized: Quantized) -> str:
    return "{} x {}".format(*quantized.codes.shape)
