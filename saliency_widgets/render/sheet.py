"""Static drawings for views without a running widget: images in a grid, bars, a curve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from saliency_widgets.render.fonts import best_font, wrapped

_PAPER, _INK, _LINE = "#ffffff", "#202020", "#a0a0a0"
_SIZE, _LEADING, _GAP = 12, 16, 8  # pixels: font size, line height, and gap between images
_NAMES, _ROW = 120, 24  # pixels: the width of the rows' names, the height of a bar with its margins
_LONGEST, _LINES = 80, 3  # the maximum number of characters and of lines of a name


def draw_grid(rows: Sequence[str], columns: Sequence[str], cells: Sequence[Image.Image], side: int) -> Image.Image:
    """Draw images in a grid, with the names of its rows and columns.

    Args:
        rows: The names of the rows; if all are empty, they take no space.
        columns: The names of the columns; likewise.
        cells: The images, row by row, none wider than ``side``.
        side: The width of a column in pixels.
    """
    rows, columns = [_short(text) for text in rows], [_short(text) for text in columns]
    font = best_font("".join([*rows, *columns]), _SIZE)
    heads = [_lines(text, font, side) for text in columns]
    names = [_lines(text, font, _NAMES) for text in rows]
    left = _GAP + (_NAMES + _GAP if any(rows) else 0)
    table = [cells[k : k + len(columns)] for k in range(0, len(cells), len(columns))]
    heights = [
        max([cell.height for cell in row] + [_LEADING * len(name)]) for row, name in zip(table, names, strict=False)
    ]
    top = _GAP + _LEADING * max(map(len, heads), default=0)
    width, height = left + len(columns) * (side + _GAP), top + sum(heights) + _GAP * len(heights)
    page = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(page)
    for k, lines in enumerate(heads):
        _write(draw, (left + k * (side + _GAP), _GAP // 2), lines, font)
    for row, name, tall in zip(table, names, heights, strict=False):
        _write(draw, (_GAP, top), name, font)
        for k, cell in enumerate(row):
            page.paste(cell, (left + k * (side + _GAP), top))
        top += tall + _GAP
    return page


def draw_bars(bars: Sequence[tuple[str, float, str, str]], width: int) -> Image.Image:
    """Draw bars from zero to the left and to the right, one below the other.

    Args:
        bars: For each bar its name, its size, its size as text, and its color.
        width: The width of the drawing in pixels.
    """
    font = best_font("".join(_short(name) + words for name, _size, words, _color in bars), _SIZE)
    sizes = [size for _name, size, _words, _color in bars]
    low, high = min([0.0, *sizes]), max([0.0, *sizes])
    names = round(0.4 * width)
    number = max((font.getlength(words) for _name, _size, words, _color in bars), default=0.0) + 2 * _GAP
    unit = (width - names - 2 * number) / ((high - low) or 1.0)
    zero = names + number - low * unit
    page = Image.new("RGB", (width, _ROW * len(bars)), _PAPER)
    draw = ImageDraw.Draw(page)
    draw.line((zero, 0, zero, page.height), fill=_LINE)
    for k, (name, size, words, color) in enumerate(bars):
        middle, end = (k + 0.5) * _ROW, zero + size * unit
        draw.rectangle((min(zero, end), middle - 8, max(zero, end), middle + 8), fill=color)
        label = "".join(_lines(_short(name), font, names - _GAP)[:1])
        draw.text((names - _GAP, middle), label, _INK, font, anchor="rm")
        ends = (end + _GAP, "lm") if size >= 0 else (end - _GAP, "rm")
        draw.text((ends[0], middle), words, _INK, font, anchor=ends[1])
    return page


def draw_curve(x: Sequence[float], y: Sequence[float], at: float, side: int) -> Image.Image:
    """Draw a curve in a square, with zero in the vertical range and a dot on the curve.

    Args:
        x: The horizontal positions of its points, ascending.
        y: The vertical positions of its points.
        at: The horizontal position of the dot.
        side: The side of the square in pixels.
    """
    low, high = min(0.0, *y), max(0.0, *y)
    across, up = ((side - 4 * _GAP) / (size or 1.0) for size in (x[-1] - x[0], high - low))
    page = Image.new("RGB", (side, side), _PAPER)
    draw = ImageDraw.Draw(page)
    draw.rectangle((_GAP, _GAP, side - _GAP, side - _GAP), outline=_LINE)

    def point(a: float, b: float) -> tuple[float, float]:
        return 2 * _GAP + (a - x[0]) * across, side - 2 * _GAP - (b - low) * up

    draw.line([point(a, b) for a, b in zip(x, y, strict=True)], fill=_INK, width=2)
    draw.circle(point(at, float(np.interp(at, x, y))), 5, fill=_INK)
    return page


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _lines(text: str, font: Any, width: float) -> list[str]:
    return wrapped(text, font, width)[:_LINES]


def _write(draw: ImageDraw.ImageDraw, corner: tuple[float, float], lines: Sequence[str], font: Any) -> None:
    for k, line in enumerate(lines):
        draw.text((corner[0], corner[1] + k * _LEADING), line, _INK, font)
