"""Choose among settings: the cheapest that is about as good as the best, the Pareto front, and its knee."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from saliency_widgets.params import Param

WITHIN = Param(
    "within",
    default=0.02,
    low=0.0,
    high=1.0,
    help="How much worse than the best a setting may be, as a fraction of the best.",
)


def losses(quality: Sequence[float], better: Literal["high", "low"]) -> np.ndarray:
    r"""Return how much worse each setting is than the best, as a fraction of the best.

    .. math:: \ell_k = |q_k - q_{best}| \,/\, |q_{best}|

    Args:
        quality: One number per setting; NaN where it is missing.
        better: Whether high or low values are better.

    Returns:
        0 for the best setting, larger for worse ones, infinite if the best is zero; NaN where the number is missing.
    """
    q = np.asarray(quality, np.float64)
    if np.isnan(q).all():
        return q
    best = np.nanmax(q) if better == "high" else np.nanmin(q)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(q == best, 0.0, np.where(np.isnan(q), np.nan, np.abs(q - best) / np.abs(best)))


def cheapest(
    quality: Sequence[float], cost: Sequence[float], better: Literal["high", "low"], within: float = WITHIN.default
) -> int | None:
    """Return the index of the cheapest setting whose loss is at most ``within``.

    Ties in cost go to the better setting, then to the first.

    Returns:
        The index; None if no such setting has a finite cost.
    """
    loss, costs = losses(quality, better), np.asarray(cost, np.float64)
    eligible = np.flatnonzero((loss <= within) & np.isfinite(costs))
    return min(eligible.tolist(), key=lambda k: (costs[k], loss[k], k), default=None)


def front(quality: Sequence[float], cost: Sequence[float], better: Literal["high", "low"]) -> list[int]:
    """Return the indices of the Pareto front, the cheapest first: no other setting is both cheaper and better."""
    loss, costs = losses(quality, better), np.asarray(cost, np.float64)
    # If the best is zero, every other loss is infinite; cheaper settings still count.
    measured = [k for k in range(len(loss)) if not np.isnan(loss[k]) and np.isfinite(costs[k])]
    indices: list[int] = []
    for k in sorted(measured, key=lambda k: (costs[k], loss[k], k)):
        if not indices or loss[k] < loss[indices[-1]]:
            indices.append(k)
    return indices


def knee(quality: Sequence[float], cost: Sequence[float], better: Literal["high", "low"]) -> int | None:
    """Return the index of the setting beyond which paying more gains little.

    Log cost and quality of the settings on the front are both scaled to [0, 1]. The knee is where quality minus cost
    is largest.

    Source: Satopää, Albrecht, Irwin and Raghavan, "Finding a 'Kneedle' in a Haystack: Detecting Knee Points in System
    Behavior", 2011. The logarithm of the cost is used because errors fall with the square root of the cost.

    Returns:
        The index; None if there is no knee, fewer than three settings are on the front, or a cost is not positive.
    """
    indices = front(quality, cost, better)
    q, costs = np.asarray(quality, np.float64)[indices], np.asarray(cost, np.float64)[indices]
    if len(indices) < 3 or not (costs > 0).all():
        return None
    log_cost = np.log(costs / costs[0]) / np.log(costs[-1] / costs[0])
    gain = (q - q[0]) / (q[-1] - q[0])
    index = int(np.argmax(gain - log_cost))
    return indices[index] if gain[index] > log_cost[index] else None
