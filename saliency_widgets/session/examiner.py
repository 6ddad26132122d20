"""Trust checks: a separate worker that yields to computations started by the controls."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from saliency_widgets.attribution.errors import Cancelled
from saliency_widgets.session.compute import neutral_modes
from saliency_widgets.session.jobs import EXECUTORS, Ending, prepare_wait, report_error, worker_error

_WAIT = 0.02  # seconds between checks whether the map is finished


@dataclass(frozen=True)
class Check:
    """One trust check.

    Attributes:
        name: Identifies the check: a new one replaces an older one of the same name.
        begin: Starts the check and yields running estimates. Its argument must be called often; it raises to cancel.
        urgent: Whether a person waits for it, as for the score under a brush. It then runs before the others, and
            while a map is being computed.
    """

    name: str
    begin: Callable[[Callable[[], None]], Iterator[Any]]
    urgent: bool = False


@dataclass(frozen=True)
class CheckEvent:
    """The progress of a check.

    Attributes:
        check: The check.
        result: The estimate so far; None before the first.
        state: "running", "done" or "error".
        error: The error, if any.
    """

    check: Check
    result: Any = None
    state: str = "running"
    error: Exception | None = None


class Examiner:
    """Runs checks one at a time: urgent ones first, the newest of each name, and none while a map is computed.

    A check that is put off starts again later; results of single passes that the check caches are reused.

    Args:
        deliver: Called with each event, on the worker's thread, one at a time.
        busy: Whether a map is being computed.
        executor: "thread", or "inline" to work inside :meth:`submit`.

    Attributes:
        ending: Ends the worker, as :meth:`close` does, for the garbage collector.
    """

    def __init__(
        self,
        deliver: Callable[[CheckEvent], None],
        *,
        busy: Callable[[], bool] = lambda: False,
        executor: str = "thread",
    ) -> None:
        # Inline, no other thread could finish the map.
        self._deliver, self._busy = deliver, busy if executor == "thread" else lambda: False
        self._state = threading.Condition()
        self._pending: dict[str, Check] = {}
        self._current: Check | None = None
        self.ending = Ending()
        self._executor = EXECUTORS[executor](self._work)

    def submit(self, check: Check) -> None:
        """Submit a check and return at once; an unfinished one of the same name is dropped."""
        with self._state:
            if self.ending.over:
                return
            self._pending.pop(check.name, None)
            self._pending[check.name] = check
        self._executor.kick()

    def drop(self, name: str | None = None) -> None:
        """Drop the check of this name, or all checks; a running one ends before its next layer."""
        with self._state:
            if name is None:
                self._pending.clear()
            else:
                self._pending.pop(name, None)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until no check is pending. Return False on a timeout.

        Raises:
            RuntimeError: The worker itself waits, in an observer.
        """
        prepare_wait(self._executor, bool(self._pending))
        with self._state:
            return self._state.wait_for(lambda: self.ending.over or not (self._pending or self._current), timeout)

    def close(self) -> None:
        """End the worker."""
        with self._state:
            self.ending.end()
            self._pending.clear()
            self._state.notify_all()
        self._executor.close()
        self._deliver, self._busy = (lambda _event: None), (lambda: False)

    def _work(self) -> None:
        while True:
            with self._state:
                self._current = next(iter(sorted(self._pending.values(), key=lambda check: not check.urgent)), None)
                check = self._current
                if check is None or self.ending.over:
                    self._current = None
                    self._state.notify_all()
                    return
            try:
                self._run(check)
            except Cancelled:
                pass  # dropped, or put off and still pending
            except BaseException as error:
                self._fail(check, worker_error(error))
            finally:
                with self._state:
                    self._current = None
                    self._state.notify_all()

    def _fail(self, check: Check, error: Exception) -> None:
        try:
            self._finish(check, CheckEvent(check, None, "error", error))
        except BaseException:  # a failed delivery must not block the other checks
            report_error()

    def _run(self, check: Check) -> None:
        def check_pending() -> None:
            with self._state:
                # Called inside passes: blocking here frees the device for the map that is being computed.
                while (
                    not (check.urgent or self.ending.over) and self._pending.get(check.name) is check and self._busy()
                ):
                    self._state.wait(_WAIT)
                if self.ending.over or self._pending.get(check.name) is not check:
                    raise Cancelled
                if not check.urgent and any(other.urgent for other in self._pending.values()):
                    raise Cancelled

        check_pending()
        last: Any = None
        estimates = check.begin(check_pending)
        while True:
            with neutral_modes():
                estimate = next(estimates, None)
            if estimate is None:
                break
            check_pending()
            last = estimate
            self._deliver(CheckEvent(check, estimate))
        self._finish(check, CheckEvent(check, last, "done"))

    def _finish(self, check: Check, event: CheckEvent) -> None:
        with self._state:
            current = self._pending.get(check.name) is check
            if current:
                del self._pending[check.name]
        if current:
            self._deliver(event)
