"""A tab of the panel: a test's controls, its result and how to read it. Subclasses draw the results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import ipywidgets as w
from torch import Tensor

from saliency_widgets.attribution import Kind
from saliency_widgets.attribution.baselines import BASELINE
from saliency_widgets.evaluation.fills import FILL, NEIGHBORS
from saliency_widgets.evaluation.registry import TrustTest
from saliency_widgets.inputs import Table
from saliency_widgets.markup import joined
from saliency_widgets.outputs.task import Loss
from saliency_widgets.params import Param
from saliency_widgets.session import Problem
from saliency_widgets.session.examiner import Check
from saliency_widgets.session.explanation import FinishedMap, unlabeled
from saliency_widgets.widgets.base.bars import FeatureBars
from saliency_widgets.widgets.base.charts import explanation, number, result_line
from saliency_widgets.widgets.base.controls import Control
from saliency_widgets.widgets.base.heatmap import HeatmapView
from saliency_widgets.widgets.base.text import RichText


@dataclass(frozen=True, eq=False)
class Context:
    """The parts of an explorer that the tests of its panel can use.

    Attributes:
        kind: The kind of input.
        view: The view of the map.
        baselines: The names of the baselines that apply to the input, starting with the default.
        makers: Functions that create the controls that depend on the input, by parameter.
        table: The row and its background.
        bars: The bars of the row's attributions, on which tests show markers.
        labels: Returns the labels of the background's rows and their loss.
        shape: The shape of a map and of a region of the input; None if they are those of the painted map.
    """

    kind: Kind
    view: HeatmapView
    baselines: Sequence[str] = ()
    makers: Mapping[Param, Callable[[], Control]] = field(default_factory=dict)
    table: Table | None = None
    bars: FeatureBars | None = None
    labels: Callable[[Problem], tuple[Tensor | None, Loss]] = unlabeled
    shape: tuple[int, ...] | None = None

    def control(self, param: Param) -> Control:
        """Create the control for a parameter; menus of baselines and fills list those that apply to the input."""
        if param in self.makers:
            return self.makers[param]()
        if param is FILL:
            fills = (*self.baselines, *([NEIGHBORS] if self.kind.interpolated else []))
            names = [name for name in FILL.options() if name in fills]
            return Control(param, self.kind.default_fill, options={name: name for name in names})
        names = self.baselines if param is BASELINE else ()
        return Control(param, options={name: name for name in names})

    def missing(self, test: TrustTest) -> str:
        """Return a message about an input that a test needs and the explorer lacks; empty if nothing is missing."""
        if "background" in test.needs and (self.table is None or self.table.background is None):
            return "This test needs other rows. Pass some training data as background= to sw.explore."
        return ""


class Section:
    """A tab for one test; this base class lists the numbers of tests that have no other view.

    Args:
        test: The test.
        context: The parts of the explorer that the test can use.

    Attributes:
        view: The name by which tests select this class.
        waiting: The text to show until the first result.
        controls: The controls of the test's parameters, by name.
        asides: Other interactive widgets.
        region: The marked region, or the share of the map's largest values; None if nothing is marked.
        widget: The whole tab.
        ask: Called when a control has moved, to run the test again.
        others: Returns the other maps computed so far, by title.
    """

    view: ClassVar[str] = "numbers"
    waiting: ClassVar[str] = "The result appears as soon as the map is finished."

    def __init__(self, test: TrustTest, context: Context) -> None:
        self.test, self.context = test, context
        self.controls = {param.name: context.control(param) for param in test.params if not param.advanced}
        self.asides: tuple[w.Widget, ...] = ()
        self.region: Tensor | float | None = None
        self.ask: Callable[[], None] = lambda: None
        self.others: Callable[[], Mapping[str, FinishedMap]] = dict
        self._said = RichText(result_line(context.missing(test) or self.waiting))
        for control in self.controls.values():
            control.observe(lambda: self.ask())
        parts = self._make_parts()
        # The controls have the same width as those of the map.
        controls = [*(control.widget for control in self.controls.values()), *self.asides]
        self.widget = w.VBox([
            w.VBox(controls, layout={"max_width": "460px"}), self._said, *parts,
            explanation(test.reading(context.kind)),
        ])  # fmt: skip

    def _make_parts(self) -> Sequence[w.Widget]:
        """Create the widgets to display below the controls and the result."""
        return ()

    @property
    def leaves(self) -> list[w.Widget]:
        """The interactive widgets."""
        return [*(leaf for control in self.controls.values() for leaf in control.leaves), *self.asides]

    def check(self, shown: FinishedMap) -> Check | None:
        """Return the check of this map; None if a region or an input that the test needs is missing."""
        marked = bool(self.region.any()) if isinstance(self.region, Tensor) else self.region is not None
        if self.context.missing(self.test) or ("region" in self.test.needs and not marked):
            return None
        values = {name: control.value for name, control in self.controls.items()}
        return shown.check(self.test, values, region=self.region, others=self.others(), labels=self.context.labels)

    def say(self, *lines: str) -> None:
        """Show the result as lines of text."""
        self._said.value = joined(result_line(line, strong=True) for line in lines)

    def show(self, result: Any, shown: FinishedMap) -> None:  # noqa: ARG002
        """Show a full or partial result; called on the worker's thread, so it may change only display widgets."""
        lines = []
        for name, read in [pair for columns in self.test.columns for pair in columns.numbers.items()]:
            try:
                value = number(read(result))
            except ValueError as error:
                value = str(error)
            lines.append(f"{name.replace('_', ' ').capitalize()}: {value}")
        self.say(*(lines or [str(result)]))
