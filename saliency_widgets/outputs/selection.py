"""Resolution of a target (a class by number or name, an index, or a function) to a score."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from saliency_widgets.attribution.arrays import as_array
from saliency_widgets.attribution.score import SCORE, Score, Target, is_function
from saliency_widgets.outputs.classification import Classification
from saliency_widgets.outputs.regression import Regression
from saliency_widgets.outputs.task import Task
from saliency_widgets.params import brief, unknown


def _reporting_errors(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Wrap the caller's function, so that its exceptions are reported as errors of ``target``."""

    def wrapped(output: Any) -> Any:
        try:
            return function(output)
        except Exception as error:
            raise ValueError(
                f"target: the function raised {type(error).__name__} for the model's output: {error}. "
                f"It receives the model's output and must return one number per sample."
            ) from error

    return wrapped


def class_index(target: Any, classes: int, class_names: Sequence[str] | None = None, argument: str = "target") -> int:
    """Return the index of a class, by number or by name.

    Args:
        target: A class index, or a class name: exact, or a part that only one name contains.
        classes: The number of classes that the model scores.
        class_names: The class names in order, if available.
        argument: The argument's name, for the error.

    Raises:
        TypeError: ``target`` is neither an integer nor a name.
        ValueError: ``target`` is out of range, unknown or ambiguous.
    """
    by_name = _ByName(class_names) if isinstance(target, str) and class_names is not None else None
    return _class_index(target, classes, by_name, argument)


def _class_index(target: Any, classes: int, by_name: _ByName | None, argument: str) -> int:
    if isinstance(target, str):
        if by_name is None:
            raise ValueError(f"{argument}: got the class name {brief(target)}, but no class_names= were passed.")
        return by_name.index(target, argument)
    if not _is_whole(target):
        raise TypeError(f"{argument}: expected a class index, a class name or None, got a {type(target).__name__}.")
    index = operator.index(target)
    if not 0 <= index < classes:
        raise ValueError(
            f"{argument}: class {brief(index)} is out of range, the model scores classes 0 to {classes - 1}."
            + (_ONE_OUTPUT if classes == 1 else "")
        )
    return index


_ONE_OUTPUT = (
    " It has one output, number 0, which is the logit of the positive class for a binary model. Pass "
    "class_names=[negative, positive] to name both classes; they are then targets 0 and 1."
)


