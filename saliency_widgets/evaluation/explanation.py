"""The input of a trust test: a map, how it was computed, and the model behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from torch import Tensor

from saliency_widgets.attribution import Reduction, Score
from saliency_widgets.attribution.numerics.noise import SEED
from saliency_widgets.attribution.registry import Method
from saliency_widgets.outputs.task import Loss
from saliency_widgets.runtime.runner import Runner

Shared = Literal["map", "score", "classes", "background"]


@dataclass(frozen=True, eq=False)
class Explanation:
    """A map of one input, with everything that a trust test may need to examine it.

    Attributes:
        runners: Returns a runner for a scope: see :meth:`runner`.
        values: The map as displayed, shape (H, W), or (F,) for a row; empty for a test of the score alone.
        method: The method that computed the map; None for an array.
        params: The method's parameters.
        reduction: The reduction of the method's values to a map.
        region: The marked region, shape (H, W); None if nothing is marked.
        others: Returns other maps of the same input and score, by title.
        labels: Returns the labels of the background's rows, if available, and the loss for them.
        class_names: Names of the classes, if known.
    """

    runners: Callable[[Shared | None], Runner]
    values: Tensor
    method: Method | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    reduction: Reduction = field(default_factory=Reduction)
    region: Tensor | None = None
    others: Callable[[], Mapping[str, Tensor]] = dict
    labels: Callable[[], tuple[Tensor | None, Loss]] = lambda: (None, "change of the score")
    class_names: tuple[str, ...] | None = None

    def runner(self, shared: Shared | None = None) -> Runner:
        """Return the model with its one input; its passes are cancelled once the test is no longer needed.

        Args:
            shared: The scope of results stored with :meth:`.Runner.once`: tests of the same map, of the same score, of
                any class of the same input ("classes"), or of any row with the same background. By default nothing is
                stored. A key must contain everything else that the result depends on.
        """
        return self.runners(shared)

    @property
    def explain(self) -> Callable[..., Tensor]:
        """A function that maps a runner, and optionally a seed, to its map by the same method and settings.

        Raises:
            ValueError: The map is an array.
        """
        if self.method is None:
            raise ValueError(
                "the map is an array, which can't be recomputed. Pass the method, or the Attribution that sw.attribute "
                "returned."
            )
        return partial(map_of, self.method, dict(self.params), self.reduction)


def map_of(
    entry: Method, params: dict[str, Any], reduction: Reduction, runner: Runner, seed: int | None = None
) -> Tensor:
    """Run a method and return its map as displayed: shape (H, W), or (F,) for rows.

    Args:
        entry: The method.
        params: The method's parameters.
        reduction: The reduction of the method's values to a map.
        runner: The model and one sample.
        seed: Replaces the method's seed, if it has one.
    """
    if seed is not None and has_seed(entry):
        params = {**params, SEED.name: seed}
    *_, last = entry.run(runner, **params)
    return runner.kind.reduce(last.values[:1], reduction, runner.inputs)[0]


def values_of(entry: Method, params: Mapping[str, Any], runner: Runner) -> Tensor:
    """Run a method on any number of rows and return its values, shape (n, F).

    Raises:
        ValueError: The method doesn't return a value for each feature.
    """
    *_, last = entry.run(runner, **params)
    if last.values.shape != runner.inputs.shape:
        raise ValueError(f"method: {entry.title} doesn't return a value for each feature. Use 'integrated_gradients'.")
    return last.values


def has_seed(entry: Method) -> bool:
    """Return whether a method draws random numbers."""
    return SEED in entry.params


def in_logits(score: Score) -> bool:
    """Return whether a score can be computed from the class scores alone, so that stored passes serve every class."""
    return score.of_classes and score.scale in ("logit", "value")
