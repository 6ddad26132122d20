"""The model's predictions as clickable bars."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from bqplot.axes import Axis
from bqplot.figure import Figure
from bqplot.marks import Bars, Label
from bqplot.scales import LinearScale, OrdinalScale

from saliency_widgets.outputs.task import Prediction
from saliency_widgets.widgets.base.charts import draw
from saliency_widgets.widgets.base.inbox import clicked_index

_CHOSEN, _OTHER = "#f37726", "#6b9bc8"
_LABEL = 19
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


def labels_of(names: Sequence[str], indices: Sequence[int]) -> list[str]:
    """Return the labels of the bars, shortened to fit and distinct."""
    return _distinct([name if len(name) <= _LABEL else name[: _LABEL - 1] + "…" for name in names], indices)


def _distinct(labels: list[str], indices: Sequence[int]) -> list[str]:
    """Make labels unique, as an ordinal scale requires: two cranes get their class indices."""
    return [
        f"{label[: _LABEL - 5]} {index}" if labels.count(label) > 1 else label
        for label, index in zip(labels, indices, strict=True)
    ]
