"""The heatmap view: a map over its image, painted in the browser, with progress, readings and errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import traitlets
from ipycanvas import Canvas
from ipywidgets import Widget, widget_serialization

from saliency_widgets.widgets.base.display import DisplaySettings
from saliency_widgets.widgets.base.frame_stream import FrameStream
from saliency_widgets.widgets.base.inbox import whole_number
from saliency_widgets.widgets.bundle import BundledView


class HeatmapView(BundledView, FrameStream):
    """A view of frames over an image. One worker writes at a time; the front end writes only view counts.

    Args:
        image: The model's input as PNG bytes. None if it is not an image; the view then shows only progress, readings,
            the check-up and errors.
        display: The display settings, shared by views that should look alike; None without an image.
        on_stop: Called when the user presses Stop.
        controls: The controls next to the view. Their comms are opened once the view is on a page.
        layers: Canvases drawn on top of the map.
        scene: What is shown instead of an image: the name of a scene of the page, "kind", and what it draws.
    """

    kind = traitlets.Unicode("heatmap").tag(sync=True)
    plain = traitlets.Bool(False).tag(sync=True)
    findings = traitlets.List(traitlets.Dict()).tag(sync=True)
    checked = traitlets.Bool(False).tag(sync=True)
    display = traitlets.Instance(DisplaySettings, allow_none=True).tag(sync=True, **widget_serialization)
    controls = traitlets.List(traitlets.Instance(Widget)).tag(sync=True, **widget_serialization)
    layers = traitlets.List(traitlets.Instance(Widget)).tag(sync=True, **widget_serialization)
    scene = traitlets.Dict().tag(sync=True, echo_update=False)
    marking = traitlets.Bool(False).tag(sync=True)
    region = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        image: bytes | None,
        display: DisplaySettings | None,
        *,
        on_stop: Callable[[], None] | None = None,
        controls: Sequence[Widget] = (),
        layers: tuple[Canvas, ...] = (),
        scene: Mapping[str, Any] | None = None,
    ) -> None:
        self._on_stop = on_stop
        self._marked: Callable[[np.ndarray], None] = lambda _mask: None
        self._on_scene: Callable[[dict[str, Any]], None] = lambda _content: None
        super().__init__(
            image=image or b"", plain=image is None and scene is None, display=display, layers=list(layers),
            controls=list(controls), scene=dict(scene or {}),
        )  # fmt: skip

    @property
    def code(self) -> str:
        """The code for the copy button. It is part of the status, so it always belongs to the displayed map."""
        return self.status.get("code", "")

    def show_findings(self, findings: Sequence[Mapping[str, Any]]) -> None:
        """Show the check-up's findings immediately. Can be called repeatedly and from any thread.

        Args:
            findings: The findings, most severe first, see :func:`messages.findings_of`. Can be empty.
        """
        with self._pace, self.hold_sync():
            self.findings = [dict(finding) for finding in findings]
            self.checked = True

    def add_controls(self, *controls: Widget) -> None:
        """Add controls, whose comms are opened, and remove closed ones."""
        with self._pace:
            self.controls = [*(control for control in self.controls if control.comm is not None), *controls]

    def on_region(self, marked: Callable[[np.ndarray], None]) -> None:
        """Call ``marked`` with a boolean mask (H, W) whenever the user marks a region while ``marking`` is on."""
        self._marked = marked

    def on_scene(self, received: Callable[[dict[str, Any]], None]) -> None:
        """Call ``received`` with each message of the scene, a dict of type "scene"."""
        self._on_scene = received

    def mark(self, mask: np.ndarray) -> None:
        """Mark a region, a boolean mask (H, W), without calling the callback of :meth:`on_region`."""
        height, width = mask.shape
        with self._pace:
            self.region = {"width": width, "height": height, "bits": np.packbits(mask).tobytes()}

    def allow_marking(self, on: bool) -> None:
        """Show or hide the marking tools."""
        with self._pace:
            self.marking = on

    def _on_message(self, _widget: Widget, content: Any, buffers: Any) -> None:
        super()._on_message(_widget, content, buffers)
        kind = content.get("type") if isinstance(content, dict) else None
        if kind == "stop" and self._on_stop is not None:
            self._on_stop()
        elif kind == "scene":
            self._on_scene(content)
        elif kind == "region" and buffers:
            height, width = whole_number(content, "height") or 0, whole_number(content, "width") or 0
            bits = np.unpackbits(np.frombuffer(buffers[0], np.uint8))
            if height > 0 and width > 0 and len(bits) >= height * width:
                self._marked(bits[: height * width].reshape(height, width).astype(bool))

    def retire(self) -> None:
        """Drop the pending frame and the callbacks."""
        super().retire()
        self._on_stop = None
        self._marked, self._on_scene = lambda _mask: None, lambda _content: None
