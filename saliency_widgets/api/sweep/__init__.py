"""``sw.sweep``: measure a method's hyperparameters over inputs, resumably, on one machine or several."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from saliency_widgets.api.grid import over_limit, params_of, read_grid
from saliency_widgets.api.sweep.arguments import (
    FINEST,
    Input,
    lasting_name,
    read_inputs,
    read_metrics,
    read_targets,
    refining,
)
from saliency_widgets.api.sweep.cells import Cell, CellResult, Payload, measure
from saliency_widgets.api.sweep.dispatch import ExecutorDiedError, check_executor, dispatch
from saliency_widgets.api.sweep.result import Sweep, with_similarity
from saliency_widgets.api.sweep.store import Memory, Store, StoreError
from saliency_widgets.attribution.registry import get_method
from saliency_widgets.attribution.score import SCORE
from saliency_widgets.evaluation.choice import WITHIN
from saliency_widgets.evaluation.curves import STEPS
from saliency_widgets.evaluation.fills import filling
from saliency_widgets.evaluation.stability import TURNS
from saliency_widgets.inputs.options import OPTIONS, Options, split_options, takes_options
from saliency_widgets.params import MAPS, check_switch
from saliency_widgets.runtime.model.devices import check_device
from saliency_widgets.runtime.model.version import identity
from saliency_widgets.runtime.precision import check_precision_name
from saliency_widgets.session.compute import neutral_modes
from saliency_widgets.session.request import Request

__all__ = ["ExecutorDiedError", "Sweep", "sweep"]

LIMIT = 5000
"""The default limit on the cells of a sweep."""

# The results of an interrupted sweep without a file. The same call resumes it.
_unsaved: Memory | None = None


_OPTIONS = tuple(name for name in OPTIONS if name != "cuda_graphs")


@takes_options(*_OPTIONS)
def sweep(  # noqa: PLR0913
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
    channels: str | None = None,
    fill: Any = None,
    steps: int = STEPS.default,
    turns: int = TURNS.default,
    progress: bool = True,
    **params: Any,
) -> Sweep:
    """Measure settings of a method on several inputs, and recommend one.

    Every cell, one setting for one input, is computed from scratch, so that its cost is complete. Finished cells are
    stored immediately: after an interruption, the same call with the same ``store`` computes only the remaining ones.

    Args:
        model: Any ``torch.nn.Module``; it is not changed.
        inputs: One input, as for :func:`attribute`, or many: a list of inputs, such as images or texts, an array or
            tensor with a row for each, or a DataFrame. Images and rows must have the same size as the model sees them;
            texts, signals and volumes may have different sizes.
        method: As for :func:`attribute`.
        grid: The values of each parameter, such as ``{"noise_level": [0.05, 0.1, 0.2], "n_samples": [8, 32, 128]}``.
        metrics: Any of "similarity" (to the finest setting), "insertion", "deletion", "delta" (completeness error),
            "standard_error", "seeds" (stability), "evaluations" (gradients), "time" and "memory". Default: those that
            apply and need no extra computation, and "insertion" if the grid varies more than samples or steps.
        quality: The metric to choose settings by. Default: the first metric that is not a cost.
        cost: The metric to minimize: "evaluations", "time" or "memory".
        within: How much worse than the best the recommended setting may be, as a fraction of the best quality.
        store: An SQLite file for finished cells. They are keyed by the model's weights, attributes and code, and by its
            inputs, but not by other data that the code reads (a file, a library's settings). Damaged maps are
            recomputed with a warning. Without a file, cells stay in memory until a sweep finishes or another starts.
        executor: Any ``concurrent.futures.Executor``: a thread pool, a process pool that spawns, or
            ``dask.distributed.Client(...).get_executor()``. The model is sent once to each worker process. Default:
            compute in this thread, one cell after another.
        limit: The largest number of cells. A larger grid is refused, with an estimate of its time.
        target: As for :func:`attribute`; None is the top prediction for each input, and a list has one for each.
        score: As for :func:`attribute`.
        contrast: As for :func:`attribute`.
        sign: Which part of the values is shown and compared. Default: the method's default.
        channels: How the channels are combined, as for :meth:`Attribution.saliency_map`.
        fill: What replaces removed pixels or features, for deletion and insertion: see :func:`ablate`.
        steps: The number of steps of the deletion and insertion curves.
        turns: The number of other seeds for the stability metric.
        progress: Whether to show a progress bar.
        **params: Other parameters of the method, the same in all cells. With one worker per GPU, the device "cuda" is
            the worker's GPU.

    Returns:
        A table, the maps, and a recommendation: ``.table``, ``.summary``, ``.map_of(...)``, ``.words``,
        ``.recommended``, ``.knee``.

    Raises:
        TypeError: An argument has the wrong type, can't be sent to a worker, or is no parameter of the method.
        ValueError: An argument is out of range, a name is unknown, the grid is empty or over the limit, images differ
            in size, or no cell could be computed; or the store belongs to another program, is damaged or locked, or
            can't be written. If writing fails, finished cells stay in memory.
        ExecutorDiedError: The executor stopped responding. Finished cells are stored.
    """
    options, params = split_options(params, _OPTIONS)
    entry = get_method(method)
    grid = read_grid("grid", grid, params_of([entry]), params)
    chosen, quality = read_metrics(entry, grid, metrics, quality, cost)
    check_executor(executor)
    limit = MAPS.check(limit)
    check_switch("progress", progress)
    score = SCORE.check(score)
    within = WITHIN.check(within)
    about = Options(**options)
    check_device(about.device)
    check_precision_name(about.precision)
    first, items, shape = read_inputs(model, inputs, options, named=store is not None)
    reduction = first.kind.features.reduction_for(entry, sign, channels)
    targets = read_targets(target, len(items))
    request = Request.of(
        method, {**params, **{name: values[0] for name, values in grid.items()}}, target=targets[0], score=score,
        contrast=contrast,
    )  # fmt: skip
    with neutral_modes():  # check the arguments here, before anything is computed
        resolved, _ = first.resolve(request)
        if fill is None:
            fill = first.kind.default_fill
        runner = first.runner(resolved)
        filling(runner, fill, 0)(torch.zeros(runner.kind.shape_of(runner.inputs), dtype=torch.bool))
    payload = Payload(
        model, options, method, score, contrast, reduction, tuple(metric.name for metric in chosen), fill,
        STEPS.check(steps), TURNS.check(turns),
    )  # fmt: skip
    if (count := grid.count) * len(items) > limit:
        middle = {name: values[len(values) // 2] for name, values in grid.items()}
        cell = Cell(0, 0, items[0].item, entry.check_params({**params, **middle}), targets[0])
        counts = {"settings": count, "inputs": len(items)}
        advice = "fewer values or inputs, or an executor, save time."
        raise ValueError(over_limit("grid", counts, limit, lambda: _measure(payload, cell), advice))
    settings = grid.settings()
    complete = [entry.check_params({**params, **setting}) for setting in settings]
    cells = [
        Cell(index, k, entry.item, complete[k], targets[index])
        for index, entry in enumerate(items)
        for k in range(count)
    ]

    def in_memory() -> Memory:
        """Return the results of an earlier call of this sweep, or an empty memory."""
        global _unsaved
        key = identity([inputs, method, target, score, contrast, sign, channels, fill, steps, turns, payload.metrics])
        key = (key, identity(options))
        if _unsaved is None or not _unsaved.matches(model, key):
            _unsaved = Memory(model, key)
        return _unsaved

    if store is not None:
        names: list[Hashable] = [*_names(payload, method, items, cells)]
        results: Store | Memory = Store(store, shape if first.kind.drawn else None)
    else:
        names, results = [*map(_name_in_memory, cells)], in_memory()
    try:
        measured = _finish(results, names, payload, cells, executor, progress, in_memory)
    finally:
        results.close()
    _forget_unsaved()  # the sweep is finished, so there is nothing to resume
    if all(cell.error for cell in measured.values()):
        raise ValueError(f"sweep: no cell could be computed. {next(iter(measured.values())).error}")
    if any(metric.name == FINEST for metric in chosen):
        measured = with_similarity(measured, grid, [param.name for param in refining(entry) if param.name in grid])
    images = [item.image for item in items]
    subjects = [
        None if item.problem is None else (item.problem, replace(request, target=target))
        for item, target in zip(items, targets, strict=True)
    ]
    result = Sweep(entry, grid, settings, dict(params), chosen, measured, images, quality, cost, within, subjects)
    return result if metrics is not None else result.with_numbers()


def _forget_unsaved() -> None:
    """Release the results and the model of the last sweep without a file."""
    global _unsaved
    _unsaved = None


def _name_in_memory(cell: Cell) -> Hashable:
    return cell.input, identity(cell.params)


def _finish(
    store: Store | Memory,
    names: list[Hashable],
    payload: Payload,
    cells: list[Cell],
    executor: Any,
    progress: bool,
    in_memory: Callable[[], Memory],
) -> dict[tuple[int, int], CellResult]:
    """Load the finished cells and compute the others; if the file fails, move the results to memory."""
    stored = store.get(names)
    name_of = {(cell.input, cell.setting): name for cell, name in zip(cells, names, strict=True)}
    results = {index: stored[name] for index, name in name_of.items() if name in stored}
    pending = [cell for cell in cells if (cell.input, cell.setting) not in results]
    bar = tqdm(total=len(cells), initial=len(results), disable=not progress, unit="map")
    computed: Iterator[tuple[Cell, CellResult]] = dispatch(executor, payload, pending)
    try:
        with bar:
            for cell, result in computed:
                index = cell.input, cell.setting
                results[index] = result
                if not result.error:
                    store.put(name_of[index], result)
                bar.update()
    except ExecutorDiedError as error:
        where = "in memory" if store.path is None else f"in {store.path}"
        raise ExecutorDiedError(
            f"executor: it stopped responding after {len(results)} of {len(cells)} cells ({error}). They are stored "
            f"{where}: call again with another executor, or none, to compute the rest."
        ) from error
    except StoreError as error:
        memory = in_memory()
        for cell in cells:
            result = results.get((cell.input, cell.setting))
            if result is not None and not result.error:
                memory.put(_name_in_memory(cell), result)
        raise StoreError(
            f"{error} {len(results)} of {len(cells)} cells are finished and in memory: call again without store= to "
            f"compute the rest."
        ) from error
    finally:
        computed.close()  # pyright: ignore[reportAttributeAccessIssue]
    return results


def _measure(payload: Payload, cell: Cell) -> None:
    if error := measure(payload, cell).error:
        raise ValueError(error)


_VERSION = 1  # increment when a code change alters a cell's numbers


def _names(payload: Payload, method: Any, items: Sequence[Input], cells: Sequence[Cell]) -> list[str]:
    """Return the keys of the cells in a file."""
    p, about = payload, Options(**payload.options)
    shared = lasting_name(
        p.model, method, p.score, p.contrast, p.reduction.sign, p.reduction.channels, sorted(p.metrics), p.fill,
        p.steps, p.turns, str(about.device or ""), about.fold, about.precision,
        about.explain, _VERSION,
    )  # fmt: skip
    return [lasting_name(shared, items[cell.input].name, dict(cell.params), cell.target) for cell in cells]
