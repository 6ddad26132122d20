"""The predictions of the model, as bars to click on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import bqplot as bq
import ipywidgets as w
import numpy as np

_CHOSEN, _OTHER = "#f37726", "#6b9bc8"
_LABEL = 22


class PredictionBars:
    """The most probable classes as horizontal bars; a click chooses one.

    Args:
        indices: Class indices, the most probable first.
        names: Their names.
        probabilities: Their probabilities.
        on_choose: Called with the index of the class that was clicked.

    Attributes:
        widget: The chart.
    """

    def __init__(
        self,
        indices: Sequence[int],
        names: Sequence[str],
        probabilities: Sequence[float],
        on_choose: Callable[[int], None],
    ) -> None:
        self.indices = list(indices)
        labels = _distinct([_short(name) for name in names])
        place, share = bq.OrdinalScale(reverse=True), bq.LinearScale(min=0.0, max=1.0)
        self._bars = bq.Bars(
            x=labels,
            y=np.asarray(probabilities, dtype=np.float64),
            scales={"x": place, "y": share},
            orientation="horizontal",
            colors=[_OTHER] * len(labels),
            padding=0.35,
            label_display=True,
            label_display_format=".1%",
            label_display_horizontal_offset=4,
            label_font_style={"font-size": "11px", "fill": "var(--jp-ui-font-color1, #222)"},
        )
        self._bars.on_element_click(lambda _bars, event: on_choose(self.indices[int(event["data"]["index"])]))
        axis = bq.Axis(scale=place, orientation="vertical", grid_lines="none", tick_style={"font-size": "11px"})
        self.widget = bq.Figure(
            marks=[self._bars],
            axes=[axis],
            fig_margin={"top": 4, "bottom": 4, "left": 140, "right": 44},
            layout=w.Layout(width="100%", height=f"{24 * len(labels) + 12}px", min_width="0"),
            padding_x=0,
            padding_y=0,
            animation_duration=0,
        )
        self.widget.add_class("sw-predictions")

    def mark(self, index: Any) -> None:
        """Show which class is explained."""
        self._bars.colors = [_CHOSEN if i == index else _OTHER for i in self.indices]


def _short(name: str) -> str:
    first = name.split(",")[0].strip()
    return first if len(first) <= _LABEL else first[: _LABEL - 1] + "…"


def _distinct(labels: list[str]) -> list[str]:
    """An ordinal scale needs labels of their own: two cranes are told apart by a mark."""
    return [label + "′" * labels[:i].count(label) for i, label in enumerate(labels)]
