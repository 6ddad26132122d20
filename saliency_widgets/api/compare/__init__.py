"""Comparisons over models, inputs, classes, methods and settings, any two of which form the axes of a grid."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from saliency_widgets.api.grid import Axis, applicable, over_limit
from saliency_widgets.attribution import Reduction, get_method
from saliency_widgets.attribution.registry import Method
from saliency_widgets.inputs.joint import JointKind
from saliency_widgets.params import brief
from saliency_widgets.session.compute import compute, neutral_modes
from saliency_widgets.session.problem import Problem
from saliency_widgets.session.request import Request

TITLES = {"methods": "Method", "settings": "Settings", "models": "Model", "classes": "Class", "inputs": "Input"}
"""The titles of the axes in menus, in the default order for rows and columns."""


class Cell(NamedTuple):
    """The index of one map of a comparison on each axis."""

    methods: int = 0
    settings: int = 0
    models: int = 0
    classes: int = 0
    inputs: int = 0


class Comparison:
    """All combinations of the axes' variants, as problems and requests.

    Args:
        axes: An axis for each name in :data:`TITLES`.
        params: Parameters, passed to each method that has them.
        score: The score that all maps explain.
        contrast: The contrast class of all maps.
        options: For each model, the arguments of :class:`Problem` other than the model and the input.
    """

    def __init__(
        self, axes: Mapping[str, Axis], params: Mapping[str, Any], score: str, contrast: Any, options: list[dict]
    ) -> None:
        self.axes, self.params, self.score, self.contrast, self.options = axes, dict(params), score, contrast, options
        self.layers: dict[int, str] = {}  # by model index; overrides each method's default
        self._problems: dict[tuple[int, int], Problem] = {}

    @property
    def varied(self) -> list[str]:
        """The axes with more than one variant."""
        return [name for name in TITLES if len(self.axes[name]) > 1]

    @property
    def problems(self) -> list[Problem]:
        """The problems created so far."""
        return list(self._problems.values())

    def problem(self, cell: Cell) -> Problem:
        """Return the problem of a cell: its model and its input.

        Raises:
            TypeError, ValueError: The input does not fit the model.
        """
        key = cell.models, cell.inputs
        if key not in self._problems:
            model, item = self.axes["models"].values[cell.models], self.axes["inputs"].values[cell.inputs]
            try:
                problem = Problem(model, item, **self.options[cell.models])
                if isinstance(problem.kind, JointKind):
                    raise ValueError(f"explain: a comparison shows one input. Pass one of {list(problem.parts)}.")
                if problem.parts:
                    problem = Problem(model, item, **{**self.options[cell.models], "explain": problem.main_part})
            except (TypeError, ValueError) as error:
                raise type(error)(self._with_model(cell, error)) from error
            self._check(problem, cell)
            self._problems[key] = problem
        return self._problems[key]

    def _check(self, problem: Problem, cell: Cell) -> None:
        """Check that a problem has one map, of the same kind as the others.

        Raises:
            ValueError: It has several or none, or is of another kind.
        """
        noun, name = problem.kind.noun, brief(self.axes["inputs"].labels[cell.inputs])
        if len(problem.tensor) != 1:
            raise ValueError(
                f"inputs: expected single {noun}s, but {name} is a batch of {len(problem.tensor)}. Pass its {noun}s as "
                f"a list."
            )
        if not problem.kind.drawn:
            raise ValueError(
                f"inputs: sw.compare shows maps over images, texts, signals and volumes, but the model's input has "
                f"shape {tuple(problem.tensor.shape)}. Use sw.attribute, or sw.explore for a row."
            )
        first = next(iter(self._problems.values()), problem).kind
        if first.name != problem.kind.name:
            raise ValueError(
                f"inputs: a comparison shows inputs of one kind, but {name} is of the kind {noun!r}, and another one "
                f"of the kind {first.noun!r}. Compare them separately."
            )

    def method(self, cell: Cell) -> Method:
        """Return the method of a cell."""
        return get_method(self.axes["methods"].values[cell.methods])

    def params_of(self, cell: Cell) -> dict[str, Any]:
        """Return the explicitly set parameters of a cell, without those that its method doesn't have."""
        explicit = {**self.params, **self.axes["settings"].values[cell.settings]}
        if cell.models in self.layers:
            explicit["layer"] = self.layers[cell.models]
        return applicable(self.method(cell), explicit)

    def ignored(self, cell: Cell) -> list[str]:
        """Return the names of the parameters in a cell's settings that its method doesn't have."""
        setting = self.axes["settings"].values[cell.settings]
        return [name for name in setting if name not in applicable(self.method(cell), setting)]

    def request(self, cell: Cell) -> Request:
        """Return the request of a cell.

        Raises:
            TypeError, ValueError: A parameter has the wrong type or is out of range.
        """
        return Request.of(
            self.axes["methods"].values[cell.methods],
            self.params_of(cell),
            target=self.axes["classes"].values[cell.classes],
            score=self.score,
            contrast=self.contrast,
        )

    def reduction(self, cell: Cell, sign: str | None = None, channels: str | None = None) -> Reduction:
        """Return the reduction of a cell's map.

        Args:
            cell: The cell.
            sign: The sign of the map. Default: the method's default for the kind of input.
            channels: The channel reduction. Default: that of the kind of input for the sign.
        """
        return self.problem(cell).kind.features.reduction_for(self.method(cell), sign, channels)

    def group(self, cell: Cell) -> str:
        """Return the name of a cell's group, in which maps share a method and score and have comparable values."""
        return self.method(cell).title

    def name(self, cell: Cell) -> str:
        """Return a label that distinguishes a cell's map from the others."""
        labels = [self.axes[name].labels[getattr(cell, name)] for name in self.varied]
        return " · ".join(labels) or self.method(cell).title

    def check(self) -> None:
        """Check all models, inputs, classes, methods and settings, without computing a map.

        Raises:
            TypeError, ValueError: One of them doesn't fit; the message names the model or method.
        """
        for methods, settings in itertools.product(range(len(self.axes["methods"])), range(len(self.axes["settings"]))):
            self.request(Cell(methods=methods, settings=settings))
        for inputs in range(len(self.axes["inputs"])):
            self.problem(Cell(inputs=inputs))
        for models, classes in itertools.product(range(len(self.axes["models"])), range(len(self.axes["classes"]))):
            cell = Cell(models=models, classes=classes)
            problem = self.problem(cell)
            try:
                with neutral_modes():
                    problem.resolve(self.request(cell))
            except (TypeError, ValueError) as error:
                raise type(error)(self._with_model(cell, error)) from error

    def too_many(self, counts: Mapping[str, int], limit: int) -> str:
        """Return the error message for a comparison over the limit, with its time estimated from one map."""
        advice = "sw.sweep measures many settings without showing each."
        counts = {name: counts[name] for name in TITLES}
        return over_limit(
            "compare", counts, limit, lambda: deque(compute(self.problem(Cell()), self.request(Cell())), 0), advice
        )

    def _with_model(self, cell: Cell, error: Exception) -> str:
        """Return an error's message, preceded by the model's name if there are several models."""
        models = self.axes["models"]
        return f"model {brief(models.labels[cell.models])}: {error}" if len(models) > 1 else str(error)
