"""Attributions of a row as ranked bars."""

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
from saliency_widgets.widgets.base.charts import ACCENT, INK, QUIET, SECOND, TICKS, framed, round_ticks
from saliency_widgets.widgets.base.controls import Control
from saliency_widgets.widgets.base.inbox import clicked_index
from saliency_widgets.widgets.base.text import RichText

_NAME, _VALUE = 24, 10  # characters
_ROW, _EDGES = 24, 28  # pixels
_REST = "#9a9a9a"
_ALL_TICKS = 100_000  # a tick for each place, however many there are


class FeatureBars:
    """Features with their values, the largest attribution first; the rest is summed.

    Args:
        names: Of the table's columns.
        on_choose: Called with the number of the column whose bar was clicked.
        top: How many bars there are at first.
        signed: Whether the values have a sign and can be added up; then the others are summed in a bar of their own.

    Attributes:
        widget: The chart, with the slider of how many bars there are.
        labels: What stands beside the bars, from above.
        controls: What is moved or clicked in it.
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
        self._told: Sequence[str] = [""] * len(names)
        self._values = np.zeros(0)
        self._beside: np.ndarray | None = None
        self._order: list[int] = []
        self.labels: list[str] = []
        self._top = Control(top_of(len(names)), top)
        self._top.observe(self._draw)
        self._place = OrdinalScale()
        self._size = LinearScale(min=-1.0, max=1.0)
        scales = {"x": self._place, "y": self._size}
        common = {"x": [], "y": [], "scales": scales, "orientation": "horizontal"}
        self._bars = Bars(padding=0.3, colors=[ACCENT], **common)
        # The whole row takes the click: a small bar is hard to hit.
        self._rows = Bars(padding=0.0, opacities=[0.0], colors=[ACCENT], **common)
        self._rows.on_element_click(lambda _bars, event: self._on_click(clicked_index(event)))
        across = {"x": self._size, "y": self._place}
        self._numbers = [
            Label(
                x=[], y=[], text=[], scales=across, align=align, x_offset=offset, y_offset=0, default_size=11,
                font_weight="normal", colors=[INK],
            )
            for align, offset in (("start", 6), ("end", -6))
        ]  # fmt: skip
        self._shuffled = Scatter(
            x=[], y=[], scales=across, colors=["transparent"], stroke=INK, marker="diamond", default_size=60
        )
        # Without a line of its own: the clickable rows draw one where they begin.
        self._names_axis = Axis(
            scale=self._place, orientation="vertical", grid_lines="none", tick_style=TICKS, color="transparent",
            num_ticks=_ALL_TICKS,
        )  # fmt: skip
        self._across = Axis(
            scale=self._size, tick_format="~g", grid_lines="solid", grid_color="#8884", tick_style=TICKS, color=QUIET
        )
        left = round(6.2 * (min(max(map(len, names)), _NAME) + _VALUE)) + 18
        self._figure = framed(
            [self._bars, *self._numbers, self._shuffled, self._rows], [self._names_axis, self._across], self._height(),
            {"top": 4, "bottom": 24, "left": left, "right": 10},
        )  # fmt: skip
        self._figure.layout.max_width = "900px"
        self._figure.add_class("sw-bars")
        self._sum = RichText()
        self._top.widget.layout.max_width = "460px"
        self.widget = w.VBox([self._figure, self._sum, self._top.widget], layout={"width": "100%"})
        self.controls = [self._rows, *self._top.leaves]

    @property
    def top(self) -> Control:
        """How many bars there are."""
        return self._top

    @property
    def shown(self) -> list[tuple[str, float, str, str]]:
        """The bars from above: of each its label, its size, its size in words, and its color."""
        with self._drawing:
            bars = list(zip(self.labels, map(float, self._bars.y), self._bars.colors, strict=True))
        return [(label, size, size_text(size, signed=self._signed), color) for label, size, color in bars]

    def show(self, values: np.ndarray, told: Sequence[str] | None = None, *, final: bool) -> None:
        """Show the attributions of a row; it may be called from any thread.

        Args:
            values: The attributions, shape (C,).
            told: What the row holds in each column, for people; nothing where many rows are meant.
            final: Whether they are finished: before, the order of the bars stays as it was.
        """
        with self._drawing:
            if final or len(self._order) != len(values):
                self._order = np.argsort(-np.abs(values), kind="stable").tolist()
            self._values = values
            self._told = self._told if told is None else told
            self._draw()

    def beside(self, shuffled: np.ndarray | None) -> None:
        """Show what shuffling says as a mark beside each bar, shape (C,); None takes the marks away."""
        with self._drawing:
            self._beside = shuffled
            self._draw()

    def say(self, text: Markup) -> None:
        """What the bars add up to."""
        self._sum.value = text

    def _height(self) -> int:
        shown = min(int(self._top.value), max(1, len(self._values)))
        return _ROW * (shown + (self._signed and shown < len(self._values))) + _EDGES

    def _on_click(self, index: int | None) -> None:
        if index is not None and 0 <= index < min(int(self._top.value), len(self._order)):
            self._on_choose(self._order[index])

    def _draw(self) -> None:
        with self._drawing:  # the worker shows a row, a test its marks, and the slider another number of bars
            if self._order:
                self._draw_bars()

    def _draw_bars(self) -> None:
        shown = self._order[: int(self._top.value)]
        rest = self._order[len(shown) :] if self._signed else []
        sizes = [float(self._values[k]) for k in shown]
        labels = [label_of(self._names[k], self._told[k]) for k in shown]
        colors = [ACCENT if size >= 0 else SECOND for size in sizes]
        marks = [] if self._beside is None else [float(self._beside[k]) for k in shown]
        if rest:
            labels.append(f"{len(rest)} others, summed")
            sizes.append(float(self._values[rest].sum()))
            colors.append(_REST)
        # A number stands beyond the bar, and beyond the mark beside it.
        ends = [*sizes]
        for k, mark in enumerate(marks):
            ends[k] = max(sizes[k], mark) if sizes[k] >= 0 else min(sizes[k], mark)
        low, high = _limits([*ends, *marks])
        self._across.tick_values = round_ticks(low, high)
        self.labels = labels
        # Places are numbered from below, and named by the axis: a bar is never at a place that its scale lacks.
        places = [str(k) for k in reversed(range(len(labels)))]
        if len(places) > len(self._place.domain):
            self._place.domain = places[::-1]
        self._names_axis.tick_labels = dict(zip(places, labels, strict=True))
        # bqplot moves ticks in a transition, which writes the labels of when it was planned over newer ones. Another
        # count, of more ticks than there are, plans one more, with these: told after them.
        self._names_axis.num_ticks = _ALL_TICKS + (self._names_axis.num_ticks == _ALL_TICKS)
        self._figure.layout.height = f"{self._height()}px"
        with self._size.hold_sync():
            self._size.min, self._size.max = low, high
        with self._bars.hold_sync():
            self._bars.x, self._bars.y, self._bars.colors = places, np.array(sizes), colors
        with self._rows.hold_sync():
            self._rows.x, self._rows.y, self._rows.base = places, np.full(len(sizes), high), low
        for mark, right in zip(self._numbers, (True, False), strict=True):
            own = [k for k, size in enumerate(sizes) if (size >= 0) == right]
            with mark.hold_sync():
                mark.x, mark.y = np.array([ends[k] for k in own]), [places[k] for k in own]
                mark.text = [size_text(sizes[k], signed=self._signed) for k in own]
        with self._shuffled.hold_sync():
            self._shuffled.x, self._shuffled.y = np.array(marks), places[: len(marks)]
        if len(places) < len(self._place.domain):
            self._place.domain = places[::-1]


def top_of(columns: int) -> Param:
    """How many bars there are, of so many columns."""
    return Param(
        "top",
        default=min(10, columns),
        low=1,
        high=max(2, columns),
        kind="int",
        label="Bars",
        help="How many features have a bar of their own; the others are summed in one.",
    )


def label_of(name: str, value: str) -> str:
    """A feature with its value, short enough to stand beside a bar."""
    room = _NAME + _VALUE - len(value)
    short = name if len(name) <= room else name[: max(1, room - 1)] + "…"
    return f"{short} = {value}" if value else short


def size_text(size: float, *, signed: bool = False) -> str:
    """A number for people, in three digits, thousands in full."""
    text = f"{abs(size):,.0f}" if 1000 <= abs(size) < 1e7 else f"{abs(size):.3g}"
    sign = "" if float(text.replace(",", "")) == 0 else "−" if size < 0 else "+" if signed else ""
    return sign + text


def value_text(value: Any) -> str:
    """What a row holds in a column, in few characters."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.number)):
        text = str(value)
        return text if len(text) <= _VALUE else text[: _VALUE - 1] + "…"
    return f"{value:.4g}" if abs(value) < 1e5 or not float(value).is_integer() else f"{value:.3g}"


def _limits(sizes: Sequence[float]) -> tuple[float, float]:
    """Room for the bars and for the numbers beside them."""
    low, high = min(0.0, *sizes, 0.0), max(0.0, *sizes, 0.0)
    span = (high - low) or 1.0
    return low - span * (0.2 if low < 0 else 0.03), high + span * (0.2 if high > 0 else 0.03)
