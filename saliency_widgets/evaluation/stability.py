"""Whether a map stays when nothing that matters is changed: the seed, or the input by a little noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from saliency_widgets.attribution.numerics.noise import seeded
from saliency_widgets.evaluation.running import Running
from saliency_widgets.evaluation.similarity import spearman
from saliency_widgets.params import MANY, Param
from saliency_widgets.runtime.runner import Runner

RADIUS = Param(
    "radius",
    default=0.02,
    low=0.0,
    high=0.5,
    maximum=math.inf,
    unit="of the input's range",
    help="How far each number of the input is moved at most; a person would hardly see it.",
)
TURNS = Param(
    "turns",
    default=3,
    low=1,
    high=64,
    maximum=MANY,
    kind="int",
    unit="turns",
    help="How many other seeds and noises.",
)

Light = Literal["green", "amber", "red"]
_GREEN, _AMBER = 0.8, 0.5  # rank correlation of the worst turn


@dataclass(frozen=True, eq=False)
class Stability(Running):
    """A map beside those that should be the same.

    Attributes:
        seeds: Rank correlation with the maps of other seeds; empty for a method that draws nothing.
        noises: Rank correlation with the maps of inputs with a little noise on them.
        sensitivity: The largest relative change of the map under that noise, ||m' - m|| / ||m|| (max-sensitivity).
        done: How many maps were compared.
        total: How many will be.
    """

    seeds: tuple[float, ...]
    noises: tuple[float, ...]
    sensitivity: float
    done: int
    total: int

    @property
    def worst(self) -> float:
        """The lowest rank correlation of all; NaN where a map is constant."""
        found = (*self.seeds, *self.noises)
        return float("nan") if not found or any(value != value for value in found) else min(found)

    @property
    def light(self) -> Light:
        """Green: above .8 in every turn; amber: above .5; red: below, or a map that is the same everywhere."""
        return "green" if self.worst >= _GREEN else "amber" if self.worst >= _AMBER else "red"


def stability(
    runner: Runner,
    explain: Callable[[Runner, int], Tensor],
    *,
    seeded_method: bool,
    noisy: bool = True,
    radius: float = RADIUS.default,
    turns: int = TURNS.default,
    seed: int = 0,
) -> Iterator[Stability]:
    r"""Compute the map again with other seeds, and for inputs that a person would call the same.

    .. math:: \text{max-sensitivity} = \max_{\|\delta\|_\infty \le r}
        \frac{\|\Phi(x + \delta) - \Phi(x)\|}{\|\Phi(x)\|}

    over some draws of delta, uniform. Maps are compared as they are shown, by rank too.

    Source: Yeh, Hsieh, Suggala, Inouye and Ravikumar, "On the (In)fidelity and Sensitivity of Explanations", 2019.

    Args:
        runner: The model and its one sample.
        explain: From a question and a seed to a map, shape (H, W) or (F,).
        seeded_method: Whether the seed may matter to it; where another gives the same map, it doesn't.
        noisy: Whether noises are looked at, too.
        radius: r, as a part of the input's range.
        turns: How many seeds, and how many noises.
        seed: The seed of the map; the others follow it.

    Yields:
        The comparison with one more map.
    """
    own = explain(runner, seed)
    told = Stability((), (), 0.0, 0, turns * (noisy + seeded_method))
    for turn in range(1, turns + 1):
        if seeded_method:
            other = explain(runner, seed + turn)
            if turn == 1 and torch.equal(other, own):  # with these settings nothing is drawn
                seeded_method, told = False, replace(told, total=turns * noisy)
            else:
                told = replace(told, seeds=(*told.seeds, spearman(own, other)), done=told.done + 1)
                yield told
        if not noisy:
            continue
        generator = seeded(seed, "sensitivity", turn)
        drawn = 2 * torch.rand(runner.inputs.shape, generator=generator, dtype=torch.float32, device="cpu") - 1
        found = explain(runner.on(runner.inputs + radius * runner.noise_scale() * drawn.to(runner.inputs)), seed)
        size = float(own.double().norm())
        change = float((found.double() - own.double()).norm()) / size if size > 0 else float("nan")
        told = replace(
            told,
            noises=(*told.noises, spearman(own, found)),
            sensitivity=change if change != change else max(told.sensitivity, change),
            done=told.done + 1,
        )
        yield told


def agreement(maps: Mapping[str, Tensor]) -> Tensor:
    """How far maps order the places alike: the matrix of their rank correlations (Spearman), shape (M, M).

    Args:
        maps: By name, all of one shape.
    """
    found = list(maps.values())
    return torch.tensor([[spearman(a, b) for b in found] for a in found], dtype=torch.float64)
