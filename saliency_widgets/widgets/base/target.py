"""Controls for the target: the model's predictions as clickable bars, and a search field for all classes."""

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
_LISTED = 30_000  # classes: larger menus are slow on the page, and typed names are matched without a menu
_INDEXED = re.compile(r" \((\d{1,9})\)$", re.ASCII)
_ROOM = 1.25  # end of the scale, which leaves room for the number next to a bar of 100 %


class PredictionBars:
    """A chart of the most probable classes as horizontal bars; a click selects a class.

    Args:
        count: The number of bars that the chart has room for.
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
        # The whole row is clickable, because the bars of improbable classes have no width.
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
            display_toolbar=False,  # it covers the bars, and its "Reset" fails in bqplot 0.13.1 if nothing was moved
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
    """A text field for the name or the index of a class, which completes names while the user types.

    Args:
        names: The class names; None if the classes have no names.
        on_search: Called with the index of a selected class, a typed number or index tuple, or other typed text.

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
        """Show a target without calling ``on_search``; a function is shown as an empty field."""
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
    """Parse a typed class index or index tuple ("3" or "1, 0, 1"); return other text unchanged."""
    parts = [part.strip() for part in text.strip("() ").split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 9 for part in parts):
        return text
    return int(parts[0]) if len(parts) == 1 else tuple(map(int, parts))


def labels_of(names: Sequence[str], indices: Sequence[int]) -> list[str]:
    """Return distinct labels for the bars, shortened to fit."""
    return _distinct([name if len(name) <= _LABEL else name[: _LABEL - 1] + "…" for name in names], indices)


def _distinct(labels: list[str], indices: Sequence[int]) -> list[str]:
    """Add the class index to equal labels, such as the two cranes of ImageNet; an ordinal scale needs unique labels."""
    return [
        f"{label[: _LABEL - 5]} {index}" if labels.count(label) > 1 else label
        for label, index in zip(labels, indices, strict=True)
    ]
