"""Where the work is done: on one worker thread, or in place for tests and scripts."""

from __future__ import annotations

import atexit
import copy
import queue
import sys
import threading
import traceback
import weakref
from collections.abc import Callable
from typing import NoReturn, Protocol

from saliency_widgets.params import check_choice
from saliency_widgets.runtime.allocator import give_back


class Executor(Protocol):
    """Runs the work it was made with, once after each kick at the least."""

    def kick(self, brief: bool = False) -> None:
        """There is work; brief work is without a pass of the model."""
        ...

    def close(self) -> None:
        """There will be none any more."""
        ...

    @property
    def here(self) -> bool:
        """Whether the thread that asks is at this work."""
        ...


class Ending:
    """Whether what a worker computes is to end. Without a lock: the garbage collector may say so.

    Its finalizers refer to this alone, and not to the worker, whose model would outlive them.
    """

    over = False

    def end(self) -> None:
        """Nobody waits any more."""
        self.over = True


_OPEN: weakref.WeakSet[ThreadExecutor] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    # A daemon thread inside torch at the interpreter's end aborts the process. Sessions, which are made of executors,
    # have told theirs to stop by then: what was registered later is called sooner.
    for executor in list(_OPEN):
        executor.close()


def check_elsewhere(here: bool) -> None:
    """Look whether another thread does the work that is waited for: see :attr:`Executor.here`.

    Raises:
        RuntimeError: It is the thread that waits: an observer calls on the worker.
    """
    if here:
        raise RuntimeError(
            "wait: an observer calls it on the worker's own thread, which would wait for itself. Read there what is "
            "finished already, or wait in a cell."
        )


def prepare_wait(executor: Executor, requested: bool) -> None:
    """Look whether an executor can be waited for, and wake it where something is requested.

    Whoever requested it may have been interrupted before the worker knew of it.

    Raises:
        RuntimeError: See :func:`check_elsewhere`.
    """
    check_elsewhere(executor.here)
    if requested:
        executor.kick()


def do_nothing(**_options: bool) -> None:
    """The work of an executor that is closed: it refers to nobody."""


class InlineExecutor:
    """Works inside :meth:`kick`; returns when the work is done."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._thread: threading.Thread | None = None

    def kick(self, brief: bool = False) -> None:  # noqa: ARG002
        """Work now."""
        before, self._thread = self._thread, threading.current_thread()
        try:
            self._work()
        finally:
            self._thread = before

    def close(self) -> None:
        """Nothing to end."""

    @property
    def here(self) -> bool:
        """Whether the thread that asks is at this work."""
        return threading.current_thread() is self._thread


class ThreadExecutor:
    """One worker thread, started by a kick; it ends by itself after a while without one. A kick returns at once.

    While it waits, the thread holds nothing but the queue of kicks: an executor that nobody refers to any more is
    collected, and its thread ends.
    """

    idle_seconds = 10.0

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        # Unlike an Event, it may be written to by the garbage collector, whatever its thread holds then.
        self._kicks: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        weakref.finalize(self, self._kicks.put, None).atexit = False
        _OPEN.add(self)

    def kick(self, brief: bool = False) -> None:  # noqa: ARG002
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
        """End the worker; it stops before its next chunk. Waits for that, unless the worker itself calls."""
        with self._lock:
            self._closed = True
            thread = self._thread
        self._work = do_nothing
        self._kicks.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=10)

    @property
    def here(self) -> bool:
        """Whether the thread that asks is the worker."""
        return threading.current_thread() is self._thread

    def work(self) -> bool:
        """Work, on the worker's thread. Returns False where the executor is closed."""
        if self._closed:
            return False
        try:
            self._work()
        except BaseException:
            # Work reports its own errors; one that it can't report must not end the worker, nor vanish.
            report_error()
        return not self._closed

    def retire(self) -> bool:
        """End the thread, if no kick has come; asked by the thread, after a while without one."""
        with self._lock:
            if not self._kicks.empty():
                return False
            self._thread = None
        return True


def _serve(executor: weakref.ref[ThreadExecutor], kicks: queue.SimpleQueue[None], idle_seconds: float) -> None:
    """The thread of an executor: work after each kick."""
    while True:
        # A cell that is run twenty times must not leave twenty threads behind.
        try:
            kicks.get(timeout=idle_seconds)
        except queue.Empty:
            current = executor()
            if current is None or current.retire():
                break
            del current  # before it waits again
            continue
        while not kicks.empty():  # many kicks are one call of the work; no other thread takes them
            kicks.get()
        current = executor()
        if current is None or not current.work():
            break
        del current
    give_back()


def report_error() -> None:
    """Give the exception that is being handled on this thread to ``threading.excepthook``."""
    kind, error, trace = sys.exc_info()
    if isinstance(error, SystemExit):  # which the hook passes over in silence
        kind, error = RuntimeError, worker_error(error)
    told = threading.ExceptHookArgs((kind, error, trace, threading.current_thread()))
    try:
        threading.excepthook(told)
    except BaseException:  # a hook of somebody's own
        threading.__excepthook__(told)


def worker_error(error: BaseException) -> Exception:
    """What a worker reports of an exception: itself, without the values of the frames that it came through.

    One that would end a thread or the process (SystemExit, KeyboardInterrupt, GeneratorExit and the like) was raised
    by the model's code, as nobody else does on a worker: it becomes a ValueError. So does one that can't be shown.
    """
    for one in _behind(error):
        traceback.clear_frames(one.__traceback__)
    name = type(error).__name__
    try:
        what = repr(error) if error.args else name
        if isinstance(error, Exception) and str(error) is not None:
            return error
    except BaseException:  # its own words fail, and whoever shows it would fail with them
        what = name
    made = ValueError(
        f"model: its code raised {what} while it was computed, which would have ended the thread. Raise an Exception "
        f"there instead, such as a RuntimeError."
    )
    made.__cause__ = error
    return made


def _behind(error: BaseException) -> list[BaseException]:
    """An exception, and all that it came from or holds."""
    behind, left = {}, [error]
    while left:
        one = left.pop()
        if id(one) not in behind:
            behind[id(one)] = one
            members = one.exceptions if isinstance(one, BaseExceptionGroup) else ()
            left += [other for other in (one.__cause__, one.__context__, *members) if other is not None]
    return list(behind.values())


def raise_again(error: BaseException) -> NoReturn:
    """Raise a copy of an exception that was kept, with the traceback of where it came from.

    The same object raised again and again would gather the frames, and with them the values, of all who caught it.
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
    except BaseException:  # its class takes other arguments than it keeps, or can't be copied
        pass
    try:
        fresh = kind.__new__(kind, *error.args)
        fresh.__dict__.update(error.__dict__)
        return fresh
    except BaseException:
        return ValueError(f"{kind.__name__}: {error}")


EXECUTORS: dict[str, Callable[[Callable[[], None]], Executor]] = {
    "thread": ThreadExecutor,
    "inline": InlineExecutor,
}


def check_executor(name: str) -> str:
    """The name of an executor.

    Raises:
        TypeError: It is no name.
        ValueError: There is none of this name.
    """
    return check_choice("executor", name, list(EXECUTORS))
