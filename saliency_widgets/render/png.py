"""The overlay as an image file, with its color bar, a title and a caption."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from saliency_widgets.files import check_open, put, resolve_target, write_all
from saliency_widgets.params import brief, check_text
from saliency_widgets.render.bar import bar_colors, bar_ticks
from saliency_widgets.render.blending import blend
from saliency_widgets.render.clip import clip_limits
from saliency_widgets.render.display import check_display
from saliency_widgets.render.fonts import font_for, wrapped
from saliency_widgets.render.quantize import Quantized

_PAPER, _INK, _QUIET, _LINE = (255, 255, 255), (32, 32, 32), (90, 90, 90), (160, 160, 160)
_USUAL, _LONGEST = 480, 20_000  # pixels of the longer side: by default, and at most
_PLAIN = 900  # pixels of the longer side above which text and margins grow with the image
_LETTERS, _LINES = 4000, 100  # limits of a caption: a longer one would dominate the image
_TITLE = 300  # characters


def overlay_png(file: str | Path | IO[bytes], *args: Any, **settings: Any) -> None:
    """Write the image drawn by :func:`overlay_image` as PNG.

    Args:
        file: A file open for writing bytes, or a path, written atomically: see :func:`saliency_widgets.files.put`.
        *args: See :func:`overlay_image`.
        **settings: See :func:`overlay_image`.

    Raises:
        TypeError: ``file`` is neither a path nor a binary file.
        ValueError: ``file`` is not open for writing.
        OSError: The file can't be written.
    """
    is_open = hasattr(file, "write")
    (check_open if is_open else resolve_target)(file)  # fail before anything is drawn
    encoded = io.BytesIO()
    overlay_image(*args, **settings).save(encoded, format="PNG")
    (write_all if is_open else put)(file, encoded.getvalue())


def overlay_image(
    image: NDArray[np.uint8],
    quantized: Quantized,
    *,
    lut: NDArray[np.uint8] | None = None,
    scale: float | None = None,
    title: str = "",
    caption: str = "",
    layers: Sequence[Image.Image] = (),
    **settings: Any,
) -> Image.Image:
    """Draw the blended image with its color bar and value labels.

    Args:
        image: The image, ``uint8 (H, W, 3)``.
        quantized: The map.
        lut: The colors, as in `blend`.
        scale: The width of an image pixel in pixels of the file. A whole number makes squares; other numbers, including
            those below 1, average areas. By default, the smallest whole number with which the longer side reaches 480.
        title: The text above the image, truncated to 300 characters.
        caption: The text below the color bar, at most 4000 characters and 100 lines. Both texts are wrapped to the
            width of the page.
        layers: RGBA images on top, each stretched over the whole image.
        **settings: The display settings, as in `blend`.

    Raises:
        TypeError: ``scale`` is not a number, or ``caption`` is not a string.
        ValueError: A setting is out of its range, the image would have no pixel left or a side of more than 20 000, or
            the caption is too long.

    Warns:
        UserWarning: No font of this system has some of the characters.
    """
    _check_caption(caption)
    title = title if len(title) <= _TITLE else f"{title[: _TITLE - 1]}…"
    overlay = blend(image, quantized, lut=lut, **settings)
    width, height = _size(image.shape[1], image.shape[0], scale)
    squares = max(1, math.ceil(width / image.shape[1]), math.ceil(height / image.shape[0]))
    shown = Image.fromarray(overlay.repeat(squares, axis=0).repeat(squares, axis=1))
    shown = shown.resize((width, height), Image.Resampling.BOX)  # averages areas; no change for a whole scale
    for layer in layers:
        stretched = layer.convert("RGBA").resize((width, height), Image.Resampling.LANCZOS)
        shown.paste(stretched, (0, 0), stretched)

    unit = max(1.0, max(width, height) / _PLAIN)
    margin, bar_height, size = round(12 * unit), round(14 * unit), 14 * unit
    page_width = max(width, round(320 * unit)) + 2 * margin
    bar_width = page_width - 2 * margin
    line = round(1.43 * size)
    font = font_for(title + caption + "0123456789", size)
    above, below = (wrapped(text, font, bar_width) for text in (title, caption))
    heading = line * len(above) + margin // 2 if above else 0
    ending = line * len(below) + margin // 2 if below else 0
    page = Image.new("RGB", (page_width, heading + height + bar_height + line + ending + 3 * margin + 6), _PAPER)
    draw = ImageDraw.Draw(page)
    for number, text in enumerate(above):
        draw.text((margin, margin + number * line), text, fill=_INK, font=font)
    top = margin + heading
    page.paste(shown, ((page_width - width) // 2, top))

    limits = clip_limits(quantized.codes, quantized.signed, check_display(settings)["clip"])
    row = bar_colors(quantized.signed, limits, lut=lut, width=bar_width, **settings)
    colors = np.where(row[:, 3:] > 0, row[:, :3], np.array(_PAPER, np.uint8))
    top += height + margin
    page.paste(Image.fromarray(np.broadcast_to(colors, (bar_height, bar_width, 3)).copy()), (margin, top))
    draw.rectangle((margin - 1, top - 1, margin + bar_width, top + bar_height), outline=_LINE)
    top += bar_height + 4
    for tick in bar_ticks(quantized, limits):
        # The outer labels stay inside the bar.
        length = draw.textlength(tick.label, font=font)
        draw.text((margin + tick.position * (bar_width - length), top), tick.label, fill=_INK, font=font)
    top += line + margin // 2
    for number, text in enumerate(below):
        draw.text((margin, top + number * line), text, fill=_QUIET, font=font)
    return page


def _check_caption(caption: str) -> None:
    lines = len(check_text("caption", caption).splitlines())
    if len(caption) > _LETTERS or lines > _LINES:
        raise ValueError(
            f"caption: expected at most {_LETTERS} characters and {_LINES} lines, got {len(caption)} characters and "
            f"{lines} lines. Write the rest next to the image."
        )


def _size(width: int, height: int, scale: float | None) -> tuple[int, int]:
    """Return the width and height of the image in the file."""
    if scale is None:
        scale = math.ceil(_USUAL / max(width, height))
    if isinstance(scale, bool) or not isinstance(scale, (int, float, np.integer, np.floating)):
        raise TypeError(f"scale: expected a number such as 2 or 0.5, got {brief(scale)} ({type(scale).__name__}).")
    smallest, largest = 1 / min(width, height), _LONGEST / max(width, height)
    if not smallest <= scale <= largest:
        raise ValueError(
            f"scale: expected a number from {smallest:.3g} (one pixel) to {largest:.3g} ({_LONGEST} pixels) for an "
            f"image of {width} by {height}, got {brief(scale)}."
        )
    return max(1, round(width * scale)), max(1, round(height * scale))
