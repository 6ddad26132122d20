"""What each test of the panel is: a title, its controls, what it asks, and how an answer is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import ipywidgets as w

from saliency_widgets.evaluation.fills import FILL, NEIGHBORS
from saliency_widgets.session.examiner import Check
from saliency_widgets.session.explanation import Case
from saliency_widgets.widgets.base.charts import said, sentence
from saliency_widgets.widgets.base.controls import Control
from saliency_widgets.widgets.base.text import RichText


def fill_control(baselines: Sequence[str]) -> Control:
    """The menu of what is put where something is taken away: what means something for the image."""
    names = [name for name in FILL.options() if name in (NEIGHBORS, *baselines)]
    return Control(FILL, options={name: name for name in names})


class Section:
    """One test of the panel.

    Args:
        *controls: What is moved in it.

    Attributes:
        name: Of its check.
        title: For people.
        waiting: What is said before there is an answer.
        how: How the chart is read.
        controls: What is moved in it.
        asides: What is moved besides, and asks nothing.
        widget: What is seen; made by :meth:`lay_out`.
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
        self._said = RichText(said(self.waiting))
        for control in controls:
            control.observe(lambda control=control: self.moved(control))

    def lay_out(self, *parts: w.Widget) -> None:
        """Put what is shown under the controls and the answer; the controls are as wide as those beside the map."""
        moved = w.VBox([*(control.widget for control in self.controls), *self.asides], layout={"max_width": "460px"})
        self.widget = w.VBox([moved, self._said, *parts, sentence(self.how)])

    @property
    def leaves(self) -> list[w.Widget]:
        """The widgets that send what a person does."""
        return [*(leaf for control in self.controls for leaf in control.leaves), *self.asides]

    def moved(self, control: Control) -> None:  # noqa: ARG002
        """A control was moved."""
        self.ask()

    def check(self, case: Case) -> Check | None:
        """What is to be asked of this map; None where nothing is."""
        raise NotImplementedError

    def show(self, found: Any, case: Case) -> None:
        """Show an answer, or a part of one; called on the worker's thread, with display widgets only."""
        raise NotImplementedError
