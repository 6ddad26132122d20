"""How much work goes into one pass of the model."""

from __future__ import annotations

import math

from saliency_widgets.params import Param

CHUNK_SIZE = Param(
    "chunk_size",
    default=None,
    low=1,
    high=1024,
    kind="int",
    scale="log2",
    optional=True,
    advanced=True,
    continued=True,
    unit="rows",
    help="Rows of one pass of the model. 16 on a CPU and 32 elsewhere unless given; lower it when memory runs out.",
)


def chunks(total: int, size: int, batch: int = 1) -> list[range]:
    """Split ``total`` evaluations into chunks: small ones first for an early picture, then up to ``size`` rows.

    The plan depends on its arguments alone, never on the clock, so that the same settings give the same
    rounding, bit for bit. The beginnings 1, 3, 5, 9, 17, ... meet the nested levels of :func:`coarse_to_fine`.

    Args:
        total: How many evaluations of each sample.
        size: Rows of one pass at most (at least one evaluation of the whole batch).
        batch: Rows of one evaluation.
    """
    cap = max(1, size // batch)
    plan: list[range] = []
    done, step = 0, 1
    while done < total:
        take = min(step, cap, total - done)
        plan.append(range(done, done + take))
        done += take
        step = 2 if done < 5 else 2 ** int(math.log2(done - 1))
    return plan
