"""The grid view, which shows maps side by side with shared display settings, and its cells, one model per map."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets as w
import traitlets
from ipywidgets import Widget, widget_serialization

from saliency_widgets.widgets.base.display import DisplaySettings
from saliency_widgets.widgets.base.frame_stream import FrameStream
from saliency_widgets.widgets.base.inbox import whole_number
from saliency_widgets.widgets.bundle import BundledView


class MapCell(FrameStream):
    """One map of a grid, a widget model without a view.

    Args:
        image: The model's input as PNG bytes.
        name: The cell's unique name.
        group: Maps of one group have comparable values and share a color scale.
        scene: What is shown instead of an image, see :class:`.HeatmapView`; empty for an image.
    """

    _esm = "export default {};"

    name = traitlets.Unicode().tag(sync=True)
    group = traitlets.Unicode().tag(sync=True)
    scene = traitlets.Dict().tag(sync=True, echo_update=False)

    def __init__(self, image: bytes, *, name: str, group: str, scene: Mapping[str, Any] | None = None) -> None:
        super().__init__(image, name=name, group=group, scene=dict(scene or {}))


class GridView(BundledView):
    """A grid of cells, row by row. The front end writes ``scale``, ``unlocked`` and ``pair`` on user input.

    Args:
        display: The display settings of all cells.
        on_message: Called with messages from the front end: {"type": "stop"}, "go", "open" (with a cell's index) or
            "visible" (with the indices of the visible cells).

    Attributes:
        scale: "shared": locked cells of one group share a color scale; "separate": each has its own percentiles.
        unlocked: Indices of the cells excluded from the shared scale.
        pair: Indices of the two cells whose difference is shown; -1 for none.
    """

    kind = traitlets.Unicode("grid").tag(sync=True)
    rows = traitlets.List(traitlets.Unicode()).tag(sync=True)
    columns = traitlets.List(traitlets.Unicode()).tag(sync=True)
    cells = traitlets.List(traitlets.Instance(MapCell)).tag(sync=True, **widget_serialization)
    display = traitlets.Instance(DisplaySettings).tag(sync=True, **widget_serialization)
    controls = traitlets.List(traitlets.Instance(Widget)).tag(sync=True, **widget_serialization)
    progress = traitlets.Dict().tag(sync=True)
    checkups = traitlets.List(traitlets.Dict()).tag(sync=True)
    scale = traitlets.Enum(("shared", "separate"), "shared").tag(sync=True)
    unlocked = traitlets.List(traitlets.Int()).tag(sync=True)
    pair = traitlets.List(traitlets.Int(), default_value=[-1, -1], minlen=2, maxlen=2).tag(sync=True)
    opened = traitlets.Dict().tag(sync=True)

    def __init__(self, display: DisplaySettings, on_message: Callable[[dict[str, Any]], None]) -> None:
        self._writing = threading.RLock()
        self._callback = on_message
        super().__init__(display=display)
        self.on_msg(self._on_message)

    def __repr__(self) -> str:
        """Show the size of the grid without the maps' bytes."""
        return f"GridView({len(self.rows)} x {len(self.columns)} maps)"

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """Apply a message from the front end, but not while the worker is writing."""
        with self._writing:
            super().set_state(sync_data)

    def with_controls(self, column: w.Box) -> tuple[Widget, Widget]:
        """Lay out the grid and a column of controls side by side, or stacked if there is no room."""
        self.layout.flex, self.layout.min_width = "4 1 420px", "260px"
        column.layout.flex, column.layout.min_width, column.layout.max_width = "1 1 270px", "260px", "460px"
        return self, column.add_class("sw-panel")

    def lay(self, rows: Sequence[str], columns: Sequence[str], cells: Sequence[MapCell]) -> None:
        """Replace the cells, row by row."""
        with self._writing, self.hold_sync():
            self.unlocked, self.pair = [], [-1, -1]
            self.rows, self.columns, self.cells = list(rows), list(columns), list(cells)

    def set_traits(self, **traits: Any) -> None:
        """Set traits. May be called from any thread."""
        with self._writing, self.hold_sync():
            for name, value in traits.items():
                setattr(self, name, value)

    def retire(self) -> None:
        """Drop the callback."""
        self._callback = lambda _message: None

    def _on_message(self, _widget: Widget, content: Any, _buffers: Any) -> None:
        kind = content.get("type") if isinstance(content, dict) else None
        if kind in ("stop", "go"):
            self._callback({"type": kind})
        elif kind == "open" and (cell := whole_number(content, "cell")) is not None:
            self._callback({"type": kind, "cell": cell})
        elif kind == "visible" and isinstance(content.get("cells"), list):
            self._callback({"type": kind, "cells": [cell for cell in content["cells"] if isinstance(cell, int)]})
