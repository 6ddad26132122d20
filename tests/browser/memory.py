"""A page's memory, as the browser counts it after garbage collection."""

from __future__ import annotations

import time
from dataclasses import astuple, dataclass

from lab import Lab

# Code for the kernel: copies a tree of widgets as plain widgets of ipywidgets and bqplot, with the same classes, values
# and order, and with an empty text in place of each of our views.
PLAIN = """
import anywidget
import ipywidgets

def plain(value, made=None):
    made = {} if made is None else made
    if isinstance(value, dict):
        return {name: plain(item, made) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(item, made) for item in value)
    if isinstance(value, anywidget.AnyWidget):
        return ipywidgets.HTML()
    if not isinstance(value, ipywidgets.Widget):
        return value
    if value not in made:
        kind = next(kind for kind in type(value).__mro__ if not kind.__module__.startswith("saliency_widgets"))
        names = [name for name in value.keys if not name.startswith("_") and kind.class_traits().get(name)]
        if hasattr(value, "options"):
            names = ["options", *(name for name in names if name != "index")]
        made[value] = kind(**{name: plain(getattr(value, name), made) for name in names})
    return made[value]
"""

# Wait for two animation frames and a task, after which the last message has been processed.
_SETTLE = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))))"


@dataclass(frozen=True)
class Usage:
    """DOM nodes of all documents, attached or not; event listeners; bytes of the JavaScript heap."""

    nodes: int
    listeners: int
    heap: int

    def __sub__(self, other: Usage) -> Usage:
        return Usage(*(a - b for a, b in zip(astuple(self), astuple(other), strict=True)))


class PageMemory:
    """Measures a page's memory."""

    def __init__(self, lab: Lab) -> None:
        self._page = lab.page
        self._tools = lab.page.context.new_cdp_session(lab.page)

    def usage(self) -> Usage:
        """Measure the current usage."""
        for _ in range(3):  # objects freed by one collection may have kept others alive
            self._page.evaluate(_SETTLE)
            self._tools.send("HeapProfiler.collectGarbage")
        counted = self._tools.send("Memory.getDOMCounters")
        heap = self._tools.send("Runtime.getHeapUsage")
        return Usage(counted["nodes"], counted["jsEventListeners"], heap["usedSize"])

    def growth(self, since: Usage, nodes: int, seconds: float = 60) -> Usage:
        """Return the growth since a measurement once it is at most ``nodes`` nodes, or when the time is over.

        It may take a while to shrink, because the kernel closes widgets when it is idle.
        """
        until = time.monotonic() + seconds
        while (grown := self.usage() - since).nodes > nodes and time.monotonic() < until:
            self._page.wait_for_timeout(250)
        return grown
