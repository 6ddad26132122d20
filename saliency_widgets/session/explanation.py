"""A finished map and its trust tests, ready to be submitted to the examiner."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from torch import Tensor

from saliency_widgets.attribution import Attribution, Reduction, Score, get_method
from saliency_widgets.attribution.score import SCORE
from saliency_widgets.evaluation.explanation import Explanation, Shared, in_logits
from saliency_widgets.evaluation.ranking import top
from saliency_widgets.evaluation.registry import TrustTest
from saliency_widgets.outputs.task import Loss
from saliency_widgets.runtime.model.version import identity
from saliency_widgets.runtime.runner import Runner
from saliency_widgets.session.cache import Cache, Scope
from saliency_widgets.session.examiner import Check
from saliency_widgets.session.problem import Problem
from saliency_widgets.session.request import Request


def labels_of(labels: Any, problem: Problem, score: str = SCORE.default) -> tuple[Tensor | None, Loss]:
    """Return the labels of the background's rows, and the loss for them.

    Args:
        labels: See :meth:`~saliency_widgets.outputs.task.Task.read_labels`.
        problem: The model and a row, with a background.
        score: The scale, which determines whether the labels are classes or values.
    """
    if labels is None:
        return None, "change of the score"
    background = None if problem.table is None else problem.table.background
    if background is None:
        raise ValueError("labels: labels are for the rows of the background. Pass background= as well.")
    classes, task = problem.logits.shape[1], problem.task(score)
    return task.read_labels(labels, len(background), classes), task.loss


unlabeled = partial(labels_of, None)
"""Return no labels, and the loss to use without labels."""


@dataclass(frozen=True, eq=False)
class FinishedMap:
    """A finished map of a session, with everything needed to test it.

    Attributes:
        problem: The model and the input.
        request: What was requested.
        attribution: The finished result.
        reduction: How the result is shown.
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
        """The map as shown, shape (H, W), or (F,) for rows."""
        return self.problem.map_of(self.attribution.values, self.reduction)

    def is_same(self, other: FinishedMap) -> bool:
        """Return whether another map is this one, drawn again."""
        same = self.attribution is other.attribution and self.request is other.request
        return same and (self.reduction, self.version) == (other.reduction, other.version)

    def is_comparable(self, other: FinishedMap) -> bool:
        """Return whether another map has the same model, input and score, so that the two can be compared."""
        return (self.version, self._score_key) == (other.version, other._score_key)

    @property
    def _score_key(self) -> tuple:
        request = self.request
        return identity(request.target), request.score, identity(request.contrast)

    def check(
        self,
        test: TrustTest,
        params: Mapping[str, Any],
        *,
        region: Tensor | float | None = None,
        others: Mapping[str, FinishedMap] | None = None,
        labels: Callable[[Problem], tuple[Tensor | None, Loss]] = unlabeled,
    ) -> Check:
        """Return a check that runs a trust test on this map.

        Args:
            test: The test.
            params: The test's parameters; those left out have their defaults.
            region: The marked region, or the share of the map with the largest values.
            others: Other maps to compare with, by title.
            labels: Reads the labels of the background's rows.
        """
        maps = dict(others or {})

        def begin(check: Callable[[], None]) -> Iterator[Any]:
            explanation = Explanation(
                partial(self._runner, test.name, check),
                self.values,
                get_method(self.request.method),
                dict(self.request.params),
                self.reduction,
                region=top(self.values, region) if isinstance(region, (int, float)) else region,
                others=lambda: {name: other.values for name, other in maps.items()},
                labels=lambda: labels(self.problem),
                class_names=self.problem.task().class_names,
            )
            yield from test.begin(explanation, params)

        return Check(test.name, begin, urgent=test.urgent)

    def _runner(self, name: str, check: Callable[[], None], shared: Shared | None) -> Runner:
        version = self.problem.version()
        score, _ = self.problem.resolve(self.request, version)
        if shared is None:
            return self.problem.runner(score, check)
        keys: dict[Shared, tuple] = {
            "map": (version, self.request.key, self.reduction),
            "score": (version, self._score_key),
            "classes": (version, _position_of(score) if in_logits(score) else self._score_key),
            "background": (version[0], self._score_key),  # the same for every row
        }
        # The version is the third item, where the cache expects it.
        return self.problem.runner(score, check, Scope(self.cache, (self.owner, "check", *keys[shared], name, shared)))


def _position_of(score: Score) -> tuple[int, ...] | None:
    """Return the position of the scored token of each text; None if whole inputs are scored."""
    return None if score.position is None else tuple(score.position.tolist())
