"""The section that takes a marked region away."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import ipywidgets as w
import numpy as np
import torch
from bqplot.axes import Axis
from bqplot.marks import Bars, Scatter
from bqplot.scales import LinearScale, OrdinalScale

from saliency_widgets.evaluation.ablation import Ablation
from saliency_widgets.params import Param
from saliency_widgets.session.examiner import Check
from saliency_widgets.session.explanation import Case
from saliency_widgets.widgets.base.charts import ACCENT, CHANCE, TICKS, chart, framed, said, widened
from saliency_widgets.widgets.base.controls import Control
from saliency_widgets.widgets.base.predictions import labels_of
from saliency_widgets.widgets.trust.section import Section, fill_control

_SHARE = Param(
    "share",
    default=5.0,
    low=0.5,
    high=50.5,
    unit="%",
    label="Strongest",
    help="How much of the map is marked: its strongest pixels.",
)
_HOW = (
    "Orange: the score's change without your region. Gray: its change without as much elsewhere, the same shape moved "
    "at random. A region matters if the orange mark stands clear of the gray ones. Bars: how probable the classes are "
    "with the whole image (gray) and without the region (orange)."
)


class AblationSection(Section):
    """Takes away what is marked, and shows what the model says then."""

    name, title = "ablation", "Ablation"
    waiting, how = "Mark a region on the image, or move the slider.", _HOW

    def __init__(self, mark: Callable[[np.ndarray], None], baselines: Sequence[str]) -> None:
        self._fill, self._share = fill_control(baselines), Control(_SHARE)
        super().__init__(self._fill, self._share)
        self._region: torch.Tensor | float | None = None  # what is marked, or how much of the map
        self._mark = mark
        self._change, level = LinearScale(min=-1.0, max=1.0), LinearScale(min=0.0, max=1.0)
        scales = {"x": self._change, "y": level}
        self._elsewhere = Scatter(x=[], y=[], scales=scales, colors=[CHANCE], default_size=50, opacities=[0.7])
        self._here = Scatter(x=[], y=[], scales=scales, colors=[ACCENT], default_size=140, marker="diamond")
        marks = [self._elsewhere, self._here]
        strip = chart(marks, self._change, level, across="change of the score", up="", across_at=(), height=104)
        place, shares = OrdinalScale(reverse=True), LinearScale(min=0.0, max=1.0)
        self._classes = Bars(
            x=[], y=[[], []], scales={"x": place, "y": shares}, orientation="horizontal", type="grouped",
            colors=[CHANCE, ACCENT], padding=0.25,
        )  # fmt: skip
        axes = [
            Axis(scale=place, orientation="vertical", grid_lines="none", tick_style=TICKS),
            Axis(scale=shares, tick_format=".0%", num_ticks=5, grid_lines="none", tick_style=TICKS),
        ]
        bars = framed([self._classes], axes, 230, {"top": 4, "bottom": 28, "left": 132, "right": 26})
        strip.layout.flex, bars.layout.flex = "1 1 300px", "1 1 320px"
        self._shares = bars
        self.lay_out(w.HBox([strip, bars], layout={"flex_flow": "row wrap"}))

    def marked(self, mask: np.ndarray) -> None:
        """A region was marked on the image."""
        self._region = torch.from_numpy(mask.copy())
        self.ask()

    def moved(self, control: Control) -> None:
        """Another fill, or so much of the map instead of what was marked."""
        if control is self._share:
            self._region = self._share.value / 100
        self.ask()

    def check(self, case: Case) -> Check | None:
        """The region that is marked, if one is."""
        if self._region is None or (isinstance(self._region, torch.Tensor) and not bool(self._region.any())):
            return None
        return case.ablation(self._region, fill=self._fill.value)

    def show(self, found: Ablation, case: Case) -> None:
        """The score's change beside those elsewhere, and the strongest classes."""
        if isinstance(self._region, float) and not len(found.elsewhere):
            self._mark(found.mask.cpu().numpy())
        changes = (found.elsewhere.double() - found.before).tolist()
        first = (
            f"Without {found.share:.1%} of the image the score goes from {found.before:.3g} to {found.after:.3g} "
            f"({found.change:+.3g})."
        )
        second = ""
        if changes:
            as_far = round(found.rank * (len(changes) + 1)) - 1
            second = (
                f" Without as much elsewhere it moves by {np.mean(changes):+.3g} on average; {as_far} of "
                f"{len(changes)} draws move it as far in that direction."
            )
        self._said.value = said(first + second, strong=True)  # before the charts, which take longer to draw
        most = 1.15 * max(1e-6, abs(found.change), *map(abs, changes))
        widened(self._change, low=-most, high=most)
        with self._elsewhere.hold_sync():
            self._elsewhere.x, self._elsewhere.y = np.array(changes), np.full(len(changes), 0.5)
        with self._here.hold_sync():
            self._here.x, self._here.y = np.array([found.change]), np.array([0.5])
        valued = case.request.score == "value"  # no class, and no probability
        self._shares.layout.display = "none" if valued else None
        if not valued:
            classes, before, after = found.strongest()
            with self._classes.hold_sync():
                self._classes.x = labels_of([case.problem.name_of(k, short=True) for k in classes], classes)
                self._classes.y = [before.numpy(), after.numpy()]
