"""Cells out to workers and answers back, on any ``concurrent.futures.Executor``."""

from __future__ import annotations

import concurrent.futures as cf
import pickle
import uuid
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from saliency_widgets.api.sweep.cells import Answer, Cell, Found, Payload, answer, hold, measure, release

_FORKED = (
    "executor: a process pool that forks can't use torch after this process has. Make it with "
    "ProcessPoolExecutor(n, mp_context=multiprocessing.get_context('spawn'))."
)


class ExecutorDiedError(RuntimeError):
    """The executor does not answer any more."""


def check_executor(executor: Any) -> None:
    """Look whether cells can be computed there.

    Raises:
        TypeError: It is no executor.
        ValueError: It forks this process.
    """
    if executor is None:
        return
    if not isinstance(executor, cf.Executor):
        raise TypeError(
            f"executor: expected a concurrent.futures.Executor, got a {type(executor).__name__}. Of a Dask client "
            f"that is client.get_executor()."
        )
    if isinstance(executor, cf.ProcessPoolExecutor):
        context = getattr(executor, "_mp_context", None)
        if context is not None and context.get_start_method() == "fork":
            raise ValueError(_FORKED)


def dispatch(executor: cf.Executor | None, payload: Payload, cells: Iterable[Cell]) -> Iterator[tuple[Cell, Found]]:
    """Compute cells, here or by an executor; they come as they are finished.

    The payload is packed once, and sent with a cell only where a worker's process has said that it lacks it; with Dask,
    to that very worker.

    Args:
        executor: None computes in this thread.
        payload: What they share.
        cells: What to compute.

    Yields:
        Cells with what was found.

    Raises:
        ExecutorDiedError: The executor does not answer any more.
        TypeError: The model, or another argument, can't be sent to another process.
    """
    if executor is None:
        for cell in cells:
            yield cell, measure(payload, cell)
        return
    yield from _Flight(executor, payload, cells).answers()


class _Flight:
    """The cells that are under way."""

    def __init__(self, executor: cf.Executor, payload: Payload, cells: Iterable[Cell]) -> None:
        self._executor, self._payload = executor, payload
        self._key = uuid.uuid4().hex
        self._packed: bytes | None = None
        self._waiting = deque(cells)
        self._parked: deque[Cell] = deque()  # came back from processes that lack the payload
        self._flying: dict[cf.Future[Answer], tuple[Cell, bool]] = {}
        self._workers: set[str] = set()
        self._lacking: set[str] = set()
        self._owed: deque[str] = deque()  # where payloads are still to be sent: Dask's addresses, or anywhere

    def answers(self) -> Iterator[tuple[Cell, Found]]:
        hold(self._key, self._payload)  # threads of this process find it
        try:
            while self._waiting or self._parked or self._flying:
                self._submit()
                done, _ = cf.wait(self._flying, return_when=cf.FIRST_COMPLETED)
                for future in done:
                    yield from self._land(future)
        finally:
            self._payload.stopped[0] = True  # of a sweep that was given up; threads end before their next pass
            for future in self._flying:
                future.cancel()
            release(self._key)

    def _submit(self) -> None:
        """As many as keep all workers busy that were seen, and a few more, so that others are seen."""
        while len(self._flying) < 2 * len(self._workers) + 2:
            if self._parked and not self._owed and not self._sending:
                self._waiting.extendleft(reversed(self._parked))
                self._parked.clear()
            queue = self._parked if self._owed and self._parked else self._waiting
            if not queue:
                return
            cell, send = queue.popleft(), bool(self._owed)
            executor = self._towards(self._owed.popleft()) if send else self._executor
            packed = self._pack() if send else None
            try:
                with warnings.catch_warnings():
                    # Dask's advice is for those who send the same large thing with each task.
                    warnings.filterwarnings("ignore", message="Sending large graph")
                    future = executor.submit(answer, self._key, cell, packed)
            except Exception as error:
                raise ExecutorDiedError(f"{type(error).__name__}: {error}") from error
            self._flying[future] = cell, send

    @property
    def _sending(self) -> bool:
        """Whether a payload is on its way with a cell."""
        return any(sent for _, sent in self._flying.values())

    def _towards(self, address: str) -> cf.Executor:
        """The executor for one worker of Dask's; if that is gone meanwhile, another takes what is meant for it."""
        client = getattr(self._executor, "_client", None)  # it is told in no other way
        if not address or client is None:
            return self._executor
        return client.get_executor(workers=[address], allow_other_workers=True)

    def _land(self, future: cf.Future[Answer]) -> Iterator[tuple[Cell, Found]]:
        cell, _ = self._flying.pop(future)
        try:
            told = future.result()
        except (pickle.PicklingError, AttributeError) as error:
            raise TypeError(_unsendable("inputs", error)) from error
        except (Exception, cf.CancelledError) as error:
            if type(error).__name__ == "KilledWorker":  # Dask's: this cell has ended several workers
                yield cell, Found({}, error=f"workers ended while they computed it: {error}", failure="KilledWorker")
                return
            raise ExecutorDiedError(f"{type(error).__name__}: {error}".rstrip(": ")) from error
        if told.found is None:
            self._parked.append(cell)
            if told.process not in self._lacking or not (self._sending or self._owed):
                self._lacking.add(told.process)
                self._owed.append(told.address)
            return
        if told.loaded:
            self._lacking.discard(told.process)
        self._workers.add(told.worker)
        yield cell, told.found

    def _pack(self) -> bytes:
        if self._packed is None:
            try:
                import cloudpickle as pickler  # what is defined in a notebook travels too
            except ImportError:
                pickler = pickle
            try:
                self._packed = pickler.dumps(self._payload)
            except Exception as error:
                raise TypeError(_unsendable("model", error)) from error
        return self._packed


def _unsendable(what: str, error: BaseException) -> str:
    return (
        f"{what}: it can't be sent to another process ({type(error).__name__}: {error}). Define its classes and "
        f"functions in a module, install cloudpickle, or use a ThreadPoolExecutor."
    )
