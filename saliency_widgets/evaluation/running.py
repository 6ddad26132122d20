"""Running estimates: what they have in common, and how they are refined from coarse to fine."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence

import torch
from torch import Tensor

from saliency_widgets.attribution.numerics.quadrature import coarse_to_fine
from saliency_widgets.runtime.runner import Runner


class Running:
    """An estimate that is valid by itself, and better with each one that follows.

    Attributes:
        done: Units of work behind it.
        total: Units of work in all.
    """

    done: int
    total: int

    @property
    def complete(self) -> bool:
        """Whether all the work asked for is in it."""
        return self.done >= self.total


def refined(
    runner: Runner,
    count: int,
    computed: Callable[[list[int]], tuple[Tensor, ...]],
    *,
    key: Callable[[list[int]], Hashable],
    first: Sequence[int],
    chunk_size: int | None,
) -> Iterator[tuple[list[int], list[Tensor]]]:
    """Points of a line, the ends first and then between them, chunk by chunk.

    Args:
        runner: Tells how many rows a pass has, and keeps what passes gave.
        count: How many points there are.
        computed: From the numbers of some points to tensors with a row for each.
        key: What these are kept under.
        first: Points of the first passes.
        chunk_size: Rows of one pass.

    Yields:
        The points that are there, in order, and the tensors with a row for each of them.
    """
    order = coarse_to_fine(count)
    rows: dict[int, tuple[Tensor, ...]] = {}
    for chunk in runner.chunks(count, chunk_size, first=first):
        some = [order[k] for k in chunk]
        found = runner.once(key(some), lambda some=some: computed(some))
        rows.update(zip(some, zip(*found, strict=True), strict=True))
        there = sorted(rows)
        yield there, [torch.stack(column) for column in zip(*(rows[k] for k in there), strict=True)]
