"""Which of many settings is worth using: the cheapest that is about as good as the best, and the knee."""

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
    help="How much worse than the best a setting may be, as a part of the best.",
)


def losses(quality: Sequence[float], better: Literal["high", "low"]) -> np.ndarray:
    r"""How much worse than the best each is, as a part of the best.

    .. math:: \ell_k = |q_k - q_{best}| \,/\, |q_{best}|

    Args:
        quality: Numbers, one for each setting; NaN where there is none.
        better: Which of two is the better one.

    Returns:
        From 0 for the best, infinite beside a best of zero; NaN where there is no number.
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
    """The place of the cheapest setting whose loss is at most ``within``; of equally cheap ones the better, the first.

    Returns:
        None where no setting has both numbers.
    """
    lost, paid = losses(quality, better), np.asarray(cost, np.float64)
    there = np.flatnonzero((lost <= within) & np.isfinite(paid))
    return min(there.tolist(), key=lambda k: (paid[k], lost[k], k), default=None)


def front(quality: Sequence[float], cost: Sequence[float], better: Literal["high", "low"]) -> list[int]:
    """The places of the settings than which none is both cheaper and better, the cheapest first."""
    lost, paid = losses(quality, better), np.asarray(cost, np.float64)
    # A loss beside a best of zero is infinite, and yet cheaper settings count.
    measured = [k for k in range(len(lost)) if not np.isnan(lost[k]) and np.isfinite(paid[k])]
    found: list[int] = []
    for k in sorted(measured, key=lambda k: (paid[k], lost[k], k)):
        if not found or lost[k] < lost[found[-1]]:
            found.append(k)
    return found


def knee(quality: Sequence[float], cost: Sequence[float], better: Literal["high", "low"]) -> int | None:
    """Where paying more begins to give little: the place of that setting.

    Of the settings on the front, with the logarithm of the cost and the quality both brought to [0, 1], the one with
    the largest quality less cost.

    Source: Satopää, Albrecht, Irwin and Raghavan, "Finding a 'Kneedle' in a Haystack: Detecting Knee Points in System
    Behavior", 2011; on a logarithmic cost, as errors fall with its root.

    Returns:
        None where there is no such bend, fewer than three settings are on the front, or a cost is not positive.
    """
    there = front(quality, cost, better)
    q, paid = np.asarray(quality, np.float64)[there], np.asarray(cost, np.float64)[there]
    if len(there) < 3 or not (paid > 0).all():
        return None
    dear = np.log(paid / paid[0]) / np.log(paid[-1] / paid[0])
    good = (q - q[0]) / (q[-1] - q[0])
    bend = int(np.argmax(good - dear))
    return there[bend] if good[bend] > dear[bend] else None
