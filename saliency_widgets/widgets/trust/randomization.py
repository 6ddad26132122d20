"""The section that replaces the model's weights by random ones."""

from __future__ import annotations

import numpy as np
from bqplot.marks import Lines
from bqplot.scales import LinearScale

from saliency_widgets.attribution import get_method
from saliency_widgets.evaluation.randomization import STAGES, Randomization
from saliency_widgets.markup import element
from saliency_widgets.session.examiner import Check
from saliency_widgets.session.explanation import Case
from saliency_widgets.widgets.base.charts import ACCENT, SECOND, chart, number, said, thumbnail, widened
from saliency_widgets.widgets.base.controls import Control
from saliency_widgets.widgets.base.text import RichText
from saliency_widgets.widgets.trust.section import Section

_HOW = (
    "From left to right more layers get random weights, from the output on. A map that shows what the model has learnt "
    "falls towards 0; one that stays near 1 shows the image, whatever the model. Orange: rank correlation; blue: "
    "structural similarity (SSIM)."
)


class RandomizationSection(Section):
    """Whether the map depends on what the model has learnt."""

    name, title = "randomization", "Random weights"
    waiting, how = "The comparison comes as soon as the map is there.", _HOW

    def __init__(self) -> None:
        self._stages = Control(STAGES)
        super().__init__(self._stages)
        x, self._similarity = LinearScale(min=0.0, max=1.0), LinearScale(min=-0.25, max=1.0)
        self._lines = Lines(
            x=[], y=[], scales={"x": x, "y": self._similarity}, colors=[ACCENT, SECOND], stroke_width=2.5,
            marker="circle", marker_size=30,
        )  # fmt: skip
        figure = chart(
            [self._lines], x, self._similarity, across="share of the layers that are random", up="similarity",
            up_at=(-0.25, 0, 0.25, 0.5, 0.75, 1),
        )  # fmt: skip
        self._maps = RichText()
        self.lay_out(figure, self._maps)

    def check(self, case: Case) -> Check:
        """The randomization of this model under this method."""
        return case.randomization(stages=self._stages.value)

    def show(self, found: Randomization, case: Case) -> None:
        """The similarities, and the maps."""
        places = np.arange(found.done) / max(1, found.total - 1)
        widened(self._similarity, found.similarity, found.structure, low=-0.25)
        with self._lines.hold_sync():
            self._lines.x = places
            self._lines.y = [np.nan_to_num(found.similarity), np.nan_to_num(found.structure)]
        names = ["as trained", *(layer.rpartition(".")[2] if len(layer) > 22 else layer for layer in found.layers[1:])]
        pairs = zip(found.maps, names, strict=True)
        maps = [thumbnail(values.float().cpu().numpy(), name) for values, name in pairs if values.ndim == 2]
        self._maps.value = element("div", *maps, style="display:flex;flex-wrap:wrap;gap:6px")
        title = get_method(case.request.method).title
        half = f"with the upper half of the layers random (rank correlation {number(found.halfway)})"
        if found.done <= found.total // 2:
            text = f"{found.done - 1} of {found.total - 1} stages done."
        elif found.reacts is None:
            text = "A map is the same everywhere: it is no evidence, one way or the other."
        elif found.reacts:
            text = f"{title} reacts: its map is another one {half}."
        else:
            text = (
                f"{title} does not react: its map is much the same {half}. It shows edges of the image rather than "
                f"what the model has learnt about the class."
            )
        self._said.value = said(text, strong=True)
