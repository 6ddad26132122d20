"""The parts of a widget, so that all of them are closed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ipywidgets as w

LAYOUT = {
    "display": "flex",
    "flex_flow": "row wrap",
    "align_items": "flex-start",
    "grid_gap": "8px 20px",
    "width": "100%",
    "overflow": "visible",
}
"""Of a widget whose parts stand side by side while there is room."""


def close_whole(widget: w.Widget) -> None:
    """Close a widget and all its parts."""
    parts = parts_of(widget, [])
    widget.close()
    for part in parts:
        part.close()


def parts_of(widget: w.Widget, parts: list[w.Widget]) -> list[w.Widget]:
    """Append a widget's parts (children, layouts, styles) recursively, without the widget itself, and return them."""
    for name in widget.keys:
        if name == "_canvas_manager":  # all canvases of the kernel share it
            continue
        for item in widgets_in(getattr(widget, name)):
            if not any(item is part for part in parts):
                parts.append(item)
                parts_of(item, parts)
    return parts


def widgets_in(value: Any) -> Iterator[w.Widget]:
    """Return the widgets in a trait's value: one, or a list or a mapping of them."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else (value,)
    return (item for item in items if isinstance(item, w.Widget))
