"""Read and check the arguments of a comparison: models, inputs, classes, methods and settings."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from saliency_widgets.api.compare import Axis, Cell, Comparison
from saliency_widgets.api.sweep.arguments import each_of
from saliency_widgets.attribution import get_method
from saliency_widgets.attribution.arrays import as_array, check_dense
from saliency_widgets.attribution.score import SCORE, is_function
from saliency_widgets.outputs.selection import is_index
from saliency_widgets.params import MAPS, brief, check_list, check_mapping, unknown

LIMIT = 400
"""The default limit of maps in a comparison."""


def read_comparison(
    model: Any,
    inputs: Any,
    *,
    methods: Any,
    settings: Any,
    classes: Any,
    score: str,
    contrast: Any,
    limit: int,
    params: Mapping[str, Any],
    problem_options: Mapping[str, Any],
) -> Comparison:
    """Read and check the arguments of :func:`saliency_widgets.compare`.

    Raises:
        TypeError, ValueError: An argument doesn't fit; the message says what to do.
    """
    limit = MAPS.check(limit)
    models = _models(model)
    options = [_for_model(problem_options, models, k) for k in range(len(models))]
    variants, count = _settings(settings, limit)
    axes = {
        "models": models,
        "inputs": _inputs(models.values[0], inputs, options[0]),
        "methods": _methods(methods),
        "settings": variants,
    }
    _check_names(axes, params)
    axes["classes"] = _classes(classes)
    comparison = Comparison(axes, params, SCORE.check(score), contrast, options)
    counts = {name: len(axis) for name, axis in axes.items()} | {"settings": count}
    if math.prod(counts.values()) > limit:
        raise ValueError(comparison.too_many(counts, limit))
    comparison.check()
    _name_classes(comparison)
    return comparison


def _models(model: Any) -> Axis:
    if isinstance(model, nn.Module):
        return Axis("models", [type(model).__name__], [model])
    if isinstance(model, Mapping):
        labels, values = [str(name) for name in model], list(model.values())
    elif isinstance(model, (list, tuple)):
        labels, values = distinct([type(one).__name__ for one in model]), list(model)
    else:
        raise TypeError(
            f"model: expected a torch.nn.Module, or a mapping from names to several, got a {type(model).__name__}."
        )
    for label, one in zip(labels, values, strict=True):
        if not isinstance(one, nn.Module):
            raise TypeError(f"model: {brief(label)} is a {type(one).__name__}, expected a torch.nn.Module.")
    return Axis("models", labels, _check_any("model", values))


def _for_model(problem_options: Mapping[str, Any], models: Axis, which: int) -> dict[str, Any]:
    """Return the options of one model: those for all models, and those by its name.

    Raises:
        ValueError: An option is given by name, but not for each model.
    """
    options = {}
    for name, value in problem_options.items():
        named = isinstance(value, Mapping) and set(models.labels) & set(value)
        missing = [label for label in models.labels if named and label not in value]
        if missing:
            raise ValueError(f"{name}: expected one for each model by name, got none for {missing}.")
        options[name] = value[models.labels[which]] if named else value
    return options


def _inputs(model: nn.Module, inputs: Any, problem_options: Mapping[str, Any]) -> Axis:
    if isinstance(inputs, Mapping) and not _are_arguments(model, inputs):
        return Axis("inputs", [str(name) for name in inputs], _check_any("inputs", list(inputs.values())))
    items = _check_any("inputs", each_of(model, inputs, problem_options))
    labels = [Path(item).stem if isinstance(item, (str, Path)) else f"input {k + 1}" for k, item in enumerate(items)]
    return Axis("inputs", distinct(labels), items)


def _are_arguments(model: nn.Module, inputs: Mapping[Any, Any]) -> bool:
    """Return whether a mapping is one input of several parts, named like the parameters of the model's forward."""
    taken = inspect.signature(model.forward).parameters
    return all(name in taken for name in inputs)


def _methods(methods: Any) -> Axis:
    if isinstance(methods, Mapping):
        labels, values = [str(name) for name in methods], list(methods.values())
    else:
        several = isinstance(methods, Sequence) and not isinstance(methods, str)
        values = check_list("methods", methods, "['gradient', 'grad_cam']") if several else [methods]
        labels = distinct([get_method(value).title for value in values])
    for value in _check_any("methods", values):
        get_method(value)
    return Axis("methods", labels, values)


