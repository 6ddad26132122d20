"""Maps that are there already, side by side under one display: nothing is computed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from saliency_widgets.engine.frames import coded
from saliency_widgets.widgets import messages
from saliency_widgets.widgets.comparing.grid import GridView, MapCell
from saliency_widgets.widgets.display import DisplaySettings
from saliency_widgets.widgets.parts import close_whole
from saliency_widgets.widgets.pictures import png_bytes


class StillMaps:
    """Finished maps in a grid; all of them have comparable numbers.

    Args:
        display: The display settings of all cells.
        rows: What the rows are called.
        columns: What the columns are called.
        names: What tells each cell from the others, row by row.
        group: What the numbers are of.
        signed: Whether the maps keep their sign.
        on_open: Called with the place of the cell that a person has clicked.

    Attributes:
        view: The grid.
        signed: Whether the maps keep their sign.
    """

    def __init__(
        self,
        display: DisplaySettings,
        rows: Sequence[str],
        columns: Sequence[str],
        names: Sequence[str],
        *,
        group: str,
        signed: bool,
        on_open: Callable[[int], None],
    ) -> None:
        self.view = GridView(display, self._on_message)
        self._names, self._group, self._open = list(names), group, on_open
        self.signed = signed
        self._generations = itertools.count(1)
        self.view.lay(rows, columns, [MapCell(b"", name=name, group=group) for name in names])

    def show(self, picture: np.ndarray | None, maps: Sequence[np.ndarray | str]) -> None:
        """Show these maps, row by row.

        Args:
            picture: What they lie over, uint8 (H, W, 3).
            maps: Values, shape (H, W); or in words why there are none.
        """
        png = b"" if picture is None else png_bytes(picture)
        generation = next(self._generations)
        cells, left = list(self.view.cells), []
        for k, values in enumerate(maps):
            status = messages.status(generation=generation, state="done")
            try:
                frame = self._frame(values, generation)
            except ValueError as error:
                status |= {"state": "error", "message": str(error)}
                frame = {}
                if cells[k].frame:  # a view keeps the newest map it was given, and this one has none
                    left.append(cells[k])
                    cells[k] = MapCell(png, name=self._names[k], group=self._group)
            with cells[k].hold_sync():
                cells[k].picture, cells[k].status, cells[k].frame = png, status, frame
        if left:
            self.view.tell(cells=cells)
        for cell in left:
            close_whole(cell)

    def say(self, lines: Sequence[str]) -> None:
        """What stands below each map, row by row; below those that failed stands why."""
        for cell, line in zip(self.view.cells, lines, strict=True):
            cell.status = {**cell.status, "title": line}

    def _frame(self, values: np.ndarray | str, generation: int) -> dict[str, Any]:
        if isinstance(values, str):
            raise ValueError(values)
        return messages.raw_frame(coded(torch.from_numpy(values), signed=self.signed), generation=generation)

    def _on_message(self, message: dict[str, Any]) -> None:
        if message["type"] == "open" and 0 <= message["cell"] < len(self._names):
            self._open(message["cell"])
