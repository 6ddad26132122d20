"""A grid of finished maps with shared display settings, without any computation."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from saliency_widgets.session.frames import coded
from saliency_widgets.widgets.base import messages
from saliency_widgets.widgets.base.display import DisplaySettings
from saliency_widgets.widgets.compare.grid import GridView, MapCell
from saliency_widgets.widgets.image.png import png_bytes


class StillMaps:
    """A grid of finished maps whose values are all comparable.

    Args:
        display: The display settings of all cells.
        rows: The labels of the rows.
        columns: The labels of the columns.
        names: The unique names of the cells, row by row.
        group: The name of the scale that the values share.
        signed: Whether the maps keep their sign.
        on_open: Called with the index of the clicked cell.

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
        self._open = on_open
        self.signed = signed
        self._generations = itertools.count(1)
        self.view.lay(rows, columns, [MapCell(b"", name=name, group=group) for name in names])

    def show(
        self, image: np.ndarray | None, maps: Sequence[np.ndarray | str], scene: Mapping[str, Any] | None = None
    ) -> None:
        """Show maps, row by row.

        Args:
            image: The image below the maps, uint8 (H, W, 3).
            maps: The values of each cell, shape (H, W), (T,) for a text or (C, T) for a signal, or the reason why they
                are missing.
            scene: What is shown instead of an image.
        """
        png = b"" if image is None else png_bytes(image)
        generation = next(self._generations)
        for cell, values in zip(self.view.cells, maps, strict=True):
            status = messages.status(generation=generation, state="done")
            try:
                frame = self._frame(values, generation)
            except ValueError as error:
                status |= {"state": "error", "message": messages.error_text(error)}
                frame = {}  # views show only the image
            with cell.hold_sync():
                cell.image, cell.scene, cell.status, cell.frame = png, dict(scene or {}), status, frame

    def say(self, lines: Sequence[str]) -> None:
        """Set the line below each map, row by row; failed maps show their error instead."""
        for cell, line in zip(self.view.cells, lines, strict=True):
            cell.status = {**cell.status, "title": line}

    def _frame(self, values: np.ndarray | str, generation: int) -> dict[str, Any]:
        if isinstance(values, str):
            raise ValueError(values)
        rows = torch.from_numpy(np.atleast_2d(values))
        return messages.raw_frame(coded(rows, signed=self.signed), generation=generation)

    def _on_message(self, message: dict[str, Any]) -> None:
        if message["type"] == "open" and 0 <= message["cell"] < len(self.view.cells):
            self._open(message["cell"])
