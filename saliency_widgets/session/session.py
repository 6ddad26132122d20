"""Sessions: the newest request wins. One pending request, one worker, and a generation number on every event."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from saliency_widgets.attribution import Attribution, Reduction
from saliency_widgets.attribution.errors import Cancelled, ModelChanged
from saliency_widgets.render.quantize import Quantized
from saliency_widgets.runtime.allocator import give_back
from saliency_widgets.runtime.model.version import Held
from saliency_widgets.runtime.reuse.graph_cache import once
from saliency_widgets.session.cache import SHARED, Cache, Scope
from saliency_widgets.session.compute import compute
from saliency_widgets.session.frames import frame_of
from saliency_widgets.session.jobs import Check, Jobs
from saliency_widgets.session.problem import Problem
from saliency_widgets.session.request import Request
from saliency_widgets.session.worker import worker_error

_RETRIES = 3  # attempts at a computation that fails because the model is trained meanwhile
_FRAME_SECONDS = 1 / 30  # between running estimates; more of them would not be visible

State = Literal["running", "done", "stopped", "error"]


@dataclass(frozen=True)
class Event:
    """A result or a change of state of a session.

    Attributes:
        generation: The number of the request; later requests have larger numbers.
        index: The number of the event in its session.
        state: "running", "done", "stopped" or "error".
        attribution: The estimate so far, or None before the first.
        frame: Its map under the current reduction, or None.
        elapsed: Seconds since the computation began.
        remaining: Estimated seconds left, at the speed of the last chunk; or None.
        error: The error, if any.
        request: The request that the attribution belongs to, also after an error or a stop.
        newest: The newest request, which may be a different one.
        cached: Whether the result comes from the cache.
        version: The version of the model and the inputs that the result belongs to.
        corrected: Whether it was computed again because the weights had changed unnoticed.
        reduction: The reduction of the frame.
    """

    generation: int
    index: int
    state: State
    attribution: Attribution | None = None
    frame: Quantized | None = None
    elapsed: float = 0.0
    remaining: float | None = None
    error: Exception | None = None
    request: Request | None = None
    newest: Request | None = None
    cached: bool = False
    version: tuple | None = None
    corrected: bool = False
    reduction: Reduction | None = None


class Session:
    """Computes requests for one problem, one at a time; a new request replaces the previous one.

    Args:
        problem: The model and the input.
        deliver: Called with each event, on the worker's thread, one at a time. If its object should be collected when
            it is no longer shown, pass a weak method here, and ``ending.end`` to the object's finalizer.
        executor: "thread", or "inline" to compute inside :meth:`submit`.
        cache: Holds finished maps. Default: the cache that all sessions share.
        owner: The owner of the cache entries; sessions with the same owner and problem share results. The caller then
            drops them. Default: a new owner, whose entries are dropped when the session is closed.
        idle: Called when no request is pending, with a check that raises
            :class:`~saliency_widgets.attribution.errors.Cancelled` as soon as there is one.
        lanes: The shared jobs of several sessions: those that run the model, and those that only redraw a map.
        key: The key of the session's jobs among those of other sessions.

    Attributes:
        ending: Ends the worker, as :meth:`close` does, for the garbage collector.
    """

    def __init__(
        self,
        problem: Problem,
        deliver: Callable[[Event], None],
        *,
        executor: str = "thread",
        cache: Cache | None = None,
        owner: object = None,
        idle: Callable[[Check], None] | None = None,
        lanes: tuple[Jobs, Jobs] | None = None,
        key: Hashable = "map",
    ) -> None:
        self.problem = problem
        self.cache = SHARED if cache is None else cache
        self.owner = self.cache.owner_of(self) if owner is None else owner
        self._owns = owner is None
        self._deliver = deliver
        self._shares = lanes is not None
        if lanes is None and executor == "thread":  # otherwise the session has no idle time
            idle = _both(idle, weakref.WeakMethod(self._verify))  # an idle worker must not keep the model alive
        self._jobs, self._drawing = lanes or (Jobs(executor, idle=idle),) * 2
        self._keys = key, ("frame", key)
        self.ending = self._jobs.ending
        self._working = threading.RLock()  # held by the thread that delivers; reentrant, as inline work is nested
        self._generation = self._begun = 0
        self._closed = False
        self._reduction = Reduction()
        self._redraw = False
        self._corrected = 0  # the generation that was computed again
        self._index = 0
        self._last: Event | None = None
        self._shown: Event | None = None

    @property
    def generation(self) -> int:
        """The number of the newest request."""
        return self._generation

    @property
    def busy(self) -> bool:
        """Whether a request is pending or being computed."""
        return self._jobs.has(self._keys[0])

    @property
    def last(self) -> Event | None:
        """The newest event delivered."""
        return self._last

    @property
    def shown(self) -> Event | None:
        """The newest event that had a map."""
        return self._shown

    def submit(self, request: Request) -> int:
        """Submit a request and return its generation immediately; an unfinished earlier request is dropped."""
        with self._jobs.changed:
            if self._closed or self.ending.over:
                raise RuntimeError("session: the session is closed. Create a new explorer.")
            self._generation += 1
            generation = self._generation
            self._jobs.add(self._keys[0], partial(self._serve, request, generation))
        self._jobs.kick()
        return generation

    def reduce(self, reduction: Reduction) -> None:
        """Set the reduction of the next frame; the current map is redrawn without running the model."""
        with self._jobs.changed:
            if self._closed or reduction == self._reduction:
                return
            self._reduction = reduction
            self._redraw = True
            self._drawing.add(self._keys[1], self._draw)
        self._drawing.kick()

    def stop(self) -> None:
        """Stop the computation; the last estimate stays shown."""
        with self._jobs.changed:
            if not self.busy:
                return
            self._jobs.add(self._keys[0], self._halt)
        self._jobs.kick()

    def forget(self) -> None:
        """Drop everything that was computed for this model and input."""
        self.problem.renew()
        self.cache.forget(self.owner)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing is left to compute or redraw. Return False on a timeout.

        Raises:
            RuntimeError: An observer on the worker's own thread waits for unfinished work.
        """
        settled = self._begun == self._generation and self._last is not None and self._last.state != "running"
        if settled and (self._jobs.here or self._drawing.here):
            return True
        for lane in (self._jobs, self._drawing):
            lane.prepare_wait()
        changed = self._jobs.changed
        with changed:
            return changed.wait_for(
                lambda: self._closed or self.ending.over or not (self.busy or self._drawing.has(self._keys[1])), timeout
            )

    def cached(self, request: Request) -> Attribution | None:
        """Return the finished result of a request, if it is in the cache."""
        return self.cache.get(self._key(request.with_chunk_size(self.problem.rows), self.problem.version()))

    def run(self, request: Request, check: Check = lambda: None) -> tuple[Attribution, tuple]:
        """Compute a request in the caller's thread, separately from submitted ones; cache the result without an event.

        Args:
            request: What to compute.
            check: Called before and inside each pass; raises to end the computation.

        Returns:
            The result, and the version of the model and the inputs that it belongs to.
        """
        request, version = request.with_chunk_size(self.problem.rows), self.problem.version()
        key = self._key(request, version)
        attribution = self.cache.get(key)
        if attribution is None:
            *_, attribution = compute(self.problem, request, check, version=version, cache=self.cache, owner=self.owner)
            if self.problem.version() != version:
                self.cache.forget(self.owner, version)
                raise ModelChanged(
                    "The model or the inputs changed during the computation. Try again once they are stable."
                )
            if not (self._closed or self.ending.over):
                self.cache.put(key, attribution)
        return attribution, version

    def close(self) -> None:
        """End the worker and free the cache."""
        with self._jobs.changed:
            self._closed = True
            self._jobs.drop(self._keys[0])
            self._drawing.drop(self._keys[1])
        if not self._shares:
            self._jobs.close()
        if self._owns:
            self.cache.forget(self.owner)
        self._last = self._shown = None
        give_back()
        self._deliver = _ignore

    def _key(self, request: Request, version: tuple) -> tuple:
        """Return the key of a finished map; the version is the third item, where the cache expects it."""
        return self.owner, "map", version, request.key

    # ---- jobs

    def _verify(self, check: Check) -> None:
        """Hash all weights, and compute the shown map again if they have changed unnoticed."""
        try:
            if not self.problem.verify(check):  # which gives the model a new version
                return
        except Cancelled:
            raise
        except Exception:
            return  # the next request reports it
        self.cache.forget(self.owner)
        with self._jobs.changed:
            last = self._last
            newest = None if last is None or last.state == "stopped" else last.newest
            if newest is not None and not self._closed and not self.busy:
                self._generation += 1
                self._corrected = self._generation
                self._jobs.add(self._keys[0], partial(self._serve, newest, self._generation))

    def _draw(self, _check: Check) -> None:
        """Deliver the current map again, unless another thread is delivering an event or is about to."""
        if self._working.acquire(blocking=False):
            try:
                last = self._last
                if self._redraw and self._begun == self._generation and last and last.attribution is not None:
                    self._publish(last)
            finally:
                self._working.release()

    def _halt(self, _check: Check) -> None:
        """Deliver an event that the computation was stopped."""
        with self._working:
            self._begun = self._generation
            if self._last is not None and self._last.state == "running":
                self._publish(replace(self._last, generation=self._generation, state="stopped"))
        self._draw_late()

    def _serve(self, request: Request, generation: int, check: Check) -> None:
        try:
            with self._working:
                self._begun = generation
                self._answer(request, generation, check)
        finally:
            self._draw_late()

    def _draw_late(self) -> None:
        """Redraw the map if the reduction was changed while the map was delivered."""
        if self._redraw:
            self._drawing.put(self._keys[1], self._draw)

    def _answer(self, request: Request, generation: int, check: Check) -> None:
        start = time.perf_counter()
        request = request.with_chunk_size(self.problem.rows)
        corrected = generation == self._corrected
        base = Event(generation, 0, "running", request=request, newest=request, corrected=corrected)
        try:
            version = self.problem.version()
            cached = self.cache.get(self._key(request, version))
            if cached is not None:
                self._publish(
                    replace(base, state="done", attribution=cached, remaining=0.0, cached=True, version=version)
                )
                return
            self._publish(base)
            for left in reversed(range(_RETRIES)):
                try:
                    self._compute(request, base, start, version, check)
                    return
                except ModelChanged:
                    if not left:
                        raise
                    version = self.problem.version()
        except Cancelled:
            raise  # for a newer request, or to be stopped
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                self._publish(replace(self._last or base, state="stopped"))
                raise  # inline: the caller was interrupted
            if generation == self._generation and not (self._closed or self.ending.over):
                # The last map stays on the screen, with its own request.
                shown = self._shown
                event = base if shown is None else replace(shown, generation=generation, newest=request)
                self._publish(replace(event, state="error", error=worker_error(error)))

    def _compute(self, request: Request, base: Event, start: float, version: tuple, check: Check) -> None:
        passes = self.problem.memory.passes
        sent: float | None = None
        # Time and work at the last estimate, for the recent pace: early passes are slow, and cached ones take no time.
        before = 0.0, 0
        finished: Attribution | None = None
        base = replace(base, version=version)
        try:
            for estimate in compute(self.problem, request, check, version=version, cache=self.cache, owner=self.owner):
                check()
                elapsed = time.perf_counter() - start
                if estimate.complete:
                    finished = estimate
                    self._publish(replace(base, state="done", attribution=estimate, elapsed=elapsed, remaining=0.0))
                    break
                pace = (elapsed - before[0]) / max(estimate.done - before[1], 1)
                before = elapsed, estimate.done
                if sent is not None and elapsed - sent < _FRAME_SECONDS:
                    continue
                sent, remaining = elapsed, pace * (estimate.total - estimate.done)
                self._publish(replace(base, attribution=estimate, elapsed=elapsed, remaining=remaining))
        finally:
            # The model may have changed while passes were run. The result is then shown, but nothing is cached.
            same = self.problem.memory.passes == passes or self.problem.version() == version
            if not same:
                self.cache.forget(self.owner, version)
        if finished is not None and same:
            self.cache.put(self._key(request, version), finished)

    def _frame_of(self, attribution: Attribution, reduction: Reduction) -> Quantized:
        """Return the frame of an attribution; frames of finished ones are cached."""
        if not attribution.complete:
            return frame_of(attribution, reduction)
        frames = Scope(self.cache, (self.owner, "frame", Held(attribution), attribution.values._version))
        return once(frames, reduction, lambda: frame_of(attribution, reduction, once=partial(once, frames)))

    def _publish(self, event: Event) -> None:
        """Number an event, add the frame under the current reduction, and deliver it."""
        with self._jobs.changed:
            reduction, self._redraw = self._reduction, False
        attribution = event.attribution
        drawn = attribution is not None and self.problem.kind.drawn
        frame = self._frame_of(attribution, reduction) if attribution is not None and drawn else None
        self._index += 1
        self._last = replace(event, index=self._index, frame=frame, reduction=reduction)
        if attribution is not None:
            self._shown = self._last
        self._deliver(self._last)


def _ignore(_event: Event) -> None:
    """Discard an event: replaces the callback of a closed session."""


def _both(idle: Callable[[Check], None] | None, verify: weakref.WeakMethod[Callable[[Check], None]]) -> Callable:
    def work(check: Check) -> None:
        if idle is not None:
            idle(check)
        method = verify()
        if method is not None:
            method(check)

    return work
