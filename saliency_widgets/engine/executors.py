"""Where the work is done: on one worker thread, or in place for tests and scripts."""

from __future__ import annotations

import atexit
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Protocol

from saliency_widgets.engine.allocator import give_back
from saliency_widgets.params import unknown


class Executor(Protocol):
    """Runs the work it was made with, once after each kick at the least."""

    def kick(self, brief: bool = False) -> None:
        """There is work; brief work is without a pass of the model."""
        ...

    def close(self) -> None:
        """There will be none any more."""
        ...


_OPEN: weakref.WeakSet[ThreadExecutor] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    # A daemon thread inside torch at the interpreter's end aborts the process. Sessions, which are made of executors,
    # have told theirs to stop by then: what was registered later is called sooner.
    for executor in list(_OPEN):
        executor.close()


class InlineExecutor:
    """Works inside :meth:`kick`; returns when the work is done."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work

    def kick(self, brief: bool = False) -> None:  # noqa: ARG002
        """Work now."""
        self._work()

    def close(self) -> None:
        """Nothing to end."""


class ThreadExecutor:
    """One worker thread, started by a kick; it ends by itself after a while without one. A kick returns at once."""

    idle_seconds = 10.0

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._kicked = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        _OPEN.add(self)

    def kick(self, brief: bool = False) -> None:  # noqa: ARG002
        """Wake the worker."""
        with self._lock:
            if self._closed:
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="saliency-worker", daemon=True)
                self._thread.start()
            self._kicked.set()

    def close(self) -> None:
        """End the worker; it stops before its next chunk. Waits for that, unless the worker itself calls."""
        with self._lock:
            self._closed = True
            thread = self._thread
        self._kicked.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=10)

    def _loop(self) -> None:
        while True:
            # A cell that is run twenty times must not leave twenty threads behind.
            if not self._kicked.wait(self.idle_seconds):
                with self._lock:
                    if not self._kicked.is_set():
                        self._thread = None
                        give_back()
                        return
            self._kicked.clear()
            if self._closed:
                return
            try:
                self._work()
            except Exception:
                # Work tells its own errors; one that it can't tell must not end the worker, nor vanish.
                threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))


EXECUTORS: dict[str, Callable[[Callable[[], None]], Executor]] = {
    "thread": ThreadExecutor,
    "inline": InlineExecutor,
}


def check_executor(name: str) -> str:
    """The name of an executor.

    Raises:
        ValueError: There is none of this name.
    """
    if name not in EXECUTORS:
        raise ValueError(unknown("executor", str(name), list(EXECUTORS)))
    return name
