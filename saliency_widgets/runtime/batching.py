"""How much work goes into one pass of the model."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch


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
    if not math.isfinite(seconds):
        return None
    fit = _SECONDS / (_BACKWARD * max(seconds, 1e-9))
    rows = 1 << max(0, round(math.log2(fit)))  # to the nearest: half as many cost a tenth of the speed
    return rows if rows < most_rows(device) else None  # the usual number has rows to spare in the last pass


def chunks(total: int, size: int, batch: int = 1, first: Sequence[int] = (1, 3), spare: int = 0) -> list[range]:
    """Split ``total`` evaluations into chunks: small ones first for an early image, then of ``size`` rows.

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
