"""The grid view: maps side by side under one display; and its cells, headless models of one map each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as w
import traitlets
from ipywidgets import Widget, widget_serialization

from saliency_widgets.widgets.base.display import DisplaySettings
from saliency_widgets.widgets.base.frame_stream import FrameStream
from saliency_widgets.widgets.base.inbox import whole_number
from saliency_widgets.widgets.bundle import BundledView


class MapCell(FrameStream):
    """One map of a grid.

    Args:
        image: What the model sees, as PNG bytes.
        name: What tells it from the others.
        group: Maps of one group have comparable numbers and share a color scale.
    """

    _esm = "export default {};"

    name = traitlets.Unicode().tag(sync=True)
    group = traitlets.Unicode().tag(sync=True)

    def __init__(self, image: bytes, *, name: str, group: str) -> None:
        super().__init__(image, name=name, group=group)


class GridView(BundledView):
    """Shows cells row by row. Its front end writes ``scale``, ``unlocked`` and ``pair``, when a person chooses them.

    Args:
        display: The display settings of all cells.
        on_message: Called with what the person asks for: {"type": "stop"}, "go", "open" (with a cell) or "visible"
            (with the cells in sight).

    Attributes:
        scale: "shared": locked cells of one group have one scale of values; "own": each its own percentiles.
        unlocked: Places of the cells that have a scale of their own all the same.
        pair: Places of the two cells whose difference is shown; -1 for none.
    """

    kind = traitlets.Unicode("grid").tag(sync=True)
    rows = traitlets.List(traitlets.Unicode()).tag(sync=True)
    columns = traitlets.List(traitlets.Unicode()).tag(sync=True)
    cells = traitlets.List(traitlets.Instance(MapCell)).tag(sync=True, **widget_serialization)
    display = traitlets.Instance(DisplaySettings).tag(sync=True, **widget_serialization)
    controls = traitlets.List(traitlets.Instance(Widget)).tag(sync=True, **widget_serialization)
    progress = traitlets.Dict().tag(sync=True)
    checkups = traitlets.List(traitlets.Dict()).tag(sync=True)
    scale = traitlets.Enum(("shared", "own"), "shared").tag(sync=True)
    unlocked = traitlets.List(traitlets.Int()).tag(sync=True)
    pair = traitlets.List(traitlets.Int(), default_value=[-1, -1], minlen=2, maxlen=2).tag(sync=True)
    opened = traitlets.Dict().tag(sync=True)

    def __init__(self, display: DisplaySettings, on_message: Callable[[dict[str, Any]], None]) -> None:
        self._writing = threading.RLock()
        self._told = on_message
        super().__init__(display=display)
        self.on_msg(self._on_message)

    def __repr__(self) -> str:
        """How many maps, never their bytes."""
        return f"GridView({len(self.rows)} x {len(self.columns)} maps)"

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """What the person did on the page; never while the worker writes."""
        with self._writing:
            super().set_state(sync_data)

    def beside(self, column: w.Box) -> tuple[Widget, Widget]:
        """The grid and a column of controls: side by side, or one below the other where there is no room."""
        self.layout.flex, self.layout.min_width = "4 1 420px", "260px"
        column.layout.flex, column.layout.min_width, column.layout.max_width = "1 1 270px", "260px", "460px"
        return self, column.add_class("sw-panel")

    def lay(self, rows: Sequence[str], columns: Sequence[str], cells: Sequence[MapCell]) -> None:
        """Show other cells, row by row."""
        with self._writing, self.hold_sync():
            self.unlocked, self.pair = [], [-1, -1]
            self.rows, self.columns, self.cells = list(rows), list(columns), list(cells)

    def tell(self, **traits: Any) -> None:
        """Write some of its traits; from any thread."""
        with self._writing, self.hold_sync():
            for name, value in traits.items():
                setattr(self, name, value)

    def retire(self) -> None:
        """Let go of whoever listened."""
        self._told = lambda _message: None

    def _on_message(self, _widget: Widget, content: Any, _buffers: Any) -> None:
        kind = content.get("type") if isinstance(content, dict) else None
        if kind in ("stop", "go"):
            self._told({"type": kind})
        elif kind == "open" and (cell := whole_number(content, "cell")) is not None:
            self._told({"type": kind, "cell": cell})
        elif kind == "visible" and isinstance(content.get("cells"), list):
            self._told({"type": kind, "cells": [cell for cell in content["cells"] if isinstance(cell, int)]})
