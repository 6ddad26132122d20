"""Charts for all widgets: readable in light and dark themes, with a size that does not depend on the data."""

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
_THUMBNAIL_WIDTH = 72  # pixels
ACCENT, SECOND, CHANCE = "#f37726", "#6b9bc8", "#9a9a9a"
OTHERS = ("#4c9f70", "#9467bd", "#c44e52", "#8c613c", "#937860", "#da8bc3")


def chart(
    marks: Sequence[Any],
    x: LinearScale | LogScale,
    y: LinearScale,
    *,
    x_label: str,
    y_label: str,
    x_ticks: Sequence[float] = (0, 0.25, 0.5, 0.75, 1),
    y_ticks: Sequence[float] = (0, 0.25, 0.5, 0.75, 1),
    height: int = 210,
) -> Figure:
    """Create a chart with labeled axes.

    Args:
        marks: The bqplot marks.
        x: The horizontal scale. It must have limits, because bqplot fails on a chart without them.
        y: The vertical scale. It must have limits too.
        x_label: Label of the horizontal axis.
        y_label: Label of the vertical axis. If empty, the axis is omitted.
        x_ticks: Tick positions of the horizontal axis. If empty, bqplot chooses them.
        y_ticks: Tick positions of the vertical axis.
        height: Height in pixels.
    """
    common = {"tick_style": TICKS, "tick_format": ".2f", "label_color": INK, "color": QUIET}
    axes = [Axis(scale=x, label=x_label, label_offset="34px", grid_lines="none", **_tick_options(x_ticks), **common)]
    if y_label:
        vertical = {"orientation": "vertical", "grid_lines": "solid", "grid_color": "#8884", "label_offset": "40px"}
        axes.append(Axis(scale=y, label=y_label, **_tick_options(y_ticks), **vertical, **common))
    return make_figure(marks, axes, height, {"top": 10, "bottom": 46, "left": 54 if y_label else 16, "right": 16})


def make_figure(marks: Sequence[Any], axes: Sequence[Axis], height: int, margins: dict[str, int]) -> Figure:
    """Create a figure with the given marks, axes, height and margins in pixels."""
    return Figure(
        marks=list(marks),
        axes=list(axes),
        fig_margin=margins,
        layout={"width": "100%", "max_width": "640px", "height": f"{height}px", "min_width": "220px"},
        padding_x=0.0,
        padding_y=0.0,
        animation_duration=0,
        display_toolbar=False,  # its "Reset" fails in bqplot 0.13.1 if nothing was moved
        background_style={"fill": "transparent"},
    ).add_class("sw-chart")


def _tick_options(ticks: Sequence[float]) -> dict[str, Any]:
    return {"tick_values": np.array(ticks)} if ticks else {"num_ticks": 5}


def widen_scale(scale: LinearScale, *arrays: Any, low: float = 0.0, high: float = 1.0) -> None:
    """Set the limits of a scale to include the finite values and the range from ``low`` to ``high``."""
    values = np.concatenate([np.ravel(np.asarray(array, dtype=np.float64)) for array in arrays] or [np.zeros(0)])
    values = values[np.isfinite(values)]
    with scale.hold_sync():
        scale.min, scale.max = float(min(low, *values, low)), float(max(high, *values, high))


def draw(mark: Any, x: Any, y: Any, **traits: Any) -> None:
    """Set the coordinates of a mark, and other traits, in one message."""
    with mark.hold_sync():
        for name, value in {"x": x, "y": y, **traits}.items():
            setattr(mark, name, value)


def round_ticks(low: float, high: float) -> np.ndarray:
    """Return at most six round numbers between the limits."""
    rough = (high - low) / 5
    unit = 10.0 ** np.floor(np.log10(rough))
    step = next(unit * k for k in (1, 2, 2.5, 5, 10) if unit * k >= rough * 0.999)
    return np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step


def explanation(text: str) -> RichText:
    """Format the explanation of a chart."""
    return RichText(element("div", text, class_="sw-how", style=f"color:{QUIET};line-height:1.4"))


def result_line(*parts: str, strong: bool = False) -> Markup:
    """Format one line of a test's result."""
    weight = "600" if strong else "400"
    return element("div", *parts, class_="sw-said", style=f"color:{INK};font-weight:{weight};line-height:1.45")


def error_line(text: str) -> Markup:
    """Format an error, which a screen reader announces immediately."""
    line = "border-left:3px solid var(--jp-error-color1, #d32f2f)"
    return element("div", text, role="alert", style=f"line-height:1.35;padding:4px 8px;overflow-wrap:anywhere;{line}")


def thumbnail(values: np.ndarray, caption: str) -> Markup:
    """Render the absolute values of a map as a small captioned image in HTML; the largest values are white."""
    magnitudes = np.abs(values.astype(np.float64))
    limit = float(np.percentile(magnitudes, 99)) or 1.0
    source = base64.b64encode(png_bytes((np.clip(magnitudes / limit, 0, 1) * 255).astype(np.uint8))).decode()
    look = "display:block;image-rendering:pixelated"
    image = element("img", alt="", width=_THUMBNAIL_WIDTH, style=look, src=f"data:image/png;base64,{source}")
    below = element("figcaption", caption, style=f"font-size:11px;line-height:1.3;color:{QUIET};overflow-wrap:anywhere")
    return element("figure", image, below, style=f"margin:0;width:{_THUMBNAIL_WIDTH}px")


def number(value: float) -> str:
    """Format a number with two decimals; NaN as a dash."""
    return "–" if value != value else f"{value:.2f}"
