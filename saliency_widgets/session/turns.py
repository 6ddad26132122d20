"""One worker shared by many sessions; preferred sessions come first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable

from saliency_widgets.attribution.errors import Cancelled
from saliency_widgets.session.jobs import EXECUTORS, do_nothing, report_error


class Turns:
    """Serves the sessions that have a seat here, one at a time.

    Work that does not run the model, such as redrawing a map, doesn't wait for its turn.

    Args:
        executor: "thread", or "inline" to work inside each kick.
        idle: Called when no session waits, with a check that raises
            :class:`~saliency_widgets.attribution.Cancelled` as soon as one does.
    """

    def __init__(self, executor: str = "thread", *, idle: Callable[[Callable[[], None]], None] | None = None) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[Hashable, _Seat] = {}
        self._brief: dict[Hashable, _Seat] = {}
        self._rank: dict[Hashable, int] = {}
        self._idle = idle
        self._closed = False
        self._long = EXECUTORS[executor](self._serve)
        self._short = EXECUTORS[executor](self._redraw)

    def seat(self, key: Hashable) -> Callable[[Callable[..., None]], _Seat]:
        """Return a factory for a session's executor: pass it to the session."""
        return lambda work: _Seat(self, key, work)

    def prefer(self, keys: Iterable[Hashable]) -> None:
        """Serve these first from now on, in this order."""
        with self._lock:
            self._rank = {key: rank for rank, key in enumerate(keys)}

    def close(self) -> None:
        """Stop serving."""
        with self._lock:
            self._closed = True
            self._waiting.clear()
            self._brief.clear()
        self._long.close()
        self._short.close()
        self._idle = None

    @property
    def here(self) -> bool:
        """Whether the calling thread is serving one of the sessions."""
        return self._long.here or self._short.here

    def _join(self, seat: _Seat, brief: bool) -> None:
        with self._lock:
            if self._closed or (brief and seat.key in self._waiting):
                return
            (self._brief if brief else self._waiting)[seat.key] = seat
        (self._short if brief else self._long).kick()

    def _leave(self, key: Hashable) -> None:
        with self._lock:
            self._waiting.pop(key, None)
            self._brief.pop(key, None)

    def _serve(self) -> None:
        while True:
            while (seat := self._next()) is not None:
                try:
                    seat.work()
                except BaseException:  # an unreported error must not block the other sessions
                    report_error()
            if self._idle is None or self._closed:
                return
            try:
                self._idle(self._check)
                return
            except Cancelled:
                pass  # a session came meanwhile

    def _redraw(self) -> None:
        while True:
            with self._lock:
                key = next(iter(self._brief), None)
                seat = None if key is None else self._brief.pop(key)
            if seat is None:
                return
            try:
                seat.work(brief=True)
            except BaseException:
                if self._brief:
                    self._short.kick()
                raise

    def _next(self) -> _Seat | None:
        with self._lock:
            if not self._waiting:
                return None
            last = len(self._rank)
            return self._waiting.pop(min(self._waiting, key=lambda key: self._rank.get(key, last)))

    def _check(self) -> None:
        if self._closed or self._waiting:
            raise Cancelled


class _Seat:
    """A session's position in the queue. One thread at a time does its work."""

    def __init__(self, turns: Turns, key: Hashable, work: Callable[..., None]) -> None:
        self._turns, self.key, self._work = turns, key, work
        self._working = threading.Lock()
        self._again = False

    def kick(self, brief: bool = False) -> None:
        """Join the queue."""
        self._turns._join(self, brief)

    @property
    def here(self) -> bool:
        """Whether the calling thread is serving one of the sessions."""
        return self._turns.here

    def close(self) -> None:
        """Leave the queue; running work ends by itself."""
        self._turns._leave(self.key)
        self._work = do_nothing

    def work(self, brief: bool = False) -> None:
        """Do the work; brief work is left to another thread that is already working."""
        if not brief:
            with self._working:
                self._work()
        self._again = self._again or brief
        while self._again and self._working.acquire(blocking=False):
            try:
                self._again = False
                self._work(brief=True)
            finally:
                self._working.release()
