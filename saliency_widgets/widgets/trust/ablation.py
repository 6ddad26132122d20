"""The section that takes a marked region away."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets as w
import numpy as np
import torch
from bqplot.axes import Axis
from bqplot.figure import Figure
from bqplot.marks import Bars, Scatter
from bqplot.scales import LinearScale, OrdinalScale

from saliency_widgets.engine.case import Case
from saliency_widgets.engine.examiner import Check
from saliency_widgets.evaluation.ablation import Ablation
from saliency_widgets.evaluation.fills import FILL
from saliency_widgets.params import Param
from saliency_widgets.widgets.controls import Control
from saliency_widgets.widgets.trust.charts import ACCENT, CHANCE, INK, chart, controls, said, sentence, widened

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
    "Orange: the score's change without your region. Grey: its change without as much elsewhere, the same shape moved "
    "at random. A region matters if the orange mark stands clear of the grey ones. Bars: how probable the classes are "
    "with the whole picture (grey) and without the region (orange)."
)


class AblationSection:
    """Takes away what is marked, and shows what the model says then."""

    name, title = "ablation", "Ablation"

    def __init__(self, mark: Callable[[np.ndarray], None]) -> None:
        self.ask: Callable[[], None] = lambda: None
        self._region: torch.Tensor | float | None = None  # what is marked, or how much of the map
        self._mark = mark
        self._fill, self._share = Control(FILL), Control(_SHARE)
        self._fill.observe(lambda: self.ask())
        self._share.observe(self._on_share)
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
        style = {"font-size": "11px", "fill": INK}
        bars = Figure(
            marks=[self._classes],
            axes=[
                Axis(scale=place, orientation="vertical", grid_lines="none", tick_style=style),
                Axis(scale=shares, tick_format=".0%", num_ticks=5, grid_lines="none", tick_style=style),
            ],
            fig_margin={"top": 4, "bottom": 28, "left": 132, "right": 26},
            layout={"width": "100%", "height": "230px", "min_width": "220px"},
            animation_duration=0,
            background_style={"fill": "transparent"},
        ).add_class("sw-chart")
        self._said = w.HTML(said("Mark a region on the picture, or move the slider."))
        charts = w.HBox([strip, bars], layout={"flex_flow": "row wrap"})
        strip.layout.flex, bars.layout.flex = "1 1 300px", "1 1 320px"
        moved = controls(self._fill.widget, self._share.widget)
        self.widget = w.VBox([moved, self._said, charts, sentence(_HOW)])

    def marked(self, mask: np.ndarray) -> None:
        """A region was marked on the picture."""
        self._region = torch.from_numpy(mask.copy())
        self.ask()

    def _on_share(self) -> None:
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
        most = 1.15 * max(1e-6, abs(found.change), *map(abs, changes))
        widened(self._change, low=-most, high=most)
        with self._elsewhere.hold_sync():
            self._elsewhere.x, self._elsewhere.y = np.array(changes), np.full(len(changes), 0.5)
        with self._here.hold_sync():
            self._here.x, self._here.y = np.array([found.change]), np.array([0.5])
        table = found.predictions()
        names = [case.subject.name_of(place).split(",")[0] for place in table.index]
        labels = [
            f"{name[:14]} {place}" if names.count(name) > 1 else name[:20]
            for name, place in zip(names, table.index, strict=True)
        ]
        with self._classes.hold_sync():
            self._classes.x = labels
            self._classes.y = [table["before"].to_numpy(), table["after"].to_numpy()]
        first = (
            f"Without {found.share:.1%} of the picture the score goes from {found.before:.3g} to {found.after:.3g} "
            f"({found.change:+.3g})."
        )
        second = ""
        if changes:
            as_far = round(found.rank * (len(changes) + 1)) - 1
            second = (
                f" Without as much elsewhere it moves by {np.mean(changes):+.3g} on average; {as_far} of "
                f"{len(changes)} draws move it as far in that direction."
            )
        self._said.value = said(first + second, strong=True)
