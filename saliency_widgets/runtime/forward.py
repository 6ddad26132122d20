"""One forward pass of a copy of the model, and the actual cause if it fails."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from saliency_widgets.attribution.errors import Cancelled, out_of_memory
from saliency_widgets.runtime.errors import fixed_batch, forward_failure
from saliency_widgets.runtime.memory import Memory

Call = Callable[[nn.Module, Any, Tensor], Any]


def forward(model: nn.Module, call: Call, rows: Tensor | Sequence[Tensor], samples: Tensor, memory: Memory) -> Any:
    """Run a copy of the model on some rows and return its output.

    Args:
        model: The copy.
        call: Runs the copy on rows, given the samples that they belong to: see :meth:`.Arguments.run`.
        rows: The rows, shape (N, ...), or the explained inputs one by one.
        samples: The index of the sample that each row belongs to, shape (N,).
        memory: The limits and measurements of earlier passes.

    Raises:
        ValueError: The forward pass failed.
    """
    if not isinstance(rows, Tensor):
        try:
            return call(model, rows, samples)
        except Exception as error:
            if isinstance(error, Cancelled) or out_of_memory(error):
                raise
            raise forward_failure(model, error, tuple(rows[0].shape)) from error

    def run(rows: Tensor, samples: Tensor) -> Any:
        # A forward that differentiates internally needs gradients in passes under no_grad, too.
        with torch.enable_grad() if memory.by_hand else contextlib.nullcontext():
            if memory.by_hand and not rows.requires_grad:
                rows = rows.detach().requires_grad_(True)
            return call(model, rows, samples)

    try:
        output = run(rows, samples)
    except Exception as error:
        if isinstance(error, Cancelled) or out_of_memory(error):
            raise
        size = memory.ran
        if size is not None and _runs_in_parts(run, rows.detach(), samples, size):
            raise ValueError(f"model: {fixed_batch(size, len(rows), error)}") from error
        raise forward_failure(model, error, tuple(rows.shape)) from error
    memory.ran = min(len(rows), memory.ran or len(rows))
    return output


def _runs_in_parts(run: Callable[[Tensor, Tensor], Any], rows: Tensor, samples: Tensor, size: int) -> bool:
    """Return whether rows that fail in one pass run in passes of ``size``, the fewest rows that ran before."""
    if len(rows) <= size or len(rows) % size:
        return False
    with torch.no_grad():
        if _runs(run, [(rows, samples)]):  # the failure was transient
            return False
        return _runs(run, zip(rows.split(size), samples.split(size), strict=True))


def _runs(run: Callable[[Tensor, Tensor], Any], passes: Iterable[tuple[Tensor, Tensor]]) -> bool:
    try:
        for rows, samples in passes:
            run(rows, samples)
    except Cancelled:
        raise
    except Exception:
        return False
    return True
