"""The table explorer: a row's attributions as ranked bars on the left, live controls on the right."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import ipywidgets as w
import numpy as np
import torch
from torch import Tensor, nn

from saliency_widgets.attribution import Attribution, Reduction
from saliency_widgets.attribution.arrays import check_dense
from saliency_widgets.attribution.registry import DEFAULT
from saliency_widgets.attribution.score import SCORE, probabilities
from saliency_widgets.diagnostics.report import Finding
from saliency_widgets.inputs import is_table, read_table
from saliency_widgets.markup import Markup, element, joined
from saliency_widgets.params import brief, check_list
from saliency_widgets.session import Event, Problem
from saliency_widgets.session.explanation import Case, labels_of
from saliency_widgets.session.worker import check_executor
from saliency_widgets.widgets.base.charts import INK, QUIET
from saliency_widgets.widgets.base.explorer import BaseExplorer
from saliency_widgets.widgets.base.heatmap import HeatmapView
from saliency_widgets.widgets.base.panel import section
from saliency_widgets.widgets.base.text import RichText
from saliency_widgets.widgets.export import snapshots
from saliency_widgets.widgets.export.static_output import Snapshot
from saliency_widgets.widgets.table.bars import FeatureBars, top_of, value_text
from saliency_widgets.widgets.table.panel import TablePanel, check_baseline
from saliency_widgets.widgets.table.trust import TableTrust
from saliency_widgets.widgets.table.what_if import WhatIf


def is_row(inputs: Any, background: Any, feature_names: Any, transform: Any) -> bool:
    """Return whether the inputs are a row of numbers and not an image."""
    if is_table(inputs, background, feature_names, transform):
        return True
    if isinstance(inputs, list):
        return bool(inputs) and all(isinstance(item, (int, float)) for item in inputs)
    if not isinstance(inputs, (Tensor, np.ndarray)) or transform is not None:
        return False
    if isinstance(inputs, Tensor):
        check_dense(inputs, "inputs")
    flat = inputs.ndim == 1 or (inputs.ndim == 2 and len(inputs) == 1)
    return flat and inputs.dtype not in (torch.uint8, np.uint8)


class TableExplorer(BaseExplorer):
    """Shows which features of a row moved the model's output. See :func:`explore` for the arguments.

    Attributes:
        panel: The controls.
        bars: The ranked bars.
        what_if: The controls that edit the features' values.
        view: Progress, readings, the check-up and errors.
        trust: The tests of the displayed attributions.
    """

    kind = "row"
    panel: TablePanel

    def __init__(
        self,
        model: nn.Module,
        inputs: Any,
        *,
        target: Any = None,
        transform: Any = None,
        class_names: Any = None,
        feature_names: Sequence[str] | None = None,
        background: Any = None,
        labels: Any = None,
        device: torch.device | str | None = None,
        method: Any = DEFAULT,
        methods: Iterable[Any] = (),
        score: str = SCORE.default,
        fold: bool = True,
        precision: str | None = None,
        cuda_graphs: bool = False,
        executor: str = "thread",
        top: int | None = None,
        **params: Any,
    ) -> None:
        check_executor(executor)
        table = read_table(inputs, background, feature_names=feature_names, transform=transform)
        if len(table.rows) != 1:
            raise ValueError(
                f"inputs: the explorer shows one row, got {len(table.rows)}. Pass one of them, such as df.iloc[[0]], "
                f"and the others as background=."
            )
        problem = Problem(
            model, table, transform=transform, class_names=class_names, feature_names=feature_names,
            background=background, device=device, fold=fold, precision=precision, cuda_graphs=cuda_graphs,
        )  # fmt: skip
        if hasattr(params.get("baseline"), "iloc"):
            check_baseline(table, params["baseline"])
        methods = [methods] if isinstance(methods, str) else check_list("methods", methods, "['gradient']")
        valued = score == "value"
        labels_of(labels, problem, value=valued)  # wrong labels raise in this call
        top = None if top is None else top_of(len(table.names)).check(top)
        panel = TablePanel(problem, method=method, target=target, score=score, params=params, more=methods)
        bars = FeatureBars(table.names, self._on_bar, top=top)
        arguments = {"model": model, "inputs": table.rows, "transform": transform, "class_names": class_names}
        self._table = self._read = self._first = table  # as shown, as edited, and as passed
        self._editing = threading.RLock()  # each edit starts from the row that the last one left
        # For the original row: the model's version and the logits.
        self._before: tuple[Any, Tensor] | None = None
        self.bars = bars
        self._predicted = RichText()
        super().__init__(problem, panel, executor, **arguments)
        self.what_if = WhatIf(table, self._on_edit)
        controls = [*panel.controls, *self.bars.controls, *self.what_if.controls]
        self.view = HeatmapView(None, None, on_stop=self._session.stop, controls=controls)
        self.what_if.on_new_control = self.view.add_controls
        session = self._session  # the panel's worker must not refer to the explorer
        self.trust = TableTrust(
            self.view, table, labels, bars, value=valued, busy=lambda: session.busy, executor=executor
        )  # fmt: skip
        self.trust.widget.layout.flex = "1 1 100%"
        column = panel.widget
        column.children = (*column.children[:-1], section("What if", [self.what_if.widget]), column.children[-1])
        shown = w.VBox([self._predicted, self.bars.widget, self.view])
        shown.layout.flex, shown.layout.min_width, shown.layout.max_width = "3 1 380px", "320px", "900px"
        self._begin(shown, column, self.trust.widget)

    @property
    def row(self) -> Any:
        """The explained row including edits: a DataFrame of one row."""
        return self._read.rows.copy()

    def edit(self, /, **values: Any) -> None:
        """Change values of the row: ``explorer.edit(age=40)``, or ``explorer.edit(**{"mean radius": 9})``.

        Args:
            **values: Values by column name.

        Raises:
            ValueError: An unknown column, or a value that can't be used. Nothing is changed then.
        """
        with self._editing:
            table = self._read.with_values(values)
            self._read = table
            self._problem.move(table)
            self._arguments["inputs"] = table.rows
            edits = {name: table.rows.iloc[0, table.column_index[name]] for name in values}
            self.what_if.set_values({k: v.item() if isinstance(v, np.generic) else v for k, v in edits.items()})
            self._submit(self.panel.request())

    def save_html(self, path: Any, **_arguments: Any) -> NoReturn:
        """Not available for rows: their bars are drawn by bqplot, which needs a notebook.

        Raises:
            NotImplementedError: Always; the message names the alternatives.
        """
        raise NotImplementedError(
            f"save_html: a page without a kernel can't draw the bars, so {brief(path)} was not written. "
            "explorer.save_state(path) stores everything for sw.load, explorer.by_feature() is a table, and the "
            "notebook can be stored with its widgets."
        )

    def by_feature(self) -> Any:
        """Return the finished attributions by feature, a pandas Series, largest first."""
        values = self.wait().by_feature().iloc[0]
        return values.sort_values(key=np.abs, ascending=False, kind="stable").rename("attribution")

    def _on_bar(self, column: int) -> None:
        with self._editing:
            self.what_if.choose(column)

    def _on_edit(self, name: str, value: Any) -> bool:
        try:
            self.edit(**{name: value})
        except (TypeError, ValueError) as error:
            self._on_wrong(error)
            return False
        return True

    def _on_event(self, event: Event) -> None:
        attribution = event.attribution
        if attribution is not None and event.state in ("running", "done"):
            table = self._problem.table_of(event.version) or self._table
            self._table = table
            texts = [value_text(value) for value in table.rows.iloc[0]]
            self.bars.show(attribution.by_feature().iloc[0].to_numpy(), texts, final=event.state == "done")
            logits = self._problem.predicted_at(event.version)
            if logits is not None:
                self.panel.predicted(logits[0])
                number = None if event.version is None else event.version[0]
                if torch.equal(table.tensor, self._first.tensor):
                    self._before = number, logits[0]
                elif self._before is not None and self._before[0] != number:
                    self._before = None  # another model's
            self._predicted.value = self._prediction_text(attribution, logits)
            self.bars.say(self._sum_text(attribution))
        super()._on_event(event)

    def _snapshot(self) -> Snapshot:
        return snapshots.of_table(self)

    def _snapshot_sources(self) -> Mapping[w.Widget, Sequence[str]]:
        return {**super()._snapshot_sources(), **dict.fromkeys(self.bars.top.leaves, ("value",))}

    def _case_of(self, event: Event) -> Case | None:
        if event.state != "done" or event.attribution is None or event.request is None:
            return None
        session = self._session
        signed = Reduction("signed")
        return Case(
            self._problem, event.request, event.attribution, signed, event.version, session.cache, session.owner
        )

    def _code_of(self, attribution: Attribution | None) -> str:
        code = super()._code_of(attribution)
        lines = []
        if self.what_if.changed:
            edits = (f"{name!r} = {value!r}" for name, value in self.what_if.changed.items())
            lines.append(f"# inputs with {', '.join(edits)}")
        if self.panel.baseline_row is not None:
            row, is_frame = self.panel.baseline_row, hasattr(self._problem.options["background"], "iloc")
            lines.append(
                f"# baseline = background.iloc[[{row}]]" if is_frame else f"# baseline: row {row} of background"
            )
        return "\n".join([*lines, code])

    def _looked_at(self, version: tuple) -> Any:
        return version[0]  # the model: its findings don't depend on the row

    def _concerning(self, findings: Sequence[Finding]) -> Sequence[Finding]:
        menu = self.panel.titles
        return [finding for finding in findings if not finding.methods or {*finding.methods} & {*menu}]

    def _prediction_text(self, attribution: Attribution, logits: Tensor | None) -> Markup:
        """Format the model's prediction for the row."""
        score = None if attribution.score is None else float(attribution.score[0])
        index = attribution.settings["target"]
        parts: list[str] = []
        before = None if self._before is None or not self.what_if.changed else self._before[1]
        valued = attribution.settings["score"] == "value"
        if isinstance(index, int) and not valued and logits is not None:
            now = float(probabilities(logits[:1].double().cpu())[0, index])
            name = "the positive class" if logits.shape[1] == 1 and self._problem.class_names is None else None
            parts.append(element("b", f"{name or self._problem.name_of(index)} {now:.1%}"))
            if before is not None:
                was = float(probabilities(before[None].double().cpu())[0, index])
                parts.append(f"was {was:.1%} before the changes")
            if other := self._opposite(index):
                parts.append(f"{other} {1 - now:.1%}")
        if score is not None:
            name = attribution.settings["score"].replace("_", " ")
            if valued:
                named = self._problem.class_names is not None and isinstance(index, int)
                what = self._problem.name_of(index) if named else "Prediction"
                parts.insert(0, element("b", f"{what} {score:.4g}"))
                if before is not None and isinstance(index, int):
                    was = before[index] - before[1 - index] if self._problem.paired else before[index]
                    parts.append(f"was {float(was):.4g} before the changes")
            else:
                parts.append(f"{name} {score:.4g}")
        text = joined(parts, joined([" ", element("span", "·", style=f"color:{QUIET}"), " "]))
        return element("div", text, class_="sw-predicted", style=f"color:{INK};line-height:1.5")

    def _opposite(self, target: Any) -> str:
        """Return the name of the other class if one logit stands for two classes, else an empty string."""
        names = self._problem.class_names
        return names[1 - target] if self._problem.paired and names and isinstance(target, int) else ""

    def _sum_text(self, attribution: Attribution) -> Markup:
        """Format the meaning of the colors, and the sum of the bars if it means something."""
        index, problem = attribution.settings["target"], self._problem
        named = isinstance(index, int) and problem.class_names is not None
        valued = attribution.settings["score"] == "value"
        name = problem.name_of(index) if named else "a higher prediction" if valued else "a higher score"
        opposite = self._opposite(index)
        other = f" ({opposite})" if opposite else ""
        text = f"Orange is evidence for {name}, blue against it{other}. "
        total = float(attribution.values[0].double().sum())
        if attribution.delta is None or attribution.score is None:
            text += "These bars don't add up to the score: a slope is per unit of the model's input."
        else:
            score = float(attribution.score[0])
            start = score - (total - float(attribution.delta[0]))
            text += f"The bars add up to {total:+.4g}: from {start:.4g} at the baseline to {score:.4g}."
        return element("div", text, class_="sw-sum", style=f"color:{QUIET};line-height:1.4")
