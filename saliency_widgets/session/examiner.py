"""Checks beside the image: one worker of their own, that gives way to whoever moves a control."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from saliency_widgets.attribution.errors import Cancelled
from saliency_widgets.session.compute import alone
from saliency_widgets.session.jobs import EXECUTORS, Ending, prepare_wait, report_error, worker_error

_WAIT = 0.02  # seconds between looks whether the map is there


@dataclass(frozen=True)
class Check:
    """One question about trust.

    Attributes:
        name: Which check it is: the newest of a name counts.
        begin: From a function that is to be called often, and raises to end it, to running estimates.
        urgent: Whether somebody waits for it, as for the score under a brush: it goes before the others, and beside
            the map that is being computed.
    """

    name: str
    begin: Callable[[Callable[[], None]], Iterator[Any]]
    urgent: bool = False


@dataclass(frozen=True)
class Told:
    """What a check has to tell.

    Attributes:
        check: Which.
        found: The estimate so far; None before the first.
        state: "running", "done" or "error".
        error: What went wrong.
    """

    check: Check
    found: Any = None
    state: str = "running"
    error: Exception | None = None


class Examiner:
    """Answers checks one at a time: urgent ones first, the newest of each name, and none while a map is computed.

    A check that is put off begins again later; what single passes gave is kept, where its call keeps it.

    Args:
        deliver: Called with what each check tells, on the worker's thread, one at a time.
        busy: Whether a map is being computed.
        executor: "thread", or "inline" to work inside :meth:`ask`.

    Attributes:
        ending: Ends it, as :meth:`close` does, for the garbage collector.
    """

    def __init__(
        self, deliver: Callable[[Told], None], *, busy: Callable[[], bool] = lambda: False, executor: str = "thread"
    ) -> None:
        # In place, there is nobody else who could finish the map.
        self._deliver, self._busy = deliver, busy if executor == "thread" else lambda: False
        self._state = threading.Condition()
        self._asked: dict[str, Check] = {}
        self._now: Check | None = None
        self.ending = Ending()
        self._executor = EXECUTORS[executor](self._work)

    def ask(self, check: Check) -> None:
        """Ask; what was asked before under this name, and isn't finished, is dropped. Returns at once."""
        with self._state:
            if self.ending.over:
                return
            self._asked.pop(check.name, None)
            self._asked[check.name] = check
        self._executor.kick()

    def drop(self, name: str | None = None) -> None:
        """Drop what is asked under a name, or everything: it ends before its next layer."""
        with self._state:
            if name is None:
                self._asked.clear()
            else:
                self._asked.pop(name, None)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing is asked any more. Returns False when the time is over first.

        Raises:
            RuntimeError: The worker itself waits, in an observer.
        """
        prepare_wait(self._executor, bool(self._asked))
        with self._state:
            return self._state.wait_for(lambda: self.ending.over or not (self._asked or self._now), timeout)

    def close(self) -> None:
        """End the worker."""
        with self._state:
            self.ending.end()
            self._asked.clear()
            self._state.notify_all()
        self._executor.close()
        self._deliver, self._busy = (lambda _told: None), (lambda: False)

    def _work(self) -> None:
        while True:
            with self._state:
                self._now = next(iter(sorted(self._asked.values(), key=lambda check: not check.urgent)), None)
                check = self._now
                if check is None or self.ending.over:
                    self._now = None
                    self._state.notify_all()
                    return
            try:
                self._answer(check)
            except Cancelled:
                pass  # dropped, or put off: then it is still among those asked
            except BaseException as error:
                self._fail(check, worker_error(error))
            finally:
                with self._state:
                    self._now = None
                    self._state.notify_all()

    def _fail(self, check: Check, error: Exception) -> None:
        try:
            self._finish(check, Told(check, None, "error", error))
        except BaseException:  # what can't be told must not keep the other checks waiting
            report_error()

    def _answer(self, check: Check) -> None:
        def look() -> None:
            with self._state:
                # Looked at inside passes: for the map that is computed meanwhile, the device is to be free.
                while not (check.urgent or self.ending.over) and self._asked.get(check.name) is check and self._busy():
                    self._state.wait(_WAIT)
                if self.ending.over or self._asked.get(check.name) is not check:
                    raise Cancelled
                if not check.urgent and any(other.urgent for other in self._asked.values()):
                    raise Cancelled

        look()
        last: Any = None
        estimates = check.begin(look)
        while True:
            with alone():
                found = next(estimates, None)
            if found is None:
                break
            look()
            last = found
            self._deliver(Told(check, found))
        self._finish(check, Told(check, last, "done"))

    def _finish(self, check: Check, told: Told) -> None:
        with self._state:
            current = self._asked.get(check.name) is check
            if current:
                del self._asked[check.name]
        if current:
            self._deliver(told)
