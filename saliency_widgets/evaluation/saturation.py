"""Where on the way to the input the score stops moving, and what the gradient at the input can still tell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from saliency_widgets.attribution.errors import Unread
from saliency_widgets.attribution.nonfinite import check_integration_path
from saliency_widgets.attribution.query import CHUNK_SIZE
from saliency_widgets.evaluation.running import Running, refined
from saliency_widgets.runtime.runner import Runner

_SETTLED = 0.05  # of the score's whole change: what is left is noise
_FLAT = 0.25  # of the steepest: a gradient so small tells of what is left, not of what was


@dataclass(frozen=True, eq=False)
class Saturation(Running):
    """The score and the size of its gradient on the straight way from the baseline to the input.

    Attributes:
        places: From 0, the baseline, to 1, the input, ascending, shape (n,).
        scores: The explained score, shape (n,).
        slopes: The Euclidean norm of the gradient, shape (n,); NaN where no gradient reaches the input.
        done: How many places there are.
        total: How many there will be.
    """

    places: Tensor
    scores: Tensor
    slopes: Tensor
    done: int
    total: int

    @property
    def settled(self) -> float:
        """From where on the score stays within 5 % of its whole change; 1 where it moves until the end.

        NaN where the baseline has the input's score.
        """
        change = (self.scores[-1] - self.scores[0]).abs()
        if not float(change) > 0:
            return float("nan")
        away = (self.scores - self.scores[-1]).abs() > _SETTLED * change
        moving = int(away.nonzero().max())  # the first place is away by all of it
        return float(self.places[moving + 1])

    @property
    def slope_left(self) -> float:
        """The gradient's norm at the input, as a part of the largest on the way; NaN where that is zero, or NaN."""
        steepest = float(self.slopes.max())
        return float(self.slopes[-1]) / steepest if steepest > 0 else float("nan")

    @property
    def saturated(self) -> bool:
        """Whether the plain gradient is not to be believed: the score has settled before, and the slope is gone."""
        return self.settled < 1 and self.slope_left < _FLAT


def saturation(
    runner: Runner,
    *,
    baseline: Any = None,
    points: int = 17,
    seed: int = 0,
    chunk_size: int | None = CHUNK_SIZE.default,
) -> Iterator[Saturation]:
    """Go from the baseline to the input, and look at the score and its gradient.

    A function that has leveled off has a gradient of zero with respect to what made it level off: the plain gradient
    is then blind to the very things that the score rests on, and methods that go all the way are not.

    Sources: Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", 2017; Shrikumar, Greenside and
    Kundaje, "Learning Important Features Through Propagating Activation Differences", 2017.

    Args:
        runner: The model and its one sample.
        baseline: Where the way begins: see :func:`~saliency_widgets.attribution.baselines.baseline_of`.
        points: How many places, both ends among them.
        seed: Of the baseline "noise".
        chunk_size: Rows of one pass.

    Yields:
        The way through ever more places, the ends first.
    """
    start = runner.baseline(baseline, seed)

    def computed(some: list[int]) -> tuple[Tensor, Tensor]:
        inputs = torch.lerp(start, runner.inputs, _on_the_way(some, points).to(start).view(-1, *[1] * (start.ndim - 1)))
        with check_integration_path(runner, start, baseline):
            try:
                gradients, found = runner.gradient(inputs)
            except Unread:  # where the score settles can still be told
                found = runner.scores(inputs)
                return found, torch.full_like(found, torch.nan)
        return found, gradients.flatten(1).norm(dim=1)

    for there, (scores, slopes) in refined(
        runner, points, computed, key=lambda some: (points, *some), first=(2, 3), chunk_size=chunk_size
    ):
        yield Saturation(_on_the_way(there, points), scores, slopes, len(there), points)


def _on_the_way(some: list[int], points: int) -> Tensor:
    return torch.tensor(some, dtype=torch.float64) / (points - 1)
