"""What a widget leaves in its cell for readers without a kernel: an image and a text, right below the widget.

A stored notebook holds no state of widgets, unless JupyterLab is told to store it: on the next day, on GitHub, and in a
page without a network, this is what is seen. While the widget is on the page, a style that comes with the text hides
both, and so it does with JupyterLab's "model not found" once the widget is gone.
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
from saliency_widgets.session.jobs import worker_error
from saliency_widgets.widgets.base import frame_stream as paced

if TYPE_CHECKING:
    import pandas as pd

LARGEST = 150_000  # bytes that the image and the text have in a notebook
_QUIET = 0.3  # seconds without a change before they are made: nobody stores a notebook in the middle of a move
_LINE, _TEXT = 400, 4000  # characters of a line, and of all of them
_ROWS = 30  # of a table

# In JupyterLab's page, and nbconvert's: a cell's output holds the widget, the image and the text, one after another.
_OUTPUT = ".jp-OutputArea-child"
_ALIVE = f"{_OUTPUT}:has(.widget-box)"  # every widget of ours is a box
_STYLE = (
    f"{_ALIVE}+{_OUTPUT}:has(+{_OUTPUT} .sw-static),{_ALIVE}+*+{_OUTPUT}:has(.sw-static),"
    # a widget whose model isn't found is a text without an element
    f".jp-OutputArea:has(.sw-static)>{_OUTPUT}:has(>.jupyter-widgets):not(:has(>.jupyter-widgets>*)){{display:none}}"
)

_enabled = True


def static_output(on: bool) -> None:
    """Whether explorers, comparisons, lessons and sweeps leave an image and a text in their cell; they do unless off.

    A notebook that is opened again without its widgets shows them instead: 150 kB at most for each. While the widget
    is on the page, they are hidden.

    Args:
        on: From now on. What is in a notebook already stays as it is until its cell runs again.

    Raises:
        TypeError: ``on`` is neither True nor False.
    """
    global _enabled
    _enabled = check_switch("on", on)


@dataclass(frozen=True)
class Snapshot:
    """What a widget shows, for a reader.

    Attributes:
        lines: The text; the first line is the title.
        draw: Draws the image at a share of its usual size, 1 or less; None where there is none yet.
        table: What stands below the text.
    """

    lines: Sequence[str]
    draw: Callable[[float], Image.Image] | None = None
    table: pd.DataFrame | None = None


class WithStaticOutput(Widget):
    """A widget that leaves a static output wherever IPython displays it, as itself and not as a part of another one."""

    _static: StaticOutput | None = None

    def _snapshot(self) -> Snapshot:
        """What is shown now; it is called on any thread."""
        raise NotImplementedError

    def _snapshot_sources(self) -> Mapping[Widget, Sequence[str]]:
        """Widgets with the names of their traits that say when there is something new to show."""
        raise NotImplementedError

    def _ipython_display_(self) -> None:
        if not _enabled or self.comm is None or _publisher() is None:
            raise NotImplementedError  # IPython goes on with the mime bundle, as for any other widget
        widget: Any = self._repr_mimebundle_()
        _publish({**widget, "text/plain": ""})  # the static text says more, and stays up to date
        if self._static is None:
            self._static = StaticOutput(self)
        self._static.send(update=False)

    def _update_static(self) -> None:
        """Bring the static output up to date, with the messages of the cell that runs now."""
        if self._static is not None and self._static.outdated:
            self._static.send()


class StaticOutput:
    """The static output of one widget, in all cells that have displayed it.

    Args:
        widget: Held weakly: an output keeps nothing alive.
    """

    def __init__(self, widget: WithStaticOutput) -> None:
        self._widget = weakref.ref(widget)
        self._id = f"sw-static-{widget.model_id}"
        self._sending = threading.Lock()
        self._numbers = itertools.count(1)
        self._newest = self._stored = 0
        for source, names in widget._snapshot_sources().items():
            source.observe(self._on_change, list(names))

    @property
    def outdated(self) -> bool:
        """Whether something has changed since the main thread sent it.

        What other threads send between two cells reaches a page, but not ``nbconvert --execute``.
        """
        return self._stored != self._newest

    def send(self, *, update: bool = True) -> None:
        """Publish what is shown now.

        Args:
            update: In the outputs that are there already; otherwise in new ones, of the cell that runs.
        """
        with self._sending:
            paced._WAITER.forget(self)
            number, widget = self._newest, self._widget()
            if widget is None or not _enabled:
                return
            for name, data in _taken(widget).items():
                _publish(data, transient={"display_id": f"{self._id}-{name}"}, update=update)
            if threading.current_thread() is threading.main_thread():
                self._stored = number

    def _on_change(self, change: Any) -> None:
        new = change["new"]
        if isinstance(new, dict) and (new.get("state") == "running" or new.get("final") is False):
            return
        self._newest = next(self._numbers)
        paced._WAITER.expect(self, time.monotonic() + _QUIET)

    def _overdue(self) -> None:
        """Nothing has changed for a while. Called by the waiter's thread: the worker goes on meanwhile."""
        self.send()


def _taken(widget: WithStaticOutput) -> dict[str, dict[str, str]]:
    try:
        return bundles(widget._snapshot())
    except Exception as caught:  # the widget itself works, and says more
        error = worker_error(caught)  # which has words that can be shown
        return bundles(Snapshot([repr(widget), f"No image could be made: {type(error).__name__}: {error}"]))


def bundles(snapshot: Snapshot) -> dict[str, dict[str, str]]:
    """The image and the text as two mime bundles, of `LARGEST` bytes at most together.

    Two, because pages show one format of each: GitHub and others may drop an image that is inside of HTML.
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
    """Bytes that texts have in a notebook, as JSON."""
    # nbformat stores a list of the lines, each on a line of its own, with the indent of a cell's output.
    stored = (json.dumps(text.splitlines(keepends=True), ensure_ascii=False, indent=8) for text in texts)
    return sum(len(one.encode()) for one in stored)


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def fitting_png(draw: Callable[[float], Image.Image], room: int) -> bytes:
    """A drawing as PNG in so many bytes: in 256 colors where its own would take more, smaller where that isn't enough.

    Args:
        draw: Draws at a share of the usual size.
        room: In bytes.

    Returns:
        The file; empty where not even a tiny one has room.
    """
    share = 1.0
    while share > 0.02:
        image = draw(share)
        png = _png(image.quantize(256, Image.Quantize.FASTOCTREE))
        # In its own colors it takes some three times as much: tried only where that is likely to have room.
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
    """What displays to a page; None outside of a kernel."""
    shell: Any = get_ipython()
    return shell.display_pub if hasattr(shell, "kernel") else None


def _publish(data: Any, **about: Any) -> None:
    publisher = _publisher()
    if publisher is not None:
        publisher.publish(data=data, metadata={}, **about)
