"""The view of the saturation test: the score along the path from the baseline to the input."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as w
import numpy as np
from bqplot.marks import Lines
from bqplot.scales import LinearScale

from saliency_widgets.evaluation.saturation import Saturation
from saliency_widgets.session.explanation import FinishedMap
from saliency_widgets.widgets.base.charts import ACCENT, QUIET, SECOND, chart, draw, widen_scale
from saliency_widgets.widgets.trust.section import Section


class SaturationSection(Section):
    """A tab that shows where the score saturates and whether the plain gradient can be trusted."""

    view, waiting = "saturation", "The path is computed as soon as the map is finished."

    def _make_parts(self) -> Sequence[w.Widget]:
        x, self._share = LinearScale(min=0.0, max=1.0), LinearScale(min=0.0, max=1.0)
        scales = {"x": x, "y": self._share}
        self._lines = Lines(x=[], y=[], scales=scales, colors=[ACCENT, SECOND], stroke_width=2.5)
        self._settled = Lines(x=[], y=[], scales=scales, colors=[QUIET], stroke_width=1.5, line_style="dashed")
        x_label = f"from the baseline to the {self.context.kind.noun}"
        return [chart([self._lines, self._settled], x, self._share, x_label=x_label, y_label="share")]

    def show(self, result: Saturation, shown: FinishedMap) -> None:  # noqa: ARG002
        """Show the score and its slope along the path."""
        change = float(result.scores[-1] - result.scores[0])
        steepest = float(result.slopes.max())
        scores = (result.scores - result.scores[0]).double().cpu().numpy() / (change or 1.0)
        slopes = np.nan_to_num(result.slopes.double().cpu().numpy() / (steepest or 1.0))
        widen_scale(self._share, scores, slopes)
        draw(self._lines, result.positions.numpy(), [scores, slopes])
        settled = result.complete and result.settled == result.settled  # not NaN
        heights = [min(0.0, float(np.min(scores))), max(1.0, float(np.max(scores)))]
        draw(self._settled, *(([result.settled, result.settled], heights) if settled else ([], [])))
        if not result.complete:
            return
        noun = self.context.kind.noun
        if result.settled != result.settled:
            text = (
                f"The baseline and the {noun} have the same score, so there is no change to follow. Choose "
                f"another baseline."
            )
        else:
            at = f"the score stays within 5 % of its final value from {result.settled:.0%} of the path on"
            left = f"the gradient at the {noun} has {result.slope_left:.0%} of its largest size along the path."
            if result.slope_left != result.slope_left:
                left = "there is no gradient along the path."
            if result.saturated:
                text = f"Saturated: {at}, and {left} Don't trust the plain gradient here."
            else:
                text = f"Not saturated: {at}; {left}"
        self.say(text)
