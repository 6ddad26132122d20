"""The view of the ablation test: the score and the classes without a marked region."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as w
import numpy as np
import torch
from bqplot.axes import Axis
from bqplot.marks import Bars, Scatter
from bqplot.scales import LinearScale, OrdinalScale

from saliency_widgets.evaluation.ablation import Ablation
from saliency_widgets.params import Param
from saliency_widgets.session.explanation import FinishedMap
from saliency_widgets.widgets.base.charts import ACCENT, CHANCE, TICKS, chart, draw, make_figure, widen_scale
from saliency_widgets.widgets.base.controls import Control
from saliency_widgets.widgets.base.target import labels_of
from saliency_widgets.widgets.trust.section import Section

_SHARE = Param(
    "share",
    default=5.0,
    low=0.5,
    high=50.5,
    unit="%",
    label="Strongest",
    help="The percentage of the input to mark, strongest first.",
)


class AblationSection(Section):
    """A tab that shows the model's score and predictions without the marked region."""

    view, waiting = "ablation", "Mark a region, or move the slider."

    def _make_parts(self) -> Sequence[w.Widget]:
        self._share = Control(_SHARE)
        self._share.observe(self._mark_strongest)
        self.asides = (*self._share.leaves,)
        self.context.view.on_region(self.marked)
        self._change, level = LinearScale(min=-1.0, max=1.0), LinearScale(min=0.0, max=1.0)
        scales = {"x": self._change, "y": level}
        self._random_marks = Scatter(x=[], y=[], scales=scales, colors=[CHANCE], default_size=50, opacities=[0.7])
        self._region_mark = Scatter(x=[], y=[], scales=scales, colors=[ACCENT], default_size=140, marker="diamond")
        marks = [self._random_marks, self._region_mark]
        strip = chart(marks, self._change, level, x_label="change of the score", y_label="", x_ticks=(), height=104)
        row, shares = OrdinalScale(reverse=True), LinearScale(min=0.0, max=1.0)
        self._classes = Bars(
            x=[], y=[[], []], scales={"x": row, "y": shares}, orientation="horizontal", type="grouped",
            colors=[CHANCE, ACCENT], padding=0.25,
        )  # fmt: skip
        axes = [
            Axis(scale=row, orientation="vertical", grid_lines="none", tick_style=TICKS),
            Axis(scale=shares, tick_format=".0%", num_ticks=5, grid_lines="none", tick_style=TICKS),
        ]
        bars = make_figure([self._classes], axes, 230, {"top": 4, "bottom": 28, "left": 132, "right": 26})
        strip.layout.flex, bars.layout.flex = "1 1 300px", "1 1 320px"
        self._shares = bars
        return [w.HBox([strip, bars], layout={"flex_flow": "row wrap"})]

    def marked(self, mask: np.ndarray) -> None:
        """Test a region that the user has marked, a boolean mask of the map that is painted, (H, W)."""
        shape = self.context.shape
        self.region = torch.from_numpy(mask.copy()).reshape(mask.shape if shape is None else shape)
        self.ask()

    def _mark_strongest(self) -> None:
        self.region = self._share.value / 100
        self.ask()

    def show(self, result: Ablation, shown: FinishedMap) -> None:
        """Show the change of the score, the changes for random regions, and the most probable classes."""
        if isinstance(self.region, float) and not len(result.elsewhere):
            mask = result.mask.cpu().numpy()
            self.context.view.mark(mask.reshape(-1, mask.shape[-1]))
        changes = (result.elsewhere.double() - result.before).tolist()
        noun = self.context.kind.noun
        first = (
            f"Without {result.share:.1%} of the {noun} the score goes from {result.before:.3g} to {result.after:.3g} "
            f"({result.change:+.3g})."
        )
        second = ""
        if changes:
            as_far = round(result.rank * (len(changes) + 1)) - 1
            second = (
                f" Without random regions of the same size it changes by {np.mean(changes):+.3g} on average; "
                f"{as_far} of {len(changes)} random regions change it at least as much in the same direction."
            )
        self.say(first + second)  # first, because the charts take longer to draw
        limit = 1.15 * max(1e-6, abs(result.change), *map(abs, changes))
        widen_scale(self._change, low=-limit, high=limit)
        draw(self._random_marks, np.array(changes), np.full(len(changes), 0.5))
        draw(self._region_mark, np.array([result.change]), np.array([0.5]))
        task = shown.problem.task(shown.request.score)
        self._shares.layout.display = None if task.shares else "none"
        if task.shares:
            classes, before, after = result.strongest()
            labels = labels_of([task.label(k, short=True) for k in classes], classes)
            draw(self._classes, labels, [before.numpy(), after.numpy()])
