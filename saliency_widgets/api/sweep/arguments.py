"""What a sweep is asked: its grid, metrics, inputs and targets, read and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from saliency_widgets.attribution.arrays import check_dense
from saliency_widgets.attribution.registry import DEFAULT, Method
from saliency_widgets.evaluation.metrics import METRICS, Metric
from saliency_widgets.outputs.selection import is_index
from saliency_widgets.params import Param, brief, check_choice, check_list, unknown
from saliency_widgets.runtime.coupling import COUPLED
from saliency_widgets.runtime.model.stable_hash import signature
from saliency_widgets.session.compute import alone
from saliency_widgets.session.explanation import has_seed
from saliency_widgets.session.problem import Problem
from saliency_widgets.session.request import Request

FINEST = "similarity"


def refining(method: Method) -> list[Param]:
    """The parameters of a method whose larger values continue the work of smaller ones: samples, steps."""
    return [param for param in method.params if param.continued and param.kind == "int" and not param.advanced]


def read_grid(entry: Method, grid: Mapping[str, Sequence[Any]], params: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The values of each parameter, checked.

    Raises:
        TypeError: No mapping to lists, or a value of the wrong type.
        ValueError: An unknown name, a value out of range or twice, or nothing at all.
    """
    if not isinstance(grid, Mapping):
        raise TypeError(f"grid: expected a mapping from parameters to lists of values, got a {type(grid).__name__}.")
    known = {param.name: param for param in entry.params}
    found: dict[str, list[Any]] = {}
    for name, values in grid.items():
        if name not in known:
            raise ValueError(unknown("grid", name, list(known)))
        if name in params:
            raise ValueError(f"grid: {name!r} is in the grid and among the fixed parameters. Say it once.")
        if isinstance(values, Tensor):
            check_dense(values, f"grid: {name}")
        values = check_list(f"grid: {name}", values, "[8, 32]")
        found[name] = [known[name].check(getattr(value, "item", lambda v=value: v)()
                       if getattr(value, "ndim", None) == 0 else value) for value in values]  # fmt: skip
        if not found[name]:
            raise ValueError(f"grid: there is no value for {name!r}. Give one at least, or leave it out.")
        plain = [value for value in found[name] if isinstance(value, (int, float, str))]
        if len(set(plain)) < len(plain):
            raise ValueError(f"grid: a value of {name!r} is there twice: {brief(plain)}.")
    if not found:
        raise ValueError(f"grid: it is empty. Give values of one parameter at least, of {list(known)}.")
    return found


def read_metrics(
    entry: Method, grid: Mapping[str, Sequence[Any]], asked: Sequence[str] | None, quality: str | None, cost: str
) -> tuple[list[Metric], str]:
    """What is measured, and what settings are chosen by.

    Raises:
        ValueError: An unknown name, a cost for a quality or the other way round, or what this grid can't give.
    """
    finer = [param.name for param in refining(entry) if param.name in grid]
    if isinstance(asked, str):
        asked = [asked]
    names: list[str] = [] if asked is None else check_list("metrics", asked, "['similarity', 'time']")
    if asked is not None and not names:
        raise ValueError(f"metrics: the list is empty. Choose of {list(METRICS)}, or leave it out.")
    if asked is None:
        names = [FINEST] * bool(finer) + ["insertion"] * (set(grid) > set(finer) or not finer)
        names = [*reversed(names), "delta", "standard_error", "evaluations", "time"]
    check_choice("cost", cost, list(METRICS))
    if quality is not None:
        check_choice("quality", quality, list(METRICS))
    for name in names:
        check_choice("metrics", name, list(METRICS))
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


def read_targets(target: Any, inputs: int) -> list[Any]:
    """What is explained of each input: one for all, or a list with one for each."""
    several = isinstance(target, (list, tuple, Tensor, np.ndarray)) and not (
        isinstance(target, tuple) and is_index(target)
    )
    if inputs > 1 and several and len(target) == inputs:
        return [one.item() if hasattr(one, "item") else one for one in target]
    return [target] * inputs


