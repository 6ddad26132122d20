"""The pane below a grid: an explorer of the clicked cell."""

from __future__ import annotations

from typing import Any

import ipywidgets as w

from saliency_widgets.api.compare import Cell, Comparison
from saliency_widgets.markup import element
from saliency_widgets.session.worker import worker_error
from saliency_widgets.widgets.base.messages import error_text
from saliency_widgets.widgets.base.parts import close_whole
from saliency_widgets.widgets.base.text import RichText
from saliency_widgets.widgets.compare.grid import GridView
from saliency_widgets.widgets.explorer import Explorer


class DetailPane:
    """A pane below a grid that holds one explorer at a time.

    Args:
        comparison: The comparison that the grid shows.
        view: The grid, which reports the opened map or an error.
        executor: The explorer's executor.

    Attributes:
        widget: The pane.
    """

    def __init__(self, comparison: Comparison, view: GridView, executor: str) -> None:
        self._comparison, self._view, self._executor = comparison, view, executor
        # The page hides only an empty pane, because bqplot needs a size to draw into until the explorer is closed.
        self.widget = w.VBox(layout={"flex": "1 1 100%", "overflow": "visible"}).add_class("sw-beneath")
        self._explorer: Explorer | None = None

    def open(self, cell: Cell, **settings: Any) -> None:
        """Open the map of a cell in an explorer, replacing the previous explorer.

        Args:
            cell: The cell.
            **settings: The reduction and display settings.
        """
        comparison = self._comparison
        if comparison.contrast is not None:
            self._say("An explorer shows one class, but these maps show the difference of two (contrast=).")
            return
        name, request = comparison.name(cell), comparison.request(cell)
        model, inputs, method = (
            comparison.axes[axis].values[index]
            for axis, index in (("models", cell.models), ("inputs", cell.inputs), ("methods", cell.methods))
        )
        explain = comparison.problem(cell).options.get("explain")
        about = {**comparison.options[cell.models], **({} if explain is None else {"explain": explain})}
        try:
            explorer = Explorer(
                model, inputs, target=request.target, score=request.score, method=method, executor=self._executor,
                **settings, **about, **dict(request.params),
            )  # fmt: skip
        except BaseException as error:
            self._say(f"{name} can't be opened: {error_text(worker_error(error))}")
            return
        self._say(f"Opened below: {name}", self._show(explorer, name))

    def _say(self, words: str, mark: str = "") -> None:
        self._view.set_traits(opened={"words": words, "mark": mark})

    def _show(self, explorer: Explorer, name: str) -> str:
        """Replace the explorer and return the CSS class by which the page locates it."""
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
        self._view.set_traits(opened={})
