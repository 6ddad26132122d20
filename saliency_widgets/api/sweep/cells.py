"""One setting, one input: what is computed and measured, wherever that is."""

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
from saliency_widgets.attribution.numerics.noise import SEED
from saliency_widgets.evaluation.metrics import METRICS, Measured
from saliency_widgets.inputs import unwrapped
from saliency_widgets.runtime.allocator import give_back
from saliency_widgets.runtime.model.devices import on_device
from saliency_widgets.runtime.runner import Runner
from saliency_widgets.session.compute import alone, compute
from saliency_widgets.session.explanation import has_seed, map_of, reduced
from saliency_widgets.session.problem import Problem
from saliency_widgets.session.request import Request

_MIB = 2**20
_SUBJECTS = 4  # inputs that a thread keeps prepared
_PAYLOADS = 2  # sweeps that a worker process keeps the model of


@dataclass(frozen=True, eq=False)
class Payload:
    """What all cells share, and what travels once to each worker process.

    Attributes:
        model: The model.
        given: Further arguments of :class:`Problem`.
        method: As the caller gave it.
        score: As the caller gave it, and so on.
        reduction: How maps are shown.
        metrics: Names of what is measured.
        fill: Of deletion and insertion.
        steps: Of their curves.
        turns: How many other seeds.
        stopped: In this process, whether nobody waits any more.
    """

    model: Any
    given: Mapping[str, Any]
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
        input: Number of the input.
        setting: Number of the setting.
        inputs: The input itself, as the caller gave it.
        params: The method's parameters.
        target: What is explained.
    """

    input: int
    setting: int
    inputs: Any
    params: Mapping[str, Any]
    target: Any = None


@dataclass(frozen=True, eq=False)
class Found:
    """What was found for a cell.

    Attributes:
        numbers: By the names of the metrics.
        values: The map, float32, shape (H, W) or (F,); None with an error.
        error: What went wrong; empty where nothing did.
        failure: The exception's type name.
    """

    numbers: Mapping[str, float]
    values: np.ndarray | None = None
    error: str = ""
    failure: str = ""


def measure(payload: Payload, cell: Cell) -> Found:
    """Compute a cell's map and measure it; what goes wrong is a part of what is found."""
    try:
        with alone():
            return _measure(payload, cell)
    except Cancelled:
        raise
    except Exception as error:
        return Found({}, error=str(error) or type(error).__name__, failure=type(error).__name__)


def _measure(payload: Payload, cell: Cell) -> Found:
    def check() -> None:
        if payload.stopped[0]:
            raise Cancelled

    problem = _problem(payload, cell)
    entry, reduction = get_method(payload.method), payload.reduction
    request = Request.of(
        payload.method, cell.params, target=cell.target, score=payload.score, contrast=payload.contrast
    )
    score, _ = problem.resolve(request)  # the model is looked at here, before the time is taken
    runner = problem.runner(score, check)
    _settle(runner)
    began = time.perf_counter()
    *_, found = compute(problem, request, check)
    _settle(runner)
    seconds = time.perf_counter() - began
    params = dict(request.params)
    explain = partial(map_of, entry, params, reduction, runner)
    values = reduced(found.values, reduction, problem.size)
    about = Measured(
        runner, found, values, explain, int(params[SEED.name]) if has_seed(entry) else None, seconds,
        partial(_peak, runner, explain), payload.fill, payload.steps, payload.turns,
    )  # fmt: skip
    numbers = {
        name: measure(about) for name in payload.metrics if (measure := METRICS[name].measure) is not None
    }  # fmt: skip
    return Found(numbers, _checked(values.float().cpu().numpy()))


def _checked(values: np.ndarray) -> np.ndarray:
    if not np.isfinite(values).all():
        raise ValueError("the map holds NaN or infinite values: the model's scores or gradients overflow here.")
    return values


def _settle(runner: Runner) -> None:
    if runner.inputs.is_cuda:
        torch.cuda.synchronize(runner.inputs.device)


