"""Cells of a sweep: compute and measure one setting for one input, in any process."""

from __future__ import annotations

import math
import os
import pickle
import socket
import sys
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from saliency_widgets.attribution import Reduction, get_method
from saliency_widgets.attribution.errors import Cancelled
from saliency_widgets.evaluation.curves import STEPS
from saliency_widgets.evaluation.explanation import Explanation
from saliency_widgets.evaluation.fills import FILL
from saliency_widgets.evaluation.metrics import METRICS
from saliency_widgets.evaluation.registry import Measured
from saliency_widgets.evaluation.stability import TURNS
from saliency_widgets.inputs import unwrapped
from saliency_widgets.runtime.allocator import give_back
from saliency_widgets.runtime.model.devices import on_device
from saliency_widgets.runtime.runner import Runner
from saliency_widgets.session.compute import compute, neutral_modes
from saliency_widgets.session.problem import Problem
from saliency_widgets.session.request import Request

_MIB = 2**20
_PROBLEMS = 4  # prepared inputs per thread
_PAYLOADS = 2  # sweeps whose models a worker process holds


@dataclass(frozen=True, eq=False)
class Payload:
    """The data that all cells share; sent once to each worker process.

    Attributes:
        model: The model.
        options: Further arguments of :class:`Problem`.
        method: The method, as the caller passed it.
        score: The score, as the caller passed it.
        contrast: The contrast, as the caller passed it.
        reduction: How values are reduced to maps.
        metrics: The names of the metrics.
        fill: The replacement for removed pixels or features, for deletion and insertion.
        steps: The number of steps of the deletion and insertion curves.
        turns: The number of other seeds.
        stopped: A flag in a list: whether the sweep was abandoned, in this process.
    """

    model: Any
    options: Mapping[str, Any]
    method: Any
    score: str
    contrast: Any
    reduction: Reduction
    metrics: tuple[str, ...]
    fill: Any
    steps: int
    turns: int
    stopped: list[bool] = field(default_factory=lambda: [False])


@dataclass(frozen=True, eq=False)
class Cell:
    """One setting for one input.

    Attributes:
        input: The index of the input.
        setting: The index of the setting.
        inputs: The input itself, as the caller passed it.
        params: The method's parameters.
        target: The target to explain.
    """

    input: int
    setting: int
    inputs: Any
    params: Mapping[str, Any]
    target: Any = None


@dataclass(frozen=True, eq=False)
class CellResult:
    """The result of a cell.

    Attributes:
        numbers: The measured values, by metric name.
        values: The map, float32, with the shape of the input's features, such as (H, W) or (F,); None on error.
        error: The error message; empty on success.
        failure: The exception's type name; empty on success.
    """

    numbers: Mapping[str, float]
    values: np.ndarray | None = None
    error: str = ""
    failure: str = ""


def measure(payload: Payload, cell: Cell) -> CellResult:
    """Compute a cell's map and measure it; report errors in the result."""
    try:
        with neutral_modes():
            return _measure(payload, cell)
    except Cancelled:
        raise
    except Exception as error:
        return CellResult({}, error=str(error) or type(error).__name__, failure=type(error).__name__)


def _measure(payload: Payload, cell: Cell) -> CellResult:
    def check() -> None:
        if payload.stopped[0]:
            raise Cancelled

    problem = _problem(payload, cell)
    entry, reduction = get_method(payload.method), payload.reduction
    request = Request.of(
        payload.method, cell.params, target=cell.target, score=payload.score, contrast=payload.contrast
    )
    score, _ = problem.resolve(request)  # runs the model for the first time, before the clock starts
    runner = problem.runner(score, check)
    _settle(runner)
    start = time.perf_counter()
    *_, attribution = compute(problem, request, check)
    _settle(runner)
    seconds = time.perf_counter() - start
    params = dict(request.params)
    values = problem.map_of(attribution.values, reduction)
    settings = {FILL.name: payload.fill, STEPS.name: payload.steps, TURNS.name: payload.turns}
    explanation = Explanation(lambda _shared: runner, values, entry, params, reduction)
    peak = partial(_peak, runner, partial(explanation.explain, runner))
    measured = Measured(explanation, attribution, seconds, peak, settings)
    numbers = {name: measure(measured) for name in payload.metrics if (measure := METRICS[name].measure) is not None}
    return CellResult(numbers, _checked(values.float().cpu().numpy()))


