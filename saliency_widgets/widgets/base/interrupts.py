"""The kernel's interrupt stops background computations, as it stops a running cell."""

from __future__ import annotations

import asyncio
import signal
import sys
import weakref
from typing import Any, Protocol


class Stoppable(Protocol):
    """A widget that computes."""

    def stop(self) -> None:
        """Stop the computation; results so far stay."""
        ...


_WIDGETS: weakref.WeakSet[Stoppable] = weakref.WeakSet()


def stop_on_interrupt(widget: Stoppable) -> None:
    """Make the kernel's interrupt stop this widget's computation.

    An interrupt is a cell that ends with KeyboardInterrupt or, if no cell runs, a signal that ipykernel ignores.
    """
    _WIDGETS.add(widget)
    ipython: Any = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is None:
        return
    shell.events.register("post_run_cell", _after_cell)
    kernel: Any = getattr(shell, "kernel", None)
    # ipykernel restores this handler when the cell is done.
    if getattr(kernel, "saved_sigint_handler", None) is signal.SIG_IGN:
        kernel.saved_sigint_handler = _stop_all


def _after_cell(result: Any) -> None:
    # A cell that awaits ends with CancelledError.
    if result is None or isinstance(result.error_in_exec, (KeyboardInterrupt, asyncio.CancelledError)):
        _stop_all()


def _stop_all(*_signal: Any) -> None:
    for widget in list(_WIDGETS):
        widget.stop()
