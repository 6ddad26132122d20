"""Quality and cost metrics of a method's settings, for sweeps."""

from __future__ import annotations

import math

from saliency_widgets.attribution import Attribution
from saliency_widgets.attribution.arrays import on_host
from saliency_widgets.evaluation.registry import Metric, trust_tests


def completeness(attribution: Attribution) -> float:
    """Return the completeness error as a fraction of the change of the score from the baseline to the input.

    Args:
        attribution: The attribution of one sample.

    Returns:
        The error; NaN if the method reports none, or if the score does not change.
    """
    if attribution.delta is None:
        return math.nan
    return missing_share(*map(float, on_host(attribution.values.sum(), attribution.delta)))


def missing_share(total: float, delta: float) -> float:
    """Return the same fraction, computed from the sum of the values and the completeness error."""
    change = total - delta
    return abs(delta / change) if change else math.nan


def sampling_error(attribution: Attribution) -> float:
    """Return the mean standard error divided by the mean absolute value; NaN without an error or for a zero map."""
    if attribution.standard_error is None:
        return math.nan
    return error_share(*map(float, on_host(attribution.standard_error.mean(), attribution.values.abs().mean())))


def error_share(error: float, size: float) -> float:
    """Return the same ratio, computed from both means."""
    return error / size if size else math.nan


METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            "similarity", "Similarity to the finest", "high",
            "Rank correlation (Spearman) with the map of the most samples or steps in the grid, with the same other "
            "settings.", None,
        ),
        *(metric for test in trust_tests().values() for metric in test.metrics),
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
            "evaluations", "Gradients", "low", "The number of model gradients that the map needed.",
            lambda measured: float(measured.attribution.evaluations), cost=True,
        ),
        Metric(
            "time", "Time", "low", "The seconds that the map took, on the machine that computed it.",
            lambda measured: measured.seconds, cost=True, exact=False, unit="s",
        ),
        Metric(
            "memory", "Memory", "low",
            "Peak memory in MiB: of the CUDA device, or else of the whole process, including its other threads.",
            lambda measured: measured.peak(), cost=True, exact=False, unit="MiB",
        ),
    )
}  # fmt: skip
