"""The table explorer: the attributions of a row as ranked bars on the left, live controls on the right."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

import ipywidgets as w
import numpy as np
import torch
from torch import Tensor

from saliency_widgets import render
from saliency_widgets.attribution import Attribution
from saliency_widgets.attribution.baselines import BASELINE
from saliency_widgets.attribution.score import probabilities
from saliency_widgets.diagnostics.report import Finding
from saliency_widgets.markup import Markup, element, joined
from saliency_widgets.params import brief
from saliency_widgets.session import Event, Problem
from saliency_widgets.session.explanation import labels_of
from saliency_widgets.widgets.base.bars import FeatureBars, top_of, value_text
from saliency_widgets.widgets.base.charts import INK, QUIET
from saliency_widgets.widgets.base.heatmap import HeatmapView
from saliency_widgets.widgets.base.kind_view import Explored, KindView, Setup
from saliency_widgets.widgets.base.panel import section
from saliency_widgets.widgets.base.text import RichText
from saliency_widgets.widgets.export.static_output import Snapshot
from saliency_widgets.widgets.table.panel import BaselineControl, TablePanel, check_baseline
from saliency_widgets.widgets.table.what_if import WhatIf
from saliency_widgets.widgets.trust import Context, TrustPanel

_BARS = 640  # pixels: width of the bars in a snapshot


class TableView(KindView):
    """The view of a row of a table, which shows the features that the model's output depends on.

    Args:
        problem: The model and the row.
        setup: The initial settings; its ``params`` can include "top", the number of bars.

    Attributes:
        panel: The controls.
        bars: The ranked bars.
        what_if: The controls that edit the features' values.
    """

    noun = "a row of a table"

    def __init__(self, problem: Problem, setup: Setup) -> None:
        super().__init__(problem, setup)
        table = problem.table
        assert table is not None
        if len(table.rows) != 1:
            raise ValueError(
                f"inputs: the explorer shows one row, got {len(table.rows)}. Pass one of them, such as df.iloc[[0]], "
                f"and the others as background=."
            )
        params = dict(setup.params)
        top = top_of(len(table.names)).check(params.pop("top")) if "top" in params else None
        if hasattr(params.get("baseline"), "iloc"):
            check_baseline(table, params["baseline"])
        self._labels = partial(labels_of, setup.labels, score=setup.panel["score"])
        self._labels(problem)  # raises for invalid labels
        self.panel = TablePanel(problem, params=params, **setup.panel)
        self.bars = FeatureBars(table.names, self._on_bar, top=top)
        self._table = self._read = self._first = table  # the displayed, the edited and the original row
        self._editing = threading.RLock()  # each edit starts from the result of the previous one
        self._before: tuple[Any, Tensor] | None = None  # the model's version and its logits for the original row
        self._predicted = RichText()

    def build(self, explorer: Explored) -> Sequence[w.Widget]:
        """Create the what-if controls, the status below the bars, and the trust tests."""
        self._explorer, panel, table = explorer, self.panel, self._first
        self.what_if = WhatIf(table, self._on_edit)
        controls = [*panel.controls, *self.bars.controls, *self.what_if.controls]
        session = explorer.session  # the trust panel's worker must not refer to the explorer
        self.view = HeatmapView(None, None, on_stop=session.stop, controls=controls)
        self.what_if.on_new_control = self.view.add_controls
        makers = {BASELINE: partial(BaselineControl, table)}
        context = Context(self.problem.kind, self.view, self.problem.baselines, makers, table, self.bars, self._labels)
        self.trust = TrustPanel(context, busy=lambda: session.busy, executor=self.setup.executor)
        column = panel.widget
        column.children = (*column.children[:-1], section("What if", [self.what_if.widget]), column.children[-1])
        shown = w.VBox([self._predicted, self.bars.widget, self.view])
        shown.layout.flex, shown.layout.min_width, shown.layout.max_width = "3 1 380px", "320px", "900px"
        return shown, column, self.trust.widget

    @property
    def row(self) -> Any:
        """The explained row with all edits, a DataFrame of one row."""
        return self._read.rows.copy()

    def edit(self, values: Mapping[str, Any]) -> None:
        """Change values of the row."""
        with self._editing:
            table = self._read.with_values(values)
            self._read = table
            self.problem.move(table)
            self._explorer.arguments["inputs"] = table.rows
            edits = {name: table.rows.iloc[0, table.column_index[name]] for name in values}
            self.what_if.set_values({k: v.item() if isinstance(v, np.generic) else v for k, v in edits.items()})
            self._explorer.submit()

    @property
    def stored(self) -> Mapping[str, Any]:
        """The row, including edits."""
        return {"row": self._explorer.arguments["inputs"]}

    def restore(self, state: Mapping[str, Any]) -> Callable[[], object]:
        """Set the values that differ in the row of a state, and return a function that undoes it."""
        now, stored = self.row, state["row"]
        if list(map(str, stored.columns)) != list(map(str, now.columns)):
            raise ValueError(f"path: the saved row has the columns {list(stored.columns)}, not {list(now.columns)}.")
        pairs = zip(map(str, now.columns), stored.iloc[0], now.iloc[0], strict=True)
        changed = {name: (saved, shown) for name, saved, shown in pairs if saved != shown}
        if not changed:
            return super().restore(state)
        self.edit({name: saved for name, (saved, _) in changed.items()})
        return lambda: self.edit({name: shown for name, (_, shown) in changed.items()})

    @classmethod
    def arguments(cls, state: Mapping[str, Any], inputs: Any, further: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Return the row; the caller must pass its transform."""
        attribution = state["attribution"]
        if attribution.transformed and "transform" not in further:
            raise ValueError(
                "transform: the row was transformed, but functions are not stored. Pass the original transform=."
            )
        return state["row"] if inputs is None else inputs, {}

    def save_html(self, path: Any, record: Mapping[str, Any] | None, **options: Any) -> NoReturn:
        """Raise an error, because bqplot, which draws the bars, needs a notebook."""
        raise NotImplementedError(
            f"save_html: bars can't be drawn without a kernel, so {brief(path)} was not written. "
            "explorer.save_state(path) stores everything for sw.load, explorer.by_feature() returns a table, and the "
            "notebook can be saved with its widgets."
        )

    def _on_bar(self, column: int) -> None:
        with self._editing:
            self.what_if.choose(column)

    def _on_edit(self, name: str, value: Any) -> bool:
        try:
            self.edit({name: value})
        except (TypeError, ValueError) as error:
            self._explorer.refuse(error)
            return False
        return True

    def show(self, event: Event) -> None:
        """Show the bars, the prediction and the sum of the bars."""
        attribution = event.attribution
        if attribution is None or event.state not in ("running", "done"):
            return
        table = self.problem.table_of(event.version) or self._table
        self._table = table
        texts = [value_text(value) for value in table.rows.iloc[0]]
        self.bars.show(attribution.by_feature().iloc[0].to_numpy(), texts, final=event.state == "done")
        logits = self.problem.predicted_at(event.version)
        if logits is not None:
            self.panel.predicted(logits[0])
            number = None if event.version is None else event.version[0]
            if torch.equal(table.tensor, self._first.tensor):
                self._before = number, logits[0]
            elif self._before is not None and self._before[0] != number:
                self._before = None  # it belongs to another version of the model
        self._predicted.value = self._prediction_text(attribution, logits)
        self.bars.say(self._sum_text(attribution))

    def comments(self) -> list[str]:
        """Return comments on the edits and on the background row that is the baseline."""
        lines = []
        if self.what_if.changed:
            edits = (f"{name!r} = {value!r}" for name, value in self.what_if.changed.items())
            lines.append(f"# inputs with {', '.join(edits)}")
        if self.panel.baseline_row is not None:
            row, is_frame = self.panel.baseline_row, hasattr(self.problem.options["background"], "iloc")
            lines.append(
                f"# baseline = background.iloc[[{row}]]" if is_frame else f"# baseline: row {row} of background"
            )
        return lines

    def checkup_version(self, version: tuple) -> Any:
        """Return the model's version, because the findings do not depend on the row."""
        return version[0]

    def relevant(self, findings: Sequence[Finding]) -> Sequence[Finding]:
        """Return the findings that concern all methods or some method in the menu."""
        menu = self.panel.titles
        return [finding for finding in findings if not finding.methods or {*finding.methods} & {*menu}]

    def snapshot(self, lines: Callable[..., list[str]]) -> Snapshot:
        """Return the ranked bars with the texts around them."""
        bars = self.bars.shown
        return Snapshot(lines(), (lambda share: render.draw_bars(bars, round(_BARS * share))) if bars else None)

    def snapshot_sources(self) -> Mapping[w.Widget, Sequence[str]]:
        """Return the control for the number of bars."""
        return dict.fromkeys(self.bars.top.leaves, ("value",))

    def _prediction_text(self, attribution: Attribution, logits: Tensor | None) -> Markup:
        """Format the model's prediction for the row."""
        score = None if attribution.score is None else float(attribution.score[0])
        index = attribution.settings["target"]
        parts: list[str] = []
        before = None if self._before is None or not self.what_if.changed else self._before[1]
        task = self.problem.task(attribution.settings["score"])
        if isinstance(index, int) and task.shares and logits is not None:
            now = float(probabilities(logits[:1].double().cpu())[0, index])
            name = "the positive class" if logits.shape[1] == 1 and self.problem.class_names is None else None
            parts.append(element("b", f"{name or task.label(index)} {now:.1%}"))
            if before is not None:
                was = float(probabilities(before[None].double().cpu())[0, index])
                parts.append(f"was {was:.1%} before the changes")
            if other := task.opposite(index):
                parts.append(f"{other} {1 - now:.1%}")
        if score is not None:
            name = attribution.settings["score"].replace("_", " ")
            if not task.shares:
                named = task.class_names is not None and isinstance(index, int)
                what = task.label(index) if named else "Prediction"
                parts.insert(0, element("b", f"{what} {score:.4g}"))
                if before is not None and isinstance(index, int):
                    was = before[index] - before[1 - index] if task.paired else before[index]
                    parts.append(f"was {float(was):.4g} before the changes")
            else:
                parts.append(f"{name} {score:.4g}")
        text = joined(parts, joined([" ", element("span", "·", style=f"color:{QUIET}"), " "]))
        return element("div", text, class_="sw-predicted", style=f"color:{INK};line-height:1.5")

    def _sum_text(self, attribution: Attribution) -> Markup:
        """Format the meaning of the colors, and the sum of the bars if they add up to a change of the score."""
        index, task = attribution.settings["target"], self.problem.task(attribution.settings["score"])
        named = isinstance(index, int) and task.class_names is not None
        name = task.label(index) if named else "a higher score" if task.shares else "a higher prediction"
        opposite = task.opposite(index)
        other = f" ({opposite})" if opposite else ""
        text = f"Orange is evidence for {name}, blue against it{other}. "
        total = float(attribution.values[0].double().sum())
        if attribution.delta is None or attribution.score is None:
            text += "These bars don't add up to the score: each value is a slope per unit of the model's input."
        else:
            score = float(attribution.score[0])
            start = score - (total - float(attribution.delta[0]))
            text += f"The bars add up to {total:+.4g}: from {start:.4g} at the baseline to {score:.4g}."
        return element("div", text, class_="sw-sum", style=f"color:{QUIET};line-height:1.4")


VIEW = TableView
