"""Reentrant checkpoints (``torch.utils.checkpoint`` with ``use_reentrant=True``), run like the code that they wrap.

Such a checkpoint runs its part of the model without a graph and refuses ``torch.autograd.grad``: neither gradients with
respect to the inputs nor the outputs of the layers inside can be had through it. Without it the numbers are the same;
a pass takes more memory, of which passes with frozen weights need little, and no second forward.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.checkpoint import CheckpointFunction


class _Passes(threading.local):
    running = 0


_PASSES = _Passes()  # of this thread
_LOCK = threading.Lock()
_users = 0  # passes of all threads


@contextlib.contextmanager
def without_reentrant_checkpoints() -> Iterator[None]:
    """In this block, on this thread, a reentrant checkpoint calls its function and does nothing else.

    Other threads checkpoint as ever: the caller may be training. Torch is as it was when no block is left.
    """
    global _users
    with _LOCK:
        _users += 1
        if _users == 1:
            CheckpointFunction.apply = staticmethod(_direct(CheckpointFunction.apply))  # type: ignore[method-assign]
    _PASSES.running += 1
    try:
        yield
    finally:
        _PASSES.running -= 1
        with _LOCK:
            _users -= 1
            if not _users:
                del CheckpointFunction.apply


def _direct(apply: Callable) -> Callable:
    def run(function: Callable, preserve_rng_state: bool, *args: Any) -> Any:
        return function(*args) if _PASSES.running else apply(function, preserve_rng_state, *args)

    return run
