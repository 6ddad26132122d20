"""Maps as 16-bit codes with a value range, the format sent to the browser and used for drawing images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVELS = 65534
"""The highest code. It is even, so that a signed map has one exact code for zero."""

ZERO = LEVELS // 2
"""The code of zero in a signed map."""


@dataclass(frozen=True, eq=False)
class Quantized:
    """A map in 16-bit codes: ``value = low + code / 65534 * (high - low)``.

    Attributes:
        codes: ``uint16 (H, W)``, 0 to 65534.
        low: The value of code 0, in the map's own unit.
        high: The value of code 65534.
        signed: If True, ``low == -high`` and code 32767 is exactly zero; if False, ``low == 0``.
    """

    codes: NDArray[np.uint16]
    low: float
    high: float
    signed: bool

    @property
    def nbytes(self) -> int:
        """The size of the codes in bytes."""
        return self.codes.nbytes


def quantize(values: ArrayLike, *, signed: bool) -> Quantized:
    """Quantize a map to 16-bit codes, ``code = floor((v - low) / (high - low) * 65534 + 0.5)``.

    Args:
        values: The map, shape ``(H, W)``. Without ``signed``, no value may be below zero.
        signed: Whether to keep the sign. If True, the range is ``-max|v|`` to ``max|v|`` and zero is exactly code
            32767; if False, the range is 0 to ``max(v)``.

    Returns:
        The codes and their range. A map of zeros has the range 0 to 0 and only the code of zero.

    Raises:
        ValueError: ``values`` does not have the shape ``(H, W)``, is empty, contains NaN, infinity or numbers too
            large to subtract, or is negative somewhere without ``signed``.
    """
    v = np.asarray(values, dtype=np.float64)
    if v.ndim != 2 or v.size == 0:
        raise ValueError(
            f"values: expected one map of shape (H, W), got shape {v.shape}. Reduce the channels and pick "
            "one image of the batch first."
        )
    finite = np.isfinite(v)
    if not finite.all():
        y, x = np.argwhere(~finite)[0]
        raise ValueError(
            f"values: expected finite numbers, got {int((~finite).sum())} of {v.size} that are not, the "
            f"first ({v[y, x]}) at row {y}, column {x}. A NaN in a map usually comes from the model's "
            "output or from a division by a zero range: check these first."
        )
    if not signed and v.min() < 0:
        y, x = np.unravel_index(v.argmin(), v.shape)
        raise ValueError(
            f"values: expected no negative values in an unsigned map, got {v.min():g} at row {y}, column "
            f"{x}. Pass signed=True to keep the sign, or take the magnitude first."
        )
    high = float(np.abs(v).max())
    low = -high if signed else 0.0
    span = high - low
    if not np.isfinite(span):
        raise ValueError(f"values: expected numbers with a finite range, got {high:g} as the largest.")
    if span == 0.0:
        codes = np.full(v.shape, ZERO if signed else 0, dtype=np.uint16)
        return Quantized(codes, 0.0, 0.0, signed)
    codes = np.floor((v - low) / span * LEVELS + 0.5).astype(np.uint16)
    return Quantized(codes, low, high, signed)


def dequantize(quantized: Quantized) -> NDArray[np.float64]:
    """Return the values, ``(H, W)`` in the map's own unit, with an error of at most half a level."""
    q = quantized
    return q.low + q.codes / LEVELS * (q.high - q.low)


def shares(quantized: Quantized) -> NDArray[np.float64]:
    """Return each pixel's share of the whole map, ``|v| / sum |v|``.

    Returns:
        Numbers from 0 to 1 that add up to 1, ``(H, W)``; zeros for a map of zeros.
    """
    magnitude = np.abs(dequantize(quantized))
    total = float(magnitude.sum())
    return magnitude / total if total > 0 else np.zeros_like(magnitude)
