"""A finished map and the trust checks of it, ready to be submitted to the examiner."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from saliency_widgets.attribution import Attribution, Reduction, get_method
from saliency_widgets.attribution.numerics.noise import SEED, seeded
from saliency_widgets.attribution.registry import Method
from saliency_widgets.attribution.score import is_function
from saliency_widgets.evaluation.ablation import DRAWS, Ablation, ablate
from saliency_widgets.evaluation.curves import STEPS, Curves, curves
from saliency_widgets.evaluation.importance import Importance, importance
from saliency_widgets.evaluation.randomization import STAGES, Randomization, randomization
from saliency_widgets.evaluation.ranking import CHANCE, top
from saliency_widgets.evaluation.saturation import Saturation, saturation
from saliency_widgets.evaluation.shuffling import DRAWS as SHUFFLES
from saliency_widgets.evaluation.shuffling import REPEATS, Loss, Permutation, Shuffled, permutation_importance, shuffle
from saliency_widgets.evaluation.stability import RADIUS, TURNS, Stability, stability
from saliency_widgets.inputs.labels import read_labels
from saliency_widgets.outputs.selection import is_index
from saliency_widgets.runtime.model.version import identity
from saliency_widgets.runtime.runner import Runner
from saliency_widgets.session.cache import Cache, Scope
from saliency_widgets.session.examiner import Check
from saliency_widgets.session.problem import Problem
from saliency_widgets.session.request import Request

_LOGITS = ("logit", "value")
Shuffles = tuple[Shuffled, Permutation | None]
"""The shuffled row, and the permutation importance over all rows once it has begun."""


def values_of(entry: Method, params: dict[str, Any], runner: Runner) -> Tensor:
    """Run a method on any number of rows and return its values, shape (n, F).

    Raises:
        ValueError: The method doesn't give a value for each feature.
    """
    *_, last = entry.run(runner, **params)
    if last.values.shape != runner.inputs.shape:
        raise ValueError(f"method: {entry.title} doesn't give a value for each feature. Use 'integrated_gradients'.")
    return last.values


def labels_of(labels: Any, problem: Problem, *, value: bool) -> tuple[Tensor | None, Loss]:
    """Return the labels of the background's rows, and the loss for them.

    Args:
        labels: See :func:`~saliency_widgets.inputs.labels.read_labels`.
        problem: The model and a row, with a background.
        value: Whether the model predicts values instead of classes.
    """
    if labels is None:
        return None, "change of the score"
    background = None if problem.table is None else problem.table.background
    if background is None:
        raise ValueError("labels: they belong to the background's rows. Pass background= too.")
    classes = problem.logits.shape[1]
    tensor = read_labels(labels, len(background), classes, problem.class_names, value=value)
    return tensor, "squared error" if value else "cross-entropy"


def map_of(
    entry: Method, params: dict[str, Any], reduction: Reduction, runner: Runner, seed: int | None = None
) -> Tensor:
    """Run a method and return its map as it is shown: shape (H, W), or (F,) for rows.

    Args:
        entry: The method.
        params: Its parameters.
        reduction: How it is shown.
        runner: The model and one sample.
        seed: Replaces the method's seed, if it has one.
    """
    if seed is not None and has_seed(entry):
        params = {**params, SEED.name: seed}
    *_, last = entry.run(runner, **params)
    return runner.kind.reduce(last.values[:1], reduction, runner.inputs)[0]


def has_seed(entry: Method) -> bool:
    """Return whether a method draws random numbers."""
    return SEED in entry.params


@dataclass(frozen=True, eq=False)
class Case:
    """A map, and all that is needed to check it.

    Attributes:
        problem: The model and the input.
        request: What was requested.
        attribution: The finished result.
        reduction: How it is shown.
        version: The version of the model and the input that the result belongs to.
        cache: Caches the results of single passes.
        owner: The owner of these cache entries.
    """

    problem: Problem
    request: Request
    attribution: Attribution
    reduction: Reduction
    version: tuple | None
    cache: Cache
    owner: object

    @cached_property
    def values(self) -> Tensor:
        """The map as it is shown, shape (H, W), or (F,) for rows."""
        return self.problem.map_of(self.attribution.values, self.reduction)

    def is_comparable(self, other: Case) -> bool:
        """Return whether another case has the same model, input and score, so that their maps compare."""
        return (self.version, self._score_key) == (other.version, other._score_key)

    @property
    def _score_key(self) -> tuple:
        request = self.request
        return identity(request.target), request.score, identity(request.contrast)

    def _runner(self, check: Callable[[], None], *key: Hashable) -> Runner:
        version = self.problem.version()
        score, _ = self.problem.resolve(self.request, version)
        # Methods cache passes under keys that are unique only within one request. Without a key, nothing is cached.
        results = Scope(self.cache, (self.owner, "check", version, *key)) if key else None
        return self.problem.runner(score, check, results)

    @cached_property
    def _map_key(self) -> tuple:
        return (self.request.key, self.reduction)

    def _explain(self, runner: Runner, seed: int | None = None) -> Tensor:
        return map_of(get_method(self.request.method), dict(self.request.params), self.reduction, runner, seed)

    def ablation(self, region: Tensor | float, *, fill: Any, draws: int = DRAWS.default) -> Check:
        """The model's outputs without a region, see :func:`~saliency_widgets.evaluation.ablation.ablate`.

        Args:
            region: A mask, or the share of the map with the largest values.
            fill: What replaces it.
            draws: How many regions elsewhere.
        """

        def begin(check: Callable[[], None]) -> Iterator[Ablation]:
            mask = region if isinstance(region, Tensor) else top(self.values, region)
            runner = self._runner(check, "ablation", self._score_key)
            names = None if self.problem.class_names is None else tuple(self.problem.class_names)
            for result in ablate(runner, mask, fill=fill, draws=draws):
                yield replace(result, class_names=names)

        return Check("ablation", begin, urgent=True)

    def curves(
        self,
        *,
        fill: Any,
        steps: int = STEPS.default,
        chance: str = CHANCE.default,
        draws: int = 3,
        others: Mapping[str, Case] | None = None,
    ) -> Check:
        """Deletion and insertion curves, see :func:`~saliency_widgets.evaluation.curves.curves`."""

        def begin(check: Callable[[], None]) -> Iterator[Curves]:
            # Passes hold all class scores, so that those for one class serve another.
            target, scale = self.request.target, self.request.score
            key = self._score_key if is_function(target) or is_index(target) or scale not in _LOGITS else ()
            yield from curves(
                self._runner(check, "curves", key, identity(fill)), self.values, fill=fill, steps=steps,
                chance=chance, draws=draws, others={name: other.values for name, other in (others or {}).items()},
            )  # fmt: skip

        return Check("curves", begin)

    def randomization(self, *, stages: int = STAGES.default) -> Check:
        """Whether the map depends on the weights, see :func:`~saliency_widgets.evaluation.randomization`."""

        def begin(check: Callable[[], None]) -> Iterator[Randomization]:
            yield from randomization(self._runner(check, "randomization", self._map_key), self._explain, stages=stages)

        return Check("randomization", begin)

    def shuffles(
        self, labels: Any, *, value: bool = False, draws: int = SHUFFLES.default, repeats: int = REPEATS.default
    ) -> Check:
        """Each feature taken from other rows, then permuted, see :mod:`~saliency_widgets.evaluation.shuffling`.

        Args:
            labels: Of the background's rows; None measures the change of the score.
            value: Whether the model predicts values instead of classes.
            draws: The number of rows to take values from.
            repeats: The number of permutations.
        """

        def begin(check: Callable[[], None]) -> Iterator[Shuffles]:
            shuffled: Shuffled | None = None
            for shuffled in shuffle(self._runner(check, "shuffle", self._score_key), draws=draws):
                yield shuffled, None
            tensor, loss = labels_of(labels, self.problem, value=value)
            runner = self._runner(check)
            # The key leaves out the inputs: the background is the same for every row.
            model = self.problem.version()[0]
            results = Scope(self.cache, (self.owner, "permutation", model, self._score_key))
            for permutation in permutation_importance(replace(runner, results=results), tensor, loss, repeats=repeats):
                assert shuffled is not None
                yield shuffled, permutation

        return Check("shuffle", begin)

    def importance(self, *, rows: int, seed: int = 0) -> Check:
        """Attributions of many rows, see :func:`~saliency_widgets.evaluation.importance.importance`."""

        def begin(check: Callable[[], None]) -> Iterator[Importance]:
            runner = self._runner(check)
            background = runner.kind.background
            assert background is not None
            drawn = torch.randperm(len(background), generator=seeded(seed, "rows"), device="cpu")[:rows]
            entry, params = get_method(self.request.method), dict(self.request.params)
            yield from importance(runner, background[drawn.to(background.device)], partial(values_of, entry, params))

        return Check("importance", begin)

    def saturation(self, *, baseline: Any = None) -> Check:
        """Where the score levels off on the integration path, see :func:`~saliency_widgets.evaluation.saturation`."""

        def begin(check: Callable[[], None]) -> Iterator[Saturation]:
            runner = self._runner(check, "saturation", self._score_key, identity(baseline))
            yield from saturation(runner, baseline=baseline)

        return Check("saturation", begin)

    def stability(self, *, turns: int = TURNS.default, radius: float = RADIUS.default) -> Check:
        """Whether the map is stable, see :func:`~saliency_widgets.evaluation.stability.stability`."""

        def begin(check: Callable[[], None]) -> Iterator[Stability]:
            entry = get_method(self.request.method)
            seed = int(dict(self.request.params).get("seed", 0))
            yield from stability(
                self._runner(check), self._explain, seeded_method=has_seed(entry), radius=radius, turns=turns, seed=seed
            )  # fmt: skip

        return Check("stability", begin)
