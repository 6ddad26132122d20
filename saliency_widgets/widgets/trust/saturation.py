"""The section that goes from the baseline to the input."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from bqplot.marks import Lines
from bqplot.scales import LinearScale

from saliency_widgets.attribution.baselines import BASELINE
from saliency_widgets.evaluation.saturation import Saturation
from saliency_widgets.session.examiner import Check
from saliency_widgets.session.explanation import Case
from saliency_widgets.widgets.base.charts import ACCENT, QUIET, SECOND, chart, said, widened
from saliency_widgets.widgets.base.controls import Control
from saliency_widgets.widgets.trust.section import Section

_HOW = (
    "From the baseline (0) to the input (1). Orange: how much of the score's change is there. Blue: the size of the "
    "gradient, as a part of its largest. Where orange is flat, the score has settled; where blue is near 0 at the "
    "right end, the plain gradient is blind to what made the score."
)


class SaturationSection(Section):
    """Where the score settles, and whether the plain gradient can be believed."""

    name, title = "saturation", "Saturation"
    waiting, how = "The way comes as soon as the answer is there.", _HOW

    what = "image"

    def __init__(self, baselines: Sequence[str] = ()) -> None:
        self._baseline = self._start(baselines)
        super().__init__(self._baseline)
        x, self._share = LinearScale(min=0.0, max=1.0), LinearScale(min=0.0, max=1.0)
        scales = {"x": x, "y": self._share}
        self._lines = Lines(x=[], y=[], scales=scales, colors=[ACCENT, SECOND], stroke_width=2.5)
        self._settled = Lines(x=[], y=[], scales=scales, colors=[QUIET], stroke_width=1.5, line_style="dashed")
        across = f"from the baseline to the {self.what}"
        self.lay_out(chart([self._lines, self._settled], x, self._share, across=across, up="share"))

    def _start(self, baselines: Sequence[str]) -> Control:
        return Control(BASELINE, options={name: name for name in baselines})

    def check(self, case: Case) -> Check:
        """The way from this baseline."""
        return case.saturation(baseline=self._baseline.value)

    def show(self, found: Saturation, case: Case) -> None:  # noqa: ARG002
        """Score and slope on the way."""
        change = float(found.scores[-1] - found.scores[0])
        steepest = float(found.slopes.max())
        scores = (found.scores - found.scores[0]).double().cpu().numpy() / (change or 1.0)
        slopes = np.nan_to_num(found.slopes.double().cpu().numpy() / (steepest or 1.0))
        widened(self._share, scores, slopes)
        with self._lines.hold_sync():
            self._lines.x, self._lines.y = found.positions.numpy(), [scores, slopes]
        known = found.complete and found.settled == found.settled
        with self._settled.hold_sync():
            self._settled.x = [found.settled, found.settled] if known else []
            self._settled.y = [min(0.0, float(np.min(scores))), max(1.0, float(np.max(scores)))] if known else []
        if not found.complete:
            return
        if found.settled != found.settled:
            text = (
                f"The baseline scores as the {self.what} does: there is no change to be followed. Choose another "
                f"baseline."
            )
        else:
            at = f"the score is within 5 % of its end from {found.settled:.0%} of the way on"
            left = f"the gradient at the {self.what} has {found.slope_left:.0%} of its largest size on the way."
            if found.slope_left != found.slope_left:
                left = "there is no gradient on the way."
            if found.saturated:
                text = f"Saturated: {at}, and {left} Don't believe the plain gradient here."
            else:
                text = f"Not saturated: {at}; {left}"
        self._said.value = said(text, strong=True)