class _ByName:
    """An index of class names, for fast repeated lookups."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = [str(name) for name in names]
        self._indices: dict[str, list[int]] = {}
        for index, name in enumerate(self._names):
            self._indices.setdefault(name.lower(), []).append(index)

    def index(self, name: str, argument: str) -> int:
        wanted = name.strip().lower()
        hits = self._indices.get(wanted) or [
            index for other, indices in self._indices.items() if wanted and wanted in other for index in indices
        ]
        if not hits:
            raise ValueError(unknown(argument, name, self._names))
        if len(hits) > 1:
            several = ", ".join(f"{index} ({self._names[index]})" for index in sorted(hits)[:5])
            raise ValueError(f"{argument}: {brief(name)} matches {len(hits)} classes: {several}. Pass the index.")
        return hits[0]


def is_index(target: Any) -> bool:
    """Return whether a target is a tuple of integers, or a list of such tuples (one for each sample)."""
    items = target if isinstance(target, list) else [target]
    return bool(items) and all(isinstance(item, tuple) and item and all(map(_is_whole, item)) for item in items)


def _is_whole(number: Any) -> bool:
    if isinstance(number, bool):
        return False
    try:
        operator.index(number)
    except Exception:  # arrays may raise anything
        return False
    return True


_TASKS: dict[str, type[Task]] = {"value": Regression}


def task_of(scale: str) -> type[Task]:
    """Return the task for a scale: regression for "value", classification for all others."""
    return _TASKS.get(SCORE.check(scale), Classification)


def resolve(
    task: Task,
    target: Target,
    scores: Tensor | None,
    batch: int,
    *,
    contrast: Target = None,
    shape: Sequence[int] | None = None,
) -> Score:
    """Resolve the caller's target to a :class:`Score`.

    Args:
        task: The model's task.
        target: A class index, a name, indices of shape (B,), a function, or None for the task's default. A tuple with
            one integer per dimension of one sample's output is an index into it; a list of such tuples has one for
            each sample.
        scores: The model's scores, shape (B, K); not needed if ``target`` is a function or an index.
        batch: B, the number of samples.
        contrast: A second class or index, whose score is subtracted.
        shape: The shape of the model's scores as returned, (B, ...); needed if ``target`` or ``contrast`` is a tuple.

    Raises:
        TypeError: ``target`` has an unsupported type.
        ValueError: A class or an index is out of range, a name is unknown, or the scale doesn't fit.
    """
    if is_function(target):
        if contrast is not None:
            raise ValueError("contrast: it can't be combined with target= a function; subtract inside the function.")
        if task.scale not in ("logit", "value"):
            raise ValueError(
                f"score: {task.scale!r} can't be combined with target= a function; compute it inside the function, for "
                f"example lambda out: out.softmax(1)[:, 3]."
            )
        return Score(task.scale, _reporting_errors(cast(Callable[[Any], Any], target)))
    if is_index(target) or is_index(contrast):
        if shape is None:
            raise ValueError("target: the shape of the model's output is needed to resolve an index.")
        target, contrast = (
            _disambiguate(value, shape, name) for value, name in ((target, "target"), (contrast, "contrast"))
        )
    if is_index(target) or is_index(contrast):
        return _at_index(task, target, contrast, shape or ())
    if scores is None:
        raise ValueError("target: the model's scores are needed to resolve it.")
    classes = task.logits(scores).shape[1]
    picked = task.default(scores) if target is None else _indices(target, batch, classes, task.class_names, "target")
    other = None if contrast is None else _indices(contrast, batch, classes, task.class_names, "contrast")
    _check_different(picked, other)
    return task.score(picked.to(scores.device), None if other is None else other.to(scores.device))


def _check_different(picked: Tensor, other: Tensor | None) -> None:
    if other is not None and bool((picked.to(other.device) == other).view(len(other), -1).all(1).any()):
        raise ValueError("contrast: it is the same class as target, so the difference is zero. Choose another class.")


def _disambiguate(target: Any, shape: Sequence[int], argument: str) -> Any:
    """Return tuples that are indices unchanged; read others as a list of classes."""
    if not is_index(target):
        return target
    items, dims = target if isinstance(target, list) else [target], len(shape) - 1
    if dims > 1 and {len(item) for item in items} == {dims}:
        return target
    if dims in (1, 3) and {len(item) for item in items} == {1}:
        return [item[0] for item in items] if isinstance(target, list) else target[0]
    if dims == 1 and isinstance(target, tuple) and len(target) == shape[0]:
        return list(target)
    numbers = "one number" if dims == 1 else f"{dims} numbers"
    also = "; a list has one class for each sample" if dims in (1, 3) else ""
    raise ValueError(
        f"{argument}: a tuple is an index into one sample's output, which has shape {tuple(shape[1:])} here, so it has "
        f"{numbers}{also}. Got {brief(target)}."
    )


def _at_index(task: Task, target: Any, contrast: Any, shape: Sequence[int]) -> Score:
    """Return the score at an index of each sample's output."""
    if task.scale in ("probability", "log_probability") and len(shape) != 4:
        raise ValueError(
            f"score: {task.scale!r} needs the class dimension of the output, which is unknown for shape "
            f"{tuple(shape)}. Pass target= a function, for example lambda out: out.softmax(-1)[:, 1, 0]."
        )
    sizes = [2 if task.binary and len(shape) == 4 and size == 1 and not k else size for k, size in enumerate(shape[1:])]

    def read(value: Any, argument: str) -> Tensor:
        if not is_index(value):
            raise ValueError(
                f"{argument}: expected an index of {len(sizes)} numbers, because target and contrast must both be "
                f"indices; got {brief(value)}."
            )
        items = value if isinstance(value, list) else [value] * shape[0]
        if len(items) != shape[0]:
            raise ValueError(f"{argument}: expected one index for each of the {shape[0]} inputs, got {len(items)}.")
        outside = next((i for i in items if not all(0 <= n < size for n, size in zip(i, sizes, strict=True))), None)
        if outside is not None:
            raise ValueError(
                f"{argument}: index {outside} is out of range, one sample's output has shape {tuple(sizes)}."
            )
        return torch.tensor([[operator.index(n) for n in item] for item in items], device="cpu")

    picked, other = read(target, "target"), None if contrast is None else read(contrast, "contrast")
    _check_different(picked, other)
    return task.score(picked, other)


def _indices(target: Any, batch: int, classes: int, class_names: Sequence[str] | None, argument: str) -> Tensor:
    if hasattr(target, "__array__"):
        target = as_array(target, argument).tolist()
        if isinstance(target, list) and len(target) == 1:  # one for all
            target = target[0]
    if not isinstance(target, Sequence) or isinstance(target, str):
        return torch.full((batch,), class_index(target, classes, class_names, argument), device="cpu")
    fits = len(target) == batch
    nested = fits and any(isinstance(item, Sequence) and not isinstance(item, str) for item in target)
    if not fits or nested:
        got = "a nested list" if nested else str(len(target))
        raise ValueError(f"{argument}: expected one class for each of the {batch} inputs, got {got}.")
    by_name = None if class_names is None else _ByName(class_names)
    return torch.tensor([_class_index(item, classes, by_name, argument) for item in target], device="cpu")
