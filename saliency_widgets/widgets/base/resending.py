"""Traits written by workers, sent again by the cell that waits for them.

A page receives every message. A client without a page, such as ``jupyter nbconvert --execute``, receives messages only
while a cell runs and drops what a worker publishes between two cells.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable
from typing import Any

from ipywidgets import Widget
from traitlets import All

from saliency_widgets.widgets.base.lifetime import refer_weakly
from saliency_widgets.widgets.base.parts import parts_of, widgets_in


class WorkerWrites:
    """The traits of a widget and its parts that threads other than the main one have written.

    Changes made by the user are not among them: the page has those already, or newer ones.

    Args:
        root: The widget. Parts that are added later are watched too.
    """

    def __init__(self, root: Widget) -> None:
        self._lock = threading.Lock()
        self._watched: weakref.WeakSet[Widget] = weakref.WeakSet()
        self._written: weakref.WeakKeyDictionary[Widget, set[str]] = weakref.WeakKeyDictionary()
        self._watch((root, *parts_of(root, [])))

    def send(self) -> None:
        """Send the current values again."""
        with self._lock:
            written = [(widget, sorted(names)) for widget, names in self._written.items()]
            self._written.clear()
        for widget, names in written:
            _send(widget, names)

    def _watch(self, widgets: Iterable[Widget]) -> None:
        for widget in widgets:
            if widget not in self._watched:
                self._watched.add(widget)
                widget.observe(self._on_change, names=All)
                refer_weakly(widget)  # it lives as long as the root

    def _on_change(self, change: Any) -> None:
        widget, name = change["owner"], change["name"]
        if name not in widget.keys:
            return
        for part in widgets_in(change["new"]):
            if part not in self._watched:
                self._watch((part, *parts_of(part, [])))
        with self._lock:
            if name in widget._property_lock:  # the page has just sent it
                self._written.get(widget, set()).discard(name)
            elif threading.current_thread() is not threading.main_thread():
                self._written.setdefault(widget, set()).add(name)


def _send(widget: Widget, names: list[str]) -> None:
    """Send traits, and repeat for those written meanwhile, so that the last message holds the newest value."""
    while names and widget.comm is not None:
        before = [getattr(widget, name) for name in names]
        try:
            widget.send_state(names)
        except AttributeError:  # a part that another thread has replaced and closed has no id any more
            if all(part.comm is not None for value in before for part in widgets_in(value)):
                raise
        names = [name for name, old in zip(names, before, strict=True) if getattr(widget, name) is not old]
