"""The overlay as a picture file, with its colour bar."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from saliency_widgets.render.bar import bar_colours, bar_ticks
from saliency_widgets.render.blending import blend as lay
from saliency_widgets.render.clip import clip_limits
from saliency_widgets.render.quantise import Quantised

_PAPER, _INK, _LINE = (255, 255, 255), (32, 32, 32), (160, 160, 160)


def overlay_png(
    file: str | Path | IO[bytes],
    picture: NDArray[np.uint8],
    quantised: Quantised,
    *,
    lut: NDArray[np.uint8],
    opacity: float,
    clip: Sequence[float],
    threshold: float,
    blend: str,
    scale: int | None = None,
    title: str = "",
) -> None:
    """Write the blended picture with its colour bar and value labels as PNG.

    Args:
        file: A path, or a file open for writing bytes.
        picture: ``uint8 (H, W, 3)``.
        quantised: The map.
        lut: As in `blend`.
        opacity: As in `blend`.
        clip: As in `blend`.
        threshold: As in `blend`.
        blend: As in `blend`.
        scale: Each pixel of the picture becomes a square of this many; by default as many as make the
            longer side reach 480.
        title: A line of text above the picture.

    Raises:
        ValueError: A setting is out of its range, or ``scale`` is below 1.
    """
    if scale is not None and scale < 1:
        raise ValueError(f"scale: expected a whole number of at least 1, got {scale!r}.")
    overlay = lay(picture, quantised, lut=lut, opacity=opacity, clip=clip, threshold=threshold, blend=blend)
    scale = scale or math.ceil(480 / max(picture.shape[:2]))
    overlay = overlay.repeat(scale, axis=0).repeat(scale, axis=1)
    height, width = overlay.shape[:2]

    margin, bar_height, font = 12, 14, ImageFont.load_default(size=14)
    heading = 26 if title else 0
    page_width = max(width, 320) + 2 * margin
    page = Image.new("RGB", (page_width, heading + height + bar_height + 24 + 3 * margin), _PAPER)
    draw = ImageDraw.Draw(page)
    if title:
        draw.text((margin, margin), title, fill=_INK, font=font)
    top = margin + heading
    page.paste(Image.fromarray(overlay), ((page_width - width) // 2, top))

    limits = clip_limits(quantised.codes, quantised.signed, clip)
    bar_width = page_width - 2 * margin
    row = bar_colours(quantised.signed, limits, lut=lut, threshold=threshold, width=bar_width)
    colours = np.where(row[:, 3:] > 0, row[:, :3], np.array(_PAPER, np.uint8))
    top += height + margin
    page.paste(Image.fromarray(np.broadcast_to(colours, (bar_height, bar_width, 3)).copy()), (margin, top))
    draw.rectangle((margin - 1, top - 1, margin + bar_width, top + bar_height), outline=_LINE)
    for tick in bar_ticks(quantised, limits):
        # The outer labels stay inside the bar.
        length = draw.textlength(tick.label, font=font)
        x = margin + tick.position * (bar_width - length)
        draw.text((x, top + bar_height + 4), tick.label, fill=_INK, font=font)
    page.save(file, format="PNG")
