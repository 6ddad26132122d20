"""Ranked bars of the attributions of a row."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as w
import numpy as np
from bqplot.axes import Axis
from bqplot.marks import Bars, Label, Scatter
from bqplot.scales import LinearScale, OrdinalScale

from saliency_widgets.markup import Markup
from saliency_widgets.params import Param
from saliency_widgets.widgets.base.charts import ACCENT, INK, QUIET, SECOND, TICKS, draw, make_figure, round_ticks
from saliency_widgets.widgets.base.controls import Control
from saliency_widgets.widgets.base.inbox import clicked_index
from saliency_widgets.widgets.base.text import RichText

_NAME, _VALUE = 24, 10  # characters
_ROW, _EDGES = 24, 28  # pixels
_REST = "#9a9a9a"
_ALL_TICKS = 100_000  # larger than any number of bars, so that every bar has a tick


class FeatureBars:
    """A bar chart of features, largest attribution first; the features without a bar are summed in one.

    Args:
        names: The names of the table's columns.
        on_choose: Called with the index of the column whose bar was clicked.
        top: The initial number of bars.
        signed: Whether the values are signed and can be added up. If so, one more bar sums the other features.

    Attributes:
        widget: The chart, with the slider for the number of bars.
        labels: The labels of the bars, from top to bottom.
        controls: The interactive widgets.
    """

    def __init__(
        self,
        names: Sequence[str],
        on_choose: Callable[[int], None] = lambda _column: None,
        *,
        top: int | None = None,
        signed: bool = True,
    ) -> None:
        self._on_choose, self._signed = on_choose, signed
        self._drawing = threading.RLock()
        self._names = names
        self._texts: Sequence[str] = [""] * len(names)
        self._values = np.zeros(0)
        self._markers: np.ndarray | None = None
        self._order: list[int] = []
        self.labels: list[str] = []
        self._top = Control(top_of(len(names)), top)
        self._top.observe(self._draw)
        self._position = OrdinalScale()
        self._size = LinearScale(min=-1.0, max=1.0)
        scales = {"x": self._position, "y": self._size}
        common = {"x": [], "y": [], "scales": scales, "orientation": "horizontal"}
        self._bars = Bars(padding=0.3, colors=[ACCENT], **common)
        # The whole row is clickable, because a small bar is hard to hit.
        self._rows = Bars(padding=0.0, opacities=[0.0], colors=[ACCENT], **common)
        self._rows.on_element_click(lambda _bars, event: self._on_click(clicked_index(event)))
        swapped = {"x": self._size, "y": self._position}
        self._numbers = [
            Label(
                x=[], y=[], text=[], scales=swapped, align=align, x_offset=offset, y_offset=0, default_size=11,
                font_weight="normal", colors=[INK],
            )
            for align, offset in (("start", 6), ("end", -6))
        ]  # fmt: skip
        self._marker_marks = Scatter(
            x=[], y=[], scales=swapped, colors=["transparent"], stroke=INK, marker="diamond", default_size=60
        )
        # The axis has no line, because the clickable rows draw one at their start.
        self._names_axis = Axis(
            scale=self._position, orientation="vertical", grid_lines="none", tick_style=TICKS, color="transparent",
            num_ticks=_ALL_TICKS,
        )  # fmt: skip
        self._across = Axis(
            scale=self._size, tick_format="~g", grid_lines="solid", grid_color="#8884", tick_style=TICKS, color=QUIET
        )
        left = round(6.2 * (min(max(map(len, names)), _NAME) + _VALUE)) + 18
        self._figure = make_figure(
            [self._bars, *self._numbers, self._marker_marks, self._rows],
            [self._names_axis, self._across],
            self._height(),
            {"top": 4, "bottom": 24, "left": left, "right": 10},
        )
        self._figure.layout.max_width = "900px"
        self._figure.add_class("sw-bars")
        self._sum = RichText()
        self._top.widget.layout.max_width = "460px"
        self.widget = w.VBox([self._figure, self._sum, self._top.widget], layout={"width": "100%"})
        self.controls = [self._rows, *self._top.leaves]

    @property
    def top(self) -> Control:
        """The control for the number of bars."""
        return self._top

    @property
    def shown(self) -> list[tuple[str, float, str, str]]:
        """The bars from top to bottom, each as label, size, size as text, and color."""
        with self._drawing:
            bars = list(zip(self.labels, map(float, self._bars.y), self._bars.colors, strict=True))
        return [(label, size, size_text(size, signed=self._signed), color) for label, size, color in bars]

    def show(
        self,
        values: np.ndarray,
        texts: Sequence[str] | None = None,
        *,
        markers: np.ndarray | None = None,
        final: bool,
    ) -> None:
        """Show the attributions of a row. Can be called from any thread.

        Args:
            values: The attributions, shape (C,).
            texts: The row's values as text, by column. Default: the previous texts, initially empty.
            markers: Values of the markers on the bars, shape (C,). Default: the previous markers.
            final: Whether the attributions are finished. Until then, the order of the bars does not change.
        """
        with self._drawing:
            if final or len(self._order) != len(values):
                self._order = np.argsort(-np.abs(values), kind="stable").tolist()
            self._values = values
            self._texts = self._texts if texts is None else texts
            self._markers = self._markers if markers is None else markers
            self._draw()

    def show_markers(self, values: np.ndarray | None) -> None:
        """Show a marker on each bar at the given value, shape (C,); None removes the markers."""
        with self._drawing:
            if values is None and self._markers is None:
                return
            self._markers = values
            self._draw()

    def say(self, text: Markup) -> None:
        """Show a line below the bars."""
        self._sum.value = text

    def _height(self) -> int:
        shown = min(int(self._top.value), max(1, len(self._values)))
        return _ROW * (shown + (self._signed and shown < len(self._values))) + _EDGES

    def _on_click(self, index: int | None) -> None:
        if index is not None and 0 <= index < min(int(self._top.value), len(self._order)):
            self._on_choose(self._order[index])

    def _draw(self) -> None:
        with self._drawing:  # called by the worker, by trust tests and by the slider
            if self._order:
                self._draw_bars()

    def _draw_bars(self) -> None:
        shown = self._order[: int(self._top.value)]
        rest = self._order[len(shown) :] if self._signed else []
        sizes = [float(self._values[k]) for k in shown]
        labels = [label_of(self._names[k], self._texts[k]) for k in shown]
        colors = [ACCENT if size >= 0 else SECOND for size in sizes]
        marks = [] if self._markers is None else [float(self._markers[k]) for k in shown]
        if rest:
            labels.append(f"{len(rest)} others, summed")
            sizes.append(float(self._values[rest].sum()))
            colors.append(_REST)
        # The number is placed past the end of the bar and its marker.
        ends = [*sizes]
        for k, mark in enumerate(marks):
            ends[k] = max(sizes[k], mark) if sizes[k] >= 0 else min(sizes[k], mark)
        low, high = _limits([*ends, *marks])
        self._across.tick_values = round_ticks(low, high)
        self.labels = labels
        # Positions count from the bottom and the axis labels them, so every bar has a position of the scale.
        positions = [str(k) for k in reversed(range(len(labels)))]
        if len(positions) > len(self._position.domain):
            self._position.domain = positions[::-1]
        self._names_axis.tick_labels = dict(zip(positions, labels, strict=True))
        # bqplot moves ticks in a transition, which overwrites newer labels with those from the time it was scheduled.
        # Changing the tick count has no visible effect, but schedules another transition with the new labels.
        self._names_axis.num_ticks = _ALL_TICKS + (self._names_axis.num_ticks == _ALL_TICKS)
        self._figure.layout.height = f"{self._height()}px"
        with self._size.hold_sync():
            self._size.min, self._size.max = low, high
        draw(self._bars, positions, np.array(sizes), colors=colors)
        draw(self._rows, positions, np.full(len(sizes), high), base=low)
        for mark, right in zip(self._numbers, (True, False), strict=True):
            indices = [k for k, size in enumerate(sizes) if (size >= 0) == right]
            text = [size_text(sizes[k], signed=self._signed) for k in indices]
            draw(mark, np.array([ends[k] for k in indices]), [positions[k] for k in indices], text=text)
        draw(self._marker_marks, np.array(marks), positions[: len(marks)])
        if len(positions) < len(self._position.domain):
            self._position.domain = positions[::-1]


def top_of(columns: int) -> Param:
    """Return the parameter for the number of bars, for a table with this many columns."""
    return Param(
        "top",
        default=min(10, columns),
        low=1,
        high=max(2, columns),
        kind="int",
        label="Bars",
        help="The number of features with their own bar; the others are summed in one bar.",
    )


def label_of(name: str, value: str) -> str:
    """Return a feature's name and value, shortened to fit next to a bar."""
    room = _NAME + _VALUE - len(value)
    short = name if len(name) <= room else name[: max(1, room - 1)] + "…"
    return f"{short} = {value}" if value else short


def size_text(size: float, *, signed: bool = False) -> str:
    """Format a number with three significant digits, or from 1000 to 1e7 rounded to an integer."""
    text = f"{abs(size):,.0f}" if 1000 <= abs(size) < 1e7 else f"{abs(size):.3g}"
    sign = "" if float(text.replace(",", "")) == 0 else "-" if size < 0 else "+" if signed else ""
    return sign + text


def value_text(value: Any) -> str:
    """Format a value of the row as a short text."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.number)):
        text = str(value)
        return text if len(text) <= _VALUE else text[: _VALUE - 1] + "…"
    return f"{value:.4g}" if abs(value) < 1e5 or not float(value).is_integer() else f"{value:.3g}"


def _limits(sizes: Sequence[float]) -> tuple[float, float]:
    """Return axis limits that leave room for the bars and their numbers."""
    low, high = min(0.0, *sizes, 0.0), max(0.0, *sizes, 0.0)
    span = (high - low) or 1.0
    return low - span * (0.2 if low < 0 else 0.03), high + span * (0.2 if high > 0 else 0.03)
