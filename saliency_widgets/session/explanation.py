"""A finished map to be looked into: each check of it as something to be asked of the examiner."""

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
"""What shuffling tells of the row, and of all rows as soon as there is something."""


def values_of(entry: Method, params: dict[str, Any], runner: Runner) -> Tensor:
    """The values of a method, of however many rows, shape (n, F).

    Raises:
        ValueError: The method gives no value for each feature.
    """
    *_, last = entry.run(runner, **params)
    if last.values.shape != runner.inputs.shape:
        raise ValueError(f"method: {entry.title} gives no value for each feature. Use 'integrated_gradients'.")
    return last.values


def labels_of(labels: Any, problem: Problem, *, value: bool) -> tuple[Tensor | None, Loss]:
    """The labels of the background's rows, and what loss they go with.

    Args:
        labels: See :func:`~saliency_widgets.inputs.labels.read_labels`.
        problem: The model and a row, with a background.
        value: Whether the model predicts values, and no classes.
    """
    if labels is None:
        return None, "change of the score"
    background = None if problem.table is None else problem.table.background
    if background is None:
        raise ValueError("labels: they are those of the background's rows. Pass background= too.")
    classes = problem.logits.shape[1]
    found = read_labels(labels, len(background), classes, problem.class_names, value=value)
    return found, "squared error" if value else "cross-entropy"


def map_of(
    entry: Method, params: dict[str, Any], reduction: Reduction, runner: Runner, seed: int | None = None
) -> Tensor:
    """The map of a method as it is shown, of whatever rows: shape (H, W), or (F,) for rows.

    Args:
        entry: The method.
        params: Its parameters.
        reduction: How it is shown.
        runner: The model and one sample.
        seed: Instead of the method's own, where it has one.
    """
    if seed is not None and has_seed(entry):
        params = {**params, SEED.name: seed}
    *_, last = entry.run(runner, **params)
    return reduced(last.values, reduction, runner.passes.size)


def reduced(values: Tensor, reduction: Reduction, size: tuple[int, int] | None) -> Tensor:
    """The map of one sample's values: shape (H, W), or (F,) for rows."""
    if size is not None:
        return reduction(values[:1], size)[0]
    return (values if values.ndim > 1 else values[:, None])[0].abs()


def has_seed(entry: Method) -> bool:
    """Whether a method draws random numbers."""
    return SEED in entry.params


