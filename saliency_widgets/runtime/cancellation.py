"""Cancellation inside a pass of the model: a check runs before each operation, forward and backward."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor


class _Now(threading.local):
    check: Callable[[], None] | None = None


_NOW = _Now()


def _check(*_gradients: Any) -> None:
    if _NOW.check is not None:
        _NOW.check()


def call_checked(func: Callable, args: tuple, kwargs: dict | None) -> Any:
    """Call a torch function after the active check; its backward runs the check that is active at that time.

    :class:`~.rng.SeededRandom`, a function mode that sees all functions of a pass, calls them through this function:
    a second mode would take longer than many of them.
    """
    if _NOW.check is None or getattr(func, "__name__", "") == "__get__":
        return func(*args, **(kwargs or {}))
    _NOW.check()
    result = func(*args, **(kwargs or {}))
    node = result.grad_fn if isinstance(result, Tensor) else None
    if node is not None:
        node.register_prehook(_check)
    return result


@contextlib.contextmanager
def interruptible(check: Callable[[], None]) -> Iterator[None]:
    """Call ``check`` often while passes run in this block, on this thread; an exception from it ends the pass.

    The backward of a retained graph calls the check that is active when it runs, not when the graph was recorded.
    """
    before, _NOW.check = _NOW.check, check
    try:
        yield
    finally:
        _NOW.check = before
