"""The heatmap view: a map over its image, painted in the browser, with all that is told of it."""

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
    """Shows frames over an image. Written by one worker at a time; its front end counts views alone.

    Args:
        image: What the model sees, as PNG bytes; None where it is no image: progress, readings, the check-up and
            errors are shown without one.
        display: The display settings; share one between views that should look alike. None without an image.
        on_stop: Called when the person presses Stop.
        controls: What the person may move beside it; their way to the kernel is opened once the view is on a page.
        layers: Canvases drawn on top.
    """

    kind = traitlets.Unicode("heatmap").tag(sync=True)
    plain = traitlets.Bool(False).tag(sync=True)
    findings = traitlets.List(traitlets.Dict()).tag(sync=True)
    checked = traitlets.Bool(False).tag(sync=True)
    display = traitlets.Instance(DisplaySettings, allow_none=True).tag(sync=True, **widget_serialization)
    controls = traitlets.List(traitlets.Instance(Widget)).tag(sync=True, **widget_serialization)
    layers = traitlets.List(traitlets.Instance(Widget)).tag(sync=True, **widget_serialization)
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
    ) -> None:
        self._on_stop = on_stop
        self._marked: Callable[[np.ndarray], None] = lambda _mask: None
        super().__init__(
            image=image or b"", plain=image is None, display=display, layers=list(layers), controls=list(controls)
        )

    @property
    def code(self) -> str:
        """What the button copies; it travels in the status, so that it never parts from its map."""
        return self.status.get("code", "")

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
        """Call back with truth values (H, W) whenever a region was marked on the image; while ``marking``."""
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

    def _on_message(self, _widget: Widget, content: Any, buffers: Any) -> None:
        super()._on_message(_widget, content, buffers)
        kind = content.get("type") if isinstance(content, dict) else None
        if kind == "stop" and self._on_stop is not None:
            self._on_stop()
        elif kind == "region" and buffers:
            height, width = whole_number(content, "height") or 0, whole_number(content, "width") or 0
            bits = np.unpackbits(np.frombuffer(buffers[0], np.uint8))
            if height > 0 and width > 0 and len(bits) >= height * width:
                self._marked(bits[: height * width].reshape(height, width).astype(bool))

    def retire(self) -> None:
        """Send nothing more, and let go of whoever listened."""
        super().retire()
        self._on_stop = None
        self._marked = lambda _mask: None
