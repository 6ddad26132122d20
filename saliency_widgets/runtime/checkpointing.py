"""Reentrant checkpoints (``torch.utils.checkpoint`` with ``use_reentrant=True``), replaced by direct calls.

Such a checkpoint runs its part of the model without a graph and rejects ``torch.autograd.grad``, so that neither
gradients with respect to the inputs nor the outputs of the layers inside are available. Without it, the numbers are the
same. A pass takes more memory, though little with frozen weights, and needs no second forward.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.checkpoint import CheckpointFunction


class _Passes(threading.local):
    running = 0


_PASSES = _Passes()  # per thread
_LOCK = threading.Lock()
_users = 0  # active blocks of all threads


@contextlib.contextmanager
def without_reentrant_checkpoints() -> Iterator[None]:
    """Make reentrant checkpoints only call their function, in this block and on this thread.

    Other threads still checkpoint, as the caller may be training. Torch is restored when the last block exits.
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
