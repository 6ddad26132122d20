"""When a running estimate stops, in words."""

from __future__ import annotations

import math

from torch import Tensor


def percent(share: float) -> str:
    """A share for people: one decimal, or as many as a small one needs not to be called nothing."""
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
    """Why sampling or quadrature stopped: the tolerance is reached, or the budget is spent.

    Args:
        enough: Whether the tolerance is reached.
        done: Evaluations so far.
        unit: What an evaluation is called.
        what: The error's name and verb.
        error: Of each sample, shape (B,).
        tolerance: The error that is wanted.
        missing: What is unaccounted for nevertheless; where it is given, nothing is called enough.
    """
    worst = float(error.max())
    reached, wanted = percent(worst), percent(tolerance)
    within = f"{what} {reached}, within the tolerance of {wanted}"
    if enough and missing:
        return f"It ended after {done} {unit}, where the map no longer changed ({within}). But {missing}"
    if enough:
        return f"{done} {unit} were enough: {within}."
    if worst <= tolerance:
        first = f"All {done} {unit} were taken: {within}, though not yet in two rounds running."
    elif reached == wanted:
        first = f"The budget of {done} {unit} ended first: {what} {reached}, just above the tolerance."
    else:
        first = f"The budget of {done} {unit} ended first: {what} {reached}, and the tolerance is {wanted}."
    return f"{first} {missing}".rstrip()
