"""Worker threads, which run their work after each kick, end when idle, and report otherwise unreported errors."""

from __future__ import annotations

import copy
import queue
import sys
import threading
import traceback
import weakref
from collections.abc import Callable
from typing import NoReturn

from saliency_widgets.params import check_choice
from saliency_widgets.runtime.allocator import give_back


def _do_nothing() -> None:
    """Do nothing: the work of a closed executor, which holds no references."""


class _InlineExecutor:
    """Does the work inside :meth:`kick`, which returns when the work is done."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._thread: threading.Thread | None = None

    def kick(self) -> None:
        """Do the work now."""
        before, self._thread = self._thread, threading.current_thread()
        try:
            self._work()
        finally:
            self._thread = before

    def close(self) -> None:
        """Do nothing: there is no thread."""

    @property
    def here(self) -> bool:
        """Whether the calling thread is the one that does the work."""
        return threading.current_thread() is self._thread


class ThreadExecutor:
    """One worker thread, started by a kick; it ends after a while without one. A kick returns immediately.

    While it waits, the thread refers only to the queue of kicks. An executor without references is collected, and its
    thread ends.
    """

    idle_seconds = 10.0

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        # A SimpleQueue is reentrant, unlike an Event: the garbage collector may put to it at any time.
        self._kicks: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        weakref.finalize(self, self._kicks.put, None).atexit = False

    def kick(self) -> None:
        """Wake the worker."""
        with self._lock:
            if self._closed:
                return
            if self._thread is None:
                waiting = weakref.ref(self), self._kicks, self.idle_seconds
                self._thread = threading.Thread(target=_serve, args=waiting, name="saliency-worker", daemon=True)
                self._thread.start()
            self._kicks.put(None)

    def close(self) -> None:
        """End the worker before its next chunk, and wait until it has stopped, unless the worker itself calls."""
        with self._lock:
            self._closed = True
            thread = self._thread
        self._work = _do_nothing
        self._kicks.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=10)

    @property
    def here(self) -> bool:
        """Whether the calling thread is the worker."""
        return threading.current_thread() is self._thread

    def work(self) -> bool:
        """Do the work, on the worker's thread. Return False if the executor is closed."""
        if self._closed:
            return False
        try:
            self._work()
        except BaseException:
            # The work reports its errors itself. One that it can't report must not end the worker or be lost.
            report_error()
        return not self._closed

    def retire(self) -> bool:
        """Forget the thread and return True if no kick is pending; called by the thread when it has been idle."""
        with self._lock:
            if not self._kicks.empty():
                return False
            self._thread = None
        return True


def _serve(executor: weakref.ref[ThreadExecutor], kicks: queue.SimpleQueue[None], idle_seconds: float) -> None:
    """Work after each kick; the target of an executor's thread."""
    while True:
        # The timeout ends idle threads: a cell that is run twenty times must not leave twenty of them behind.
        try:
            kicks.get(timeout=idle_seconds)
        except queue.Empty:
            current = executor()
            if current is None or current.retire():
                break
            del current  # hold no reference while waiting
            continue
        while not kicks.empty():  # merge pending kicks into one; no other thread takes them
            kicks.get()
        current = executor()
        if current is None or not current.work():
            break
        del current
    give_back()


EXECUTORS: dict[str, Callable[[Callable[[], None]], ThreadExecutor | _InlineExecutor]] = {
    "thread": ThreadExecutor,
    "inline": _InlineExecutor,
}


def check_executor(name: str) -> str:
    """Check that a name is that of an executor, and return it.

    Raises:
        TypeError: The name is not a string.
        ValueError: No executor has this name.
    """
    return check_choice("executor", name, list(EXECUTORS))


def report_error() -> None:
    """Pass the exception that is being handled on this thread to ``threading.excepthook``."""
    kind, error, trace = sys.exc_info()
    if isinstance(error, SystemExit):  # the hook ignores it silently
        kind, error = RuntimeError, worker_error(error)
    arguments = threading.ExceptHookArgs((kind, error, trace, threading.current_thread()))
    try:
        threading.excepthook(arguments)
    except BaseException:  # a custom hook failed
        threading.__excepthook__(arguments)


def worker_error(error: BaseException) -> Exception:
    """Return an exception in the form that a worker reports, with the local variables of its frames cleared.

    On a worker, exceptions that would end a thread or the process (SystemExit, KeyboardInterrupt, GeneratorExit and the
    like) can only come from the model's code: they become a ValueError, as do those that can't be converted to text.
    """
    for linked in _linked(error):
        traceback.clear_frames(linked.__traceback__)
    name = type(error).__name__
    try:
        what = repr(error) if error.args else name
        if isinstance(error, Exception) and str(error) is not None:
            return error
    except BaseException:  # its __str__ or __repr__ fails, and would fail wherever it is shown
        what = name
    replacement = ValueError(
        f"model: its code raised {what} during the computation, which would have ended the worker thread. Raise an "
        f"Exception instead, such as a RuntimeError."
    )
    replacement.__cause__ = error
    return replacement


def _linked(error: BaseException) -> list[BaseException]:
    """Return an exception with its causes, contexts and group members, recursively."""
    linked, pending = {}, [error]
    while pending:
        current = pending.pop()
        if id(current) not in linked:
            linked[id(current)] = current
            members = current.exceptions if isinstance(current, BaseExceptionGroup) else ()
            pending += [other for other in (current.__cause__, current.__context__, *members) if other is not None]
    return list(linked.values())


def raise_again(error: BaseException) -> NoReturn:
    """Raise a copy of a stored exception with its original traceback.

    Raising the same object repeatedly would accumulate the frames, and with them the variables, of every caller.
    """
    fresh = _copied(error)
    fresh.__context__, fresh.__cause__ = error.__context__, error.__cause__
    fresh.__suppress_context__ = error.__suppress_context__
    raise fresh.with_traceback(error.__traceback__)


def _copied(error: BaseException) -> BaseException:
    kind = type(error)
    try:
        fresh = copy.copy(error)
        if fresh is not error and type(fresh) is kind:
            return fresh
    except BaseException:  # the constructor takes arguments other than `args`, or the class can't be copied
        pass
    try:
        fresh = kind.__new__(kind, *error.args)
        fresh.__dict__.update(error.__dict__)
        return fresh
    except BaseException:
        return ValueError(f"{kind.__name__}: {error}")
