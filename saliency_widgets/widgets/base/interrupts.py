"""Background computations that stop when the kernel is interrupted, like a running cell."""

from __future__ import annotations

import asyncio
import signal
import sys
import weakref
from typing import Any, Protocol


class Stoppable(Protocol):
    """A widget with a background computation."""

    def stop(self) -> None:
        """Stop the computation and keep the results so far."""
        ...


_WIDGETS: weakref.WeakSet[Stoppable] = weakref.WeakSet()


def stop_on_interrupt(widget: Stoppable) -> None:
    """Stop this widget's computation when the kernel is interrupted.

    An interrupt is a cell that ends with KeyboardInterrupt or, if no cell is running, a signal that ipykernel ignores.
    """
    _WIDGETS.add(widget)
    ipython: Any = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is None:
        return
    shell.events.register("post_run_cell", _after_cell)
    kernel: Any = getattr(shell, "kernel", None)
    # ipykernel restores this handler at the end of the cell.
    if getattr(kernel, "saved_sigint_handler", None) is signal.SIG_IGN:
        kernel.saved_sigint_handler = _stop_all


def _after_cell(result: Any) -> None:
    # An interrupted cell that awaits ends with CancelledError.
    if result is None or isinstance(result.error_in_exec, (KeyboardInterrupt, asyncio.CancelledError)):
        _stop_all()


def _stop_all(*_signal: Any) -> None:
    for widget in list(_WIDGETS):
        widget.stop()
