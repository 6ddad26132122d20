"""The view of the randomization test: maps of models with an increasing number of random weights."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as w
import numpy as np
from bqplot.marks import Lines
from bqplot.scales import LinearScale

from saliency_widgets.attribution import get_method
from saliency_widgets.evaluation.randomization import Randomization
from saliency_widgets.markup import element
from saliency_widgets.session.explanation import FinishedMap
from saliency_widgets.widgets.base.charts import ACCENT, SECOND, chart, draw, number, thumbnail, widen_scale
from saliency_widgets.widgets.base.text import RichText
from saliency_widgets.widgets.trust.section import Section


class RandomizationSection(Section):
    """A tab that shows how the map changes as more and more weights are randomized."""

    view, waiting = "randomization", "The maps are compared as soon as the map is finished."

    def _make_parts(self) -> Sequence[w.Widget]:
        x, self._similarity = LinearScale(min=0.0, max=1.0), LinearScale(min=-0.25, max=1.0)
        self._lines = Lines(
            x=[], y=[], scales={"x": x, "y": self._similarity}, colors=[ACCENT, SECOND], stroke_width=2.5,
            marker="circle", marker_size=30,
        )  # fmt: skip
        figure = chart(
            [self._lines], x, self._similarity, x_label="share of layers with random weights", y_label="similarity",
            y_ticks=(-0.25, 0, 0.25, 0.5, 0.75, 1),
        )  # fmt: skip
        self._maps = RichText()
        return [figure, self._maps]

    def show(self, result: Randomization, shown: FinishedMap) -> None:
        """Show the similarities and the maps computed so far."""
        shares = np.arange(result.done) / max(1, result.total - 1)
        widen_scale(self._similarity, result.similarity, result.structure, low=-0.25)
        draw(self._lines, shares, [np.nan_to_num(result.similarity), np.nan_to_num(result.structure)])
        names = ["as trained", *(layer.rpartition(".")[2] if len(layer) > 22 else layer for layer in result.layers[1:])]
        pairs = zip(result.maps, names, strict=True)
        maps = [thumbnail(values.float().cpu().numpy(), name) for values, name in pairs if values.ndim == 2]
        self._maps.value = element("div", *maps, style="display:flex;flex-wrap:wrap;gap:6px")
        title = get_method(shown.request.method).title
        half = f"when the upper half of the layers is random (rank correlation {number(result.halfway)})"
        if result.done <= result.total // 2:
            text = f"{result.done - 1} of {result.total - 1} stages done."
        elif result.reacts is None:
            text = "One of the maps is constant, so this test is inconclusive."
        elif result.reacts:
            text = f"{title} reacts: its map changes {half}."
        else:
            text = (
                f"{title} does not react: its map hardly changes {half}. It shows the {self.context.kind.noun} itself "
                f"rather than what the model has learned about the class."
            )
        self.say(text)
