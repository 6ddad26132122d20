"""Views that stream the frames of a map no faster than the page paints them.

Lock order: a view's ``_pace``, then the waiter's condition. The waiter releases its condition before it calls a view.
Its thread is joined while neither lock is held.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, Protocol

import anywidget
import traitlets
from ipywidgets import Widget

from saliency_widgets.widgets.base.inbox import whole_number

# Seconds after which the next frame is sent without an acknowledgement, which a closed page never sends.
_ACKNOWLEDGEMENT_TIMEOUT = 2.0


class Waiting(Protocol):
    """An object that the waiter calls at a requested time."""

    def overdue(self) -> None:
        """Continue after the timeout; called on the waiter's thread."""
        ...


class _Waiter:
    """A timer that resumes views whose page does not respond, on a thread that runs only while a frame is pending."""

    def __init__(self) -> None:
        self._state = threading.Condition()
        self._due: dict[Waiting, float] = {}
        self._wake = 0.0
        self._thread: threading.Thread | None = None

    def expect(self, view: Waiting, due: float) -> None:
        """Call the view at a time of the monotonic clock, unless it is dropped before that."""
        with self._state:
            self._due[view] = due
            if self._thread is None:
                self._wake = due
                self._thread = threading.Thread(target=self._run, name="saliency-pace", daemon=True)
                self._thread.start()
            elif due < self._wake:
                self._state.notify_all()

    def forget(self, view: Waiting) -> None:
        """Drop a view whose page has responded. The thread ends after its sleep if no view is left."""
        with self._state:
            self._due.pop(view, None)

    def dismiss(self, view: FrameStream) -> None:
        """Drop a closed view. If no other view is waiting, end the thread and join it."""
        with self._state:
            self._due.pop(view, None)
            if self._due:
                return
            thread, self._thread = self._thread, None
            self._state.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=10)

    def _run(self) -> None:
        while True:
            with self._state:
                if self._thread is not threading.current_thread():
                    return
                if not self._due:
                    self._thread = None
                    return
                view = min(self._due, key=self._due.__getitem__)
                self._wake = self._due[view]
                left = self._wake - time.monotonic()
                if left > 0:
                    self._state.wait(left)
                    continue
                del self._due[view]
            try:
                view.overdue()
            except Exception:  # a failing view must not block the others
                threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))
            del view


WAITER = _Waiter()


class FrameStream(anywidget.AnyWidget):
    """An image with the frames of a map over it. One worker writes at a time; the front end writes only view counts.

    Args:
        image: The model's input as PNG bytes.
        **traits: Traits of the subclass.
    """

    image = traitlets.Bytes().tag(sync=True)
    frame = traitlets.Dict().tag(sync=True)
    status = traitlets.Dict().tag(sync=True)

    def __init__(self, image: bytes = b"", **traits: Any) -> None:
        self._pace = threading.RLock()
        self._in_flight: tuple[int, int] | None = None
        self._due = 0.0  # when the frame in flight counts as painted even without an acknowledgement
        self._pending: tuple[Mapping[str, Any] | None, Mapping[str, Any]] | None = None
        self._acknowledged = False
        super().__init__(image=image, **traits)
        self.on_msg(self._on_message)

    def __repr__(self) -> str:
        """Return the title and the state, without bytes or code."""
        return f"{type(self).__name__}({self.status.get('title', '')!r}, {self.status.get('state', 'idle')})"

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """Apply a message from the page while the worker is not writing."""
        with self._pace:
            super().set_state(sync_data)

    def send_state(self, key: Any = None) -> None:
        """Send the current traits while the worker is not writing, so that a newer frame is not overtaken."""
        with self._pace:
            super().send_state(key)

    def offer(self, frame: Mapping[str, Any] | None, status: Mapping[str, Any]) -> None:
        """Show a frame and a status once the last frame has been painted; a newer offer replaces a pending one.

        Args:
            frame: The map, see ``js/src/core/frame.ts``. None changes only the status.
            status: Progress, readings, errors and the code of the map, see :func:`messages.status`.
        """
        with self._pace:
            # Without a page that responds (in a script or nbconvert), a finished frame is sent immediately.
            finished = frame is not None and frame.get("final") and not self._acknowledged
            if frame is None and self._pending is not None:
                frame = self._pending[0]
            if self._in_flight is None or finished or time.monotonic() >= self._due:
                self._forget()
                self._publish(frame, status)
                return
            self._pending = (frame, status)
            WAITER.expect(self, self._due)

    def flush(self) -> None:
        """Send the pending frame immediately, for a page that is being stored or not open."""
        with self._pace:
            pending = self._pending
            self._forget()
            if pending is not None and self.comm is not None:
                self._publish(*pending)

    def _forget(self) -> None:
        self._pending = None
        WAITER.forget(self)

    def _publish(self, frame: Mapping[str, Any] | None, status: Mapping[str, Any]) -> None:
        with self.hold_sync():
            self.status = dict(status)
            if frame is not None:
                self.frame = dict(frame)
        if frame is not None:
            self._in_flight = (frame["generation"], frame["index"])
            self._due = time.monotonic() + _ACKNOWLEDGEMENT_TIMEOUT

    def _painted(self, frame: tuple[int, int]) -> None:
        with self._pace:
            if self._in_flight is None or frame < self._in_flight:
                return
            self._in_flight = None
            self.flush()

    def overdue(self) -> None:
        """Continue as if the frame had been painted, if it is still overdue."""
        with self._pace:
            if self._in_flight is not None and time.monotonic() >= self._due:  # else a newer frame was sent
                self._painted(self._in_flight)

    def _on_message(self, _widget: Widget, content: Any, buffers: Any) -> None:  # noqa: ARG002
        if isinstance(content, dict) and content.get("type") == "painted":
            generation, index = whole_number(content, "generation"), whole_number(content, "index")
            if generation is not None and index is not None:
                self._acknowledged = True
                self._painted((generation, index))

    def retire(self) -> None:
        """Drop the pending frame and stop waiting for the page."""
        with self._pace:
            self._pending = None
        WAITER.dismiss(self)

    def close(self) -> None:
        """Remove the view from the page."""
        WAITER.forget(self)
        super().close()

    def __del__(self) -> None:
        # Close only the comm: the garbage collector runs on any thread and must not wait for a lock. A waiting view
        # is never collected, because the waiter refers to it.
        Widget.close(self)
