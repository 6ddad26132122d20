"""Deletion and insertion: what happens to the score when the most important places go first, or come first."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from saliency_widgets.attribution import Score
from saliency_widgets.attribution.query import CHUNK_SIZE
from saliency_widgets.evaluation.fills import filling, outcomes_of, places_of
from saliency_widgets.evaluation.ranking import CHANCE, by_chance, ranks_of
from saliency_widgets.evaluation.running import Running, refined
from saliency_widgets.params import MANY, Param
from saliency_widgets.runtime.runner import Runner

Kind = Literal["deletion", "insertion"]

STEPS = Param(
    "steps",
    default=32,
    low=2,
    high=512,
    maximum=MANY,
    kind="int",
    continued=True,
    unit="steps",
    help="In how many steps everything is taken away, or put back.",
)


@dataclass(frozen=True, eq=False)
class Curve(Running):
    """A score against the share of places that are gone (deletion), or there (insertion).

    Attributes:
        kind: "deletion" or "insertion".
        shares: From 0 to 1, ascending, shape (n,); of a running estimate fewer than in the end.
        scores: The explained score at each of them, shape (n,).
        logits: All class scores at each, shape (n, K): see :meth:`of`.
        done: How many points there are.
        total: How many there will be.
    """

    kind: Kind
    shares: Tensor
    scores: Tensor
    logits: Tensor
    done: int
    total: int

    def of(self, score: Score) -> Curve:
        """The same curve of another class, without a pass of the model.

        Args:
            score: Of one sample; of class scores, see :func:`in_logits`, or of their probabilities.
        """
        asked = score.of(torch.zeros(len(self.logits), dtype=torch.long))
        return Curve(self.kind, self.shares, asked(self.logits, len(self.logits)), self.logits, self.done, self.total)

    @property
    def normalized(self) -> Tensor:
        """The scores on a scale where the whole input is 1 and nothing left of it is 0, so that inputs compare.

        NaN where the score of the whole input is no higher than that of nothing: there is nothing to be told.
        """
        ends = self.scores[0], self.scores[-1]
        whole, nothing = ends if self.kind == "deletion" else ends[::-1]
        fall = whole - nothing
        return torch.where(fall > 0, (self.scores - nothing) / fall, torch.nan)

    @property
    def area(self) -> float:
        """The area under the normalized curve, by the trapezoid rule.

        Small for deletion and large for insertion where the first places matter most.
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
    r"""The deletion or the insertion curve of a map.

    The places are put in the order of the map's values, the largest first. With x^(s) the input in which the first
    share s of them is filled (deletion), or everything but these (insertion), and F the score:

    .. math:: A = \int_0^1 \frac{F(x^{(s)}) - F(\text{all filled})}{F(x) - F(\text{all filled})}\, ds

    It rewards maps that are smooth: a blob takes away a whole part, single pixels leave it to be guessed. So look at
    it beside the same map moved elsewhere (:func:`~.ranking.by_chance`), and never at the area alone. What is filled
    in decides, too: nothing that is cut out looks like an image the model knows.

    Sources: Petsiuk, Das and Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models", 2018;
    Samek et al., "Evaluating the Visualization of What a Deep Neural Network Has Learned", 2017; the fill
    "neighbors": Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods", 2022 (ROAD).

    Args:
        runner: The model and its one sample.
        values: The map, shape (H, W) of what the model sees, or (F,) of a row.
        kind: "deletion" or "insertion".
        steps: Between how many images; of rows at most one for each feature.
        fill: See :func:`~.fills.filling`.
        seed: Of the fill, and of the order of equal values.
        chunk_size: Rows of one pass.

    Yields:
        The curve through ever more points, the ends first.

    Raises:
        ValueError: A map of another size, or one that isn't finite.
    """
    ranks = ranks_of(_checked(runner, values), seed)
    places = ranks.numel()
    counts = sorted({round(places * k / min(steps, places)) for k in range(min(steps, places) + 1)})
    without = filling(runner, fill, seed)

    def computed(some: list[int]) -> tuple[Tensor, Tensor]:
        taken = torch.tensor([counts[k] for k in some]).view(-1, *[1] * ranks.ndim)
        masks = ranks < taken if kind == "deletion" else ranks >= taken
        return outcomes_of(runner, without(masks), fill)

    order = hashlib.blake2b(ranks.numpy().tobytes()).digest()  # names a map for what matters here, wherever it is from

    def named(some: list[int]) -> Hashable:
        return kind, order, seed, tuple(counts[k] for k in some)

    for there, (scores, logits) in refined(
        runner, len(counts), computed, key=named, first=(3, 6), chunk_size=chunk_size
    ):  # fmt: skip
        shares = torch.tensor([counts[k] / places for k in there], dtype=torch.float64)
        found = Curve(kind, shares, scores, logits, len(there), len(counts))
        yield found.of(runner.passes.score) if in_logits(runner.passes.score) else found


