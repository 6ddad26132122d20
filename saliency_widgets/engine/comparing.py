"""What a comparison is of: models, inputs, classes, methods and settings, any two of them across and down."""

from __future__ import annotations

import inspect
import itertools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from saliency_widgets.attribution import get_method
from saliency_widgets.attribution.method import Method
from saliency_widgets.attribution.targets import SCORE, class_index, is_function
from saliency_widgets.engine.compute import alone, compute
from saliency_widgets.engine.request import Request
from saliency_widgets.engine.subject import Subject
from saliency_widgets.engine.sweeping.asked import duration, each_of
from saliency_widgets.params import unknown

LIMIT = 400
"""Maps that are compared without being asked for."""

TITLES = {"methods": "Method", "settings": "Settings", "models": "Model", "classes": "Class", "inputs": "Input"}
"""What can be compared, in the order in which it goes down and across, and what its menu is called."""


class Place(NamedTuple):
    """One map of a comparison: which of each axis."""

    methods: int = 0
    settings: int = 0
    models: int = 0
    classes: int = 0
    inputs: int = 0


@dataclass(frozen=True, eq=False)
class Axis:
    """The variants of one kind.

    Attributes:
        name: One of :data:`TITLES`.
        labels: What each variant is called; no two alike.
        values: The variants.
    """

    name: str
    labels: list[str]
    values: list[Any]

    def __len__(self) -> int:
        return len(self.values)


