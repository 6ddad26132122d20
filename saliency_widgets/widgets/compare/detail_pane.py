"""What stands below a grid: the explorer of the cell that was clicked."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets as w

from saliency_widgets.markup import element
from saliency_widgets.widgets.base.parts import close_whole
from saliency_widgets.widgets.base.text import RichText
from saliency_widgets.widgets.image.explorer import Explorer


class Beneath:
    """The place of an explorer below a grid; it holds one at a time.

    Args:
        on_shut: Called when it was closed.

    Attributes:
        widget: The place.
    """

    def __init__(self, on_shut: Callable[[], None]) -> None:
        # The page hides it while it is empty, and not before: bqplot needs a size to draw into until it is gone.
        self.widget = w.VBox(layout={"flex": "1 1 100%", "overflow": "visible"}).add_class("sw-beneath")
        self._explorer: Explorer | None = None
        self._on_shut = on_shut

    def show(self, explorer: Explorer, name: str) -> str:
        """Show an explorer instead of the last one. Returns the class by which the page finds it."""
        old, left = self.widget.children[:1], self._explorer
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
        if left is not None:
            left.close()
        return mark

    def shut(self) -> None:
        """Close the explorer."""
        found, self._explorer = self._explorer, None
        if found is None:
            return
        heading = self.widget.children[0]
        self.widget.children = []
        close_whole(heading)
        found.close()
        self._on_shut()
