"""The newest request wins: a one-slot mailbox, one worker, and a generation number on everything delivered."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from saliency_widgets.attribution import Attribution, Cancelled, Reduction
from saliency_widgets.engine.cache import MapCache
from saliency_widgets.engine.compute import compute
from saliency_widgets.engine.executors import EXECUTORS
from saliency_widgets.engine.frames import Frame, frame_of
from saliency_widgets.engine.request import Request
from saliency_widgets.engine.subject import Subject

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
        remaining: Seconds still needed, judged by the work done so far, or None.
        error: What went wrong.
    """

    generation: int
    index: int
    state: State
    attribution: Attribution | None = None
    frame: Frame | None = None
    elapsed: float = 0.0
    remaining: float | None = None
    error: Exception | None = None


class Session:
    """Answers requests about one subject, one at a time, the newest first and only.

    Args:
        subject: The model and the input.
        deliver: Called with each event, on the worker's thread, one at a time.
        executor: "thread", or "inline" to work inside :meth:`submit`.
        cache: Where finished maps are kept.
    """

    def __init__(
        self,
        subject: Subject,
        deliver: Callable[[Event], None],
        *,
        executor: str = "thread",
        cache: MapCache | None = None,
    ) -> None:
        self.subject = subject
        self.cache = MapCache() if cache is None else cache
        self._deliver = deliver
        self._state = threading.Condition()
        self._generation = 0
        self._stopped = 0  # the generation that was stopped by hand
        self._mail: Request | None = None
        self._reduction = Reduction()
        self._redraw = False
        self._busy = False
        self._closed = False
        self._index = 0
        self._last: Event | None = None
        self._executor = EXECUTORS[executor](self._work)

    @property
    def generation(self) -> int:
        """The number of the newest request."""
        return self._generation

    @property
    def last(self) -> Event | None:
        """The newest event delivered."""
        return self._last

    def submit(self, request: Request) -> int:
        """Ask; what was asked before and isn't finished is dropped. Returns its generation at once."""
        with self._state:
            if self._closed:
                raise RuntimeError("session: it is closed; make a new explorer.")
            self._generation += 1
            self._mail = request
            generation = self._generation
        self._executor.kick()
        return generation

    def reduce(self, reduction: Reduction) -> None:
        """Show the values in another way: the next frame uses it, without a call of the model."""
        with self._state:
            if self._closed or reduction == self._reduction:
                return
            self._reduction = reduction
            self._redraw = True
        self._executor.kick()

    def stop(self) -> None:
        """Stop what is being computed; the last estimate stays."""
        with self._state:
            self._stopped = self._generation
            self._mail = None

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing is asked or computed any more. Returns False when the time is over first."""
        with self._state:
            return self._state.wait_for(lambda: self._closed or not (self._busy or self._mail), timeout)

    def close(self) -> None:
        """End the worker and free the cache."""
        with self._state:
            self._closed = True
            self._mail = None
            self._state.notify_all()
        self._executor.close()
        self.cache.clear()

    def _work(self) -> None:
        while True:
            with self._state:
                request, self._mail = self._mail, None
                generation = self._generation
                redraw, self._redraw = self._redraw, False
                last = self._last
                interrupted = last if request is None and last is not None and last.state == "running" else None
                if self._closed or (request is None and not redraw and interrupted is None):
                    self._busy = False
                    self._state.notify_all()
                    return
                self._busy = True
            try:
                if request is not None:
                    self._answer(request, generation)
                elif interrupted is not None:
                    self._tell(
                        generation, "stopped", interrupted.attribution, interrupted.elapsed, interrupted.remaining
                    )
                elif last is not None and last.attribution is not None:
                    self._tell(
                        last.generation,
                        last.state,
                        last.attribution,
                        last.elapsed,
                        last.remaining,
                        last.error,
                    )
            except BaseException:
                # Whatever a delivery raises, waiters must not wait for ever.
                with self._state:
                    self._busy = False
                    self._state.notify_all()
                raise

    def _answer(self, request: Request, generation: int) -> None:
        def check() -> None:
            if self._closed or generation != self._generation or generation == self._stopped:
                raise Cancelled

        began = time.perf_counter()
        attribution: Attribution | None = None
        try:
            key = (request.key, self.subject.version())
            attribution = self.cache.get(key)
            if attribution is None:
                self._tell(generation, "running", None, 0.0, None)
                for attribution in compute(self.subject, request, check):
                    check()
                    elapsed = time.perf_counter() - began
                    remaining = elapsed * (attribution.total / attribution.done - 1)
                    if not attribution.complete:
                        self._tell(generation, "running", attribution, elapsed, remaining)
                if attribution is not None:
                    self.cache.put(key, attribution)
            self._tell(generation, "done", attribution, time.perf_counter() - began, 0.0)
        except Cancelled:
            pass  # something newer is in the mailbox, or _work says that it was stopped
        except Exception as error:
            if generation == self._generation and not self._closed:
                self._tell(generation, "error", None, time.perf_counter() - began, None, error)

    def _tell(
        self,
        generation: int,
        state: State,
        attribution: Attribution | None,
        elapsed: float,
        remaining: float | None,
        error: Exception | None = None,
    ) -> None:
        with self._state:
            reduction, self._redraw = self._reduction, False
        frame = None if attribution is None else frame_of(attribution, reduction)
        self._index += 1
        self._last = Event(generation, self._index, state, attribution, frame, elapsed, remaining, error)
        self._deliver(self._last)
