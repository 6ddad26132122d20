"""The reason why a running estimate stops, in words."""

from __future__ import annotations

import math

from torch import Tensor


def percent(share: float) -> str:
    """Format a share in percent, with one decimal, or one significant digit if it is small."""
    if not math.isfinite(share) or share >= 100:
        return "unknown" if math.isnan(share) else "over 10000%"
    if share == 0:
        return "0%"
    if share >= 5e-4:
        return f"{share:.1%}"
    return "<0.0001%" if share < 1e-6 else f"{100 * share:.1g}%"


def describe_stop(
    enough: bool, done: int, unit: str, what: str, error: Tensor, tolerance: float, missing: str = ""
) -> str:
    """Explain why sampling or quadrature stopped: the tolerance was reached, or the budget is spent.

    Args:
        enough: Whether the tolerance was reached.
        done: The number of evaluations.
        unit: The unit of evaluations.
        what: The error's name and verb.
        error: The error of each sample, shape (B,).
        tolerance: The tolerated error.
        missing: A sentence on the missing part of the score's change; if not empty, the text doesn't call it enough.
    """
    worst = float(error.max())
    reached, wanted = percent(worst), percent(tolerance)
    within = f"{what} {reached}, within the tolerance of {wanted}"
    if enough and missing:
        return f"It ended after {done} {unit}, where the map no longer changed ({within}). But {missing}"
    if enough:
        return f"{done} {unit} were enough: {within}."
    if worst <= tolerance:
        first = f"All {done} {unit} were taken: {within}, but not yet in two consecutive rounds."
    elif reached == wanted:
        first = f"The budget of {done} {unit} was used up: {what} {reached}, just above the tolerance."
    else:
        first = f"The budget of {done} {unit} was used up: {what} {reached}, and the tolerance is {wanted}."
    return f"{first} {missing}".rstrip()
