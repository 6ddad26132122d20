"""Send cells to workers and collect their results, on any ``concurrent.futures.Executor``."""

from __future__ import annotations

import concurrent.futures as cf
import pickle
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from saliency_widgets.api.sweep.cells import Cell, CellResult, Payload, Reply, hold, measure, release, run_cell

_FORKED = (
    "executor: forked processes can't use torch after this process has used it. Create the pool with "
    "ProcessPoolExecutor(n, mp_context=multiprocessing.get_context('spawn'))."
)


class ExecutorDiedError(RuntimeError):
    """The executor stopped responding."""


def check_executor(executor: Any) -> None:
    """Check that an executor can compute cells.

    Raises:
        TypeError: The argument is not an executor.
        ValueError: The executor forks this process.
    """
    if executor is None:
        return
    if not isinstance(executor, cf.Executor):
        raise TypeError(
            f"executor: expected a concurrent.futures.Executor, got a {type(executor).__name__}. For a Dask client, "
            f"pass client.get_executor()."
        )
    if isinstance(executor, cf.ProcessPoolExecutor):
        context = getattr(executor, "_mp_context", None)
        if context is not None and context.get_start_method() == "fork":
            raise ValueError(_FORKED)


def dispatch(
    executor: cf.Executor | None, payload: Payload, cells: Iterable[Cell]
) -> Iterator[tuple[Cell, CellResult]]:
    """Compute cells, in this thread or on an executor, and yield them as they finish.

    The payload is pickled once, and sent with a cell only after a worker's process has replied that it lacks the
    payload; with Dask, to that same worker.

    Args:
        executor: None computes in this thread.
        payload: The data that all cells share.
        cells: The cells to compute.

    Yields:
        Each cell with its result.

    Raises:
        ExecutorDiedError: The executor stopped responding.
        TypeError: The model, or another argument such as a tokenizer, can't be sent to another process.
    """
    if executor is None:
        for cell in cells:
            yield cell, measure(payload, cell)
        return
    yield from _Dispatcher(executor, payload, cells).results()


class _Dispatcher:
    """Submits cells to an executor and collects their results."""

    def __init__(self, executor: cf.Executor, payload: Payload, cells: Iterable[Cell]) -> None:
        self._executor, self._payload = executor, payload
        self._key = uuid.uuid4().hex
        self._packed: bytes | None = None
        self._waiting = deque(cells)
        self._parked: deque[Cell] = deque()  # returned by processes without the payload
        self._running: dict[cf.Future[Reply], tuple[Cell, bool]] = {}
        self._workers: set[str] = set()
        self._lacking: set[str] = set()
        self._owed: deque[str] = deque()  # where to send payloads: Dask addresses, or "" for any worker

    def results(self) -> Iterator[tuple[Cell, CellResult]]:
        hold(self._key, self._payload)  # for worker threads of this process
        try:
            while self._waiting or self._parked or self._running:
                self._submit()
                done, _ = cf.wait(self._running, return_when=cf.FIRST_COMPLETED)
                for future in done:
                    yield from self._receive(future)
        finally:
            self._payload.stopped[0] = True  # if the sweep was abandoned, its threads stop before their next pass
            for future in self._running:
                future.cancel()
            release(self._key)

    def _submit(self) -> None:
        """Submit enough cells for all workers seen so far, plus a few to discover further workers."""
        while len(self._running) < 2 * len(self._workers) + 2:
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
                    # Dask warns about the large payload, but it is sent only once to each worker.
                    warnings.filterwarnings("ignore", message="Sending large graph")
                    future = executor.submit(run_cell, self._key, cell, packed)
            except Exception as error:
                raise ExecutorDiedError(f"{type(error).__name__}: {error}") from error
            self._running[future] = cell, send

    @property
    def _sending(self) -> bool:
        """Whether a payload is being sent with a cell."""
        return any(sent for _, sent in self._running.values())

    def _towards(self, address: str) -> cf.Executor:
        """Return an executor for one Dask worker; if that worker is gone, another runs the cell."""
        client = getattr(self._executor, "_client", None)  # no public attribute is available
        if not address or client is None:
            return self._executor
        return client.get_executor(workers=[address], allow_other_workers=True)

    def _receive(self, future: cf.Future[Reply]) -> Iterator[tuple[Cell, CellResult]]:
        cell, _ = self._running.pop(future)
        try:
            reply = future.result()
        except (pickle.PicklingError, AttributeError) as error:
            raise TypeError(_unsendable("inputs", error)) from error
        except (Exception, cf.CancelledError) as error:
            if type(error).__name__ == "KilledWorker":  # from Dask: several workers died on this cell
                yield (
                    cell,
                    CellResult({}, error=f"workers died while computing it: {error}", failure="KilledWorker"),
                )
                return
            raise ExecutorDiedError(f"{type(error).__name__}: {error}".rstrip(": ")) from error
        if reply.result is None:
            self._parked.append(cell)
            if reply.process not in self._lacking or not (self._sending or self._owed):
                self._lacking.add(reply.process)
                self._owed.append(reply.address)
            return
        if reply.loaded:
            self._lacking.discard(reply.process)
        self._workers.add(reply.worker)
        yield cell, reply.result

    def _pack(self) -> bytes:
        if self._packed is None:
            try:
                import cloudpickle as pickler  # also pickles classes and functions defined in a notebook
            except ImportError:
                pickler = pickle
            try:
                self._packed = pickler.dumps(self._payload)
            except Exception as error:
                raise TypeError(_unsendable(_unpicklable(self._payload.options, pickler.dumps), error)) from error
        return self._packed


def _unpicklable(options: Mapping[str, Any], pickled: Callable[[Any], bytes]) -> str:
    """Return the name of the first option that can't be pickled, such as a tokenizer; "model" if all can."""
    for name, value in options.items():
        try:
            pickled(value)
        except Exception:  # the caller has the error of the whole payload
            return name
    return "model"


def _unsendable(what: str, error: BaseException) -> str:
    return (
        f"{what}: it can't be sent to another process ({type(error).__name__}: {error}). Define its classes and "
        f"functions in a module, install cloudpickle, or use a ThreadPoolExecutor."
    )
