"""Feature importance over many rows: the mean absolute attribution."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from saliency_widgets.attribution.numerics.noise import SEED, seeded
from saliency_widgets.evaluation.explanation import Explanation, values_of
from saliency_widgets.evaluation.registry import Running, trust_test
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
    help="How many rows of the background are explained; all rows if there are fewer.",
)
_BATCH = 32  # rows explained together: small enough for an early estimate, large enough for an efficient pass


@dataclass(frozen=True, eq=False)
class Importance(Running):
    """Attributions averaged over many rows.

    Attributes:
        size: The mean absolute attribution of each column, shape (C,).
        mean: The mean signed attribution, shape (C,).
    """

    size: Tensor
    mean: Tensor


def importance(
    runner: Runner, rows: Tensor, explain: Callable[[Runner], Tensor], *, batch: int = _BATCH
) -> Iterator[Importance]:
    """Explain many rows, batch by batch.

    The mean absolute attribution shows which features the scores of these rows depend on. If the signed mean is much
    smaller, the feature is evidence for the class in some rows and against it in others.

    Args:
        runner: The model and one row of the table; the same score is explained for all rows.
        rows: The rows to explain, as the model receives them, shape (N, F).
        explain: Maps a runner with n rows to attributions of their features, shape (n, F).
        batch: The number of rows explained together.

    Yields:
        The means over more and more of the rows.

    Raises:
        ValueError: The inputs are not rows of a table.
    """
    columns = runner.kind.columns
    if columns is None:
        raise ValueError("inputs: expected rows of a table. Pass a DataFrame, or feature_names=.")
    size = torch.zeros(len(columns.names), dtype=torch.float64, device="cpu")
    mean = torch.zeros_like(size)
    done = 0
    for chunk in rows.to(runner.inputs).split(batch):
        values = columns.summed(explain(runner.on(chunk)).detach().double()).cpu()
        size += values.abs().sum(0)
        mean += values.sum(0)
        done += len(chunk)
        yield Importance(size / done, mean / done, done=done, total=len(rows))


@trust_test(
    "importance",
    title="Over many rows",
    params=(ROWS, SEED),
    how_to_read="Bars: the mean absolute attribution over many rows of the background, with the method and settings "
    "above. Diamonds: the signed mean; if it is near 0 under a long bar, the feature raises the score in some rows and "
    "lowers it in others.",
    kinds=("table",),
    needs=("background",),
    view="importance",
)
def run(explanation: Explanation, rows: int, seed: int) -> Iterator[Importance]:
    """Explain rows drawn at random from the background."""
    runner, method = explanation.runner(), explanation.method
    assert method is not None
    background = runner.kind.background
    assert background is not None
    drawn = torch.randperm(len(background), generator=seeded(seed, "rows"), device="cpu")[:rows]
    yield from importance(
        runner, background[drawn.to(background.device)], partial(values_of, method, explanation.params)
    )  # fmt: skip
