"""Quality and cost metrics of a method's settings, for sweeps."""

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
        attribution: The method's result.
        values: The map as it is shown, shape (H, W) or (F,).
        explain: Recomputes the map with a seed, or with the method's seed for None.
        seed: The method's seed, or None for a deterministic method.
        seconds: How long the map took.
        peak: Measures the peak memory in MiB; NaN if that is unknown.
        fill: What replaces removed pixels or features.
        steps: Of deletion and insertion curves.
        turns: How many other seeds.
    """

    runner: Runner
    attribution: Attribution
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
        name: Its name in code.
        title: Its name in the interface.
        better: Whether high or low values are better.
        help: What it measures, in one sentence.
        measure: Computes the number, NaN if there is none; None for a metric that compares with a finer map.
        cost: Whether it is a cost rather than a quality.
        exact: Whether another machine gets the same number.
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


def completeness(attribution: Attribution) -> float:
    """Return the completeness error as a fraction of the change of the score from the baseline to the input.

    Args:
        attribution: Of one sample.

    Returns:
        NaN if the method reports no error, or the score does not change.
    """
    if attribution.delta is None:
        return math.nan
    return missing_share(*map(float, on_host(attribution.values.sum(), attribution.delta)))


def missing_share(total: float, delta: float) -> float:
    """The same, from the sum of the values and the completeness error."""
    change = total - delta
    return abs(delta / change) if change else math.nan


def sampling_error(attribution: Attribution) -> float:
    """Return the mean standard error over the mean absolute value; NaN without one, or for a map of zeros."""
    if attribution.standard_error is None:
        return math.nan
    return error_share(*map(float, on_host(attribution.standard_error.mean(), attribution.values.abs().mean())))


def error_share(error: float, size: float) -> float:
    """The same, from both means."""
    return error / size if size else math.nan


def _seeds(measured: Measured) -> float:
    if measured.seed is None:
        return math.nan
    others = (measured.explain(measured.seed + turn) for turn in range(1, measured.turns + 1))
    return float(np.mean([spearman(measured.values, other) for other in others]))


def _area(kind: Kind) -> Callable[[Measured], float]:
    def area(measured: Measured) -> float:
        *_, last = curve(measured.runner, measured.values, kind, steps=measured.steps, fill=measured.fill)
        return last.area

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
            "Area under the normalized insertion curve: how soon the score rises when the strongest pixels come first.",
            _area("insertion"),
        ),
        Metric(
            "deletion", "Deletion", "low",
            "Area under the normalized deletion curve: how long the score lasts when the strongest pixels go first.",
            _area("deletion"),
        ),
        Metric(
            "delta", "Completeness delta", "low",
            "Size of the completeness error, as a fraction of the change of the score from the baseline to the input.",
            lambda measured: completeness(measured.attribution),
        ),
        Metric(
            "standard_error", "Sampling error", "low",
            "Mean standard error over the mean size of the values.",
            lambda measured: sampling_error(measured.attribution),
        ),
        Metric(
            "seeds", "Stability between seeds", "high",
            "Mean rank correlation with the maps of other seeds.", _seeds,
        ),
        Metric(
            "evaluations", "Gradients", "low", "How many gradients of the model the map took.",
            lambda measured: float(measured.attribution.evaluations), cost=True,
        ),
        Metric(
            "time", "Time", "low", "Seconds that the map took, where and while it was computed.",
            lambda measured: measured.seconds, cost=True, exact=False, unit="s",
        ),
        Metric(
            "memory", "Memory", "low",
            "Peak MiB that the map took: of the CUDA device, or of the whole process, other threads included.",
            lambda measured: measured.peak(), cost=True, exact=False, unit="MiB",
        ),
    )
}  # fmt: skip
