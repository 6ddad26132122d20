"""How many rows fit into one pass of the model, learned by running out of memory, and what else passes require."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from saliency_widgets.attribution.errors import LESS_MEMORY, NO_MEMORY, NeedsGradients, out_of_memory


class Memory:
    """Splitter of passes that don't fit into memory, which remembers the size that fits.

    The rows of a pass are reduced to the next lower power of two and never increased again. A repeated request
    therefore takes the same passes, with the same bits, unless a larger pass had fitted before the first that didn't.

    Attributes:
        limit: The maximum rows of one pass; None if memory never ran out.
        failed: The number of rows that didn't fit; None if memory never ran out.
        passes: The number of passes of the model that were started.
        seconds: The shortest measured time of one row's forward pass.
        ran: The fewest rows of any forward pass; None before the first.
        by_hand: Whether passes call ``.backward()``, with parameters that require gradients and gradients enabled.
    """

    def __init__(self) -> None:
        self.passes = 0
        self.ran: int | None = None
        self.by_hand = False
        self.seconds = float("inf")
        self.limit: int | None = None
        self.failed: int | None = None

    def __str__(self) -> str:
        """Return a note for the progress line; empty if memory never ran out."""
        if self.limit is None:
            return ""
        return f"{self.limit} row{'s' * (self.limit > 1)} per pass ({self.failed} did not fit in memory)"

    @contextlib.contextmanager
    def timed(self, rows: int) -> Iterator[None]:
        """Measure the time of a forward pass of some rows."""
        began = time.perf_counter()
        yield
        self.seconds = min(self.seconds, (time.perf_counter() - began) / rows)

    def run(
        self, work: Callable[[range], tuple[Tensor, ...]], rows: int, *, singly: bool = False
    ) -> tuple[Tensor, ...]:
        """Run a computation for all rows, in as few passes as fit into memory.

        Args:
            work: A function from a range of rows to tensors with as many rows.
            rows: The number of rows.
            singly: Whether each row gets a separate pass.

        Raises:
            torch.OutOfMemoryError: A single row doesn't fit.
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
                if not out_of_memory(error):
                    raise
                if size == 1:
                    if not hasattr(error, "__notes__"):  # passes may be nested
                        error.add_note(f"{NO_MEMORY} {LESS_MEMORY}")
                    raise
            # Outside of the handler, because the error references the tensors of the failed pass.
            self.failed, self.limit = size, 1 << ((size - 1).bit_length() - 1)
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()
        return parts[0] if len(parts) == 1 else tuple(torch.cat(pieces) for pieces in zip(*parts, strict=True))


@dataclass
class Sharing:
    """The result of the check whether copies of the one sample may share a pass: see :func:`~.coupling.why_apart`.

    Attributes:
        apart: Why each copy needs a separate pass; empty if they may share one, None before the check.
    """

    apart: str | None = None
