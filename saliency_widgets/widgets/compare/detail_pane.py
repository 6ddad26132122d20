"""The pane below a grid: an explorer of the clicked cell."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets as w

from saliency_widgets.markup import element
from saliency_widgets.widgets.base.parts import close_whole
from saliency_widgets.widgets.base.text import RichText
from saliency_widgets.widgets.explorer import Explorer


class DetailPane:
    """A pane below a grid that holds one explorer at a time.

    Args:
        on_shut: Called when the explorer was closed.

    Attributes:
        widget: The pane.
    """

    def __init__(self, on_shut: Callable[[], None]) -> None:
        # The page hides the pane only when it is empty: bqplot needs a size to draw into until the explorer is gone.
        self.widget = w.VBox(layout={"flex": "1 1 100%", "overflow": "visible"}).add_class("sw-beneath")
        self._explorer: Explorer | None = None
        self._on_shut = on_shut

    def show(self, explorer: Explorer, name: str) -> str:
        """Replace the explorer. Returns the CSS class by which the page finds it."""
        old, previous = self.widget.children[:1], self._explorer
        mark = f"sw-opened-{explorer.model_id}"
        shut = w.Button(description="Close the explorer")
        shut.on_click(lambda _button: self.shut())
        words = RichText(element("b", name, style="overflow-wrap:anywhere"), layout={"min_width": "0"})
        heading = w.HBox([words, shut], layout={"align_items": "center", "flex_flow": "row wrap"})
        explorer.add_class(mark)
        self._explorer = explorer
        self.widget.children = [heading, explorer]
        for child in old:
            close_whole(child)
        if previous is not None:
            previous.close()
        return mark

    def shut(self) -> None:
        """Close the explorer."""
        explorer, self._explorer = self._explorer, None
        if explorer is None:
            return
        heading = self.widget.children[0]
        self.widget.children = []
        close_whole(heading)
        explorer.close()
        self._on_shut()
