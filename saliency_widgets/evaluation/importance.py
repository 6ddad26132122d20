"""Which features matter over many rows: the mean size of their attributions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from saliency_widgets.evaluation.running import Running
from saliency_widgets.params import Param
from saliency_widgets.runtime.runner import Runner

ROWS = Param(
    "rows",
    default=256,
    low=8,
    high=4096,
    kind="int",
    scale="log2",
    unit="rows",
    help="How many rows of the background are explained; all there are where they are fewer.",
)
_BATCH = 32  # rows that are explained together: an estimate is there soon, and a pass is still well filled


@dataclass(frozen=True, eq=False)
class Importance(Running):
    """Attributions of many rows, put together.

    Attributes:
        size: The mean absolute attribution of each column, shape (C,).
        mean: The mean attribution, with its sign, shape (C,).
        done: How many rows are in it.
        total: How many there will be.
    """

    size: Tensor
    mean: Tensor
    done: int
    total: int


def importance(
    runner: Runner, rows: Tensor, explain: Callable[[Runner], Tensor], *, batch: int = _BATCH
) -> Iterator[Importance]:
    """Explain many rows, batch by batch.

    The mean absolute attribution tells what the model's scores rest on over these rows; where the mean is much smaller,
    the feature speaks for the class in some rows and against it in others.

    Args:
        runner: The model and one row of the table; the same score is explained of all.
        rows: As the model sees them, shape (N, F).
        explain: From a question about n rows to attributions of their features, shape (n, F).
        batch: How many rows at once.

    Yields:
        The means over ever more rows.

    Raises:
        ValueError: The inputs are no rows of a table.
    """
    columns = runner.columns
    if columns is None:
        raise ValueError("inputs: they are no rows of a table. Pass a DataFrame, or feature_names=.")
    size = torch.zeros(len(columns.names), dtype=torch.float64, device="cpu")
    mean = torch.zeros_like(size)
    done = 0
    for some in rows.to(runner.inputs).split(batch):
        values = columns.summed(explain(runner.on(some)).detach().double()).cpu()
        size += values.abs().sum(0)
        mean += values.sum(0)
        done += len(some)
        yield Importance(size / done, mean / done, done, len(rows))
