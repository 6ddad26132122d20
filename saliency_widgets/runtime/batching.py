"""How much work goes into one pass of the model."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from saliency_widgets.params import MANY, Param

CHUNK_SIZE = Param(
    "chunk_size",
    default=None,
    low=1,
    high=1024,
    maximum=MANY,
    kind="int",
    scale="log2",
    optional=True,
    advanced=True,
    continued=True,
    unit="rows",
    help="Rows of one pass of the model. 16 on a CPU and 32 elsewhere unless given; lower it when memory runs out.",
)


def most_rows(device: torch.device) -> int:
    """Rows of one pass beyond which nothing is gained."""
    return 16 if device.type == "cpu" else 32


_SECONDS = 1.0
_BACKWARD = 2  # what a gradient takes, in first forward passes, which are slower than those that follow


def paced_rows(device: torch.device, seconds: float) -> int | None:
    """Rows of one pass that keep a person informed; None where the usual number does.

    Args:
        device: Where it is computed.
        seconds: Of one row's forward pass, as measured.
    """
    fit = _SECONDS / (_BACKWARD * max(seconds, 1e-9))
    if fit >= most_rows(device) or not math.isfinite(seconds):
        return None
    return 1 << max(0, round(math.log2(fit)))  # to the nearest: half as many cost a tenth of the speed


def chunks(total: int, size: int, batch: int = 1, first: Sequence[int] = (1, 3), spare: int = 0) -> list[range]:
    """Split ``total`` evaluations into chunks: small ones first for an early picture, then of ``size`` rows.

    The plan depends on its arguments alone, never on the clock, so that the same settings give the same
    rounding, bit for bit; and a larger total has the chunks of a smaller one, but for its last.

    Args:
        total: How many evaluations of each sample.
        size: Rows of one pass at most (at least one evaluation of the whole batch).
        batch: Rows of one evaluation.
        first: Evaluations of the first chunks. Behind one, chunks of 16 meet the nested levels 17, 33, 65, ... of
            :func:`~saliency_widgets.attribution.numerics.quadrature.coarse_to_fine`.
        spare: Rows that the last pass may have beyond that, so that they don't make one of their own.
    """
    cap, over = max(1, size // batch), spare // batch
    plan: list[range] = []
    done = 0
    while done < total:
        wanted = min(first[len(plan)] if len(plan) < len(first) else cap, cap)
        left = total - done
        take = left if wanted == cap and left <= cap + over else min(wanted, left)
        plan.append(range(done, done + take))
        done += take
    return plan


def percent(share: float) -> str:
    """A share for people: one decimal, or as many as a small one needs not to be called nothing."""
    if not math.isfinite(share) or share >= 100:
        return "unknown" if math.isnan(share) else "over 10000%"
    if share == 0:
        return "0%"
    if share >= 5e-4:
        return f"{share:.1%}"
    return "<0.0001%" if share < 1e-6 else f"{100 * share:.1g}%"


def ended(enough: bool, done: int, unit: str, what: str, error: Tensor, tolerance: float, missing: str = "") -> str:
    """Why it ended: what was asked is reached, or the budget was spent.

    Args:
        enough: Which of them.
        done: How many evaluations there were.
        unit: Of what.
        what: Which error, in words.
        error: Of each sample.
        tolerance: What was asked.
        missing: What speaks against the map nevertheless: then nothing is called enough.
    """
    worst = float(error.max())
    said, asked = percent(worst), percent(tolerance)
    within = f"{what} {said}, within the tolerance of {asked}"
    if enough and missing:
        return f"It ended after {done} {unit}, where the map no longer changed ({within}). But {missing}"
    if enough:
        return f"{done} {unit} were enough: {within}."
    if worst <= tolerance:
        first = f"All {done} {unit} were taken: {within}, though not yet in two rounds running."
    elif said == asked:
        first = f"The budget of {done} {unit} ended first: {what} {said}, just above the tolerance."
    else:
        first = f"The budget of {done} {unit} ended first: {what} {said}, and the tolerance is {asked}."
    return f"{first} {missing}".rstrip()
