"""A signal as an image: a lane for each channel, with its line in the colors of the map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from saliency_widgets.render.blending import blend
from saliency_widgets.render.clip import clip_limits
from saliency_widgets.render.display import check_display
from saliency_widgets.render.fonts import best_font
from saliency_widgets.render.quantize import ZERO, Quantized

_PAPER, _INK, _TEXT, _LINE = (255, 255, 255), (128, 128, 128), (32, 32, 32), (220, 220, 220)
_ROOM, _LOWEST, _TALLEST, _MOST = 400, 40, 120, 32  # pixels of all lanes and of each, and the number of lanes
_NAMES, _MARGIN, _THICK = 110, 4, 2


def lanes_image(
    signal: NDArray[np.floating],
    quantized: Quantized,
    names: Sequence[str],
    *,
    width: int = 600,
    limits: tuple[float, float] | None = None,
    **settings: Any,
) -> Image.Image:
    """Draw a signal as one line for each channel, colored by a map.

    Each column of pixels shows the range of its samples, in the color of its value that is farthest from zero.

    Args:
        signal: The signal, shape (C, T); of more than 32 channels, the first are drawn.
        quantized: The map, shape (C, T), or (1, T) for all channels.
        names: The names of the channels.
        width: The width of the lines in pixels.
        limits: As in `blend`.
        **settings: The display settings, as in `blend`.
    """
    if limits is None:
        limits = clip_limits(quantized.codes, quantized.signed, check_display(settings)["clip"])
    signal, codes = signal[:_MOST].astype(np.float64), quantized.codes[:_MOST]
    lane = max(_LOWEST, min(_TALLEST, _ROOM // len(signal)))
    low, high = _columns(signal, width)
    zero = ZERO if quantized.signed else 0
    least, most = (ends.astype(np.int64) for ends in _columns(codes, width))
    strongest = np.where(most - zero >= zero - least, most, least).astype(np.uint16)
    ground = np.broadcast_to(np.array(_INK, np.uint8), (*strongest.shape, 3))
    shown = Quantized(strongest, quantized.low, quantized.high, quantized.signed)
    colors = np.broadcast_to(blend(ground, shown, **settings, limits=limits), (*low.shape, 3))
    page = np.full((lane * len(signal), _NAMES + width, 3), _PAPER, np.uint8)
    rows = np.arange(lane)[:, None]
    for k, (bottom, top) in enumerate(zip(*_heights(signal, low, high, lane), strict=True)):
        strip = page[k * lane : (k + 1) * lane]
        strip[0] = _LINE if k else _PAPER
        on = (rows >= np.round(top)) & (rows < np.round(bottom) + _THICK)
        strip[:, _NAMES:] = np.where(on[..., None], colors[k], strip[:, _NAMES:])
    image = Image.fromarray(page)
    draw, font = ImageDraw.Draw(image), best_font("".join(names[:_MOST]), 12)
    for k, name in enumerate(names[: len(signal)]):
        draw.text(
            (_MARGIN, k * lane + lane // 2 - 8), name if len(name) < 16 else f"{name[:14]}…", fill=_TEXT, font=font
        )
    return image


def _columns(values: NDArray, width: int) -> tuple[NDArray, NDArray]:
    """Return the lowest and the highest value of each column of pixels, shape (C, width)."""
    samples = values.shape[1]
    if samples < width:
        nearest = values[:, (np.arange(width) * samples) // width]
        return nearest, nearest
    starts = -(-np.arange(width) * samples // width)  # rounded up: each sample is in the column where it begins
    return np.minimum.reduceat(values, starts, axis=1), np.maximum.reduceat(values, starts, axis=1)


def _heights(signal: NDArray, low: NDArray, high: NDArray, lane: int) -> tuple[NDArray, NDArray]:
    """Return the lowest and the highest pixel of each column, as far as its neighbor's, counted from the lane's top."""
    least, most = signal.min(1, keepdims=True), signal.max(1, keepdims=True)
    span = np.where(most > least, most - least, 1)
    middle = np.where(most > least, 0, 0.5)

    def height(values: NDArray) -> NDArray:
        return _MARGIN + (1 - middle - (values - least) / span) * (lane - 2 * _MARGIN - _THICK)

    joined_low, joined_high = low.copy(), high.copy()
    joined_low[:, 1:] = np.minimum(low[:, 1:], high[:, :-1])
    joined_high[:, 1:] = np.maximum(high[:, 1:], low[:, :-1])
    return height(joined_low), height(joined_high)
