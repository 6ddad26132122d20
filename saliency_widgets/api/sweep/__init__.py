"""``sw.sweep``: hyperparameters over inputs, measured, kept as they come, on one machine or many."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from saliency_widgets.api.sweep.arguments import (
    FINEST,
    Input,
    duration,
    lasting_name,
    read_grid,
    read_inputs,
    read_metrics,
    read_targets,
    refining,
)
from saliency_widgets.api.sweep.cells import Cell, Found, Payload, measure
from saliency_widgets.api.sweep.dispatch import ExecutorDiedError, check_executor, dispatch
from saliency_widgets.api.sweep.result import Sweep, with_likeness
from saliency_widgets.api.sweep.store import Memory, Store, StoreError
from saliency_widgets.attribution import Reduction
from saliency_widgets.attribution.reduction import CHANNEL
from saliency_widgets.attribution.registry import get_method
from saliency_widgets.attribution.score import SCORE
from saliency_widgets.evaluation.choice import WITHIN
from saliency_widgets.evaluation.curves import STEPS
from saliency_widgets.evaluation.fills import FILL, filling, map_shape
from saliency_widgets.evaluation.stability import TURNS
from saliency_widgets.inputs import Explain
from saliency_widgets.params import MAPS, check_switch
from saliency_widgets.runtime.model.devices import check_device
from saliency_widgets.runtime.model.version import identity
from saliency_widgets.runtime.precision import check_precision_name
from saliency_widgets.session.compute import alone
from saliency_widgets.session.request import Request

__all__ = ["ExecutorDiedError", "Sweep", "sweep"]

LIMIT = 5000
"""Cells that are computed without being asked for."""

# The interrupted sweep that had no file: called again, it goes on where it was.
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
        inputs: One input, as for :func:`attribute`, or many: a list of images, an array or tensor with a row for
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
            by what it sees; what code reads from elsewhere (a file, a library's settings) is not looked at. Maps that
            were damaged since are computed again, with a warning. Without a file they are kept in memory until the
            next other sweep.
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
            sizes, or no cell that could be computed; a store that is another program's, damaged beyond use, locked,
            or can't be written, where what was finished is kept in memory.
        ExecutorDiedError: The executor does not answer any more. What was finished is kept.
    """
    entry = get_method(method)
    grid = read_grid(entry, grid, params)
    chosen, quality = read_metrics(entry, grid, metrics, quality, cost)
    check_executor(executor)
    limit = MAPS.check(limit)
    check_switch("progress", progress)
    score = SCORE.check(score)
    within = WITHIN.check(within)
    check_device(device)
    check_precision_name(precision)
    given = {
        "transform": transform, "class_names": class_names, "explain": explain, "device": device, "fold": fold,
        "precision": precision, "feature_names": feature_names, "background": background,
    }  # fmt: skip
    first, each = read_inputs(model, inputs, given, named=store is not None)
    reduction = Reduction(entry.sign if sign is None else sign, channels)
    targets = read_targets(target, len(each))
    wanted = Request.of(
        method, {**params, **{name: values[0] for name, values in grid.items()}}, target=targets[0], score=score,
        contrast=contrast,
    )  # fmt: skip
    with alone():  # a wrong argument is an error of this call
        resolved, _ = first.resolve(wanted)
        if fill is None:
            rows = "zero" if first.prepared.columns is None or first.prepared.columns.rows is None else "mean"
            fill = FILL.default if first.size is not None else rows
        runner = first.runner(resolved)
        filling(runner, fill, 0)(torch.zeros(map_shape(runner), dtype=torch.bool))
    payload = Payload(
        model, given, method, score, contrast, reduction, tuple(metric.name for metric in chosen), fill,
        STEPS.check(steps), TURNS.check(turns),
    )  # fmt: skip
    count = math.prod(map(len, grid.values()))
    if count * len(each) > limit:
        middle = {name: values[len(values) // 2] for name, values in grid.items()}
        one = Cell(0, 0, each[0].item, entry.check_params({**params, **middle}), targets[0])
        raise ValueError(_too_many(payload, one, count, len(each), limit))
    settings = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    whole = [entry.check_params({**params, **setting}) for setting in settings]
    cells = [Cell(place, k, one.item, whole[k], targets[place]) for place, one in enumerate(each) for k in range(count)]

    def in_memory() -> Memory:
        """What an earlier call of this sweep left there, or nothing yet."""
        global _unsaved
        about = identity([inputs, method, target, score, contrast, sign, channels, fill, steps, turns, payload.metrics])
        about = (about, identity(given))
        if _unsaved is None or not _unsaved.is_of(model, about):
            _unsaved = Memory(model, about)
        return _unsaved

    if store is not None:
        names: list[Hashable] = [*_names(payload, method, each, cells)]
        kept: Store | Memory = Store(store, first.size)
    else:
        names, kept = [*map(_name_in_memory, cells)], in_memory()
    try:
        found = _finish(kept, names, payload, cells, executor, progress, in_memory)
    finally:
        kept.close()
    _let_go()  # it is finished: there is nothing to go on with
    if all(cell.error for cell in found.values()):
        raise ValueError(f"sweep: no cell could be computed. {next(iter(found.values())).error}")
    if any(metric.name == FINEST for metric in chosen):
        found = with_likeness(found, grid, [param.name for param in refining(entry) if param.name in grid])
    shown = [one.image for one in each]
    result = Sweep(entry, grid, settings, dict(params), chosen, found, shown, quality, cost, within)
    return result if metrics is not None else result.with_numbers()


def _let_go() -> None:
    """Forget the last sweep without a file, and with it the model."""
    global _unsaved
    _unsaved = None


def _name_in_memory(cell: Cell) -> Hashable:
    return cell.input, identity(cell.params)


def _finish(
    kept: Store | Memory,
    names: list[Hashable],
    payload: Payload,
    cells: list[Cell],
    executor: Any,
    progress: bool,
    in_memory: Callable[[], Memory],
) -> dict[tuple[int, int], Found]:
    """What is kept, and then the rest; where a file fails, all goes into memory."""
    there = kept.get(names)
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
                    kept.put(name_of[place], told)
                bar.update()
    except ExecutorDiedError as error:
        where = "in memory" if kept.path is None else f"in {kept.path}"
        raise ExecutorDiedError(
            f"executor: it does not answer any more, after {len(found)} of {len(cells)} cells ({error}). They are kept "
            f"{where}: call again with another executor, or none, to compute the rest."
        ) from error
    except StoreError as error:
        memory = in_memory()
        for cell in cells:
            result = found.get((cell.input, cell.setting))
            if result is not None and not result.error:
                memory.put(_name_in_memory(cell), result)
        raise StoreError(
            f"{error} The {len(found)} of {len(cells)} cells that are finished are kept in memory: call again without "
            f"store= to compute the rest."
        ) from error
    finally:
        answers.close()  # pyright: ignore[reportAttributeAccessIssue]
    return found


def _too_many(payload: Payload, cell: Cell, settings: int, inputs: int, limit: int) -> str:
    """How long a grid over the limit would take, told after one of its cells."""
    began = time.perf_counter()
    told = measure(payload, cell)
    seconds = time.perf_counter() - began
    count = settings * inputs
    long = f" One of them failed here: {told.error}" if told.error else (
        f" About {duration(seconds * count)} here, one after another: {seconds:.2g} s for one."
    )  # fmt: skip
    return (
        f"grid: {count:,} maps, {settings:,} settings for each of {inputs} inputs, are over the limit of {limit:,}."
        f"{long} If you mean it, pass limit={count}; fewer values or inputs, or an executor, make it shorter."
    )


_VERSION = 1  # raised when a cell's numbers change with the code


def _names(payload: Payload, method: Any, each: Sequence[Input], cells: Sequence[Cell]) -> list[str]:
    """The cells' names in a file."""
    p, given = payload, payload.given
    about = lasting_name(
        p.model, method, p.score, p.contrast, p.reduction.sign, p.reduction.channels, sorted(p.metrics), p.fill,
        p.steps, p.turns, str(given["device"] or ""), given["fold"], given["precision"], given["explain"], _VERSION,
    )  # fmt: skip
    return [lasting_name(about, each[cell.input].name, dict(cell.params), cell.target) for cell in cells]