class Comparison:
    """Every combination of what is compared, as questions to be asked.

    Args:
        axes: By name, all of :data:`TITLES`.
        params: Parameters that all methods have in common, as far as a method has them.
        score: Of all maps.
        contrast: Of all maps.
        about: For each model, what :class:`Subject` is to be told beside the model and the input.

    Attributes:
        axes: What was given.
    """

    def __init__(
        self, axes: Mapping[str, Axis], params: Mapping[str, Any], score: str, contrast: Any, about: list[dict]
    ) -> None:
        self.axes, self.params, self.score, self.contrast, self.about = axes, dict(params), score, contrast, about
        self.layers: dict[int, str] = {}  # of a model, instead of each method's own choice
        self._subjects: dict[tuple[int, int], Subject] = {}

    @property
    def varied(self) -> list[str]:
        """The axes that have more than one variant."""
        return [name for name in TITLES if len(self.axes[name]) > 1]

    @property
    def subjects(self) -> list[Subject]:
        """Those that were asked for so far."""
        return list(self._subjects.values())

    def subject(self, place: Place) -> Subject:
        """The model and the input of a place.

        Raises:
            TypeError, ValueError: The input does not fit the model.
        """
        key = place.models, place.inputs
        if key not in self._subjects:
            model, item = self.axes["models"].values[place.models], self.axes["inputs"].values[place.inputs]
            try:
                found = Subject(model, item, **self.about[place.models])
                if found.parts:
                    pictures = [name for name, shape in found.parts.items() if len(shape) == 3]
                    found = Subject(
                        model, item, **{**self.about[place.models], "explain": [*pictures, *found.parts][0]}
                    )
            except (TypeError, ValueError) as error:
                raise type(error)(self._about(place, error)) from error
            if len(found.tensor) != 1:
                raise ValueError(
                    f"inputs: each is one picture, and {self.axes['inputs'].labels[place.inputs]!r} is a batch of "
                    f"{len(found.tensor)}. Pass its pictures as a list."
                )
            if found.prepared.pictures is None:
                raise ValueError(
                    f"inputs: sw.compare shows maps over pictures, and what the model takes has shape "
                    f"{tuple(found.tensor.shape)}. Use sw.attribute, or sw.explore of a row."
                )
            self._subjects[key] = found
        return self._subjects[key]

    def method(self, place: Place) -> Method:
        """The method of a place."""
        return get_method(self.axes["methods"].values[place.methods])

    def params_of(self, place: Place) -> dict[str, Any]:
        """The parameters of a place's method that were given."""
        given = {**self.params, **self.axes["settings"].values[place.settings]}
        own = {param.name: param for param in self.method(place).params}
        found = {name: value for name, value in given.items() if name in own}
        if place.models in self.layers and "layer" in own:
            found["layer"] = self.layers[place.models]
        return found

    def ignored(self, place: Place) -> list[str]:
        """Names in a place's settings that its method doesn't have."""
        own = {param.name for param in self.method(place).params}
        return [name for name in self.axes["settings"].values[place.settings] if name not in own]

    def request(self, place: Place) -> Request:
        """The question of a place.

        Raises:
            TypeError, ValueError: A parameter of the wrong type or out of range.
        """
        return Request.of(
            self.axes["methods"].values[place.methods],
            self.params_of(place),
            target=self.axes["classes"].values[place.classes],
            score=self.score,
            contrast=self.contrast,
        )

    def group(self, place: Place) -> str:
        """Maps of one group have comparable numbers: one method's, of one score."""
        return self.method(place).title

    def name(self, place: Place) -> str:
        """What tells a map from the others, in words."""
        told = [self.axes[name].labels[getattr(place, name)] for name in self.varied]
        return " · ".join(told) or self.method(place).title

    def check(self) -> None:
        """Ask nothing, but look whether all of it can be asked.

        Raises:
            TypeError, ValueError: What can't be, and of which model or method.
        """
        for methods, settings in itertools.product(range(len(self.axes["methods"])), range(len(self.axes["settings"]))):
            self.request(Place(methods=methods, settings=settings))
        for inputs in range(len(self.axes["inputs"])):
            self.subject(Place(inputs=inputs))
        for models, classes in itertools.product(range(len(self.axes["models"])), range(len(self.axes["classes"]))):
            place = Place(models=models, classes=classes)
            subject = self.subject(place)
            try:
                with alone():
                    subject.resolve(self.request(place))
            except (TypeError, ValueError) as error:
                raise type(error)(self._about(place, error)) from error

    def too_many(self, counts: Mapping[str, int], limit: int) -> str:
        """How long so many maps would take, told after one of them."""
        count = math.prod(counts.values())
        place = Place()
        began = time.perf_counter()
        try:
            for _ in compute(self.subject(place), self.request(place)):
                pass
            seconds = time.perf_counter() - began
            long = f"About {duration(seconds * count)} here, one after another: {seconds:.2g} s for the first of them."
        except (TypeError, ValueError) as error:
            long = f"The first of them failed here: {error}"
        each = " x ".join(f"{counts[name]:,} {name}" for name in TITLES if counts[name] > 1)
        return (
            f"compare: {count:,} maps ({each}) are over the limit of {limit:,}. {long} If you mean it, pass "
            f"limit={count}; sw.sweep measures many settings without showing each."
        )

    def _about(self, place: Place, error: Exception) -> str:
        """An error with the model's name, where there are several."""
        models = self.axes["models"]
        return f"model {models.labels[place.models]!r}: {error}" if len(models) > 1 else str(error)


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
    about: Mapping[str, Any],
) -> Comparison:
    """What :func:`saliency_widgets.compare` is asked, read and checked.

    Raises:
        TypeError, ValueError: What doesn't fit, with what to do.
    """
    models = _models(model)
    told = [_for_model(about, models, k) for k in range(len(models))]
    variants, many = _settings(settings, limit)
    axes = {
        "models": models,
        "inputs": _inputs(models.values[0], inputs, told[0]),
        "methods": _methods(methods),
        "settings": variants,
    }
    _check_names(axes, params)
    axes["classes"] = _classes(classes)
    found = Comparison(axes, params, SCORE.check(score), contrast, told)
    counts = {name: len(axis) for name, axis in axes.items()} | {"settings": many}
    if math.prod(counts.values()) > limit:
        raise ValueError(found.too_many(counts, limit))
    found.check()
    _name_classes(found)
    return found


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
            raise TypeError(f"model: {label!r} is a {type(one).__name__}, expected a torch.nn.Module.")
    return Axis("models", labels, _some("model", values))


def _for_model(about: Mapping[str, Any], models: Axis, which: int) -> dict[str, Any]:
    """What was given for all models, or by their names."""
    names = set(models.labels)
    return {
        name: value[models.labels[which]]
        if len(models) > 1 and isinstance(value, Mapping) and set(value) == names
        else value
        for name, value in about.items()
    }


def _inputs(model: nn.Module, inputs: Any, about: Mapping[str, Any]) -> Axis:
    if isinstance(inputs, Mapping) and not _are_arguments(model, inputs):
        return Axis("inputs", [str(name) for name in inputs], _some("inputs", list(inputs.values())))
    items = _some("inputs", each_of(model, inputs, about))
    labels = [Path(item).stem if isinstance(item, (str, Path)) else f"input {k + 1}" for k, item in enumerate(items)]
    return Axis("inputs", distinct(labels), items)


