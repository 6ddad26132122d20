"""Charts as all parts have them: readable in light and dark, and of one size before and after the numbers come."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from bqplot.axes import Axis
from bqplot.figure import Figure
from bqplot.scales import LinearScale, LogScale

from saliency_widgets.markup import Markup, element
from saliency_widgets.widgets.base.text import RichText
from saliency_widgets.widgets.image.png import png_bytes

INK = "var(--jp-ui-font-color1, #333)"
QUIET = "var(--jp-ui-font-color2, #777)"
TICKS = {"font-size": "11px", "fill": INK}
_SMALL = 72  # pixels that a thumbnail is wide
ACCENT, SECOND, CHANCE = "#f37726", "#6b9bc8", "#9a9a9a"
OTHERS = ("#4c9f70", "#9467bd", "#c44e52", "#8c613c", "#937860", "#da8bc3")


def chart(
    marks: Sequence[Any],
    x: LinearScale | LogScale,
    y: LinearScale,
    *,
    across: str,
    up: str,
    across_at: Sequence[float] = (0, 0.25, 0.5, 0.75, 1),
    up_at: Sequence[float] = (0, 0.25, 0.5, 0.75, 1),
    height: int = 210,
) -> Figure:
    """A chart with two labeled axes.

    Args:
        marks: What is drawn.
        x: The scale across, with its limits: bqplot stumbles over a chart without any.
        y: The scale up, likewise.
        across: What is shown across.
        up: What is shown up; without a word, there is no such axis.
        across_at: Where numbers stand across; as many as fit where there are none.
        up_at: Where they stand up.
        height: In pixels.
    """
    common = {"tick_style": TICKS, "tick_format": ".2f", "label_color": INK, "color": QUIET}
    axes = [Axis(scale=x, label=across, label_offset="34px", grid_lines="none", **_at(across_at), **common)]
    if up:
        vertical = {"orientation": "vertical", "grid_lines": "solid", "grid_color": "#8884", "label_offset": "40px"}
        axes.append(Axis(scale=y, label=up, **_at(up_at), **vertical, **common))
    return framed(marks, axes, height, {"top": 10, "bottom": 46, "left": 54 if up else 16, "right": 16})


def framed(marks: Sequence[Any], axes: Sequence[Axis], height: int, margins: dict[str, int]) -> Figure:
    """Marks and axes as a chart, so many pixels high."""
    return Figure(
        marks=list(marks),
        axes=list(axes),
        fig_margin=margins,
        layout={"width": "100%", "max_width": "640px", "height": f"{height}px", "min_width": "220px"},
        padding_x=0.0,
        padding_y=0.0,
        animation_duration=0,
        display_toolbar=False,  # its "Reset" fails in bqplot 0.13.1 where nothing was moved
        background_style={"fill": "transparent"},
    ).add_class("sw-chart")


def _at(places: Sequence[float]) -> dict[str, Any]:
    return {"tick_values": np.array(places)} if places else {"num_ticks": 5}


def widened(scale: LinearScale, *some: Any, low: float = 0.0, high: float = 1.0) -> None:
    """Give a scale room for these values, and for everything from ``low`` to ``high``."""
    values = np.concatenate([np.ravel(np.asarray(one, dtype=np.float64)) for one in some] or [np.zeros(0)])
    values = values[np.isfinite(values)]
    with scale.hold_sync():
        scale.min, scale.max = float(min(low, *values, low)), float(max(high, *values, high))


def round_ticks(low: float, high: float) -> np.ndarray:
    """Round numbers within these limits, six at most."""
    rough = (high - low) / 5
    unit = 10.0 ** np.floor(np.log10(rough))
    step = next(unit * k for k in (1, 2, 2.5, 5, 10) if unit * k >= rough * 0.999)
    return np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step


def sentence(text: str) -> RichText:
    """How a chart is read."""
    return RichText(element("div", text, class_="sw-how", style=f"color:{QUIET};line-height:1.4"))


def said(*parts: str, strong: bool = False) -> Markup:
    """A line of the answer."""
    weight = "600" if strong else "400"
    return element("div", *parts, class_="sw-said", style=f"color:{INK};font-weight:{weight};line-height:1.45")


def alarm(text: str) -> Markup:
    """What went wrong, which a screen reader says at once."""
    line = "border-left:3px solid var(--jp-error-color1, #d32f2f)"
    return element("div", text, role="alert", style=f"line-height:1.35;padding:4px 8px;overflow-wrap:anywhere;{line}")


def thumbnail(values: np.ndarray, caption: str) -> Markup:
    """A small map with its caption, as HTML: sizes of the values, the largest is white."""
    sizes = np.abs(values.astype(np.float64))
    most = float(np.percentile(sizes, 99)) or 1.0
    source = base64.b64encode(png_bytes((np.clip(sizes / most, 0, 1) * 255).astype(np.uint8))).decode()
    look = "display:block;image-rendering:pixelated"
    image = element("img", alt="", width=_SMALL, style=look, src=f"data:image/png;base64,{source}")
    below = element("figcaption", caption, style=f"font-size:11px;line-height:1.3;color:{QUIET};overflow-wrap:anywhere")
    return element("figure", image, below, style=f"margin:0;width:{_SMALL}px")


def number(value: float) -> str:
    """A number for people; a dash where there is none."""
    return "–" if value != value else f"{value:.2f}"
