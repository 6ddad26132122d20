"""Choosing a target: the model's predictions as clickable bars, and a search among all classes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as w
import numpy as np
from bqplot.axes import Axis
from bqplot.figure import Figure
from bqplot.marks import Bars, Label
from bqplot.scales import LinearScale, OrdinalScale

from saliency_widgets.outputs.task import Prediction
from saliency_widgets.widgets.base.charts import draw
from saliency_widgets.widgets.base.controls import LABEL_WIDTH
from saliency_widgets.widgets.base.inbox import clicked_index

_CHOSEN, _OTHER = "#f37726", "#6b9bc8"
_LABEL = 19
_LISTED = 30_000  # classes: a larger menu is slow in the page, and typed names are looked up without it
_INDEXED = re.compile(r" \((\d{1,9})\)$", re.ASCII)
_ROOM = 1.25  # end of the scale: a bar of 100 % still has its number next to it


class PredictionBars:
    """The most probable classes as horizontal bars; a click selects one.

    Args:
        count: How many there is room for.
        on_choose: Called with the index of the clicked class.

    Attributes:
        widget: The chart.
    """

    def __init__(
        self,
        count: int,
        on_choose: Callable[[int], None],
    ) -> None:
        self.indices: list[int] = []
        row, share = OrdinalScale(reverse=True), LinearScale(min=0.0, max=_ROOM)
        self._bars = Bars(
            x=[],
            y=[],
            scales={"x": row, "y": share},
            orientation="horizontal",
            padding=0.3,
        )
        # Improbable classes have bars of no width: the whole row takes the click.
        self._rows = Bars(
            x=[],
            y=[],
            scales={"x": row, "y": share},
            orientation="horizontal",
            opacities=[0.0],
            padding=0.0,
        )
        self._on_choose = on_choose
        self._rows.on_element_click(lambda _bars, event: self._on_click(clicked_index(event)))
        self._shares = Label(
            x=[],
            y=[],
            scales={"x": share, "y": row},
            text=[],
            align="start",
            x_offset=6,
            y_offset=0,
            default_size=11,
            font_weight="normal",
            colors=["var(--jp-ui-font-color1, #333)"],
        )
        axis = Axis(scale=row, orientation="vertical", grid_lines="none", tick_style={"font-size": "11px"})
        self.widget = Figure(
            marks=[self._bars, self._shares, self._rows],
            axes=[axis],
            fig_margin={"top": 2, "bottom": 2, "left": 122, "right": 4},
            layout={"width": "100%", "height": f"{23 * count + 8}px", "min_width": "0"},
            padding_x=0,
            padding_y=0,
            animation_duration=0,
            display_toolbar=False,  # covers the bars; its "Reset" fails in bqplot 0.13.1 if nothing was moved
        )
        self.widget.add_class("sw-predictions")

    def show(self, predictions: Sequence[Prediction]) -> None:
        """Show the classes, most probable first."""
        self.indices = [prediction.target for prediction in predictions]
        labels = labels_of([prediction.label for prediction in predictions], self.indices)
        values = np.array([prediction.value for prediction in predictions])
        draw(self._bars, labels, values)
        draw(self._rows, labels, np.full_like(values, _ROOM))
        draw(self._shares, values, labels, text=[f"{value:.1%}" for value in values])

    def _on_click(self, index: int | None) -> None:
        if index is not None and 0 <= index < len(self.indices):
            self._on_choose(self.indices[index])

    def mark(self, index: Any) -> None:
        """Highlight the class that is explained."""
        self._bars.colors = [_CHOSEN if i == index else _OTHER for i in self.indices]


class ClassSearch:
    """A field for the name or the index of a class; names are completed as they are typed.

    Args:
        names: Of the classes; None where they have none.
        on_search: Called with the class that was chosen, the number or index that was typed, or other text.

    Attributes:
        widget: The field.
    """

    def __init__(self, names: Sequence[str] | None, on_search: Callable[[int | tuple[int, ...] | str], None]) -> None:
        self._names, self._on_search, self._showing = names, on_search, False
        common = {
            "description": "Class" if names is None else "Find a class",
            "style": {"description_width": LABEL_WIDTH},
            "layout": {"width": "auto"},
            "continuous_update": False,
        }
        self.widget: Any
        if names is None:
            self.widget = w.Text(placeholder="type an index", **common)
        else:
            labels = [self._label(index) for index in range(len(names))] if len(names) <= _LISTED else []
            self.widget = w.Combobox(options=labels, placeholder="type a name or an index", **common)
        self.widget.add_class("sw-control").add_class("sw-control-target")
        self.widget.observe(self._on_value, names="value")

    def show(self, target: Any) -> None:
        """Show a target, without searching for it; nothing for a function."""
        self._showing = True
        try:
            self.widget.value = self._label(target)
        finally:
            self._showing = False

    def _on_value(self, change: Any) -> None:
        text = change["new"]
        if not self._showing and text != "":
            self._on_search(self._parsed(text) if isinstance(text, str) else text)

    def _parsed(self, text: str) -> int | tuple[int, ...] | str:
        match = _INDEXED.search(text)
        index = -1 if match is None else int(match[1])
        chosen = 0 <= index < len(self._names or ()) and self._label(index) == text
        return index if chosen else _number(text)

    def _label(self, target: Any) -> str:
        if isinstance(target, tuple):
            return ", ".join(map(str, target))
        if not isinstance(target, int):
            return ""
        return str(target) if self._names is None else f"{self._names[target]} ({target})"


def _number(text: str) -> int | tuple[int, ...] | str:
    """Parse a typed class number or index ("3" or "1, 0, 1"); return other text unchanged."""
    parts = [part.strip() for part in text.strip("() ").split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 9 for part in parts):
        return text
    return int(parts[0]) if len(parts) == 1 else tuple(map(int, parts))


def labels_of(names: Sequence[str], indices: Sequence[int]) -> list[str]:
    """Return the labels of the bars, shortened to fit and distinct."""
    return _distinct([name if len(name) <= _LABEL else name[: _LABEL - 1] + "…" for name in names], indices)


def _distinct(labels: list[str], indices: Sequence[int]) -> list[str]:
    """Make labels unique, as an ordinal scale requires: two cranes get their class indices."""
    return [
        f"{label[: _LABEL - 5]} {index}" if labels.count(label) > 1 else label
        for label, index in zip(labels, indices, strict=True)
    ]
