"""What a setting of a method is worth and what it costs: each number in one place."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor

from saliency_widgets.attribution import Attribution
from saliency_widgets.attribution.arrays import on_host
from saliency_widgets.evaluation.curves import Kind, curve
from saliency_widgets.evaluation.similarity import spearman
from saliency_widgets.runtime.runner import Runner


@dataclass(frozen=True, eq=False)
class Measured:
    """A finished map of one input, and what is needed to measure it.

    Attributes:
        runner: The model and the input.
        found: What the method gave.
        values: The map as it is shown, shape (H, W) or (F,).
        explain: From a seed, or None for the method's own, to the map again.
        seed: The method's own seed, or None where it draws nothing.
        seconds: What the map took.
        peak: Tells how much memory it takes at most, in MiB; NaN where that is not known.
        fill: What is put where something is taken away.
        steps: Of deletion and insertion curves.
        turns: How many other seeds.
    """

    runner: Runner
    found: Attribution
    values: Tensor
    explain: Callable[[int | None], Tensor]
    seed: int | None
    seconds: float
    peak: Callable[[], float]
    fill: Any
    steps: int
    turns: int


@dataclass(frozen=True)
class Metric:
    """One number about a map.

    Attributes:
        name: What it is called in code.
        title: What it is called by people.
        better: Which of two values is the better one.
        help: What it says, in one sentence.
        measure: From a map to the number, NaN where there is none; None for what compares it with a finer map.
        cost: Whether it is what is paid, rather than what is got.
        exact: Whether another machine finds the same number.
        unit: Of the number.
    """

    name: str
    title: str
    better: Literal["high", "low"]
    help: str
    measure: Callable[[Measured], float] | None
    cost: bool = False
    exact: bool = True
    unit: str = ""


def completeness(found: Attribution) -> float:
    """The completeness error as a part of the change of the score from the baseline to the input.

    Args:
        found: Of one sample.

    Returns:
        NaN where the method tells no error, or nothing changes.
    """
    if found.delta is None:
        return math.nan
    return missing_share(*map(float, on_host(found.values.sum(), found.delta)))


def missing_share(total: float, delta: float) -> float:
    """The same, from the sum of the values and the completeness error."""
    change = total - delta
    return abs(delta / change) if change else math.nan


def sampling_error(found: Attribution) -> float:
    """The mean standard error over the mean size of the values; NaN where the method tells none, or the map is zero."""
    if found.standard_error is None:
        return math.nan
    return error_share(*map(float, on_host(found.standard_error.mean(), found.values.abs().mean())))


def error_share(error: float, size: float) -> float:
    """The same, from both means."""
    return error / size if size else math.nan


def _seeds(about: Measured) -> float:
    if about.seed is None:
        return math.nan
    others = (about.explain(about.seed + turn) for turn in range(1, about.turns + 1))
    return float(np.mean([spearman(about.values, other) for other in others]))


def _area(kind: Kind) -> Callable[[Measured], float]:
    def area(about: Measured) -> float:
        *_, found = curve(about.runner, about.values, kind, steps=about.steps, fill=about.fill)
        return found.area

    return area


METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            "similarity", "Similarity to the finest", "high",
            "Rank correlation (Spearman) with the map of the most samples or steps of the grid, all else equal.", None,
        ),
        Metric(
            "insertion", "Insertion", "high",
            "Area under the normalized insertion curve: how soon the score comes when the strongest places come first.",
            _area("insertion"),
        ),
        Metric(
            "deletion", "Deletion", "low",
            "Area under the normalized deletion curve: how long the score stays when the strongest places go first.",
            _area("deletion"),
        ),
        Metric(
            "delta", "Completeness delta", "low",
            "Size of the completeness error, as a part of the change of the score from the baseline to the input.",
            lambda about: completeness(about.found),
        ),
        Metric(
            "standard_error", "Sampling error", "low",
            "Mean standard error over the mean size of the values.", lambda about: sampling_error(about.found),
        ),
        Metric(
            "seeds", "Stability between seeds", "high",
            "Mean rank correlation with the maps of other seeds.", _seeds,
        ),
        Metric(
            "evaluations", "Gradients", "low", "How many gradients of the model the map took.",
            lambda about: float(about.found.evaluations), cost=True,
        ),
        Metric(
            "time", "Time", "low", "Seconds that the map took, where and while it was computed.",
            lambda about: about.seconds, cost=True, exact=False, unit="s",
        ),
        Metric(
            "memory", "Memory", "low",
            "MiB that the map took at most: of the CUDA device, or of the process, to which other threads belong too.",
            lambda about: about.peak(), cost=True, exact=False, unit="MiB",
        ),
    )
}  # fmt: skip