def _peak(runner: Runner, work: Callable[[], Any]) -> float:
    """MiB that some work takes at most: told by the device, or by the system of the whole process."""
    device = runner.inputs.device
    if device.type == "cuda":
        _settle(runner)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        _settle(runner)
        return (torch.cuda.max_memory_allocated(device) - before) / _MIB
    try:
        give_back()  # what lies ready for the next pass would not be seen to be taken
        Path("/proc/self/clear_refs").write_text("5")  # the most so far becomes what it is now
        before = _resident("VmHWM")
        work()
        return (_resident("VmHWM") - before) / 1024
    except OSError:  # another system
        return math.nan


def _resident(field: str) -> int:
    """KiB of this process, from what Linux tells of it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1])


# -- in a worker

_loading = threading.RLock()


class _Kept:
    """What a process keeps of a payload: the model where it computes, and of each thread the last inputs."""

    def __init__(self, payload: Payload) -> None:
        self._lock = threading.Lock()
        self._device = payload.given.get("device")
        self._given = {name: value for name, value in payload.given.items() if name != "device"}
        self._model: Any = None
        # Of each thread its own: passes of one stand-in must not meet.
        self._problems: dict[int, OrderedDict[int, Problem]] = {}

    def problem(self, payload: Payload, cell: Cell) -> Problem:
        """The model with the cell's input, prepared."""
        with self._lock:
            if self._model is None:
                model, _ = unwrapped(payload.model)
                self._model = model if self._device is None else on_device(model, self._device)
            mine = self._problems.setdefault(threading.get_ident(), OrderedDict())
        if cell.input not in mine:
            mine[cell.input] = Problem(self._model, cell.inputs, **self._given)
            while len(mine) > _SUBJECTS:
                mine.popitem(last=False)
        mine.move_to_end(cell.input)
        return mine[cell.input]


_kept: weakref.WeakKeyDictionary[Payload, _Kept] = weakref.WeakKeyDictionary()


def _problem(payload: Payload, cell: Cell) -> Problem:
    with _loading:
        if payload not in _kept:
            _kept[payload] = _Kept(payload)
        kept = _kept[payload]
    return kept.problem(payload, cell)


@dataclass(frozen=True, eq=False)
class Answer:
    """What comes back from a worker.

    Attributes:
        found: None where the worker's process lacks the model, and nothing was done.
        process: Name of that process.
        worker: And of the thread.
        loaded: Whether the model was unpacked for this.
        address: Of the worker, where it is one of Dask's.
    """

    found: Found | None
    process: str
    worker: str
    loaded: bool = False
    address: str = ""


_HELD: OrderedDict[str, Payload] = OrderedDict()


def hold(key: str, payload: Payload) -> None:
    """Keep a payload under its name in this process."""
    with _loading:
        _HELD[key] = payload
        _HELD.move_to_end(key)
        while len(_HELD) > _PAYLOADS:
            _HELD.popitem(last=False)


def release(key: str) -> None:
    """Let go of a payload."""
    with _loading:
        _HELD.pop(key, None)


def _address() -> str:
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return ""
    try:
        return str(distributed.get_worker().address)
    except ValueError:  # this is no worker of its
        return ""


def answer(key: str, cell: Cell, packed: bytes | None) -> Answer:
    """What a worker runs.

    Args:
        key: Name of the payload.
        cell: What to compute.
        packed: The payload itself, for a process that lacks it.
    """
    process = f"{socket.gethostname()}:{os.getpid()}"
    worker = f"{process}:{threading.get_ident()}"
    payload, loaded = _HELD.get(key), False
    if payload is None and packed is None:
        return Answer(None, process, worker, address=_address())
    if payload is None:
        assert packed is not None
        with _loading:  # of several threads, one unpacks it
            payload = _HELD.get(key)
            if payload is None:
                payload, loaded = pickle.loads(packed), True
                hold(key, payload)
    return Answer(measure(payload, cell), process, worker, loaded)
