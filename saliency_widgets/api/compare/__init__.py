"""What a comparison is of: models, inputs, classes, methods and settings, any two of them across and down."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from saliency_widgets.api.sweep.arguments import duration
from saliency_widgets.attribution import get_method
from saliency_widgets.attribution.registry import Method
from saliency_widgets.params import brief
from saliency_widgets.session.compute import alone, compute
from saliency_widgets.session.problem import Problem
from saliency_widgets.session.request import Request

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
        about: For each model, what :class:`Problem` is to be told beside the model and the input.

    Attributes:
        axes: What was given.
    """

    def __init__(
        self, axes: Mapping[str, Axis], params: Mapping[str, Any], score: str, contrast: Any, about: list[dict]
    ) -> None:
        self.axes, self.params, self.score, self.contrast, self.about = axes, dict(params), score, contrast, about
        self.layers: dict[int, str] = {}  # of a model, instead of each method's own choice
        self._problems: dict[tuple[int, int], Problem] = {}

    @property
    def varied(self) -> list[str]:
        """The axes that have more than one variant."""
        return [name for name in TITLES if len(self.axes[name]) > 1]

    @property
    def problems(self) -> list[Problem]:
        """Those that were asked for so far."""
        return list(self._problems.values())

    def problem(self, place: Place) -> Problem:
        """The model and the input of a place.

        Raises:
            TypeError, ValueError: The input does not fit the model.
        """
        key = place.models, place.inputs
        if key not in self._problems:
            model, item = self.axes["models"].values[place.models], self.axes["inputs"].values[place.inputs]
            try:
                found = Problem(model, item, **self.about[place.models])
                if found.parts:
                    images = [name for name, shape in found.parts.items() if len(shape) == 3]
                    found = Problem(model, item, **{**self.about[place.models], "explain": [*images, *found.parts][0]})
            except (TypeError, ValueError) as error:
                raise type(error)(self._about(place, error)) from error
            if len(found.tensor) != 1:
                raise ValueError(
                    f"inputs: each is one image, and {brief(self.axes['inputs'].labels[place.inputs])} is a batch of "
                    f"{len(found.tensor)}. Pass its images as a list."
                )
            if found.prepared.images is None:
                raise ValueError(
                    f"inputs: sw.compare shows maps over images, and what the model takes has shape "
                    f"{tuple(found.tensor.shape)}. Use sw.attribute, or sw.explore of a row."
                )
            self._problems[key] = found
        return self._problems[key]

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
            self.problem(Place(inputs=inputs))
        for models, classes in itertools.product(range(len(self.axes["models"])), range(len(self.axes["classes"]))):
            place = Place(models=models, classes=classes)
            problem = self.problem(place)
            try:
                with alone():
                    problem.resolve(self.request(place))
            except (TypeError, ValueError) as error:
                raise type(error)(self._about(place, error)) from error

    def too_many(self, counts: Mapping[str, int], limit: int) -> str:
        """How long so many maps would take, told after one of them."""
        count = math.prod(counts.values())
        place = Place()
        began = time.perf_counter()
        try:
            for _ in compute(self.problem(place), self.request(place)):
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
        return f"model {brief(models.labels[place.models])}: {error}" if len(models) > 1 else str(error)
