"""The static output of a widget, for readers without a kernel: an image and a text below the widget in its cell.

By default, a stored notebook contains no widget state. When it is reopened, on GitHub, or on a page without network,
only the static output is visible. While the widget is on the page, a style in the text hides both, and it also hides
JupyterLab's "model not found" message once the widget is gone.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
import math
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from IPython.core.getipython import get_ipython
from ipywidgets import Widget
from PIL import Image

from saliency_widgets.markup import element, joined, whole
from saliency_widgets.params import check_switch
from saliency_widgets.session.worker import worker_error
from saliency_widgets.widgets.base import frame_stream

if TYPE_CHECKING:
    import pandas as pd

LARGEST = 150_000  # bytes of the image and the text in a notebook
_QUIET = 0.3  # seconds without a change before the output is updated
_LINE, _TEXT = 400, 4000  # maximum characters of a line and of the text
_ROWS = 30  # maximum rows of a table

# On pages of JupyterLab and nbconvert, a cell's output holds the widget, the image and the text, one after another.
_OUTPUT = ".jp-OutputArea-child"
_ALIVE = f"{_OUTPUT}:has(.widget-box)"  # every widget of this package is a box
_STYLE = (
    f"{_ALIVE}+{_OUTPUT}:has(+{_OUTPUT} .sw-static),{_ALIVE}+*+{_OUTPUT}:has(.sw-static),"
    # a widget whose model is missing is rendered as a text without an element
    f".jp-OutputArea:has(.sw-static)>{_OUTPUT}:has(>.jupyter-widgets):not(:has(>.jupyter-widgets>*)){{display:none}}"
)

_enabled = True


def static_output(on: bool) -> None:
    """Turn the static output of explorers, comparisons, lessons and sweeps on or off; it is on by default.

    The static output is an image and a text of at most 150 kB, which a notebook shows when it is reopened without its
    widgets. It is hidden while the widget is on the page.

    Args:
        on: Whether widgets produce static output from now on. Existing output stays until its cell runs again.

    Raises:
        TypeError: ``on`` is neither True nor False.
    """
    global _enabled
    _enabled = check_switch("on", on)


@dataclass(frozen=True)
class Snapshot:
    """A snapshot of a widget.

    Attributes:
        lines: The text; the first line is the title.
        draw: A function that draws the image at a fraction (at most 1) of its usual size; None without an image.
        table: The table below the text.
    """

    lines: Sequence[str]
    draw: Callable[[float], Image.Image] | None = None
    table: pd.DataFrame | None = None


class WithStaticOutput(Widget):
    """A widget with static output wherever IPython displays it, except as part of another widget."""

    _static: StaticOutput | None = None

    def _snapshot(self) -> Snapshot:
        """Return the current snapshot. Called on any thread."""
        raise NotImplementedError

    def _snapshot_sources(self) -> Mapping[Widget, Sequence[str]]:
        """Return the widgets and traits on which the static output depends."""
        raise NotImplementedError

    def _ipython_display_(self) -> None:
        if not _enabled or self.comm is None or _publisher() is None:
            raise NotImplementedError  # IPython then uses the mime bundle, as for any other widget
        widget: Any = self._repr_mimebundle_()
        _publish({**widget, "text/plain": ""})  # the static text replaces it and stays up to date
        if self._static is None:
            self._static = StaticOutput(self, self._snapshot_sources())
        self._static.send(update=False)

    def static_bundles(self) -> dict[str, dict[str, str]]:
        """Return the current snapshot as mime bundles, see :func:`bundles`. Never raises."""
        try:
            return bundles(self._snapshot())
        except Exception as caught:  # the widget itself still works
            error = worker_error(caught)
            return bundles(Snapshot([repr(self), f"The image could not be created: {type(error).__name__}: {error}"]))

    def _update_static(self) -> None:
        """Update the static output if it is outdated, as part of the running cell's messages."""
        if self._static is not None and self._static.outdated:
            self._static.send()