def _are_arguments(model: nn.Module, inputs: Mapping[Any, Any]) -> bool:
    """Whether a mapping is one input of several parts, by the names that the model's forward gives them."""
    taken = inspect.signature(model.forward).parameters
    return all(name in taken for name in inputs)


def _methods(methods: Any) -> Axis:
    if isinstance(methods, Mapping):
        labels, values = [str(name) for name in methods], list(methods.values())
    else:
        several = isinstance(methods, Sequence) and not isinstance(methods, str)
        values = list(methods) if several else [methods]
        labels = distinct([get_method(value).title for value in values])
    for value in _some("methods", values):
        get_method(value)
    return Axis("methods", labels, values)


def _settings(settings: Any, limit: int) -> tuple[Axis, int]:
    """The settings, of too many combinations the first; and how many there are."""
    if settings is None:
        return Axis("settings", [""], [{}]), 1
    if isinstance(settings, Mapping) and settings and all(isinstance(value, Mapping) for value in settings.values()):
        return Axis("settings", [str(name) for name in settings], [dict(v) for v in settings.values()]), len(settings)
    if isinstance(settings, Mapping):
        lists = {}
        for name, values in settings.items():
            if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
                raise TypeError(f"settings: expected a list of values for {name!r}, got {values!r}.")
            lists[name] = _some(f"settings: {name}", list(values))
        some = itertools.islice(itertools.product(*lists.values()), max(1, limit))
        found = _some("settings", [dict(zip(lists, values, strict=True)) for values in some] if lists else [])
        count = math.prod(map(len, lists.values()))
    elif isinstance(settings, Sequence) and all(isinstance(one, Mapping) for one in settings):
        found = _some("settings", [dict(one) for one in settings])
        count = len(found)
    else:
        raise TypeError(
            f"settings: expected a list of mappings such as [{{'n_steps': 16}}, {{'n_steps': 64}}], or lists of values "
            f"by name such as {{'n_steps': [16, 64]}}, got {settings!r}."
        )
    return Axis("settings", distinct([_told(one) for one in found]), found), count


def _told(setting: Mapping[str, Any]) -> str:
    """A setting in words."""
    words = [
        f"{name.replace('_', ' ')} {value if isinstance(value, (str, int, float)) else type(value).__name__}"
        for name, value in setting.items()
    ]
    return ", ".join(words) or "as it is"


def _check_names(axes: Mapping[str, Axis], params: Mapping[str, Any]) -> None:
    """Each parameter must be one that some method has, and be said once."""
    known = sorted({param.name for value in axes["methods"].values for param in get_method(value).params})
    varied = {name for setting in axes["settings"].values for name in setting}
    for name in (*params, *varied):
        if name not in known:
            raise TypeError(unknown("parameter of these methods", name, known))
    for name in varied & set(params):
        raise ValueError(f"settings: {name!r} is among the settings and given for all. Say it once.")


def _classes(classes: Any) -> Axis:
    if classes is None or isinstance(classes, (str, int)) or is_function(classes):
        classes = [classes]
    values = [value.item() if hasattr(value, "item") else value for value in _some("classes", list(classes))]
    for value in values:
        if not (value is None or isinstance(value, (str, int, np.integer)) or is_function(value)):
            raise TypeError(f"classes: expected class names or indices, got {value!r} ({type(value).__name__}).")
    return Axis("classes", [""] * len(values), values)


def _name_classes(found: Comparison) -> None:
    """Call classes by their names, once it is known that every model has them."""
    axis = found.axes["classes"]
    subject = found.subject(Place())
    labels = []
    for value in axis.values:
        if value is None:
            labels.append("top prediction")
        elif is_function(value):
            labels.append("own target")
        else:
            index = class_index(value, subject.logits.shape[1], subject.class_names)
            labels.append(subject.name_of(index).split(",")[0])
    axis.labels[:] = distinct(labels)


def distinct(labels: Sequence[str]) -> list[str]:
    """The labels, those that come again numbered."""
    seen: dict[str, int] = {}
    found = []
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        found.append(label if seen[label] == 1 else f"{label} #{seen[label]}")
    return found


def _some(what: str, values: list[Any]) -> list[Any]:
    if not values:
        raise ValueError(f"{what}: it is empty. Give one at least.")
    return values