def in_logits(score: Score) -> bool:
    """Whether a score is read off the class scores alone: what passes gave then serves every class."""
    return score.of_classes and score.scale in ("logit", "value")


@dataclass(frozen=True, eq=False)
class Curves(Running):
    """The curves of a map, beside those of maps that know nothing and of other maps.

    Attributes:
        own: By kind, "deletion" and "insertion"; a kind comes when its first points are there.
        chance: By kind, one curve for each draw.
        others: By kind, and by the name of the map.
        done: How many curves are whole.
        total: How many there will be.
    """

    own: Mapping[Kind, Curve]
    chance: Mapping[Kind, tuple[Curve, ...]]
    others: Mapping[Kind, Mapping[str, Curve]]
    done: int
    total: int

    def of(self, score: Score) -> Curves:
        """The same curves of another class, without a pass of the model: see :meth:`Curve.of`."""
        return replace(
            self,
            own={kind: curve.of(score) for kind, curve in self.own.items()},
            chance={kind: tuple(curve.of(score) for curve in drawn) for kind, drawn in self.chance.items()},
            others={
                kind: {name: curve.of(score) for name, curve in some.items()} for kind, some in self.others.items()
            },
        )


KINDS: tuple[Kind, Kind] = ("deletion", "insertion")


def curves(
    runner: Runner,
    values: Tensor,
    *,
    fill: Any,
    steps: int = STEPS.default,
    chance: str = CHANCE.default,
    draws: int = 3,
    others: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    chunk_size: int | None = CHUNK_SIZE.default,
) -> Iterator[Curves]:
    """Both curves of a map, then those of maps that know nothing, then those of other maps: see :func:`curve`.

    Args:
        runner: The model and its one sample.
        values: The map.
        fill: See :func:`~.fills.filling`.
        steps: Of each curve.
        chance: What knows nothing: see ``CHANCE``.
        draws: How many of those.
        others: Other maps of the same sample, by name.
        seed: Of all that is drawn.
        chunk_size: Rows of one pass.

    Yields:
        Ever more of them.
    """
    others = others or {}
    found = Curves(
        {}, dict.fromkeys(KINDS, ()), {kind: {} for kind in KINDS}, 0, len(KINDS) * (1 + draws + len(others))
    )

    def each(some: Tensor, kind: Kind) -> Iterator[Curve]:
        return curve(runner, some, kind, steps=steps, fill=fill, seed=seed, chunk_size=chunk_size)

    for kind in KINDS:
        for running in each(values, kind):
            found = replace(found, own={**found.own, kind: running}, done=found.done + running.complete)
            yield found
    for draw in range(draws):
        null = by_chance(values, draw, seed=seed, chance=chance)
        for kind in KINDS:
            *_, last = each(null, kind)
            found = replace(
                found, chance={**found.chance, kind: (*found.chance[kind], last)}, done=found.done + 1
            )  # fmt: skip
            yield found
    for name, other in others.items():
        for kind in KINDS:
            *_, last = each(other, kind)
            found = replace(
                found, others={**found.others, kind: {**found.others[kind], name: last}}, done=found.done + 1
            )  # fmt: skip
            yield found


def _checked(runner: Runner, values: Tensor) -> Tensor:
    expected = places_of(runner)
    if tuple(values.shape) != expected:
        raise ValueError(f"values: expected a map of what the model sees, {expected}, got {tuple(values.shape)}.")
    if not bool(torch.isfinite(values).all()):
        raise ValueError("values: the map holds NaN or infinite values, and puts nothing in order.")
    return values
