"""Trust checks: a separate worker that yields to computations started by the controls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from saliency_widgets.attribution.errors import Cancelled
from saliency_widgets.session.compute import neutral_modes
from saliency_widgets.session.jobs import Jobs
from saliency_widgets.session.worker import worker_error


@dataclass(frozen=True)
class Check:
    """One trust check.

    Attributes:
        name: The name: a new check replaces an older one of the same name.
        begin: Starts the check and yields running estimates. Its argument must be called often; it raises to cancel.
        urgent: Whether the user is waiting for the result, as for the score under a brush. The check then runs before
            the others, even while a map is being computed.
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
    """Runs checks one at a time: the newest of each name, urgent ones first, and others only while no map is computed.

    A postponed check starts again later and reuses the results of single passes that it cached.

    Args:
        deliver: Called with each event, on the worker's thread, one at a time.
        busy: Returns whether a map is being computed.
        executor: "thread", or "inline" to run checks inside :meth:`submit`.

    Attributes:
        jobs: The checks, by name.
    """

    def __init__(
        self, deliver: Callable[[CheckEvent], None], *, busy: Callable[[], bool] | None = None, executor: str = "thread"
    ) -> None:
        self._deliver = deliver
        self.jobs = Jobs(executor, busy=busy)

    def submit(self, check: Check) -> None:
        """Submit a check and return immediately; an unfinished one of the same name is dropped."""
        self.jobs.put(check.name, partial(self._run, check), urgent=check.urgent)

    def close(self) -> None:
        """End the worker."""
        self.jobs.close()
        self._deliver = lambda _event: None

    def _run(self, check: Check, proceed: Callable[[], None]) -> None:
        try:
            proceed()
            last, estimates = None, check.begin(proceed)
            while True:
                with neutral_modes():
                    estimate = next(estimates, None)
                proceed()
                if estimate is None:
                    break
                last = estimate
                self._deliver(CheckEvent(check, estimate))
            event = CheckEvent(check, last, "done")
        except Cancelled:
            raise
        except BaseException as error:
            event = CheckEvent(check, None, "error", worker_error(error))
            proceed()
        self._deliver(event)
