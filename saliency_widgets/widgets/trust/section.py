"""The base class of the panel's tests: a title, controls, the check that they request, and its display."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import ipywidgets as w

from saliency_widgets.evaluation.fills import FILL, NEIGHBORS
from saliency_widgets.session.examiner import Check
from saliency_widgets.session.explanation import Case
from saliency_widgets.widgets.base.charts import explanation, result_line
from saliency_widgets.widgets.base.controls import Control
from saliency_widgets.widgets.base.text import RichText


def fill_control(baselines: Sequence[str]) -> Control:
    """Create the menu of fills for removed pixels, restricted to those that apply to the image."""
    names = [name for name in FILL.options() if name in (NEIGHBORS, *baselines)]
    return Control(FILL, options={name: name for name in names})


class Section:
    """One test of the panel.

    Args:
        *controls: The test's controls.

    Attributes:
        name: The name of the check.
        title: The title of the tab.
        waiting: The text before there is a result.
        how: How to read the chart.
        controls: The test's controls.
        asides: Further widgets, which don't request a check.
        widget: The section's widget, made by :meth:`lay_out`.
        ask: Called when a control was moved.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    waiting: ClassVar[str]
    how: ClassVar[str]
    widget: w.VBox
    asides: tuple[w.Widget, ...] = ()

    def __init__(self, *controls: Control) -> None:
        self.ask: Callable[[], None] = lambda: None
        self.controls = controls
        self._said = RichText(result_line(self.waiting))
        for control in controls:
            control.observe(lambda control=control: self.moved(control))

    def lay_out(self, *parts: w.Widget) -> None:
        """Lay out the parts below the controls and the result; the controls are as wide as those of the map."""
        controls = w.VBox([*(control.widget for control in self.controls), *self.asides], layout={"max_width": "460px"})
        self.widget = w.VBox([controls, self._said, *parts, explanation(self.how)])

    @property
    def leaves(self) -> list[w.Widget]:
        """The widgets that the user operates."""
        return [*(leaf for control in self.controls for leaf in control.leaves), *self.asides]

    def moved(self, control: Control) -> None:  # noqa: ARG002
        """Handle a moved control."""
        self.ask()

    def check(self, case: Case) -> Check | None:
        """Return the check for this map; None if there is nothing to check."""
        raise NotImplementedError

    def show(self, result: Any, case: Case) -> None:
        """Show a full or partial result; called on the worker's thread, may touch only display widgets."""
        raise NotImplementedError