def _checked(values: np.ndarray) -> np.ndarray:
    if not np.isfinite(values).all():
        raise ValueError("the map holds NaN or infinite values: the model's scores or gradients overflow here.")
    return values


def _settle(runner: Runner) -> None:
    if runner.inputs.is_cuda:
        torch.cuda.synchronize(runner.inputs.device)


def _peak(runner: Runner, work: Callable[[], Any]) -> float:
    """Return the peak MiB that ``work`` takes, on the CUDA device or in the whole process; NaN if unavailable."""
    device = runner.inputs.device
    if device.type == "cuda":
        _settle(runner)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        _settle(runner)
        return (torch.cuda.max_memory_allocated(device) - before) / _MIB
    try:
        give_back()  # otherwise, memory that the allocator holds for reuse would not count
        Path("/proc/self/clear_refs").write_text("5")  # reset the peak to the current value
        before = _resident("VmHWM")
        work()
        return (_resident("VmHWM") - before) / 1024
    except OSError:  # not Linux
        return math.nan


def _resident(field: str) -> int:
    """Return a field of the process status, in KiB (Linux only)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1])


# -- in a worker

_loading = threading.RLock()


class _Loaded:
    """A payload in use by a process: the model on its device, and the latest prepared inputs of each thread."""

    def __init__(self, payload: Payload) -> None:
        self._lock = threading.Lock()
        self._device = payload.options.get("device")
        self._options = {name: value for name, value in payload.options.items() if name != "device"}
        self._model: Any = None
        # Per thread, because threads must not run the same copy of the model concurrently.
        self._problems: dict[int, OrderedDict[int, Problem]] = {}

    def problem(self, payload: Payload, cell: Cell) -> Problem:
        """Return the problem of a cell."""
        with self._lock:
            if self._model is None:
                model, _ = unwrapped(payload.model)
                self._model = model if self._device is None else on_device(model, self._device)
            problems = self._problems.setdefault(threading.get_ident(), OrderedDict())
        if cell.input not in problems:
            problems[cell.input] = Problem(self._model, cell.inputs, **self._options)
            while len(problems) > _PROBLEMS:
                problems.popitem(last=False)
        problems.move_to_end(cell.input)
        return problems[cell.input]


_loaded: weakref.WeakKeyDictionary[Payload, _Loaded] = weakref.WeakKeyDictionary()


def _problem(payload: Payload, cell: Cell) -> Problem:
    with _loading:
        if payload not in _loaded:
            _loaded[payload] = _Loaded(payload)
        loaded = _loaded[payload]
    return loaded.problem(payload, cell)


@dataclass(frozen=True, eq=False)
class Reply:
    """The reply of a worker.

    Attributes:
        result: The cell's result; None if nothing was computed because the worker's process lacks the payload.
        process: The host and process of the worker.
        worker: The host, process and thread of the worker.
        loaded: Whether the payload was unpickled for this cell.
        address: The address of a Dask worker that lacks the payload; otherwise empty.
    """

    result: CellResult | None
    process: str
    worker: str
    loaded: bool = False
    address: str = ""


_HELD: OrderedDict[str, Payload] = OrderedDict()


def hold(key: str, payload: Payload) -> None:
    """Keep a payload in this process under a key, and drop the oldest beyond two."""
    with _loading:
        _HELD[key] = payload
        _HELD.move_to_end(key)
        while len(_HELD) > _PAYLOADS:
            _HELD.popitem(last=False)


def release(key: str) -> None:
    """Drop a payload from this process."""
    with _loading:
        _HELD.pop(key, None)


def _address() -> str:
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return ""
    try:
        return str(distributed.get_worker().address)
    except ValueError:  # not a Dask worker
        return ""


def run_cell(key: str, cell: Cell, packed: bytes | None) -> Reply:
    """Compute a cell in a worker.

    Args:
        key: The key of the payload.
        cell: The cell to compute.
        packed: The pickled payload, for a process that lacks it.
    """
    process = f"{socket.gethostname()}:{os.getpid()}"
    worker = f"{process}:{threading.get_ident()}"
    payload, loaded = _HELD.get(key), False
    if payload is None and packed is None:
        return Reply(None, process, worker, address=_address())
    if payload is None:
        assert packed is not None
        with _loading:  # only one thread unpickles it
            payload = _HELD.get(key)
            if payload is None:
                payload, loaded = pickle.loads(packed), True
                hold(key, payload)
    return Reply(measure(payload, cell), process, worker, loaded)
