"""The heatmap view: a map over its picture, painted in the browser; frames are sent no faster than painted."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets
from ipycanvas import Canvas
from ipywidgets import Widget, widget_serialization

from saliency_widgets.widgets.display import DisplaySettings

_STATIC = Path(__file__).parent / "static"
# A page that was closed never acknowledges: after this long the next frame is sent all the same.
_ACKNOWLEDGEMENT_TIMEOUT = 2.0


def _bundle(name: str) -> str:
    path = _STATIC / name
    if not path.is_file():
        raise ImportError(
            f"saliency_widgets: the front-end bundle {name} is missing from the package. In a checkout run "
            f"`make bundle`; an installed release that lacks it is broken: install it again."
        )
    # As text: anywidget would watch a file, and its watcher would keep every view alive.
    return path.read_text(encoding="utf-8")


def _overdue(view: weakref.ref[HeatmapView], frame: tuple[int, int]) -> None:
    """Nobody answered: go on as if the frame had been painted. The timer keeps no view alive."""
    found = view()
    if found is not None:
        found._painted(frame)


class HeatmapView(anywidget.AnyWidget):
    """Shows frames over a picture. Written by one worker at a time; its front end writes no trait.

    Args:
        picture: What the model sees, as PNG bytes; None where it is no picture: progress, readings, the check-up and
            errors are shown without one.
        display: The display settings; share one between views that should look alike. None without a picture.
        on_stop: Called when the person presses Stop.
        controls: What the person may move beside it; their way to the kernel is opened once the view is on a page.
        layers: Canvases drawn on top.
    """

    _esm = _bundle("heatmap.js")
    _css = _bundle("heatmap.css")

    picture = traitlets.Bytes().tag(sync=True)
    plain = traitlets.Bool(False).tag(sync=True)
    frame = traitlets.Dict().tag(sync=True)
    status = traitlets.Dict().tag(sync=True)
    findings = traitlets.List(traitlets.Dict()).tag(sync=True)
    checked = traitlets.Bool(False).tag(sync=True)
    display = traitlets.Instance(DisplaySettings, allow_none=True).tag(sync=True, **widget_serialization)
    controls = traitlets.List(traitlets.Instance(Widget)).tag(sync=True, **widget_serialization)
    layers = traitlets.List(traitlets.Instance(Widget)).tag(sync=True, **widget_serialization)
    marking = traitlets.Bool(False).tag(sync=True)
    region = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        picture: bytes | None,
        display: DisplaySettings | None,
        *,
        on_stop: Callable[[], None] | None = None,
        controls: Sequence[Widget] = (),
        layers: tuple[Canvas, ...] = (),
    ) -> None:
        self._pace = threading.RLock()
        self._in_flight: tuple[int, int] | None = None
        self._pending: tuple[Mapping[str, Any] | None, Mapping[str, Any]] | None = None
        self._timer: threading.Timer | None = None
        self._acknowledged = False
        self._on_stop = on_stop
        self._marked: Callable[[np.ndarray], None] = lambda _mask: None
        super().__init__(
            picture=picture or b"", plain=picture is None, display=display, layers=list(layers), controls=list(controls)
        )
        self.on_msg(self._on_message)

    def __repr__(self) -> str:
        """Never the bytes, nor the code."""
        return f"HeatmapView({self.status.get('title', '')!r}, {self.status.get('state', 'idle')})"

    @property
    def code(self) -> str:
        """What the button copies; it travels in the status, so that it never parts from its map."""
        return self.status.get("code", "")

    def offer(self, frame: Mapping[str, Any] | None, status: Mapping[str, Any]) -> None:
        """Show a frame and a status as soon as the last frame has been painted; the newest offer wins.

        Args:
            frame: The map, see ``js/src/heatmap.ts``; None leaves the picture as it is.
            status: Progress, readings, errors, and the code of the map; see :func:`messages.status`.
        """
        with self._pace:
            # Where no page has ever answered (a script, nbconvert), what is finished must not wait for one.
            finished = frame is not None and frame.get("final") and not self._acknowledged
            if self._in_flight is None or finished:
                self._pending = None
                self._publish(frame, status)
                return
            if frame is None and self._pending is not None:
                frame = self._pending[0]
            self._pending = (frame, status)

    def tell(self, findings: Sequence[Mapping[str, Any]]) -> None:
        """Show what the check-up found, on the page at once; it may be called from any thread, and again.

        Args:
            findings: The findings, the gravest first, see :func:`messages.findings_of`; empty where there are none.
        """
        with self._pace, self.hold_sync():
            self.findings = [dict(finding) for finding in findings]
            self.checked = True

    def prime(self, *controls: Widget) -> None:
        """Open the way to the kernel for more of what a person may move."""
        with self._pace:
            self.controls = [*(one for one in self.controls if one.comm is not None), *controls]

    def on_region(self, marked: Callable[[np.ndarray], None]) -> None:
        """Call back with truth values (H, W) whenever a region was marked on the picture; while ``marking``."""
        self._marked = marked

    def mark(self, mask: np.ndarray) -> None:
        """Mark a region from here, truth values (H, W); nobody is called back."""
        height, width = mask.shape
        with self._pace:
            self.region = {"width": width, "height": height, "bits": np.packbits(mask).tobytes()}

    def let_mark(self, on: bool) -> None:
        """Show the tools that mark a region, or put them away."""
        with self._pace:
            self.marking = on

    def flush(self) -> None:
        """Send what waits at once, painted or not: for a page that is stored, or nobody looks at."""
        with self._pace:
            pending, self._pending = self._pending, None
            if pending is not None and self.comm is not None:
                self._publish(*pending)

    def _publish(self, frame: Mapping[str, Any] | None, status: Mapping[str, Any]) -> None:
        with self.hold_sync():
            self.status = dict(status)
            if frame is not None:
                self.frame = dict(frame)
        if frame is not None:
            self._in_flight = (frame["generation"], frame["index"])
            if self._timer is not None:
                self._timer.cancel()
            self._timer = threading.Timer(_ACKNOWLEDGEMENT_TIMEOUT, _overdue, (weakref.ref(self), self._in_flight))
            self._timer.daemon = True
            self._timer.start()

    def _painted(self, frame: tuple[int, int]) -> None:
        with self._pace:
            if self._in_flight is None or frame < self._in_flight:
                return
            self._in_flight = None
            if self._timer is not None:
                self._timer.cancel()
            self.flush()

    def _on_message(self, _widget: Widget, content: Any, buffers: Any) -> None:
        kind = content.get("type") if isinstance(content, dict) else None
        if kind == "painted":
            self._acknowledged = True
            self._painted((int(content["generation"]), int(content["index"])))
        elif kind == "stop" and self._on_stop is not None:
            self._on_stop()
        elif kind == "region" and buffers:
            height, width = int(content["height"]), int(content["width"])
            bits = np.unpackbits(np.frombuffer(buffers[0], np.uint8))
            if len(bits) >= height * width:
                self._marked(bits[: height * width].reshape(height, width).astype(bool))

    def retire(self) -> None:
        """Send nothing more, and let go of whoever listened."""
        with self._pace:
            self._pending = None
            self._on_stop = None
            self._marked = lambda _mask: None
            if self._timer is not None:
                self._timer.cancel()