def lasting_name(*values: Any) -> str:
    """A name for what a file keeps something under.

    Raises:
        TypeError: There is none that is the same on another day.
    """
    try:
        return signature(*values)
    except TypeError as error:
        raise TypeError(f"store: {error} Leave store= out.") from error


@dataclass(frozen=True, eq=False)
class Input:
    """One of the inputs.

    Attributes:
        item: As the caller gave it.
        image: What the model sees of it, for people; None where that is none.
        name: Of what the model sees, the same on another day; empty unless it was asked for.
    """

    item: Any
    image: np.ndarray | None
    name: str


def read_inputs(model: nn.Module, inputs: Any, given: Mapping[str, Any], *, named: bool) -> tuple[Problem, list[Input]]:
    """Each input by itself, looked at here, where there may be no such device as the workers have.

    Args:
        model: The model.
        inputs: One input or many.
        given: Further arguments of :class:`Problem`.
        named: Whether each is to have a name.

    Returns:
        The first, ready for the model, and all.

    Raises:
        TypeError: Of no known kind; or, where names are asked for, nothing that has one.
        ValueError: There is none, they differ in size, or one of them is no single input.
    """
    given = {name: value for name, value in given.items() if name not in ("device", "precision")}
    first: Problem | None = None
    each: list[Input] = []
    shapes: dict[tuple[int, ...], int] = {}
    for place, item in enumerate(each_of(model, inputs, given)):
        problem = Problem(model, item, **given)
        if len(problem.tensor) != 1:
            raise ValueError(
                f"inputs: a list holds single inputs, and one of them is a batch of {len(problem.tensor)}."
            )
        if problem.parts:
            raise ValueError(f"explain: a sweep is about one input. Pass explain= one of {list(problem.parts)}.")
        found = problem.prepared
        image = None if found.images is None else found.images[0]
        # What the model sees, with its other inputs, what black and white are to it, and what it is compared with.
        seen = (found.tensor, found.arguments, found.pixels, found.columns, problem.class_names)
        each.append(Input(item, image, lasting_name(*seen) if named else ""))
        shapes.setdefault(tuple(problem.tensor.shape[1:]), place)
        first = first or problem
    if first is None:
        raise ValueError("inputs: the list is empty. Pass one input at least.")
    if len(shapes) > 1:
        told = ", ".join(f"{'x'.join(map(str, shape))} (input {place})" for shape, place in list(shapes.items())[:4])
        raise ValueError(
            f"inputs: as the model sees them they have different sizes: {told}. Pass transform= with a resize and a "
            f"crop."
        )
    return first, each


def each_of(model: nn.Module, inputs: Any, given: Mapping[str, Any]) -> list[Any]:
    """The inputs one by one, as the caller gave them.

    Raises:
        TypeError: Several samples of a kind that can't be taken apart.
        ValueError: Rows that influence each other, which are no samples.
    """
    if isinstance(inputs, list) and not (inputs and all(isinstance(value, (int, float)) for value in inputs)):
        return list(inputs)
    problem = Problem(model, inputs, **given)
    rows = len(problem.tensor)
    if rows == 1:
        return [inputs]
    if _tied(problem):
        raise ValueError(
            f"inputs: {COUPLED[0].lower()}{COUPLED[1:]}. They can't be looked at one by one, as is done here; "
            f"sw.attribute makes one map of all {rows}."
        )
    if (frame := getattr(inputs, "iloc", None)) is not None:
        return [frame[[k]] for k in range(rows)]
    if hasattr(inputs, "shape") and len(inputs) == rows:
        return [inputs[k : k + 1].clone() if isinstance(inputs, Tensor) else inputs[k : k + 1] for k in range(rows)]
    raise TypeError(f"inputs: {rows} samples in a {type(inputs).__name__}. Pass a list with one for each.")


def _tied(problem: Problem) -> bool:
    """Whether the rows influence each other's class scores; where there are none, nothing is said here."""
    with alone():
        try:
            score, scores = problem.resolve(Request.of(DEFAULT, {}))
            return problem.runner(score).by_samples(scores)[0].passes.joint
        except (TypeError, ValueError):
            return False


def duration(seconds: float) -> str:
    """A time in words, as people say it."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(1, seconds):.0f} seconds"
