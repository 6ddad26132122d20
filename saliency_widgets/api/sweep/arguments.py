"""Read and check the arguments of a sweep: its metrics, inputs and targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from saliency_widgets.attribution.registry import DEFAULT, Method
from saliency_widgets.evaluation.explanation import has_seed
from saliency_widgets.evaluation.metrics import METRICS
from saliency_widgets.evaluation.registry import Metric
from saliency_widgets.outputs.selection import is_index
from saliency_widgets.params import Param, check_choice, check_list
from saliency_widgets.runtime.coupling import COUPLED
from saliency_widgets.runtime.model.stable_hash import signature
from saliency_widgets.session.compute import neutral_modes
from saliency_widgets.session.problem import Problem
from saliency_widgets.session.request import Request

FINEST = "similarity"


def refining(method: Method) -> list[Param]:
    """Return the parameters whose larger values continue the computation of smaller ones: samples, steps."""
    return [param for param in method.params if param.continued and param.kind == "int" and not param.advanced]


def read_metrics(
    entry: Method, grid: Mapping[str, Sequence[Any]], requested: Sequence[str] | None, quality: str | None, cost: str
) -> tuple[list[Metric], str]:
    """Return the metrics to measure, and the name of the metric to choose settings by.

    Raises:
        ValueError: A name is unknown, a cost and a quality are confused or missing, or a metric doesn't apply here.
    """
    finer = [param.name for param in refining(entry) if param.name in grid]
    if isinstance(requested, str):
        requested = [requested]
    names: list[str] = [] if requested is None else check_list("metrics", requested, "['similarity', 'time']")
    if requested is not None and not names:
        raise ValueError(f"metrics: the list is empty. Choose from {list(METRICS)}, or omit it.")
    if requested is None:
        names = [FINEST] * bool(finer) + ["insertion"] * (set(grid) > set(finer) or not finer)
        names = [*reversed(names), "delta", "standard_error", "evaluations", "time"]
    check_choice("cost", cost, list(METRICS))
    if quality is not None:
        check_choice("quality", quality, list(METRICS))
    for name in names:
        check_choice("metrics", name, list(METRICS))
    if not METRICS[cost].cost:
        raise ValueError(f"cost: {cost!r} is not a cost. Expected one of {[n for n, m in METRICS.items() if m.cost]}.")
    if FINEST in (*names, quality) and not finer:
        raise ValueError(
            f"metrics: 'similarity' compares with the most samples or steps, but the grid varies none of "
            f"{[param.name for param in refining(entry)]}."
        )
    if "seeds" in (*names, quality) and not has_seed(entry):
        raise ValueError(f"metrics: {entry.title} is deterministic, so there are no 'seeds' to compare.")
    good = [name for name in names if not METRICS[name].cost]
    if quality is None:
        if not good:
            raise ValueError(f"metrics: {names} are costs. Add one to choose settings by, such as 'insertion'.")
        quality = good[0]
    if METRICS[quality].cost:
        raise ValueError(
            f"quality: {quality!r} is a cost. Expected one of {[n for n, m in METRICS.items() if not m.cost]}."
        )
    return [METRICS[name] for name in dict.fromkeys((*names, quality, cost))], quality


def read_targets(target: Any, inputs: int) -> list[Any]:
    """Return the target of each input, from one target for all or a list with one for each."""
    several = isinstance(target, (list, tuple, Tensor, np.ndarray)) and not (
        isinstance(target, tuple) and is_index(target)
    )
    if inputs > 1 and several and len(target) == inputs:
        return [one.item() if hasattr(one, "item") else one for one in target]
    return [target] * inputs


def lasting_name(*values: Any) -> str:
    """Return a key that is the same in every process, for use in a file.

    Raises:
        TypeError: No such key can be computed for a value.
    """
    try:
        return signature(*values)
    except TypeError as error:
        raise TypeError(f"store: {error} Omit store=.") from error


@dataclass(frozen=True, eq=False)
class Input:
    """One of the inputs.

    Attributes:
        item: The input, as the caller passed it.
        image: The input as the model sees it, in displayable form; None if it is not an image.
        problem: The model and the input, if it is drawn in another form; None for images, tables and numbers.
        name: A persistent key of the input as the model sees it; empty if not requested.
    """

    item: Any
    image: np.ndarray | None
    problem: Problem | None
    name: str


def read_inputs(
    model: nn.Module, inputs: Any, options: Mapping[str, Any], *, named: bool
) -> tuple[Problem, list[Input], tuple[int, ...] | None]:
    """Split and check the inputs in this process, which may not have the workers' device.

    Args:
        model: The model.
        inputs: One input or many.
        options: Further arguments of :class:`Problem`.
        named: Whether to compute a persistent key for each input.

    Returns:
        The problem of the first input, all inputs, and the shape of their maps, None if they have several.

    Raises:
        TypeError: An input has an unsupported type, or a requested key can't be computed.
        ValueError: There are no inputs, one is a batch, or they differ in size and are not texts, signals or volumes.
    """
    options = {name: value for name, value in options.items() if name not in ("device", "precision")}
    first: Problem | None = None
    each: list[Input] = []
    shapes: dict[tuple[int, ...], int] = {}
    maps: set[tuple[int, ...]] = set()
    for index, item in enumerate(each_of(model, inputs, options)):
        problem = Problem(model, item, **options)
        if len(problem.tensor) != 1:
            raise ValueError(
                f"inputs: expected a list of single inputs, but one of them is a batch of {len(problem.tensor)}."
            )
        if problem.parts:
            raise ValueError(f"explain: a sweep explains one input. Pass explain= one of {list(problem.parts)}.")
        prepared = problem.prepared
        image = None if prepared.images is None else prepared.images[0]
        kind = prepared.kind
        # All that the results depend on: the tensor, other inputs, the kind's part, and class names.
        seen = prepared.tensor, prepared.arguments, *kind.state, problem.class_names
        shown = problem if kind.drawn and image is None else None
        each.append(Input(item, image, shown, lasting_name(*seen) if named else ""))
        maps.add(kind.shape_of(problem.tensor))
        shapes.setdefault(tuple(problem.tensor.shape[1:]), index)
        first = first or problem
    if first is None:
        raise ValueError("inputs: the list is empty. Pass at least one input.")
    if len(shapes) > 1 and first.kind.one_size:
        listed = ", ".join(f"{'x'.join(map(str, shape))} (input {index})" for shape, index in list(shapes.items())[:4])
        raise ValueError(
            f"inputs: the model's inputs have different sizes: {listed}. Pass transform= with a resize and a crop."
        )
    return first, each, next(iter(maps)) if len(maps) == 1 else None


def each_of(model: nn.Module, inputs: Any, options: Mapping[str, Any]) -> list[Any]:
    """Split the inputs into single inputs, each of the type that the caller passed.

    Raises:
        TypeError: Several samples are in an object that can't be split.
        ValueError: The rows influence each other, so they are not separate samples.
    """
    if isinstance(inputs, list) and not (inputs and all(isinstance(value, (int, float)) for value in inputs)):
        return list(inputs)
    problem = Problem(model, inputs, **options)
    rows = len(problem.tensor)
    if rows == 1:
        return [inputs]
    if _tied(problem):
        raise ValueError(
            f"inputs: {COUPLED[0].lower()}{COUPLED[1:]}. They can't be explained separately, as is done here; "
            f"sw.attribute makes one map of all {rows}."
        )
    if (frame := getattr(inputs, "iloc", None)) is not None:
        return [frame[[k]] for k in range(rows)]
    if hasattr(inputs, "shape") and len(inputs) == rows:
        return [inputs[k : k + 1].clone() if isinstance(inputs, Tensor) else inputs[k : k + 1] for k in range(rows)]
    raise TypeError(f"inputs: {rows} samples in a {type(inputs).__name__}. Pass a list with one item per sample.")


def _tied(problem: Problem) -> bool:
    """Return whether the rows influence each other's class scores; False if there are no class scores."""
    with neutral_modes():
        try:
            score, scores = problem.resolve(Request.of(DEFAULT, {}))
            return problem.runner(score).by_samples(scores)[0].passes.joint
        except (TypeError, ValueError):
            return False
