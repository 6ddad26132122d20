"""How many rows fit into one pass of the model, learnt by running out of memory; and what else passes must be like."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from saliency_widgets.attribution.errors import NeedsGradients, out_of_memory


class Memory:
    """Splits passes that don't fit, and remembers what does.

    Rows are halved to the power of two below, and never tried larger again. So what is asked twice takes the same
    passes and has the same bits, unless a larger pass had fitted before the first that didn't.

    Attributes:
        limit: Rows of one pass at most; None while memory never ran out.
        failed: How many rows were too many.
        passes: How many passes of the model were begun.
        seconds: Of one row's forward pass, the shortest that was measured.
        ran: The fewest rows that a forward pass had; None before the first.
        by_hand: Whether passes need what ``.backward()`` by hand needs: parameters with gradients, and gradients on.
    """

    def __init__(self) -> None:
        self.passes = 0
        self.ran: int | None = None
        self.by_hand = False
        self.seconds = float("inf")
        self.limit: int | None = None
        self.failed: int | None = None

    def __str__(self) -> str:
        """What happened, for the progress line; empty where nothing did."""
        if self.limit is None:
            return ""
        return f"{self.limit} row{'s' * (self.limit > 1)} a pass, as memory ran out at {self.failed}"

    @contextlib.contextmanager
    def timed(self, rows: int) -> Iterator[None]:
        """Measure a forward pass of some rows."""
        began = time.perf_counter()
        yield
        self.seconds = min(self.seconds, (time.perf_counter() - began) / rows)

    def run(
        self, work: Callable[[range], tuple[Tensor, ...]], rows: int, *, singly: bool = False
    ) -> tuple[Tensor, ...]:
        """Do the work for all rows, in as few passes as fit.

        Args:
            work: From some of the rows to tensors with as many rows.
            rows: How many there are.
            singly: Whether each row has a pass to itself.

        Raises:
            torch.OutOfMemoryError: One row alone is too much.
        """
        parts: list[tuple[Tensor, ...]] = []
        done = 0
        while done < rows:
            size = 1 if singly else min(rows - done, self.limit or rows)
            try:
                parts.append(work(range(done, done + size)))
                done += size
                continue
            except NeedsGradients:
                if self.by_hand:
                    raise
                self.by_hand = True
                continue
            except Exception as error:
                if not out_of_memory(error) or size == 1:
                    raise
            # Not inside the handler: the error holds on to the tensors of the pass that failed.
            self.failed, self.limit = size, 1 << ((size - 1).bit_length() - 1)
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()
        return parts[0] if len(parts) == 1 else tuple(torch.cat(pieces) for pieces in zip(*parts, strict=True))


@dataclass
class Sharing:
    """Whether copies of the one sample may share a pass, as far as anybody looked: see :func:`~.coupling.why_apart`.

    Attributes:
        apart: Why each has a pass to itself; empty where they may share one, and None before the look.
    """

    apart: str | None = None
