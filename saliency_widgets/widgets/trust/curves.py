"""The view of the deletion and insertion curves."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as w
import numpy as np
import torch
from bqplot.marks import Lines
from bqplot.scales import LinearScale

from saliency_widgets.attribution import Kind
from saliency_widgets.evaluation.curves import KINDS, Curve, Curves
from saliency_widgets.outputs.selection import class_index
from saliency_widgets.session.explanation import FinishedMap
from saliency_widgets.widgets.base.charts import ACCENT, CHANCE, OTHERS, chart, draw, number, widen_scale
from saliency_widgets.widgets.base.controls import LABEL_WIDTH
from saliency_widgets.widgets.base.messages import error_text
from saliency_widgets.widgets.trust.section import Section


class CurvesSection(Section):
    """A tab that shows the score as pixels are removed or inserted, the most important ones first."""

    view, waiting = "curves", "The curves are computed as soon as the map is finished."

    def _make_parts(self) -> Sequence[w.Widget]:
        self._result: tuple[Curves, FinishedMap] | None = None
        self._class = w.Text(
            description="Score of", placeholder="the class that is explained", continuous_update=False,
            style={"description_width": LABEL_WIDTH}, layout={"width": "auto"},
            tooltip="Another class, by name or index, whose score to plot; the model is not run again.",
        )  # fmt: skip
        self._class.add_class("sw-control").add_class("sw-control-class")
        self._class.observe(lambda _change: self._refresh(), names="value")
        self._marks: dict[str, tuple[Lines, Lines, Lines]] = {}
        self._scores: dict[str, LinearScale] = {}
        figures = []
        for kind in KINDS:
            x, y = LinearScale(min=0.0, max=1.0), LinearScale(min=0.0, max=1.0)
            scales = {"x": x, "y": y}
            band = Lines(
                x=[], y=[], scales=scales, colors=[CHANCE, CHANCE], fill="between", fill_colors=[CHANCE],
                fill_opacities=[0.3], stroke_width=1, opacities=[0.6, 0.6],
            )  # fmt: skip
            rest = Lines(x=[], y=[], scales=scales, colors=list(OTHERS), stroke_width=1.5, labels=[])
            line = Lines(x=[], y=[], scales=scales, colors=[ACCENT], stroke_width=3)
            self._marks[kind], self._scores[kind] = (line, band, rest), y
            x_label = f"share of the {self.context.kind.noun} {'removed' if kind == 'deletion' else 'inserted'}"
            figure = chart([band, rest, line], x, y, x_label=x_label, y_label="score, normalized")
            figure.layout.flex = "1 1 320px"
            figures.append(figure)
        self.asides = (self._class,)
        return [w.HBox(figures, layout={"flex_flow": "row wrap"})]

    def show(self, result: Curves, shown: FinishedMap) -> None:
        """Show the curves computed so far, for the explained class or the typed one."""
        self._result = result, shown
        try:
            name, result = self._for_class(result, shown)
        except (TypeError, ValueError) as error:
            self.say(error_text(error))
            return
        lines = [f"For the score of {name}, ranked by the map of the explained class:"] if name else []
        for kind in KINDS:
            line, band, rest = self._marks[kind]
            curve = result.main.get(kind)
            if curve is not None:
                draw(line, curve.shares.numpy(), _heights(curve))
            draws = [_heights(drawn) for drawn in result.chance[kind]]
            others = result.others[kind]
            widen_scale(self._scores[kind], *draws, *map(_heights, others.values()), _heights(curve) if curve else [])
            if draws:
                draw(band, result.chance[kind][0].shares.numpy(), [np.min(draws, 0), np.max(draws, 0)])
            else:
                draw(band, [], [])
            draw(rest, [c.shares.numpy() for c in others.values()], [_heights(c) for c in others.values()])
            lines.append(_describe(kind, curve, result, self.context.kind))
        self.say(*lines)

    def _refresh(self) -> None:
        if self._result is not None:
            self.show(*self._result)

    def _for_class(self, result: Curves, shown: FinishedMap) -> tuple[str, Curves]:
        """Return the name of the typed class and its curves; without one, an empty name and ``result``."""
        text = self._class.value.strip()
        if not text:
            return "", result
        task = shown.problem.task()
        count = next((task.logits(curve.logits).shape[1] for curve in result.main.values()), 0)
        index = class_index(int(text) if text.isdecimal() else text, count, task.class_names, "class")
        return task.label(index), result.of(task.score(torch.tensor([index], device="cpu")))


def _heights(curve: Curve) -> np.ndarray:
    return curve.normalized.double().nan_to_num().numpy()


def _describe(kind: str, curve: Curve | None, result: Curves, of: Kind) -> str:
    if curve is None:
        return f"{kind.capitalize()}: not computed yet."
    if curve.area != curve.area:
        return f"{kind.capitalize()}: undefined, as the {of.noun} scores no higher than with all {of.feature}s removed."
    text = f"{kind.capitalize()}: area {number(curve.area)}"
    chance = [drawn.area for drawn in result.chance[kind]]  # type: ignore[index]
    if chance:
        better = sum(curve.area < area if kind == "deletion" else curve.area > area for area in chance)
        text += (
            f", {number(min(chance))} to {number(max(chance))} for maps moved at random: better than {better} of "
            f"{len(chance)}"
        )
    others = [f"{name} {number(c.area)}" for name, c in result.others[kind].items()]  # type: ignore[index]
    return text + (f". Other maps: {', '.join(others)}." if others else ".")