@dataclass(frozen=True, eq=False)
class Case:
    """A map, and all that is needed to question it.

    Attributes:
        problem: The model and the input.
        request: What was asked.
        attribution: The finished answer.
        reduction: How it is shown.
        version: Of the model and the input that the answer is about.
        cache: Where single passes are kept.
        owner: Whose they are.
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
        return reduced(self.attribution.values, self.reduction, self.problem.size)

    def beside(self, other: Case) -> bool:
        """Whether another case is about the same model, input and score, so that their maps compare."""
        return (self.version, self._scored) == (other.version, other._scored)

    @property
    def _scored(self) -> tuple:
        """Which score it is about."""
        asked = self.request
        return identity(asked.target), asked.score, identity(asked.contrast)

    def _runner(self, check: Callable[[], None], *key: Hashable) -> Runner:
        version = self.problem.version()
        score, _ = self.problem.resolve(self.request, version)
        # Methods keep passes under what differs within one question: of several questions, nothing may be kept.
        kept = Scope(self.cache, (self.owner, "check", version, *key)) if key else None
        return self.problem.runner(score, check, kept)

    @cached_property
    def _asked(self) -> tuple:
        return (self.request.key, self.reduction)

    def _explain(self, runner: Runner, seed: int | None = None) -> Tensor:
        return map_of(get_method(self.request.method), dict(self.request.params), self.reduction, runner, seed)

    def ablation(self, region: Tensor | float, *, fill: Any, draws: int = DRAWS.default) -> Check:
        """What the model says without a region, see :func:`~saliency_widgets.evaluation.ablation.ablate`.

        Args:
            region: A mask, or the share of the map whose strongest places are meant.
            fill: What is put there.
            draws: How many regions elsewhere.
        """

        def begin(check: Callable[[], None]) -> Iterator[Ablation]:
            mask = region if isinstance(region, Tensor) else top(self.values, region)
            runner = self._runner(check, "ablation", self._scored)
            names = None if self.problem.class_names is None else tuple(self.problem.class_names)
            for found in ablate(runner, mask, fill=fill, draws=draws):
                yield replace(found, class_names=names)

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
        """Deletion and insertion, see :func:`~saliency_widgets.evaluation.curves.curves`."""

        def begin(check: Callable[[], None]) -> Iterator[Curves]:
            # Passes hold all class scores: those for one class serve another.
            target, scale = self.request.target, self.request.score
            about = self._scored if is_function(target) or is_index(target) or scale not in _LOGITS else ()
            yield from curves(
                self._runner(check, "curves", about, identity(fill)), self.values, fill=fill, steps=steps,
                chance=chance, draws=draws, others={name: other.values for name, other in (others or {}).items()},
            )  # fmt: skip

        return Check("curves", begin)

    def randomization(self, *, stages: int = STAGES.default) -> Check:
        """Whether the map depends on the weights, see :func:`~saliency_widgets.evaluation.randomization`."""

        def begin(check: Callable[[], None]) -> Iterator[Randomization]:
            yield from randomization(self._runner(check, "randomization", self._asked), self._explain, stages=stages)

        return Check("randomization", begin)

    def shuffles(
        self, labels: Any, *, value: bool = False, draws: int = SHUFFLES.default, repeats: int = REPEATS.default
    ) -> Check:
        """Each feature taken from other rows, and permuted, see :mod:`~saliency_widgets.evaluation.shuffling`.

        Args:
            labels: Of the background's rows; None measures the change of the score.
            value: Whether the model predicts values, and no classes.
            draws: From how many rows.
            repeats: How many permutations.
        """

        def begin(check: Callable[[], None]) -> Iterator[Shuffles]:
            here: Shuffled | None = None
            for here in shuffle(self._runner(check, "shuffle", self._scored), draws=draws):
                yield here, None
            known, loss = labels_of(labels, self.problem, value=value)
            runner = self._runner(check)
            # Of whichever row is looked at, the rows of the background are the same.
            model = self.problem.version()[0]
            kept = Scope(self.cache, (self.owner, "permutation", model, self._scored))
            for over in permutation_importance(replace(runner, kept=kept), known, loss, repeats=repeats):
                assert here is not None
                yield here, over

        return Check("shuffle", begin)

    def importance(self, *, rows: int, seed: int = 0) -> Check:
        """Attributions of many rows, see :func:`~saliency_widgets.evaluation.importance.importance`."""

        def begin(check: Callable[[], None]) -> Iterator[Importance]:
            runner = self._runner(check)
            around = None if runner.columns is None else runner.columns.rows
            assert around is not None
            drawn = torch.randperm(len(around), generator=seeded(seed, "rows"), device="cpu")[:rows]
            entry, params = get_method(self.request.method), dict(self.request.params)
            yield from importance(runner, around[drawn.to(around.device)], partial(values_of, entry, params))

        return Check("importance", begin)

    def saturation(self, *, baseline: Any = None) -> Check:
        """Where on the way to the input the score settles, see :func:`~saliency_widgets.evaluation.saturation`."""

        def begin(check: Callable[[], None]) -> Iterator[Saturation]:
            runner = self._runner(check, "saturation", self._scored, identity(baseline))
            yield from saturation(runner, baseline=baseline)

        return Check("saturation", begin)

    def stability(self, *, turns: int = TURNS.default, radius: float = RADIUS.default) -> Check:
        """Whether the map stays, see :func:`~saliency_widgets.evaluation.stability.stability`."""

        def begin(check: Callable[[], None]) -> Iterator[Stability]:
            entry = get_method(self.request.method)
            seed = int(dict(self.request.params).get("seed", 0))
            yield from stability(
                self._runner(check), self._explain, seeded_method=has_seed(entry), radius=radius, turns=turns, seed=seed
            )  # fmt: skip

        return Check("stability", begin)
