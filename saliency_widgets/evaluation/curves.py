"""Deletion and insertion curves: the score as the most important pixels or features are removed or added first."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from saliency_widgets.attribution import Score
from saliency_widgets.attribution.numerics.noise import SEED
from saliency_widgets.attribution.query import CHUNK_SIZE
from saliency_widgets.evaluation.explanation import Explanation, in_logits
from saliency_widgets.evaluation.fills import FILL, filling, outcomes_of
from saliency_widgets.evaluation.ranking import CHANCE, by_chance, ranks_of
from saliency_widgets.evaluation.registry import Measured, Metric, Running, defined, refined, trust_test
from saliency_widgets.params import count_param
from saliency_widgets.runtime.model.version import identity
from saliency_widgets.runtime.runner import Runner

Kind = Literal["deletion", "insertion"]

STEPS = count_param(
    "steps", 32, 2, 512, "The number of steps in which the whole input is removed or inserted.", continued=True
)
DRAWS = count_param("draws", 3, 0, 256, "The number of chance maps to compare the map with.", advanced=True)


@dataclass(frozen=True, eq=False)
class Curve(Running):
    """A score against the share of pixels or features that are removed (deletion) or present (insertion).

    Attributes:
        kind: "deletion" or "insertion".
        shares: The shares, ascending from 0 to 1, shape (n,); a running estimate has fewer than the final result.
        scores: The explained score at each share, shape (n,).
        logits: All class scores at each share, shape (n, K): see :meth:`of`.
    """

    kind: Kind
    shares: Tensor
    scores: Tensor
    logits: Tensor

    def of(self, score: Score) -> Curve:
        """Return the same curve for another class, without running the model.

        Args:
            score: A score of one sample, from class scores (:func:`~.explanation.in_logits`) or their probabilities.
        """
        evaluate = replace(score, position=None).of(torch.zeros(len(self.logits), dtype=torch.long))
        return replace(self, scores=evaluate(self.logits, len(self.logits)))

    @property
    def normalized(self) -> Tensor:
        """The scores, scaled to 1 for the whole input and 0 for the fully filled one, to make inputs comparable.

        NaN if the score of the whole input is no higher than that of the filled one.
        """
        ends = self.scores[0], self.scores[-1]
        whole, empty = ends if self.kind == "deletion" else ends[::-1]
        fall = whole - empty
        return torch.where(fall > 0, (self.scores - empty) / fall, torch.nan)

    @property
    def area(self) -> float:
        """The area under the normalized curve, by the trapezoid rule.

        Small for deletion and large for insertion if the first pixels matter most.
        """
        return float(torch.trapezoid(self.normalized, self.shares.to(self.scores)))


def curve(
    runner: Runner,
    values: Tensor,
    kind: Kind,
    *,
    steps: int = STEPS.default,
    fill: Any,
    seed: int = 0,
    chunk_size: int | None = CHUNK_SIZE.default,
) -> Iterator[Curve]:
    r"""Compute the deletion or the insertion curve of a map.

    Pixels or features are ordered by the map's values, the largest first. With x^(s) the input in which the first
    share s of them is filled (deletion), or everything else is filled (insertion), and F the score:

    .. math:: A = \int_0^1 \frac{F(x^{(s)}) - F(\text{all filled})}{F(x) - F(\text{all filled})}\, ds

    The area rewards smooth maps: a blob removes a whole part, while scattered pixels leave it recognizable. Never read
    the area alone, but compare it with that of the same map moved elsewhere (:func:`~.ranking.by_chance`). The fill
    matters, too: an image with a hole is unlike the images that the model was trained on.

    Sources: Petsiuk, Das and Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models", 2018;
    Samek et al., "Evaluating the Visualization of What a Deep Neural Network Has Learned", 2017; the fill
    "neighbors": Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods", 2022 (ROAD).

    Args:
        runner: The model and its one sample.
        values: The map, shape (H, W) of the model's input, or (F,) of a row.
        kind: "deletion" or "insertion".
        steps: The number of steps, at most one for each pixel or feature.
        fill: The replacement for what is removed: see :func:`~.fills.filling`.
        seed: The seed of the fill and of the order of equal values.
        chunk_size: Rows per pass.

    Yields:
        The curve with more and more points, the ends first.

    Raises:
        ValueError: The map has the wrong size, or isn't finite.
    """
    ranks = ranks_of(_checked(runner, values), seed)
    size = ranks.numel()
    counts = sorted({round(size * k / min(steps, size)) for k in range(min(steps, size) + 1)})
    without = filling(runner, fill, seed)

    def compute(indices: list[int]) -> tuple[Tensor, Tensor]:
        taken = torch.tensor([counts[k] for k in indices]).view(-1, *[1] * ranks.ndim)
        masks = ranks < taken if kind == "deletion" else ranks >= taken
        return outcomes_of(runner, without(masks), fill)

    order = hashlib.blake2b(ranks.numpy().tobytes()).digest()  # maps with the same order share results
    filled = identity(fill)

    def key(indices: list[int]) -> Hashable:
        return kind, order, filled, seed, tuple(counts[k] for k in indices)

    estimates = refined(runner, len(counts), compute, key=key, first=(3, 6), chunk_size=chunk_size)
    for indices, (scores, logits) in estimates:
        shares = torch.tensor([counts[k] / size for k in indices], dtype=torch.float64)
        estimate = Curve(kind, shares, scores, logits, done=len(indices), total=len(counts))
        yield estimate.of(runner.passes.score) if in_logits(runner.passes.score) else estimate


@dataclass(frozen=True, eq=False)
class Curves(Running):
    """The curves of a map, with those of chance maps and of other maps for comparison.

    Attributes:
        main: The curves of the map, by kind ("deletion", "insertion"); a kind is present from its first points on.
        chance: The curves of the chance maps, by kind, one for each draw.
        others: The curves of the other maps, by kind and by the name of the map.
        fill: The replacement for pixels or features.
    """

    main: Mapping[Kind, Curve]
    chance: Mapping[Kind, tuple[Curve, ...]]
    others: Mapping[Kind, Mapping[str, Curve]]
    fill: Any

    def of(self, score: Score) -> Curves:
        """Return the same curves for another class, without running the model: see :meth:`Curve.of`."""
        return replace(
            self,
            main={kind: curve.of(score) for kind, curve in self.main.items()},
            chance={kind: tuple(curve.of(score) for curve in drawn) for kind, drawn in self.chance.items()},
            others={
                kind: {name: curve.of(score) for name, curve in named.items()} for kind, named in self.others.items()
            },
        )


KINDS: tuple[Kind, Kind] = ("deletion", "insertion")


def curves(  # noqa: PLR0913
    runner: Runner,
    values: Tensor,
    *,
    fill: Any,
    steps: int = STEPS.default,
    chance: str = CHANCE.default,
    draws: int = DRAWS.default,
    others: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    chunk_size: int | None = CHUNK_SIZE.default,
) -> Iterator[Curves]:
    """Compute both curves of a map, then those of chance maps, then those of other maps: see :func:`curve`.

    Args:
        runner: The model and its one sample.
        values: The map.
        fill: The replacement for what is removed: see :func:`~.fills.filling`.
        steps: The number of steps of each curve.
        chance: How chance maps are drawn: see ``CHANCE``.
        draws: The number of chance maps.
        others: Other maps of the same sample, by name.
        seed: The seed of the fill, the order of equal values and the chance maps.
        chunk_size: Rows per pass.

    Yields:
        The result with more and more points and curves.
    """
    others = others or {}
    total = len(KINDS) * (1 + draws + len(others))
    result = Curves({}, dict.fromkeys(KINDS, ()), {kind: {} for kind in KINDS}, fill, done=0, total=total)

    def estimates(values: Tensor, kind: Kind) -> Iterator[Curve]:
        return curve(runner, values, kind, steps=steps, fill=fill, seed=seed, chunk_size=chunk_size)

    for kind in KINDS:
        for running in estimates(values, kind):
            result = replace(result, main={**result.main, kind: running}, done=result.done + running.complete)
            yield result
    for draw in range(draws):
        chance_map = by_chance(values, draw, seed=seed, chance=chance)
        for kind in KINDS:
            *_, last = estimates(chance_map, kind)
            drawn = {**result.chance, kind: (*result.chance[kind], last)}
            result = replace(result, chance=drawn, done=result.done + 1)
            yield result
    for name, other in others.items():
        for kind in KINDS:
            *_, last = estimates(other, kind)
            named = {**result.others, kind: {**result.others[kind], name: last}}
            result = replace(result, others=named, done=result.done + 1)
            yield result


def _checked(runner: Runner, values: Tensor) -> Tensor:
    expected = runner.kind.shape_of(runner.inputs)
    if tuple(values.shape) != expected:
        raise ValueError(f"values: expected the shape of the model's input, {expected}, got {tuple(values.shape)}.")
    if not bool(torch.isfinite(values).all()):
        raise ValueError("values: the map holds NaN or infinite values, which can't be ranked.")
    return values


def _chance_area(result: Curves, kind: Kind) -> float:
    if not result.chance[kind]:
        raise ValueError("draws=0: there are no chance maps to compare with. Use at least 1.")
    return float(np.mean([drawn.area for drawn in result.chance[kind]]))


def _columns(kind: Kind) -> dict[str, Callable[[Curves], float]]:
    def why(result: Curves) -> str:
        return (
            f"the score of the input is not higher than that of a completely filled input (fill={result.fill!r}), so "
            f"there is no drop to measure. Choose another fill."
        )

    return {
        kind: lambda result: defined(result.main[kind].area, why(result)),
        f"{kind}_chance": lambda result: defined(_chance_area(result, kind), why(result)),
    }


def _measured(measured: Measured, *, kind: Kind) -> float:
    explanation, settings = measured.explanation, measured.settings
    *_, last = curve(
        explanation.runner(), explanation.values, kind, steps=settings[STEPS.name], fill=settings[FILL.name]
    )
    return last.area


@trust_test(
    "curves",
    title="Deletion and insertion",
    params=(FILL, STEPS, CHANCE, DRAWS, SEED),
    how_to_read="Left: the most important {feature}s are removed first, and the curve should fall early. Right: they "
    "are inserted first, and it should rise early. 1 is the whole {noun}, 0 is the {noun} with all {feature}s removed. "
    "Gray: the same map, moved at random. These tests reward blurry maps: compare with the gray band, not with 0 or 1.",
    needs=("map",),
    columns={name: read for kind in KINDS for name, read in _columns(kind).items()},
    metrics=(
        Metric(
            "insertion", "Insertion", "high",
            "Area under the normalized insertion curve: how early the score rises when the strongest parts are "
            "inserted first.",
            partial(_measured, kind="insertion"),
        ),
        Metric(
            "deletion", "Deletion", "low",
            "Area under the normalized deletion curve: how late the score falls when the strongest parts are removed "
            "first.",
            partial(_measured, kind="deletion"),
        ),
    ),
    view="curves",
)  # fmt: skip
def run(explanation: Explanation, fill: Any, **settings: Any) -> Iterator[Curves]:
    """Compute the curves of the map, of chance maps and of other maps."""
    runner = explanation.runner("classes")
    yield from curves(runner, explanation.values, fill=fill, others=explanation.others(), **settings)
