"""The newest request wins: a one-slot mailbox, one worker, and a generation number on everything delivered."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from saliency_widgets.attribution import Attribution, Reduction
from saliency_widgets.attribution.errors import Cancelled, ModelChanged
from saliency_widgets.runtime.allocator import give_back
from saliency_widgets.runtime.model.version import Held
from saliency_widgets.runtime.reuse.graph_cache import once
from saliency_widgets.session.cache import SHARED, Cache, Scope
from saliency_widgets.session.compute import compute
from saliency_widgets.session.frames import Frame, frame_of
from saliency_widgets.session.jobs import EXECUTORS, Ending, Executor, prepare_wait, worker_error
from saliency_widgets.session.problem import Problem
from saliency_widgets.session.request import Request

_RETRIES = 3  # of a computation that failed because the model was being trained meanwhile
_FRAME_SECONDS = 1 / 30  # between running estimates; more of them nobody sees
_OPEN: weakref.WeakSet[Session] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    # A daemon thread inside torch at the interpreter's end aborts the process.
    for session in list(_OPEN):
        session.close()


State = Literal["running", "done", "stopped", "error"]


@dataclass(frozen=True)
class Event:
    """What the worker has to tell.

    Attributes:
        generation: Which request it belongs to; later requests have larger numbers.
        index: Counts the events of a session.
        state: "running", "done", "stopped" or "error".
        attribution: The estimate so far, or None before the first.
        frame: Its map under the reduction in force, or None.
        elapsed: Seconds since the computation began.
        remaining: Seconds still needed, if the rest goes as fast as the last chunk did; or None.
        error: What went wrong.
        request: The question it answers; with an error or a stop, the question that the estimate answers.
        asked: The newest question, which may be another one.
        cached: The answer was kept from before.
        version: Of the model and the inputs that the answer is about.
    """

    generation: int
    index: int
    state: State
    attribution: Attribution | None = None
    frame: Frame | None = None
    elapsed: float = 0.0
    remaining: float | None = None
    error: Exception | None = None
    request: Request | None = None
    asked: Request | None = None
    cached: bool = False
    version: tuple | None = None


class Session:
    """Answers requests about one problem, one at a time, the newest first and only.

    Args:
        problem: The model and the input.
        deliver: Called with each event, on the worker's thread, one at a time. Of an object that should be collected
            when nobody shows it, pass a weak method here, and ``ending.end`` to its finalizer.
        executor: "thread", or "inline" to work inside :meth:`submit`; or what makes one of the work, where several
            sessions share a worker.
        cache: Where finished maps are kept; all sessions share one unless given.
        owner: Whose they are: sessions of one owner and one problem find each other's. This session's own unless given;
            the owner then forgets them.
        idle: What is to be done whenever nothing is asked any more; called with a check that raises
            :class:`~saliency_widgets.attribution.Cancelled` as soon as something is.

    Attributes:
        ending: Ends it, as :meth:`close` does, for the garbage collector.
    """

    def __init__(
        self,
        problem: Problem,
        deliver: Callable[[Event], None],
        *,
        executor: str | Callable[[Callable[..., None]], Executor] = "thread",
        cache: Cache | None = None,
        owner: object = None,
        idle: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        self.problem = problem
        self._idle = idle
        self.cache = SHARED if cache is None else cache
        self.owner = self.cache.owner_of(self) if owner is None else owner
        self._owns = owner is None
        self._deliver = deliver
        self._state = threading.Condition()
        self._generation = 0
        self._stopped = 0  # the generation that was stopped by hand
        self._mail: Request | None = None
        self._reduction = Reduction()
        self._redraw = False
        self._busy = False
        self.ending = Ending()
        self._index = 0
        self._last: Event | None = None
        self._shown: Event | None = None
        _OPEN.add(self)
        make = EXECUTORS[executor] if isinstance(executor, str) else executor
        self._executor = make(self._work)

    @property
    def generation(self) -> int:
        """The number of the newest request."""
        return self._generation

    @property
    def busy(self) -> bool:
        """Whether something is asked or being computed."""
        return self._busy or self._mail is not None

    @property
    def last(self) -> Event | None:
        """The newest event delivered."""
        return self._last

    @property
    def shown(self) -> Event | None:
        """The newest event that had a map."""
        return self._shown

    def submit(self, request: Request) -> int:
        """Ask; what was asked before and isn't finished is dropped. Returns its generation at once."""
        with self._state:
            if self.ending.over:
                raise RuntimeError("session: it is closed; make a new explorer.")
            self._generation += 1
            self._mail = request
            generation = self._generation
        self._executor.kick()
        return generation

    def reduce(self, reduction: Reduction) -> None:
        """Show the values in another way: the next frame uses it, without a call of the model."""
        with self._state:
            if self.ending.over or reduction == self._reduction:
                return
            self._reduction = reduction
            self._redraw = True
        self._executor.kick(brief=True)

    def stop(self) -> None:
        """Stop what is being computed; the last estimate stays."""
        with self._state:
            self._stopped = self._generation
            self._mail = None

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing is asked, computed or to be drawn again. Returns False when the time is over first.

        Raises:
            RuntimeError: The worker itself waits, in an observer, for what it hasn't finished.
        """
        settled = self._mail is None and self._last is not None and self._last.state != "running"
        if settled and self._executor.here:
            return True
        prepare_wait(self._executor, self._mail is not None)
        with self._state:
            return self._state.wait_for(lambda: self.ending.over or not (self.busy or self._redraw), timeout)

    def kept(self, request: Request) -> Attribution | None:
        """The finished answer to a question, if it is known already."""
        return self.cache.get((self.owner, "map", self.problem.version(), request.paced(self.problem.rows).key))

    def answer(self, request: Request, check: Callable[[], None] = lambda: None) -> tuple[Attribution, tuple]:
        """The finished answer to a question, in the caller's thread and beside what is asked; kept, and not delivered.

        Args:
            request: The question.
            check: Called before and inside each pass; raises to end the computation.

        Returns:
            The answer, and the version of the model and the inputs that it is about.
        """
        request, version = request.paced(self.problem.rows), self.problem.version()
        key = (self.owner, "map", version, request.key)
        found = self.cache.get(key)
        if found is None:
            *_, found = compute(self.problem, request, check, version=version, cache=self.cache, owner=self.owner)
            if self.problem.version() != version:
                self.cache.forget(self.owner, version)
                raise ModelChanged("The model or the inputs were changed meanwhile. Ask again once they stay.")
            if not self.ending.over:
                self.cache.put(key, found)
        return found, version

    def close(self) -> None:
        """End the worker and free the cache."""
        with self._state:
            self.ending.end()
            self._mail = None
            self._state.notify_all()
        _OPEN.discard(self)
        self._executor.close()
        if self._owns:
            self.cache.forget(self.owner)
        self._last = self._shown = None
        give_back()
        self._deliver, self._idle = _nobody, None

    def _work(self, brief: bool = False) -> None:
        """Answer what is asked; briefly: draw again what is there, and leave what is asked to others."""
        again = True
        while again and not self.ending.over:
            self._answer_all(brief)
            again = not brief and not self._finish_idle()
        if self.ending.over:
            self._executor.close()  # it refers to this session, which nobody else may do any more

    def _finish_idle(self) -> bool:
        """Do what is done while nothing is asked; False where something was asked meanwhile."""
        try:
            if self._idle is not None:
                self._idle(self._check_idle)
        except Cancelled:
            return False
        return True

    def _check_idle(self) -> None:
        if self.ending.over or self._mail is not None or self._redraw:
            raise Cancelled

    def _answer_all(self, brief: bool = False) -> None:
        while True:
            with self._state:
                request = None if brief else self._mail
                self._mail = self._mail if brief else None
                generation = self._generation
                redraw, self._redraw = self._redraw, False
                last = self._last
                interrupted = not brief and request is None and last is not None and last.state == "running"
                if self.ending.over or (request is None and not redraw and not interrupted):
                    self._busy = False
                    self._state.notify_all()
                    return
                self._busy = True
            try:
                if request is not None:
                    self._answer(request, generation)
                elif last is not None and (interrupted or last.attribution is not None):
                    state = "stopped" if interrupted else last.state
                    self._tell(replace(last, generation=generation if interrupted else last.generation, state=state))
            except BaseException:
                # Whatever a delivery raises, waiters must not wait for ever.
                with self._state:
                    self._busy = False
                    self._state.notify_all()
                raise

    def _answer(self, request: Request, generation: int) -> None:
        def check() -> None:
            if self.ending.over or generation != self._generation or generation == self._stopped:
                raise Cancelled

        began = time.perf_counter()
        request = request.paced(self.problem.rows)
        base = Event(generation, 0, "running", request=request, asked=request)
        try:
            version = self.problem.version()
            kept = self.cache.get((self.owner, "map", version, request.key))
            if kept is not None:
                self._tell(
                    replace(base, state="done", attribution=kept, remaining=0.0, cached=True, version=version)
                )  # fmt: skip
                return
            self._tell(base)
            for left in reversed(range(_RETRIES)):
                try:
                    self._compute(request, base, began, version, check)
                    return
                except ModelChanged:
                    if not left:
                        raise
                    version = self.problem.version()
        except Cancelled:
            pass  # something newer is in the mailbox, or _work says that it was stopped
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                self._tell(replace(self._last or base, state="stopped"))
                raise  # in place: the caller's own pass was interrupted
            if generation == self._generation and not self.ending.over:
                # The last map stays on the screen, as what it is.
                shown = self._shown
                about = base if shown is None else replace(shown, generation=generation, asked=request)
                self._tell(replace(about, state="error", error=worker_error(error)))

    def _compute(self, request: Request, base: Event, began: float, version: tuple, check: Callable[[], None]) -> None:
        passes = self.problem.memory.passes
        told: float | None = None
        before = 0.0, 0  # seconds and work at the last estimate: early passes are small and slow, kept ones take none
        finished: Attribution | None = None
        base = replace(base, version=version)
        try:
            for found in compute(self.problem, request, check, version=version, cache=self.cache, owner=self.owner):
                check()
                elapsed = time.perf_counter() - began
                if found.complete:
                    finished = found
                    self._tell(replace(base, state="done", attribution=found, elapsed=elapsed, remaining=0.0))
                    break
                pace = (elapsed - before[0]) / max(found.done - before[1], 1)
                before = elapsed, found.done
                if told is not None and elapsed - told < _FRAME_SECONDS:
                    continue
                told, remaining = elapsed, pace * (found.total - found.done)
                self._tell(replace(base, attribution=found, elapsed=elapsed, remaining=remaining))
        finally:
            # Where a pass was run, the model may have been another by then: shown, but not kept, in whole or in part.
            same = self.problem.memory.passes == passes or self.problem.version() == version
            if not same:
                self.cache.forget(self.owner, version)
        if finished is not None and same:
            self.cache.put((self.owner, "map", version, request.key), finished)

    def _frame_of(self, found: Attribution, reduction: Reduction) -> Frame:
        """Its map; of a finished one, kept from before."""
        if not found.complete:
            return frame_of(found, reduction)
        kept = Scope(self.cache, (self.owner, "frame", Held(found), found.values._version))
        return once(kept, reduction, lambda: frame_of(found, reduction))

    def _tell(self, event: Event) -> None:
        """Give the event its number and its frame under the reduction in force, and deliver it."""
        with self._state:
            reduction, self._redraw = self._reduction, False
        found = event.attribution
        frame = None if found is None or found.columns is not None else self._frame_of(found, reduction)
        self._index += 1
        self._last = replace(event, index=self._index, frame=frame)
        if found is not None:
            self._shown = self._last
        self._deliver(self._last)


def _nobody(_event: Event) -> None:
    """Who is told when the session is closed."""
