"""What shows frames of one map: they are sent no faster than they are painted."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from typing import Any

import anywidget
import traitlets
from ipywidgets import Widget

# A page that was closed never acknowledges: after this long the next frame is sent all the same.
_ACKNOWLEDGEMENT_TIMEOUT = 2.0


def _overdue(view: weakref.ref[Paced], frame: tuple[int, int]) -> None:
    """Nobody answered: go on as if the frame had been painted. The timer keeps no view alive."""
    found = view()
    if found is not None:
        found._painted(frame)


class Paced(anywidget.AnyWidget):
    """A picture and the frames of one map over it. Written by one worker at a time; its front end writes no trait.

    Args:
        picture: What the model sees, as PNG bytes.
        **traits: Of whatever is built on it.
    """

    picture = traitlets.Bytes().tag(sync=True)
    frame = traitlets.Dict().tag(sync=True)
    status = traitlets.Dict().tag(sync=True)

    def __init__(self, picture: bytes = b"", **traits: Any) -> None:
        self._pace = threading.RLock()
        self._in_flight: tuple[int, int] | None = None
        self._pending: tuple[Mapping[str, Any] | None, Mapping[str, Any]] | None = None
        self._timer: threading.Timer | None = None
        self._acknowledged = False
        super().__init__(picture=picture, **traits)
        self.on_msg(self._on_message)

    def __repr__(self) -> str:
        """Never the bytes, nor the code."""
        return f"{type(self).__name__}({self.status.get('title', '')!r}, {self.status.get('state', 'idle')})"

    def offer(self, frame: Mapping[str, Any] | None, status: Mapping[str, Any]) -> None:
        """Show a frame and a status as soon as the last frame has been painted; the newest offer wins.

        Args:
            frame: The map, see ``js/src/heatmap.ts``; None leaves the picture as it is.
            status: Progress, readings, errors, and the code of the map; see :func:`messages.status`.
        """
        with self._pace:
            # Where no page has ever answered (a script, nbconvert), what is finished must not wait for one.
            finished = frame is not None and frame.get("final") and not self._acknowledged
            if self._in_flight is None or finished:
                self._pending = None
                self._publish(frame, status)
                return
            if frame is None and self._pending is not None:
                frame = self._pending[0]
            self._pending = (frame, status)

    def flush(self) -> None:
        """Send what waits at once, painted or not: for a page that is stored, or nobody looks at."""
        with self._pace:
            pending, self._pending = self._pending, None
            if pending is not None and self.comm is not None:
                self._publish(*pending)

    def _publish(self, frame: Mapping[str, Any] | None, status: Mapping[str, Any]) -> None:
        with self.hold_sync():
            self.status = dict(status)
            if frame is not None:
                self.frame = dict(frame)
        if frame is not None:
            self._in_flight = (frame["generation"], frame["index"])
            if self._timer is not None:
                self._timer.cancel()
            self._timer = threading.Timer(_ACKNOWLEDGEMENT_TIMEOUT, _overdue, (weakref.ref(self), self._in_flight))
            self._timer.daemon = True
            self._timer.start()

    def _painted(self, frame: tuple[int, int]) -> None:
        with self._pace:
            if self._in_flight is None or frame < self._in_flight:
                return
            self._in_flight = None
            if self._timer is not None:
                self._timer.cancel()
            self.flush()

    def _on_message(self, _widget: Widget, content: Any, buffers: Any) -> None:  # noqa: ARG002
        if isinstance(content, dict) and content.get("type") == "painted":
            self._acknowledged = True
            self._painted((int(content["generation"]), int(content["index"])))

    def retire(self) -> None:
        """Send nothing more."""
        with self._pace:
            self._pending = None
            if self._timer is not None:
                self._timer.cancel()