class StaticOutput:
    """The static output of one widget, in all cells that display it.

    Args:
        widget: The widget, referenced weakly.
        sources: The traits on which its snapshot depends, by widget.
    """

    def __init__(self, widget: WithStaticOutput, sources: Mapping[Widget, Sequence[str]]) -> None:
        self._widget = weakref.ref(widget)
        self._id = f"sw-static-{widget.model_id}"
        self._sending = threading.Lock()
        self._numbers = itertools.count(1)
        self._newest = self._stored = 0
        for source, names in sources.items():
            source.observe(self._on_change, list(names))

    @property
    def outdated(self) -> bool:
        """Return whether a source has changed since the main thread last sent the output.

        Messages that other threads send between two cells reach a live page, but not ``nbconvert --execute``.
        """
        return self._stored != self._newest

    def send(self, *, update: bool = True) -> None:
        """Publish the current snapshot.

        Args:
            update: Whether to update the existing outputs instead of adding new ones to the running cell.
        """
        with self._sending:
            frame_stream.WAITER.forget(self)
            number, widget = self._newest, self._widget()
            if widget is None or not _enabled:
                return
            for name, data in widget.static_bundles().items():
                _publish(data, transient={"display_id": f"{self._id}-{name}"}, update=update)
            if threading.current_thread() is threading.main_thread():
                self._stored = number

    def _on_change(self, change: Any) -> None:
        new = change["new"]
        if isinstance(new, dict) and (new.get("state") == "running" or new.get("final") is False):
            return
        self._newest = next(self._numbers)
        frame_stream.WAITER.expect(self, time.monotonic() + _QUIET)

    def overdue(self) -> None:
        """Send the output after a period without changes. Called on the waiter's thread, not the worker's."""
        self.send()


def bundles(snapshot: Snapshot) -> dict[str, dict[str, str]]:
    """Return the image and the text as two mime bundles of at most `LARGEST` bytes together.

    Two are needed because a page shows one format per bundle, and GitHub and others may drop an image inside HTML.
    """
    lines = whole("\n".join(_shortened(line, _LINE) for line in snapshot.lines if line))
    plain = _shortened(lines, _TEXT)
    title, *others = plain.split("\n")
    words = joined([element("b", title), *others], element("br"))
    if snapshot.table is not None:
        about = {"max_rows": _ROWS, "index": False}
        rows, table = (whole(made(**about)) for made in (snapshot.table.to_string, snapshot.table.to_html))
        if _size(plain, rows, words, table) < LARGEST // 2:
            plain, words = f"{plain}\n{rows}", words + table
    text = {"text/html": f'<div class="sw-static"><style>{_STYLE}</style>{words}</div>', "text/plain": plain}
    room = LARGEST - _size(*text.values()) - 100
    png = b"" if snapshot.draw is None else fitting_png(snapshot.draw, room * 3 // 4)
    image = {"image/png": base64.b64encode(png).decode()} if png else {}
    return {"image": {**image, "text/plain": ""}, "text": text}


def _size(*texts: str) -> int:
    """Return the number of bytes that texts take as JSON in a notebook."""
    # nbformat stores a text as a list of lines, each on its own line with the indent of a cell's output.
    stored = (json.dumps(text.splitlines(keepends=True), ensure_ascii=False, indent=8) for text in texts)
    return sum(len(one.encode()) for one in stored)


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def fitting_png(draw: Callable[[float], Image.Image], room: int) -> bytes:
    """Encode a drawing as PNG within a size: in 256 colors if needed, and scaled down if that isn't enough.

    Args:
        draw: A function that draws at a fraction of the usual size.
        room: The maximum size in bytes.

    Returns:
        The PNG file; empty if even a tiny image is too large.
    """
    share = 1.0
    while share > 0.02:
        image = draw(share)
        png = _png(image.quantize(256, Image.Quantize.FASTOCTREE))
        # Full color takes about three times as many bytes, so try it only if it is likely to fit.
        if 4 * len(png) <= room and len(exact := _png(image)) <= room:
            return exact
        if len(png) <= room:
            return png
        share *= min(0.9, math.sqrt(max(room, 0) / len(png)))
    return b""


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _publisher() -> Any:
    """Return IPython's display publisher; None outside a kernel."""
    shell: Any = get_ipython()
    return shell.display_pub if hasattr(shell, "kernel") else None


def _publish(data: Any, **about: Any) -> None:
    publisher = _publisher()
    if publisher is not None:
        publisher.publish(data=data, metadata={}, **about)
