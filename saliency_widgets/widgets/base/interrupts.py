"""The kernel's interrupt ends what widgets compute in the background, as it ends a running cell."""

from __future__ import annotations

import asyncio
import signal
import sys
import weakref
from typing import Any, Protocol


class Stoppable(Protocol):
    """A widget that computes."""

    def stop(self) -> None:
        """End what is being computed; what is there stays."""
        ...


_WIDGETS: weakref.WeakSet[Stoppable] = weakref.WeakSet()


def stop_on_interrupt(widget: Stoppable) -> None:
    """From now on the kernel's interrupt stops this widget's computation.

    It comes as a cell that ends with KeyboardInterrupt or, where no cell runs, as a signal that ipykernel ignores.
    """
    _WIDGETS.add(widget)
    ipython: Any = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is None:
        return
    shell.events.register("post_run_cell", _after_cell)
    kernel: Any = getattr(shell, "kernel", None)
    # What ipykernel puts back when this cell is done.
    if getattr(kernel, "saved_sigint_handler", None) is signal.SIG_IGN:
        kernel.saved_sigint_handler = _stop_all


def _after_cell(result: Any) -> None:
    # A cell that awaits is cancelled.
    if result is None or isinstance(result.error_in_exec, (KeyboardInterrupt, asyncio.CancelledError)):
        _stop_all()


def _stop_all(*_signal: Any) -> None:
    for widget in list(_WIDGETS):
        widget.stop()
