"""Running estimates: their base class, and refinement from coarse to fine."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence

import torch
from torch import Tensor

from saliency_widgets.attribution.numerics.quadrature import coarse_to_fine
from saliency_widgets.runtime.runner import Runner


class Running:
    """An estimate that is valid on its own and is refined by the next one.

    Attributes:
        done: Units of work finished.
        total: Units of work in all.
    """

    done: int
    total: int

    @property
    def complete(self) -> bool:
        """Whether all the work is done."""
        return self.done >= self.total


def refined(
    runner: Runner,
    count: int,
    compute: Callable[[list[int]], tuple[Tensor, ...]],
    *,
    key: Callable[[list[int]], Hashable],
    first: Sequence[int],
    chunk_size: int | None,
) -> Iterator[tuple[list[int], list[Tensor]]]:
    """Compute the points of a line chunk by chunk: the ends first, then the points between them.

    Args:
        runner: Chooses the rows per pass, and caches the results of passes.
        count: How many points there are.
        compute: Maps the indices of some points to tensors with one row per point.
        key: The cache key for these indices.
        first: Points of the first passes.
        chunk_size: Rows per pass.

    Yields:
        The indices of the points computed so far, in order, and the tensors with one row for each.
    """
    order = coarse_to_fine(count)
    rows: dict[int, tuple[Tensor, ...]] = {}
    for chunk in runner.chunks(count, chunk_size, first=first):
        indices = [order[k] for k in chunk]
        values = runner.once(key(indices), lambda indices=indices: compute(indices))
        rows.update(zip(indices, zip(*values, strict=True), strict=True))
        indices = sorted(rows)
        yield indices, [torch.stack(column) for column in zip(*(rows[k] for k in indices), strict=True)]
