"""``sw.sweep``: hyperparameters over inputs, measured, kept as they come, on one machine or many."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from saliency_widgets.attribution import Reduction
from saliency_widgets.attribution.method import Method, get_method
from saliency_widgets.attribution.reduction import CHANNEL
from saliency_widgets.attribution.targets import SCORE
from saliency_widgets.engine.allocator import keep_memory
from saliency_widgets.engine.case import has_seed
from saliency_widgets.engine.compute import alone
from saliency_widgets.engine.fingerprint import identity
from saliency_widgets.engine.request import Request
from saliency_widgets.engine.subject import Subject
from saliency_widgets.engine.sweeping.cells import Cell, Found, Payload, measure
from saliency_widgets.engine.sweeping.dispatch import ExecutorDiedError, check_executor, dispatch
from saliency_widgets.engine.sweeping.result import FINEST, Sweep, refining
from saliency_widgets.engine.sweeping.signature import signature
from saliency_widgets.engine.sweeping.store import Memory, Store
from saliency_widgets.evaluation.choice import WITHIN
from saliency_widgets.evaluation.curves import KINDS, STEPS
from saliency_widgets.evaluation.fills import FILL, filling
from saliency_widgets.evaluation.metrics import METRICS, Metric
from saliency_widgets.evaluation.stability import TURNS
from saliency_widgets.inputs import Explain
from saliency_widgets.params import unknown

__all__ = ["ExecutorDiedError", "Sweep", "sweep"]

LIMIT = 5000
"""Cells that are computed without being asked for."""

# The last sweep that had no file: an interrupted one goes on where it was, as long as the process lives.
_unsaved: Memory | None = None


def sweep(
    model: nn.Module,
    inputs: Any,
    method: Any,
    grid: Mapping[str, Sequence[Any]],
    metrics: Sequence[str] | None = None,
    *,
    quality: str | None = None,
    cost: str = "evaluations",
    within: float = WITHIN.default,
    store: Any = None,
    executor: Any = None,
    limit: int = LIMIT,
    target: Any = None,
    score: str = SCORE.default,
    contrast: Any = None,
    sign: str | None = None,
    channels: str = CHANNEL.default,
    fill: Any = None,
    steps: int = STEPS.default,
    turns: int = TURNS.default,
    transform: Any = None,
    class_names: Any = None,
    explain: Explain = None,
    device: torch.device | str | None = None,
    fold: bool = True,
    precision: str | None = None,
    feature_names: Sequence[str] | None = None,
    background: Any = None,
    progress: bool = True,
    **params: Any,
) -> Sweep:
    """Measure settings of a method on some inputs, and say which is worth using.

    Every cell, one setting for one input, is computed from scratch, so that its cost is its own. Finished cells are
    kept as they come: called again after an interruption, with the same ``store``, only the others are computed.

    Args:
        model: Any ``torch.nn.Module``; it is left as it was found.
        inputs: One input, as for :func:`attribute`, or many: a list of pictures, an array or tensor with a row for
            each, or a DataFrame. As the model sees them, all of one size.
        method: As for :func:`attribute`.
        grid: The values of each parameter: ``{"noise_level": [0.05, 0.1, 0.2], "n_samples": [8, 32, 128]}``.
        metrics: Which of "similarity" (to the finest setting), "insertion", "deletion", "delta" (completeness error),
            "standard_error", "seeds" (stability), "evaluations" (gradients), "time" and "memory". Those that apply
            and cost nothing unless given, and "insertion" where values are to be told apart that don't just refine.
        quality: The metric that settings are chosen by; the first of the metrics that is no cost unless given.
        cost: The metric that is to be kept low: "evaluations", "time" or "memory".
        within: How much worse than the best the recommended setting may be, as a part of the best.
        store: A file (SQLite) for finished cells. They are found again by the model's weights, attributes and code, and
            by what it sees; what code reads from elsewhere (a file, a library's settings) is not looked at. Without a
            file they are kept in memory until the next other sweep.
        executor: Any ``concurrent.futures.Executor``: a thread pool, a process pool that spawns, or
            ``dask.distributed.Client(...).get_executor()``. The model travels once to each worker's process. Computed
            here, one after another, unless given.
        limit: A larger grid is not begun: it is said how long it would take.
        target: As for :func:`attribute`; None is the top prediction of each input, and a list says one for each.
        score: As for :func:`attribute`.
        contrast: As for :func:`attribute`.
        sign: How maps are shown and compared; the method's own choice unless given.
        channels: Likewise.
        fill: What is put where something is taken away, for deletion and insertion; "blur" unless given, and of rows
            "mean", where there is a background, or "zero".
        steps: Of their curves.
        turns: How many other seeds stability is measured with.
        transform: As for :func:`attribute`, and so on.
        class_names: Likewise.
        explain: Likewise.
        device: Likewise; with one worker for each GPU, "cuda" is each worker's own.
        fold: Likewise.
        precision: Likewise.
        feature_names: Likewise.
        background: Likewise.
        progress: Whether a progress bar is shown.
        **params: Other parameters of the method, the same in all cells.

    Returns:
        The table, the maps, and the recommendation: ``.table``, ``.summary``, ``.map_of(...)``, ``.words``,
        ``.recommended``, ``.knee``.

    Raises:
        TypeError: An argument of the wrong type, or one that can't be sent to a worker.
        ValueError: An argument out of range, an unknown name, an empty grid or one over the limit, inputs of different
            sizes, or no cell that could be computed.
        ExecutorDiedError: The executor does not answer any more. What was finished is kept.
    """
    global _unsaved
    entry = get_method(method)
    grid = _grid(entry, grid, params)
    chosen, quality = _metrics(entry, grid, metrics, quality, cost)
    check_executor(executor)
    if not isinstance(limit, int):
        raise TypeError(f"limit: expected a number of maps, got a {type(limit).__name__}.")
    score = SCORE.check(score)
    within = WITHIN.check(within)
    given = {
        "transform": transform, "class_names": class_names, "explain": explain, "device": device, "fold": fold,
        "precision": precision, "feature_names": feature_names, "background": background,
    }  # fmt: skip
    keep_memory()
    each = _split(model, inputs, given)
    first, reduction = each[0].subject(), Reduction(sign or entry.sign, channels)
    targets = _targets(target, len(each))
    wanted = Request.of(
        method, {**params, **{name: values[0] for name, values in grid.items()}}, target=targets[0], score=score,
        contrast=contrast,
    )  # fmt: skip
    with alone():  # a wrong argument is an error of this call
        resolved, _ = first.resolve(wanted)
        if fill is None:
            rows = "zero" if first.prepared.columns is None or first.prepared.columns.rows is None else "mean"
            fill = FILL.default if first.size is not None else rows
        if any(metric.name in KINDS for metric in chosen):
            filling(first.call(resolved), fill, 0)
    payload = Payload(
        model, given, method, score, contrast, reduction, tuple(metric.name for metric in chosen), fill,
        STEPS.check(steps), TURNS.check(turns),
    )  # fmt: skip
    count = math.prod(map(len, grid.values()))
    if count * len(each) > limit:
        middle = Cell(0, 0, each[0].item, _middle(entry, grid, params), targets[0])
        raise ValueError(_too_many(payload, each, count, middle, limit))
    settings = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    whole = [entry.check_params({**params, **setting}) for setting in settings]
    cells = [Cell(place, k, one.item, whole[k], targets[place]) for place, one in enumerate(each) for k in range(count)]
    if store is not None:
        kept: Store | Memory = Store(store)
        names: list[Hashable] = [*_names(payload, method, each, cells)]
    else:
        names = [(cell.input, identity(cell.params)) for cell in cells]
        about = identity([inputs, method, target, score, contrast, sign, channels, fill, steps, turns, payload.metrics])
        about = (about, identity(given))
        if _unsaved is None or not _unsaved.is_of(model, about):
            _unsaved = Memory(model, about)
        kept = _unsaved
    try:
        found = _finish(kept, names, payload, cells, executor, progress)
    finally:
        kept.close()
    if all(cell.error for cell in found.values()):
        raise ValueError(f"sweep: no cell could be computed. {next(iter(found.values())).error}")
    shown = [one.picture for one in each]
    result = Sweep(entry, grid, settings, dict(params), chosen, found, shown, quality, cost, within)
    return result if metrics is not None else result.with_numbers()


def _finish(
    kept: Store | Memory, names: list[Hashable], payload: Payload, cells: list[Cell], executor: Any, progress: bool
) -> dict[tuple[int, int], Found]:
    """What is kept, and then the rest."""
    there: dict[Any, Found] = dict(kept.get(names))  # pyright: ignore
    name_of = {(cell.input, cell.setting): name for cell, name in zip(cells, names, strict=True)}
    found = {place: there[name] for place, name in name_of.items() if name in there}
    left = [cell for cell in cells if (cell.input, cell.setting) not in found]
    bar = tqdm(total=len(cells), initial=len(found), disable=not progress, unit="map")
    answers: Iterator[tuple[Cell, Found]] = dispatch(executor, payload, left)
    try:
        with bar:
            for cell, told in answers:
                place = cell.input, cell.setting
                found[place] = told
                if not told.error:
                    kept.put(name_of[place], told)  # pyright: ignore[reportArgumentType]
                bar.update()
    except ExecutorDiedError as error:
        where = "in memory" if kept.path is None else f"in {kept.path}"
        raise ExecutorDiedError(
            f"executor: it does not answer any more, after {len(found)} of {len(cells)} cells ({error}). They are kept "
            f"{where}: call again with another executor, or none, to compute the rest."
        ) from error
    finally:
        answers.close()  # pyright: ignore[reportAttributeAccessIssue]
    return found


def _targets(target: Any, inputs: int) -> list[Any]:
    """What is explained of each input: one for all, or a list with one for each."""
    if inputs > 1 and isinstance(target, (list, tuple, Tensor, np.ndarray)) and len(target) == inputs:
        return [one.item() if hasattr(one, "item") else one for one in target]
    return [target] * inputs


def _grid(entry: Method, grid: Mapping[str, Sequence[Any]], params: Mapping[str, Any]) -> dict[str, list[Any]]:
    if not isinstance(grid, Mapping):
        raise TypeError(f"grid: expected a mapping from parameters to lists of values, got a {type(grid).__name__}.")
    known = {param.name: param for param in entry.params}
    found: dict[str, list[Any]] = {}
    for name, values in grid.items():
        if name not in known:
            raise ValueError(unknown("grid", name, list(known)))
        if name in params:
            raise ValueError(f"grid: {name!r} is in the grid and among the fixed parameters. Say it once.")
        if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__") or isinstance(values, Mapping):
            raise TypeError(f"grid: expected a list of values for {name!r}, got {values!r}.")
        found[name] = [known[name].check(getattr(value, "item", lambda v=value: v)()
                       if getattr(value, "ndim", None) == 0 else value) for value in values]  # fmt: skip
        if not found[name]:
            raise ValueError(f"grid: there is no value for {name!r}. Give one at least, or leave it out.")
        plain = [value for value in found[name] if isinstance(value, (int, float, str))]
        if len(set(plain)) < len(plain):
            raise ValueError(f"grid: a value of {name!r} is there twice: {plain}.")
    if not found:
        raise ValueError(f"grid: it is empty. Give values of one parameter at least, of {list(known)}.")
    return found


def _metrics(
    entry: Method, grid: Mapping[str, Sequence[Any]], asked: Sequence[str] | None, quality: str | None, cost: str
) -> tuple[list[Metric], str]:
    """What is measured, and what settings are chosen by."""
    finer = [param.name for param in refining(entry) if param.name in grid]
    if isinstance(asked, str):
        asked = [asked]
    if asked is not None and not asked:
        raise ValueError(f"metrics: the list is empty. Choose of {list(METRICS)}, or leave it out.")
    names = list(asked or ())
    if asked is None:
        names = [FINEST] * bool(finer) + ["insertion"] * (set(grid) > set(finer) or not finer)
        names = [*reversed(names), "delta", "standard_error", "evaluations", "time"]
    for name, what in ((cost, "cost"), (cost if quality is None else quality, "quality")):
        if name not in METRICS:
            raise ValueError(unknown(what, name, list(METRICS)))
    for name in names:
        if name not in METRICS:
            raise ValueError(unknown("metrics", name, list(METRICS)))
    if not METRICS[cost].cost:
        raise ValueError(f"cost: {cost!r} is no cost. Expected one of {[n for n, m in METRICS.items() if m.cost]}.")
    if FINEST in (*names, quality) and not finer:
        raise ValueError(
            f"metrics: 'similarity' compares with the most samples or steps, and the grid varies none of "
            f"{[param.name for param in refining(entry)]}."
        )
    if "seeds" in (*names, quality) and not has_seed(entry):
        raise ValueError(f"metrics: {entry.title} draws nothing, so there are no 'seeds' to compare.")
    good = [name for name in names if not METRICS[name].cost]
    if quality is None:
        if not good:
            raise ValueError(f"metrics: {names} are costs. Add what settings are to be chosen by, such as 'insertion'.")
        quality = good[0]
    if METRICS[quality].cost:
        raise ValueError(
            f"quality: {quality!r} is a cost. Expected one of {[n for n, m in METRICS.items() if not m.cost]}."
        )
    return [METRICS[name] for name in dict.fromkeys((*names, quality, cost))], quality


@dataclass(frozen=True, eq=False)
class _Input:
    """One of the inputs.

    Attributes:
        item: As the caller gave it.
        subject: Makes it ready for the model.
        shape: As the model sees it.
        picture: Of it, for people; None where it is none.
    """

    item: Any
    subject: Callable[[], Subject]
    shape: tuple[int, ...]
    picture: np.ndarray | None


def _split(model: nn.Module, inputs: Any, given: Mapping[str, Any]) -> list[_Input]:
    """Each input by itself, looked at here, where there may be no such device as the workers have."""
    given = {name: value for name, value in given.items() if name not in ("device", "precision")}
    if isinstance(inputs, list) and not (inputs and _numbers(inputs)):
        items = list(inputs)
    elif (rows := len(Subject(model, inputs, **given).tensor)) == 1:
        items = [inputs]
    elif (frame := getattr(inputs, "iloc", None)) is not None:
        items = [frame[[k]] for k in range(rows)]
    elif hasattr(inputs, "shape") and len(inputs) == rows:
        items = [inputs[k : k + 1].clone() if isinstance(inputs, Tensor) else inputs[k : k + 1] for k in range(rows)]
    else:
        raise TypeError(f"inputs: {rows} samples in a {type(inputs).__name__}. Pass a list with one for each.")
    if not items:
        raise ValueError("inputs: the list is empty. Pass one input at least.")
    each = [_read(item, partial(Subject, model, item, **given)) for item in items]
    shapes: dict[tuple[int, ...], int] = {}
    for place, one in enumerate(each):
        shapes.setdefault(one.shape, place)
    if len(shapes) > 1:
        told = ", ".join(f"{'x'.join(map(str, shape))} (input {place})" for shape, place in list(shapes.items())[:4])
        raise ValueError(
            f"inputs: as the model sees them they have different sizes: {told}. Pass transform= with a resize and a "
            f"crop."
        )
    return each


def _read(item: Any, subject: Callable[[], Subject]) -> _Input:
    ready = subject()
    if len(ready.tensor) != 1:
        raise ValueError(f"inputs: a list holds single inputs, and one of them is a batch of {len(ready.tensor)}.")
    if ready.parts:
        raise ValueError(f"explain: a sweep is about one input. Pass explain= one of {list(ready.parts)}.")
    shown = None if ready.prepared.pictures is None else ready.prepared.pictures[0]
    return _Input(item, subject, tuple(ready.tensor.shape[1:]), shown)


def _numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, (int, float)) for value in values)


def _middle(entry: Method, grid: Mapping[str, Sequence[Any]], params: Mapping[str, Any]) -> dict[str, Any]:
    """A setting from the middle of the grid."""
    return entry.check_params({**params, **{name: values[len(values) // 2] for name, values in grid.items()}})


def _too_many(payload: Payload, each: Sequence[_Input], settings: int, cell: Cell, limit: int) -> str:
    """How long a grid over the limit would take, told after one of its cells."""
    began = time.perf_counter()
    told = measure(payload, cell)
    seconds = time.perf_counter() - began
    count = settings * len(each)
    long = f" One of them failed here: {told.error}" if told.error else (
        f" About {_duration(seconds * count)} here, one after another: {seconds:.2g} s for one."
    )  # fmt: skip
    return (
        f"grid: {count:,} maps, {settings:,} settings for each of {len(each)} inputs, are over the limit of {limit:,}."
        f"{long} If you mean it, pass limit={count}; fewer values or inputs, or an executor, make it shorter."
    )


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(1, seconds):.0f} seconds"


_VERSION = 1  # raised when a cell's numbers change with the code


def _names(payload: Payload, method: Any, each: Sequence[_Input], cells: Sequence[Cell]) -> list[str]:
    """The cells' names in a file.

    Raises:
        TypeError: Something has no name that is the same on another day.
    """
    p, given = payload, payload.given
    try:
        about = signature(
            p.model, method, p.score, p.contrast, p.reduction.sign, p.reduction.channels, sorted(p.metrics), p.fill,
            p.steps, p.turns, str(given["device"] or ""), given["fold"], given["precision"], given["explain"], _VERSION,
        )  # fmt: skip
        seen = [signature(*_seen(one.subject())) for one in each]
        return [signature(about, seen[cell.input], dict(cell.params), cell.target) for cell in cells]
    except TypeError as error:
        raise TypeError(f"store: {error} Leave store= out.") from error


def _seen(subject: Subject) -> tuple:
    """What the model sees, with its other inputs, what black and white are to it, what it is compared with, names."""
    found = subject.prepared
    return found.tensor, found.arguments, found.pixels, found.columns, subject.class_names
