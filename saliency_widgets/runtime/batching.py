"""The number of rows in each pass of the model."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch


def most_rows(device: torch.device) -> int:
    """Return the number of rows beyond which a larger pass is no faster per row."""
    return 16 if device.type == "cpu" else 32


_SECONDS = 1.0
_BACKWARD = 2  # the time of a gradient, in first forward passes, which are slower than later ones


def paced_rows(device: torch.device, seconds: float) -> int | None:
    """Return the rows of a pass that takes about a second, to show progress; None if the usual number suffices.

    Args:
        device: The device of the computation.
        seconds: The measured time of one row's forward pass.
    """
    if not math.isfinite(seconds):
        return None
    fit = _SECONDS / (_BACKWARD * max(seconds, 1e-9))
    rows = 1 << max(0, round(math.log2(fit)))  # the nearest power of two: halving the rows costs a tenth of the speed
    return rows if rows < most_rows(device) else None  # the usual number allows spare rows in the last pass


def chunks(total: int, size: int, batch: int = 1, first: Sequence[int] = (1, 3), spare: int = 0) -> list[range]:
    """Split ``total`` evaluations into chunks: small ones first for an early image, then chunks of ``size`` rows.

    The plan depends only on the arguments, never on the clock, so the same settings give the same rounding, bit for
    bit. A larger total has the same chunks as a smaller one, except for the last.

    Args:
        total: The number of evaluations of each sample.
        size: The maximum rows of one pass (at least one evaluation of the whole batch).
        batch: The rows of one evaluation.
        first: The evaluations of the first chunks. After a chunk of one, chunks of 16 reach the nested levels 17, 33,
            65, ... of :func:`~saliency_widgets.attribution.numerics.quadrature.coarse_to_fine`.
        spare: The rows by which the last pass may exceed ``size``, so that they don't need a separate pass.
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
