"""Functions that list and close the parts of a widget."""

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
"""The layout of a widget whose parts are next to each other if they fit."""


def close_whole(widget: w.Widget) -> None:
    """Close a widget and all its parts."""
    parts = parts_of(widget, [])
    widget.close()
    for part in parts:
        part.close()


def parts_of(widget: w.Widget, parts: list[w.Widget]) -> list[w.Widget]:
    """Append a widget's parts (children, layouts, styles) to ``parts``, recursively, and return the list."""
    for name in widget.keys:
        if name == "_canvas_manager":  # shared by all canvases of the kernel
            continue
        for item in widgets_in(getattr(widget, name)):
            if not any(item is part for part in parts):
                parts.append(item)
                parts_of(item, parts)
    return parts


def widgets_in(value: Any) -> Iterator[w.Widget]:
    """Return the widgets in a trait's value: a widget, or a list or a mapping of widgets."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else (value,)
    return (item for item in items if isinstance(item, w.Widget))
