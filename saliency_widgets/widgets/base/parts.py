"""What a widget is made of, so that all of it is closed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ipywidgets as w


def close_whole(widget: w.Widget) -> None:
    """Close a widget with everything that it is made of."""
    parts = parts_of(widget, [])
    widget.close()
    for part in parts:
        part.close()


def parts_of(widget: w.Widget, found: list[w.Widget]) -> list[w.Widget]:
    """Everything that a widget is made of, children, layouts and styles alike, without the widget itself."""
    for name in widget.keys:
        if name == "_canvas_manager":  # all canvases of the kernel share it
            continue
        for item in widgets_in(getattr(widget, name)):
            if not any(item is known for known in found):
                found.append(item)
                parts_of(item, found)
    return found


def widgets_in(value: Any) -> Iterator[w.Widget]:
    """The widgets that a trait holds: one, or a list or a mapping of them."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else (value,)
    return (item for item in items if isinstance(item, w.Widget))
