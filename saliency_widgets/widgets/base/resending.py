"""Traits written by workers, which the cell that waits for their result sends again.

A page receives every message. A client without a page, such as ``jupyter nbconvert --execute``, receives messages only
while a cell runs and drops messages that a worker sends between two cells.
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
    """The traits of a widget and its parts that were written by threads other than the main thread.

    They exclude changes made by the user, because the page has those or newer ones.

    Args:
        root: The widget. Parts added later are observed too.
    """

    def __init__(self, root: Widget) -> None:
        self._lock = threading.Lock()
        self._watched: weakref.WeakSet[Widget] = weakref.WeakSet()
        self._written: weakref.WeakKeyDictionary[Widget, set[str]] = weakref.WeakKeyDictionary()
        self._watch((root, *parts_of(root, [])))

    def send(self) -> None:
        """Send the current values of these traits again."""
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
                refer_weakly(widget)  # the root keeps it alive

    def _on_change(self, change: Any) -> None:
        widget, name = change["owner"], change["name"]
        if name not in widget.keys:
            return
        for part in widgets_in(change["new"]):
            if part not in self._watched:
                self._watch((part, *parts_of(part, [])))
        with self._lock:
            if name in widget._property_lock:  # the page has just sent this value
                self._written.get(widget, set()).discard(name)
            elif threading.current_thread() is not threading.main_thread():
                self._written.setdefault(widget, set()).add(name)


def _send(widget: Widget, names: list[str]) -> None:
    """Send traits, and again those written in the meantime, so that the last message holds the newest value."""
    while names and widget.comm is not None:
        before = [getattr(widget, name) for name in names]
        try:
            widget.send_state(names)
        except AttributeError:  # a part that another thread has replaced and closed has no id
            if all(part.comm is not None for value in before for part in widgets_in(value)):
                raise
        names = [name for name, old in zip(names, before, strict=True) if getattr(widget, name) is not old]
