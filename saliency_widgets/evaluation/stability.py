"""Stability of a map under changes that should not matter: another seed, or a little noise on the input."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from saliency_widgets.attribution.numerics.noise import SEED, seeded
from saliency_widgets.evaluation.explanation import Explanation, has_seed
from saliency_widgets.evaluation.registry import Columns, Measured, Metric, Running, defined, trust_test
from saliency_widgets.evaluation.similarity import CONSTANT, spearman
from saliency_widgets.params import Param, count_param
from saliency_widgets.runtime.runner import Runner

RADIUS = Param(
    "radius",
    default=0.02,
    low=0.0,
    high=0.5,
    maximum=math.inf,
    unit="of the input's range",
    help="The largest change of each value of the input, too small to notice by eye.",
)
TURNS = count_param("turns", 3, 1, 64, "The number of other seeds, and of noisy inputs.")

Light = Literal["green", "amber", "red"]
_GREEN, _AMBER = 0.8, 0.5  # rank correlation of the worst turn


@dataclass(frozen=True, eq=False)
class Stability(Running):
    """A map compared with maps that should be the same.

    Attributes:
        seeds: Rank correlation with the maps of other seeds; empty for a deterministic method.
        noises: Rank correlation with the maps of slightly noisy inputs.
        sensitivity: The largest relative change of the map under that noise, ||m' - m|| / ||m|| (max-sensitivity).
        constant: Whether the original map is the same everywhere.
    """

    seeds: tuple[float, ...]
    noises: tuple[float, ...]
    sensitivity: float
    constant: bool = False

    @property
    def worst(self) -> float:
        """The lowest of all rank correlations; NaN if a map is constant, or without correlations."""
        values = (*self.seeds, *self.noises)
        return float("nan") if not values or any(value != value for value in values) else min(values)

    @property
    def light(self) -> Light:
        """The traffic light: green if every turn reaches 0.8, amber if 0.5; red below that, or for a constant map."""
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
    r"""Recompute the map with other seeds, and for inputs with noise too weak to see.

    .. math:: \text{max-sensitivity} = \max_{\|\delta\|_\infty \le r}
        \frac{\|\Phi(x + \delta) - \Phi(x)\|}{\|\Phi(x)\|}

    over some uniform draws of delta. Maps are compared as displayed, also by rank.

    Source: Yeh, Hsieh, Suggala, Inouye and Ravikumar, "On the (In)fidelity and Sensitivity of Explanations", 2019.

    Args:
        runner: The model and its one sample.
        explain: Maps a runner and a seed to a map, shape (H, W) or (F,).
        seeded_method: Whether the seed may matter. If a second seed gives the same map, no more seeds are tried.
        noisy: Whether to try noisy inputs, too.
        radius: r, as a fraction of the input's range.
        turns: The number of other seeds, and of noisy inputs.
        seed: The seed of the map; the other seeds are the next whole numbers.

    Yields:
        The comparison with one more map each time.
    """
    original = explain(runner, seed)
    constant = not bool(original.max() > original.min())
    estimate = Stability((), (), 0.0, constant, done=0, total=turns * (noisy + seeded_method))
    for turn in range(1, turns + 1):
        if seeded_method:
            other = explain(runner, seed + turn)
            if turn == 1 and torch.equal(other, original):  # the method draws no random numbers with these settings
                seeded_method, estimate = False, replace(estimate, total=turns * noisy)
            else:
                estimate = replace(estimate, seeds=(*estimate.seeds, spearman(original, other)), done=estimate.done + 1)
                yield estimate
        if not noisy:
            continue
        generator = seeded(seed, "sensitivity", turn)
        drawn = 2 * torch.rand(runner.inputs.shape, generator=generator, dtype=torch.float32, device="cpu") - 1
        noisy_map = explain(runner.on(runner.inputs + radius * runner.noise_scale() * drawn.to(runner.inputs)), seed)
        norm = float(original.double().norm())
        change = float((noisy_map.double() - original.double()).norm()) / norm if norm > 0 else float("nan")
        estimate = replace(
            estimate,
            noises=(*estimate.noises, spearman(original, noisy_map)),
            sensitivity=change if change != change else max(estimate.sensitivity, change),
            done=estimate.done + 1,
        )
        yield estimate


def agreement(maps: Mapping[str, Tensor]) -> Tensor:
    """Return the matrix of the maps' rank correlations (Spearman), shape (M, M).

    Args:
        maps: The maps by name, all of the same shape.
    """
    tensors = list(maps.values())
    return torch.tensor([[spearman(a, b) for b in tensors] for a in tensors], dtype=torch.float64)


def _worst(result: Stability | None, changed: str) -> float:
    if result is None:
        raise ValueError("the method draws no random numbers with these settings.")
    return defined(result.worst, CONSTANT if result.constant else f"{changed} is constant.")


def _mean_of_seeds(measured: Measured) -> float:
    explanation = measured.explanation
    assert explanation.method is not None
    if not has_seed(explanation.method):
        return math.nan
    runner, seed = explanation.runner(), int(explanation.params[SEED.name])
    others = (explanation.explain(runner, seed + turn) for turn in range(1, measured.settings[TURNS.name] + 1))
    return float(np.mean([spearman(explanation.values, other) for other in others]))


@trust_test(
    "stability",
    title="Stability and agreement",
    params=(TURNS, RADIUS, replace(SEED, default=None, optional=True)),
    how_to_read={
        "image": "The map is recomputed with other seeds, and for the {noun} with noise that is too weak to see. A "
        "rank correlation of 1 means the same order of all {feature}s, 0 means no correlation. Green: always above "
        "0.8; amber: above 0.5; red: below. The table: rank correlations between the maps computed so far.",
        "text": "The attributions are recomputed with other seeds, and for the text with a little noise in its "
        "embeddings. A rank correlation of 1 means the same order of all tokens, 0 means no correlation. Green: always "
        "above 0.8; amber: above 0.5; red: below. The table: rank correlations between the methods computed so far.",
        "table": "The attributions are recomputed with other seeds, and for the row with a little noise in each "
        "column, relative to its range. A rank correlation of 1 means the same order of all features, 0 means no "
        "correlation. Green: always above 0.8; amber: above 0.5; red: below. The table: rank correlations between the "
        "methods computed so far.",
    },
    columns=(  # in two runs, so that an error with noise does not affect the result for seeds
        Columns({"seeds": lambda result: _worst(result, "the map of another seed")}, {"noisy": False}),
        Columns({
            "noises": lambda result: _worst(result, "the map of a noisy input"),
            "max_sensitivity": lambda result: defined(
                result.sensitivity, "the map is zero everywhere, so its relative change is undefined."
            ),
        }, {"reseeded": False}),
    ),
    metrics=(
        Metric(
            "seeds", "Stability between seeds", "high", "Mean rank correlation with the maps of other seeds.",
            _mean_of_seeds,
        ),
    ),
    view="stability",
)  # fmt: skip
def run(
    explanation: Explanation, seed: int | None, *, noisy: bool = True, reseeded: bool = True, **settings: Any
) -> Iterator[Stability]:
    """Recompute the map with other seeds and with noise, starting from ``seed`` or, by default, the map's own seed."""
    explain, method = explanation.explain, explanation.method
    drawn = method is not None and has_seed(method)
    if not noisy and not drawn:
        raise ValueError("the method draws no random numbers.")
    seed = int(explanation.params.get(SEED.name, 0)) if seed is None else seed
    yield from stability(
        explanation.runner(), explain, seeded_method=reseeded and drawn, noisy=noisy, seed=seed, **settings
    )  # fmt: skip
