"""The color bar, which shows the value of each color."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saliency_widgets.render.blending import color_index
from saliency_widgets.render.clip import magnitude, strength
from saliency_widgets.render.display import check_display, colors
from saliency_widgets.render.quantize import LEVELS, ZERO, Quantized


@dataclass(frozen=True)
class Tick:
    """One label of a color bar: its position from 0 (left) to 1 (right), its value, and the value as text."""

    position: float
    value: float
    label: str


def bar_ends(signed: bool, limits: tuple[int, int]) -> tuple[int, int]:
    """Return the codes at the two ends of the bar; signed bars are symmetrical around zero.

    Equal limits are drawn one level apart: everything above them has the strongest color.
    """
    lo, hi = limits
    if signed:
        reach = hi if hi > lo else min(lo + 1, ZERO)
        return ZERO - reach, ZERO + reach
    return lo, (hi if hi > lo else min(lo + 1, LEVELS))


def bar_colors(
    signed: bool,
    limits: tuple[int, int],
    *,
    lut: NDArray[np.uint8] | None = None,
    width: int = 256,
    **settings: Any,
) -> NDArray[np.uint8]:
    """Return the bar as one row of pixels, transparent where the threshold hides the value.

    Args:
        signed: Whether zero is in the middle.
        limits: The limits ``(lo, hi)`` from `clip_limits`.
        lut: The colors, as in `blend`.
        width: The number of pixels, at least 2.
        **settings: The display settings, as in `blend`.

    Returns:
        ``uint8 (width, 4)`` RGBA; alpha is 0 or 255.
    """
    start, end = bar_ends(signed, limits)
    codes = start + np.arange(width) / (width - 1) * (end - start)
    t = strength(codes, signed, limits)
    display = check_display(settings)
    lut = colors(display, signed=signed) if lut is None else lut
    alpha = np.where(magnitude(t, signed) < display["threshold"], 0, 255).astype(np.uint8)
    return np.concatenate([lut[color_index(t)], alpha[:, None]], axis=1)


def bar_ticks(quantized: Quantized, limits: tuple[int, int], count: int = 5) -> list[Tick]:
    """Return evenly spaced labels including both ends, or a single label if the whole bar is one value.

    Args:
        quantized: The map, for its range.
        limits: The limits ``(lo, hi)`` from `clip_limits`.
        count: The number of labels, at least 2; an odd number labels zero in a signed bar.
    """
    q = quantized
    start, end = (q.low + code / LEVELS * (q.high - q.low) for code in bar_ends(q.signed, limits))
    if q.signed:
        start = -end
    if start == end:
        return [Tick(0.0, start, format_number(start))]
    ticks = []
    for i in range(count):
        position = i / (count - 1)
        value = start * (1 - position) + end * position
        # Negligible compared with the other labels.
        small = abs(value) < 0.0005 * max(abs(start), abs(end))
        ticks.append(Tick(position, value, "0" if small else format_number(value)))
    return ticks


def format_number(value: float) -> str:
    """Format with three significant digits, halves rounded away from 0; an exponent below 0.001 and from 10000 on."""
    if value == 0:
        return "0"
    if not math.isfinite(value):  # the same names as in JavaScript
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    exact = Decimal(abs(value))
    exponent = exact.adjusted()
    digits = exact.scaleb(-exponent).quantize(Decimal("0.01"), ROUND_HALF_UP)
    if digits == 10:
        digits, exponent = Decimal(1), exponent + 1
    sign = "-" if value < 0 else ""
    if -3 <= exponent < 4:
        return sign + _bare(digits.scaleb(exponent))
    return f"{sign}{_bare(digits)}e{exponent}"


def _bare(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
