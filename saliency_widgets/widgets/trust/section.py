"""What each test of the panel is: a title, its widgets, what it asks, and how an answer is shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import ipywidgets as w

from saliency_widgets.engine.case import Case
from saliency_widgets.engine.examiner import Check


class Section(Protocol):
    """One test of the panel.

    Attributes:
        name: Of its check.
        title: For people.
        widget: What is seen.
        ask: To be called when a control of the section was moved.
    """

    name: str
    title: str
    widget: w.VBox
    ask: Callable[[], None]

    def check(self, case: Case) -> Check | None:
        """What is to be asked of this map; None where nothing is."""
        ...

    def show(self, found: Any, case: Case) -> None:
        """Show an answer, or a part of one; called on the worker's thread, with display widgets only."""
        ...
