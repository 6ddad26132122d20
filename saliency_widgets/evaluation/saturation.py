"""Saturation: where the score levels off on the path to the input, and how much gradient is left there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from saliency_widgets.attribution.baselines import BASELINE
from saliency_widgets.attribution.errors import Unread
from saliency_widgets.attribution.nonfinite import check_integration_path
from saliency_widgets.attribution.numerics.noise import SEED
from saliency_widgets.attribution.query import CHUNK_SIZE
from saliency_widgets.evaluation.explanation import Explanation
from saliency_widgets.evaluation.registry import Running, defined, refined, trust_test
from saliency_widgets.runtime.model.version import identity
from saliency_widgets.runtime.runner import Runner

_SETTLED = 0.05  # of the score's whole change: smaller changes are noise
_FLAT = 0.25  # of the largest gradient: a smaller one no longer reflects what changed the score


@dataclass(frozen=True, eq=False)
class Saturation(Running):
    """The score and the size of its gradient on the straight path from the baseline to the input.

    Attributes:
        positions: Positions on the path, ascending from 0 (the baseline) to 1 (the input), shape (n,).
        scores: The explained score, shape (n,).
        slopes: The Euclidean norm of the gradient, shape (n,); NaN where no gradient reaches the input.
    """

    positions: Tensor
    scores: Tensor
    slopes: Tensor

    @property
    def settled(self) -> float:
        """The position from which the score differs from its final value by at most 5% of its whole change.

        It is 1 if the score changes until the end, and NaN if the baseline has the same score as the input.
        """
        change = (self.scores[-1] - self.scores[0]).abs()
        if not float(change) > 0:
            return float("nan")
        away = (self.scores - self.scores[-1]).abs() > _SETTLED * change
        moving = int(away.nonzero().max())  # never empty: the first point is off by the whole change
        return float(self.positions[moving + 1])

    @property
    def slope_left(self) -> float:
        """The gradient's norm at the input as a fraction of the largest on the path; NaN if that is zero or NaN."""
        steepest = float(self.slopes.max())
        return float(self.slopes[-1]) / steepest if steepest > 0 else float("nan")

    @property
    def saturated(self) -> bool:
        """Return whether the plain gradient misleads: the score leveled off early, and little slope is left."""
        return self.settled < 1 and self.slope_left < _FLAT


def saturation(
    runner: Runner,
    *,
    baseline: Any = None,
    points: int = 17,
    seed: int = 0,
    chunk_size: int | None = CHUNK_SIZE.default,
) -> Iterator[Saturation]:
    """Measure the score and its gradient along the path from the baseline to the input.

    A function that has leveled off has no gradient with respect to the features that saturated it. The plain gradient
    then misses exactly the features that the score depends on; methods that integrate along the path do not.

    Sources: Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", 2017; Shrikumar, Greenside and
    Kundaje, "Learning Important Features Through Propagating Activation Differences", 2017.

    Args:
        runner: The model and its one sample.
        baseline: The start of the path: see :func:`~saliency_widgets.attribution.baselines.baseline_of`.
        points: The number of points, including both ends.
        seed: The seed of the baseline "noise".
        chunk_size: Rows per pass.

    Yields:
        The path with more and more points, the ends first.
    """
    start, begin = runner.baseline(baseline, seed), (identity(baseline), seed)

    def measure(indices: list[int]) -> tuple[Tensor, Tensor]:
        inputs = torch.lerp(
            start, runner.inputs, _positions(indices, points).to(start).view(-1, *[1] * (start.ndim - 1))
        )
        with check_integration_path(runner, start, baseline):
            try:
                gradients, scores = runner.gradient(inputs)
            except Unread:  # no gradient reaches the input, but the score can still be measured
                scores = runner.scores(inputs)
                return scores, torch.full_like(scores, torch.nan)
        return scores, gradients.flatten(1).norm(dim=1)

    for indices, (scores, slopes) in refined(
        runner, points, measure, key=lambda indices: (begin, points, *indices), first=(2, 3), chunk_size=chunk_size
    ):
        yield Saturation(_positions(indices, points), scores, slopes, done=len(indices), total=points)


def _positions(indices: list[int], points: int) -> Tensor:
    return torch.tensor(indices, dtype=torch.float64) / (points - 1)


def _no_slope(result: Saturation) -> str:
    return "no gradient reaches the input." if bool(result.slopes.isnan().all()) else "the gradient is zero."


@trust_test(
    "saturation",
    title="Saturation",
    params=(BASELINE, SEED),
    how_to_read="From the baseline (0) to the input (1). Orange: the share of the score's change so far. Blue: the "
    "size of the gradient, relative to its largest. Where orange is flat, the score is saturated; if blue is near 0 at "
    "the right end, the plain gradient misses what produced the score.",
    columns={
        "settled": lambda result: defined(
            result.settled, "the baseline has the same score as the input: there is no change to follow."
        ),
        "slope_left": lambda result: defined(result.slope_left, _no_slope(result)),
    },
    of_map=False,
    view="saturation",
)
def run(explanation: Explanation, baseline: Any, seed: int) -> Iterator[Saturation]:
    """Measure the score and its gradient on the path to the input."""
    yield from saturation(explanation.runner("score"), baseline=baseline, seed=seed)
