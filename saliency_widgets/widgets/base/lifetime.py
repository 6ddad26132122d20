"""Widget lifetimes: model, cache and threads are released once no page shows a widget and no name refers to it.

ipywidgets holds a reference to every widget ever created, and so would keep every explored model alive. This module
makes those references weak and keeps a displayed widget alive until its last view on a page is closed, for example when
its cell runs again.
"""

from __future__ import annotations

import asyncio
import gc
import re
import weakref
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, ParamSpec, TypeVar

import ipywidgets as w
from IPython.core.getipython import get_ipython
from ipywidgets.widgets import widget as registry

P = ParamSpec("P")
R = TypeVar("R")

_OUTPUT = re.compile(r"_{1,3}|_\d+")  # IPython's names for cell outputs

_SHOWN: set[w.Widget] = set()  # on a page, or displayed and not yet on the page
_OPEN: weakref.WeakSet[w.Widget] = weakref.WeakSet()
_survivors = 0  # number of unshown widgets after the last collection


def weakly(method: Callable[P, R]) -> Callable[P, R | None]:
    """Wrap a bound method without keeping its object alive. Calls return None once the object is collected."""
    reference = weakref.WeakMethod(method)  # type: ignore[arg-type]

    def call(*args: P.args, **kwargs: P.kwargs) -> R | None:
        bound = reference()
        return None if bound is None else bound(*args, **kwargs)

    return call


class _Registry(MutableMapping[str, w.Widget]):
    """The references of ipywidgets to open widgets, some of them weak; lookups return the widgets themselves.

    A page can send the id of any widget as the value of a trait, which must then refer to the widget, not a proxy.
    Iteration uses copies, because widgets can be added and collected during it.

    Args:
        references: The original dictionary. It stays in use, because other modules may have imported it.
    """

    def __init__(self, references: MutableMapping[str, w.Widget]) -> None:
        self._references = references

    def __getitem__(self, model_id: str) -> w.Widget:
        widget = self._references[model_id]
        if type(widget) not in weakref.ProxyTypes:
            return widget
        try:
            return widget.open.__self__  # the method is bound to the widget itself
        except ReferenceError:
            raise KeyError(model_id) from None

    def __setitem__(self, model_id: str, widget: w.Widget) -> None:
        self._references[model_id] = widget

    def __delitem__(self, model_id: str) -> None:
        del self._references[model_id]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._references))

    def __len__(self) -> int:
        return len(self._references)

    def pop(self, model_id: str, *default: Any) -> Any:
        """Remove an entry without dereferencing it, as a widget does while it is being collected."""
        return self._references.pop(model_id, *default)

    def values(self) -> Any:
        return [widget for _, widget in self.items()]

    def items(self) -> Any:
        return [(model_id, widget) for model_id in self if (widget := self.get(model_id)) is not None]


registry._instances = _Registry(registry._instances)


def refer_weakly(widget: w.Widget) -> None:
    """Make the references that ipywidgets and the kernel hold to an open widget weak.

    The widget's comm is closed when the widget is collected.
    """
    if widget.comm is not None:
        registry._instances[widget.model_id] = weakref.proxy(widget)
        widget.comm.on_msg(weakly(widget._handle_msg))


class Showable(w.Widget):
    """A widget that stays alive while a page shows it, and otherwise only while something refers to it."""

    def _open_lifetime(self, *views: w.Widget) -> None:
        """Keep this widget alive while it or one of the parts ``views`` is on a page."""
        collect_unshown()
        _OPEN.add(self)
        changed = weakly(self._count_views)
        for view in (self, *views):
            view._view_count = 0  # makes pages count their views of the widget
            view.observe(lambda _change: changed(), names="_view_count")
        self._counted = views
        shell: Any = get_ipython()
        if shell is not None:
            shell.events.register("post_run_cell", collect_unshown)  # has no effect if registered already

    def _count_views(self) -> None:
        if any(view._view_count for view in (self, *self._counted)):
            _SHOWN.add(self)
        elif self in _SHOWN:
            _SHOWN.discard(self)
            _forget_output(self)
            _collect_soon()

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        _SHOWN.add(self)
        return super()._repr_mimebundle_(**kwargs)

    def close(self) -> None:
        """Remove the widget from the page."""
        _SHOWN.discard(self)
        _OPEN.discard(self)
        super().close()

    def __del__(self) -> None:
        # Close only the comm: the garbage collector can run on any thread, with any locks held, and must not wait.
        # Finalizers end the workers, and all parts close their own comms.
        w.Widget.close(self)


def collect_unshown(*_result: Any) -> None:
    """Collect garbage if the number of unshown widgets has grown since the last collection.

    Called before a widget is created and after each cell.
    """
    global _survivors
    few = 8  # above this, collect only after growth by a quarter, so that creating many widgets takes linear time
    if _unshown() > (_survivors if _survivors < few else _survivors * 5 // 4):
        gc.collect()
        _survivors = _unshown()


def _unshown() -> int:
    return sum(widget not in _SHOWN for widget in _OPEN)


def _collect_soon() -> None:
    """Collect once this message is handled, because models are too large to wait for Python's next full collection."""
    try:
        asyncio.get_running_loop().call_soon(gc.collect)
    except RuntimeError:  # no kernel
        gc.collect()


def _forget_output(widget: w.Widget) -> None:
    """Remove IPython's references (``Out[n]``, ``_n`` and ``_``) to a cell output that is no longer displayed."""
    shell: Any = get_ipython()
    if shell is None:
        return
    outputs = shell.history_manager.output_hist
    for number in [number for number, value in outputs.items() if value is widget]:
        del outputs[number]
    for names in (shell.user_ns, shell.user_ns_hidden):
        for name in [name for name, value in list(names.items()) if value is widget and _OUTPUT.fullmatch(name)]:
            del names[name]
    for name in ("_", "__", "___"):
        if getattr(shell.displayhook, name) is widget:
            setattr(shell.displayhook, name, None)
    if getattr(shell.last_execution_result, "result", None) is widget:
        shell.last_execution_result.result = None
