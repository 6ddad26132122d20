"""Stopping inside a pass of the model: a question is asked before each operation, forward and backward."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

_NOW = threading.local()


def _ask(*_gradients: Any) -> None:
    check = getattr(_NOW, "check", None)
    if check is not None:
        check()


class _Asking(TorchFunctionMode):
    """Asks before each function of torch; and before the backward of what it made, whoever runs that, and when."""

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if getattr(func, "__name__", "") == "__get__":
            return func(*args, **(kwargs or {}))
        _ask()
        result = func(*args, **(kwargs or {}))
        node = result.grad_fn if isinstance(result, Tensor) else None
        if node is not None:
            node.register_prehook(_ask)
        return result


@contextlib.contextmanager
def interruptible(check: Callable[[], None], *, forward: bool = True) -> Iterator[None]:
    """While this block runs on this thread, ``check`` is called often; what it raises ends the pass.

    A graph that is kept asks whoever runs it later, not whoever made it.

    Args:
        check: Raises when the result is no longer wanted.
        forward: Whether a forward pass is in the block.
    """
    before = getattr(_NOW, "check", None)
    _NOW.check = check
    try:
        with _Asking() if forward else contextlib.nullcontext():
            yield
    finally:
        _NOW.check = before
