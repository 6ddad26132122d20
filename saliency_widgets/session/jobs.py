"""Jobs for one worker thread: the newest of each key counts, urgent ones run first, and idle time is used."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from functools import partial

from saliency_widgets.attribution.errors import Cancelled
from saliency_widgets.session.worker import EXECUTORS, report_error

Check = Callable[[], None]
"""Called often by a job; raises :class:`~saliency_widgets.attribution.errors.Cancelled` to end it."""

# Shared by all jobs, because some wait for others to end. While it is held, no callback but ``busy`` is called.
_CHANGED = threading.Condition()
_OPEN: weakref.WeakSet[Jobs] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    # A daemon thread that is still inside torch at interpreter shutdown aborts the process.
    for jobs in list(_OPEN):
        jobs.close()


class Ending:
    """A flag that ends a worker's jobs. It has no lock, because the garbage collector may set it.

    Finalizers refer to this object alone: a reference to the worker would keep its model alive.
    """

    over = False

    def end(self) -> None:
        """End the jobs."""
        self.over = True


@dataclass(frozen=True, eq=False)
class _Job:
    key: Hashable
    work: Callable[[Check], object]
    urgent: bool


class Jobs:
    """Runs one job at a time: the newest of each key; urgent ones first, then preferred ones, then the oldest.

    A job is cancelled when a new one of the same key replaces it, or when it is dropped. A job interrupted by an urgent
    one starts again afterwards.

    Args:
        executor: "thread", or "inline" to run jobs inside :meth:`put`.
        idle: Called when there is no job, with a check that raises as soon as there is one.
        busy: Returns whether something else comes first. Jobs that aren't urgent then wait inside their check.

    Attributes:
        changed: A condition that is notified when any job is added, dropped or ends; its lock guards all jobs.
        ending: Ends the worker, as :meth:`close` does, for the garbage collector.
    """

    def __init__(
        self,
        executor: str = "thread",
        *,
        idle: Callable[[Check], None] | None = None,
        busy: Callable[[], bool] | None = None,
    ) -> None:
        self.changed, self.ending = _CHANGED, Ending()
        self._idle = idle
        self._busy = _never if busy is None or executor == "inline" else busy  # inline, the wait would never end
        self._jobs: dict[Hashable, _Job] = {}  # including those that run
        self._running: list[_Job] = []  # several only inline, where one adds the next
        self._urgent = False
        self._rank: dict[Hashable, int] = {}
        self._executor = EXECUTORS[executor](self._work)
        _OPEN.add(self)

    def add(self, key: Hashable, work: Callable[[Check], object], *, urgent: bool = False) -> None:
        """Add a job without waking the worker, for callers that hold the lock."""
        with self.changed:
            if not self.ending.over:
                self._jobs.pop(key, None)
                self._jobs[key] = _Job(key, work, urgent)
                self._notify()

    def put(self, key: Hashable, work: Callable[[Check], object], *, urgent: bool = False) -> None:
        """Add a job and return immediately; an unfinished one of the same key is dropped.

        Args:
            key: The job's key.
            work: Runs the job; must call its argument often.
            urgent: Whether the user is waiting for it, as for the score under a brush: it runs before the others, even
                while something else is busy.
        """
        self.add(key, work, urgent=urgent)
        self.kick()

    def kick(self) -> None:
        """Wake the worker if there are jobs."""
        if self._jobs:
            self._executor.kick()

    def drop(self, key: Hashable = None) -> None:
        """Drop the job of this key, or all jobs; a running one ends at its next check."""
        with self.changed:
            if key is None:
                self._jobs.clear()
            else:
                self._jobs.pop(key, None)
            self._notify()

    def prefer(self, keys: Iterable[Hashable]) -> None:
        """Run the jobs of these keys first from now on, in this order."""
        with self.changed:
            self._rank = {key: rank for rank, key in enumerate(keys)}

    def has(self, key: Hashable = None) -> bool:
        """Return whether the job of this key, or any job, is waiting or running."""
        if key is None:
            return bool(self._jobs or self._running)
        return key in self._jobs or any(job.key == key for job in [*self._running])

    @property
    def here(self) -> bool:
        """Whether the calling thread is the worker."""
        return self._executor.here

    def prepare_wait(self) -> None:
        """Check that the calling thread can wait for jobs, and wake the worker.

        The worker is woken because an interrupt may have come between adding a job and waking it.

        Raises:
            RuntimeError: The waiting thread is the worker itself, because an observer calls ``wait``.
        """
        if self.here:
            raise RuntimeError(
                "wait: called by an observer on the worker's own thread, which would deadlock. Read finished results "
                "there, or wait in a cell."
            )
        self.kick()

    def wait(self, timeout: float | None = None, key: Hashable = None) -> bool:
        """Wait until the job of this key, or every job, has ended. Return False on a timeout.

        Raises:
            RuntimeError: See :meth:`prepare_wait`.
        """
        self.prepare_wait()
        with self.changed:
            return self.changed.wait_for(lambda: self.ending.over or not self.has(key), timeout)

    def close(self) -> None:
        """End the worker before its next chunk, and wait until it has stopped."""
        with self.changed:
            self.ending.end()
            self._jobs.clear()
            self._notify()
        self._executor.close()
        self._idle, self._busy = None, _never
        _OPEN.discard(self)

    def _notify(self) -> None:
        self._urgent = any(job.urgent for job in self._jobs.values())
        self.changed.notify_all()

    def _check(self, job: _Job) -> None:
        """Raise if a job has to end; wait while something else is busy. Called inside passes: locks only to wait."""
        if not job.urgent and self._busy():
            with self.changed:
                self.changed.wait_for(lambda: self._is_over(job) or not self._busy())
        if self._is_over(job):
            raise Cancelled

    def _is_over(self, job: _Job) -> bool:
        replaced = self.ending.over or self._jobs.get(job.key) is not job
        return replaced or (self._urgent and not job.urgent)

    def _check_idle(self) -> None:
        if self.ending.over or self._jobs:
            raise Cancelled

    def _work(self) -> None:
        while True:
            while (job := self._next()) is not None:
                self._run(job)
            if self.ending.over:
                self.close()  # pending jobs may hold the last reference to a model
            if self._idle is None or self._running:
                return
            try:
                self._idle(self._check_idle)
            except Cancelled:
                continue  # a job was added meanwhile
            if not self._jobs:
                return

    def _next(self) -> _Job | None:
        with self.changed:
            waiting = [job for job in self._jobs.values() if job not in self._running]
            if self.ending.over or not waiting:
                return None
            last = len(self._rank)
            job = min(waiting, key=lambda job: (not job.urgent, self._rank.get(job.key, last)))
            self._running.append(job)
            return job

    def _run(self, job: _Job) -> None:
        ended = True
        try:
            job.work(partial(self._check, job))
        except Cancelled:
            ended = False  # dropped or replaced, or interrupted and still pending
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                raise  # inline: the caller was interrupted
            report_error()  # jobs report their errors themselves; this one must not block the others
        finally:
            with self.changed:
                self._running.remove(job)
                if ended and self._jobs.get(job.key) is job:
                    del self._jobs[job.key]
                self._notify()


def _never() -> bool:
    return False
