"""What a page holds in memory, as the browser itself counts it once its garbage is collected."""

from __future__ import annotations

import time
from dataclasses import astuple, dataclass

from lab import Lab

# In the kernel: ipywidgets' and bqplot's own widgets of the same kinds, values and order as those of ours; in place of
# our views an empty text.
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

# Two frames and a task: what was to be done about the last message is done.
_BREATHE = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))))"


@dataclass(frozen=True)
class Held:
    """Elements and other nodes of all documents, attached or not; listeners; bytes of JavaScript's heap."""

    nodes: int
    listeners: int
    heap: int

    def __sub__(self, other: Held) -> Held:
        return Held(*(a - b for a, b in zip(astuple(self), astuple(other), strict=True)))


class PageMemory:
    """Reads what a page holds."""

    def __init__(self, lab: Lab) -> None:
        self._page = lab.page
        self._tools = lab.page.context.new_cdp_session(lab.page)

    def held(self) -> Held:
        """What is held now."""
        for _ in range(3):  # what one collection lets go may have held more
            self._page.evaluate(_BREATHE)
            self._tools.send("HeapProfiler.collectGarbage")
        counted = self._tools.send("Memory.getDOMCounters")
        heap = self._tools.send("Runtime.getHeapUsage")
        return Held(counted["nodes"], counted["jsEventListeners"], heap["usedSize"])

    def growth(self, since: Held, nodes: int, seconds: float = 60) -> Held:
        """What is held more than then, as soon as it is at most so many nodes; at the end of the time whatever it is.

        What the kernel closes, it closes when it has time.
        """
        until = time.monotonic() + seconds
        while (grown := self.held() - since).nodes > nodes and time.monotonic() < until:
            self._page.wait_for_timeout(250)
        return grown
