"""Read and check the arguments of a comparison: models, inputs, classes, methods and settings."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
from torch import nn

from saliency_widgets.api.compare import Cell, Comparison
from saliency_widgets.api.grid import Axis, check_names, distinct, params_of, read_axis, read_list, read_settings
from saliency_widgets.api.sweep.arguments import each_of
from saliency_widgets.attribution import get_method
from saliency_widgets.attribution.arrays import as_array
from saliency_widgets.attribution.score import SCORE, is_function
from saliency_widgets.inputs.text.tokens import IDS
from saliency_widgets.outputs.selection import is_index
from saliency_widgets.params import MAPS, brief

LIMIT = 400
"""The default limit on the maps of a comparison."""
_LABEL = 60  # characters of the label of a text


def read_comparison(  # noqa: PLR0913
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
        TypeError, ValueError: An argument is invalid; the message suggests a remedy.
    """
    limit = MAPS.check(limit)
    models = _models(model)
    options = [_for_model(problem_options, models, k) for k in range(len(models))]
    axes = {
        "models": models,
        "inputs": _inputs(models.values[0], inputs, options[0]),
        "methods": _methods(methods),
    }
    parameters = params_of(map(get_method, axes["methods"].values))
    check_names("parameter of these methods", params, parameters)
    axes["settings"], count = read_settings(settings, parameters, params, limit)
    axes["classes"] = _classes(classes)
    comparison = Comparison(axes, params, SCORE.check(score), contrast, options)
    counts = {name: len(axis) for name, axis in axes.items()} | {"settings": count}
    if math.prod(counts.values()) > limit:
        raise ValueError(comparison.too_many(counts, limit))
    comparison.check()
    _name_classes(comparison)
    return comparison


def _models(model: Any) -> Axis:
    if not isinstance(model, (nn.Module, Mapping, list, tuple)):
        raise TypeError(
            f"model: expected a torch.nn.Module, or a mapping from names to modules, got a {type(model).__name__}."
        )
    models = read_axis(
        "model", model, lambda one: type(one).__name__, single=lambda one: isinstance(one, nn.Module), example="[a, b]"
    )
    for label, one in zip(models.labels, models.values, strict=True):
        if not isinstance(one, nn.Module):
            raise TypeError(f"model: {brief(label)} is a {type(one).__name__}, expected a torch.nn.Module.")
    return models


def _for_model(problem_options: Mapping[str, Any], models: Axis, which: int) -> dict[str, Any]:
    """Return the options of one model: those for all models, and those passed by its name.

    Raises:
        ValueError: An option is passed by model name, but not for every model.
    """
    options = {}
    for name, value in problem_options.items():
        vocabulary = (
            name == "tokenizer" and isinstance(value, Mapping) and all(isinstance(k, int) for k in value.values())
        )
        named = isinstance(value, Mapping) and not vocabulary and set(models.labels) & set(value)
        missing = [label for label in models.labels if named and label not in value]
        if missing:
            raise ValueError(f"{name}: expected one for each model by name, got none for {missing}.")
        options[name] = value[models.labels[which]] if named else value
    return options


def _inputs(model: nn.Module, inputs: Any, problem_options: Mapping[str, Any]) -> Axis:
    if isinstance(inputs, Mapping) and not _are_arguments(model, inputs) and IDS not in inputs:
        return read_axis("inputs", inputs, lambda _: "", single=lambda _: False, example="[a, b]")
    items = read_list("inputs", each_of(model, inputs, problem_options))
    texts = problem_options.get("tokenizer") is not None
    return Axis(distinct([_label(item, k, texts) for k, item in enumerate(items)]), items)


def _label(item: Any, index: int, texts: bool) -> str:
    """Return the beginning of a text, the name of a file, or a number."""
    if texts and isinstance(item, str):
        return shorten(item, _LABEL, placeholder=" …") if item.strip() else repr(item)
    return Path(item).stem if isinstance(item, (str, Path)) else f"input {index + 1}"


def _are_arguments(model: nn.Module, inputs: Mapping[Any, Any]) -> bool:
    """Return whether a mapping is one input of several parts, keyed by parameter names of the model's forward."""
    taken = inspect.signature(model.forward).parameters
    return all(name in taken for name in inputs)


def _methods(methods: Any) -> Axis:
    return read_axis(
        "methods", methods, lambda value: get_method(value).title, example="['gradient', 'grad_cam']",
        single=lambda value: isinstance(value, str) or not isinstance(value, Sequence),
    )  # fmt: skip


def _classes(classes: Any) -> Axis:
    if classes is None or isinstance(classes, (str, int)) or is_function(classes):
        classes = [classes]
    if hasattr(classes, "__array__"):
        classes = np.atleast_1d(as_array(classes, "classes")).tolist()
    values = read_list("classes", classes, "[0, 1]")
    for value in values:
        single = isinstance(value, (str, int, np.integer)) or (isinstance(value, tuple) and is_index(value))
        if not (value is None or single or is_function(value)):
            raise TypeError(f"classes: expected class names or indices, got {brief(value)} ({type(value).__name__}).")
    return Axis([""] * len(values), values)


def _name_classes(comparison: Comparison) -> None:
    """Label the classes by the first model's names; call after checking that every model has them."""
    axis = comparison.axes["classes"]
    problem = comparison.problem(Cell())
    labels = []
    for value in axis.values:
        if value is None:
            labels.append("top prediction")
        else:
            labels.append(problem.name_of(problem.choice(value, comparison.score), comparison.score, short=True))
    axis.labels[:] = distinct(labels)