def _settings(settings: Any, limit: int) -> tuple[Axis, int]:
    """Return the settings, at most ``limit`` of them, and how many there are."""
    if settings is None:
        return Axis("settings", [""], [{}]), 1
    if isinstance(settings, Mapping) and settings and all(isinstance(value, Mapping) for value in settings.values()):
        return Axis(
            "settings", [str(name) for name in settings], [check_mapping("settings", v) for v in settings.values()]
        ), len(settings)
    if isinstance(settings, Mapping):
        lists = {}
        for name, values in settings.items():
            if isinstance(values, Tensor):
                check_dense(values, f"settings: {name}")
            lists[name] = _check_any(f"settings: {name}", check_list(f"settings: {name}", values, "[8, 32]"))
        combinations = itertools.islice(itertools.product(*lists.values()), max(1, limit))
        settings_list = _check_any(
            "settings", [dict(zip(lists, values, strict=True)) for values in combinations] if lists else []
        )
        count = math.prod(map(len, lists.values()))
    elif isinstance(settings, Sequence) and all(isinstance(one, Mapping) for one in settings):
        settings_list = _check_any("settings", [check_mapping("settings", one) for one in settings])
        count = len(settings_list)
    else:
        raise TypeError(
            f"settings: expected a list of mappings such as [{{'n_steps': 16}}, {{'n_steps': 64}}], or lists of values "
            f"by name such as {{'n_steps': [16, 64]}}, got {brief(settings)}."
        )
    return Axis("settings", distinct([_describe(one) for one in settings_list]), settings_list), count


def _describe(setting: Mapping[str, Any]) -> str:
    """Return a setting as text."""
    words = [
        f"{name.replace('_', ' ')} {value if isinstance(value, (str, int, float)) else type(value).__name__}"
        for name, value in setting.items()
    ]
    return ", ".join(words) or "as it is"


def _check_names(axes: Mapping[str, Axis], params: Mapping[str, Any]) -> None:
    """Check that some method has each parameter, and that none is given twice."""
    names = sorted({param.name for value in axes["methods"].values for param in get_method(value).params})
    varied = {name for setting in axes["settings"].values for name in setting}
    for name in (*params, *varied):
        if name not in names:
            titles = ", ".join(get_method(value).title for value in axes["methods"].values[:4])
            if names:
                raise TypeError(unknown("parameter of these methods", name, names))
            raise TypeError(
                f"{titles}: no parameter is known, so {brief(name)} is none. Leave it out, or add a method that has it."
            )
    for name in varied & set(params):
        raise ValueError(f"settings: {brief(name)} is among the settings and given for all. Pass it once.")


def _classes(classes: Any) -> Axis:
    if classes is None or isinstance(classes, (str, int)) or is_function(classes):
        classes = [classes]
    if hasattr(classes, "__array__"):
        classes = np.atleast_1d(as_array(classes, "classes")).tolist()
    listed = _check_any("classes", check_list("classes", classes, "[0, 1]"))
    values = [as_array(value, "classes").tolist() if hasattr(value, "__array__") else value for value in listed]
    for value in values:
        single = isinstance(value, (str, int, np.integer)) or (isinstance(value, tuple) and is_index(value))
        if not (value is None or single or is_function(value)):
            raise TypeError(f"classes: expected class names or indices, got {brief(value)} ({type(value).__name__}).")
    return Axis("classes", [""] * len(values), values)


def _name_classes(comparison: Comparison) -> None:
    """Label classes by their names, after checking that every model has them."""
    axis = comparison.axes["classes"]
    problem = comparison.problem(Cell())
    labels = []
    for value in axis.values:
        if value is None:
            labels.append("top prediction")
        else:
            labels.append(problem.name_of(problem.choice(value, comparison.score), comparison.score, short=True))
    axis.labels[:] = distinct(labels)


def distinct(labels: Sequence[str]) -> list[str]:
    """Return the labels, with repeated ones numbered."""
    seen: dict[str, int] = {}
    result = []
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        result.append(label if seen[label] == 1 else f"{label} #{seen[label]}")
    return result


def _check_any(what: str, values: list[Any]) -> list[Any]:
    if not values:
        raise ValueError(f"{what}: it is empty. Pass at least one.")
    return values
