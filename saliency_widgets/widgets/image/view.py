"""The image explorer: an image with its saliency map on the left, live controls on the right."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets as w
import numpy as np
from ipycanvas import Canvas
from PIL import Image

from saliency_widgets import render
from saliency_widgets.attribution import Reduction
from saliency_widgets.session import Event, Problem, Request
from saliency_widgets.widgets.base.display import DISPLAY_NAMES
from saliency_widgets.widgets.base.heatmap import HeatmapView
from saliency_widgets.widgets.base.kind_view import Explored, Setup
from saliency_widgets.widgets.compare.pins import Pins
from saliency_widgets.widgets.export.save_panel import WithPages
from saliency_widgets.widgets.export.static_output import Snapshot
from saliency_widgets.widgets.image.annotations import annotation_canvas
from saliency_widgets.widgets.image.png import png_bytes
from saliency_widgets.widgets.map.panel import MapView
from saliency_widgets.widgets.trust import Context, TrustPanel

_SIDE = 480  # pixels on the longer side of a map in a snapshot


class ImageView(WithPages, MapView):
    """The view of an image, which shows the pixels that the model's output depends on.

    Args:
        problem: The model and the image.
        setup: The initial settings.

    Attributes:
        saving: The controls that save a page.
        pins: The pinned maps, next to each other.
        drawing: An ipycanvas ``Canvas`` over the map.
    """

    noun = "an image"
    outdated = (
        "The model or the input has changed: the map is up to date, the predictions are not. "
        "explorer.update() refreshes them."
    )

    def __init__(self, problem: Problem, setup: Setup) -> None:
        if problem.prepared.images is None:
            raise ValueError(
                f"inputs: the explorer shows images, but the model's input has shape "
                f"{tuple(problem.tensor.shape)}. Use sw.attribute for other inputs."
            )
        super().__init__(problem, setup)
        self._prepared = problem.prepared

    def build(self, explorer: Explored) -> Sequence[w.Widget]:
        """Create the map, the pinned maps, the trust tests and the controls that save a page."""
        self._explorer = explorer
        session, executor = explorer.session, self.setup.executor
        height, width = self.image.shape[:2]
        self.drawing: Canvas = annotation_canvas(width, height)
        self.view = HeatmapView(
            png_bytes(self.image),
            self.display,
            on_stop=session.stop,
            controls=self.panel.controls,
            layers=(self.drawing,),
        )
        # The trust panel's worker must not refer to the explorer.
        context = Context(self.problem.kind, self.view, self.problem.baselines)
        self.trust = TrustPanel(context, busy=lambda: session.busy, executor=executor)
        self.view.layout.flex, self.view.layout.min_width = "3 1 260px", "240px"
        # The width of the image at its maximum height (60vh, see shell/view.css), to avoid an empty margin.
        self.view.layout.max_width = f"max(320px, min(640px, {60 * width / height:.1f}vh))"
        self.panel.on_reduction(session.reduce)
        self.display.observe(lambda _change: self._on_clip(), names="clip")
        self.pins = Pins(session, self.display, executor=executor, pinned=self.pin, wanted=self._show_again)
        return self.view, self.add_saving(self.panel.widget), self.pins.widget, self.trust.widget

    @classmethod
    def arguments(cls, state: Mapping[str, Any], inputs: Any, further: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Return the model's input tensor, and the saved pixels of a named baseline if the transform is missing."""
        if inputs is not None or not state["attribution"].transformed:
            return super().arguments(state, inputs, further)
        warnings.warn(
            "load: the image was transformed and only the result is stored, so the black and white baselines are not "
            "available for other settings. Pass the original inputs= and transform=.",
            UserWarning,
            stacklevel=4,
        )
        pixels, baseline = state["pixels"] or {}, state["controls"].get("baseline")
        named = isinstance(baseline, str) and baseline in pixels
        return state["inputs"], {"baseline": pixels[baseline]} if named else {}

    @property
    def image(self) -> np.ndarray:
        """The displayed image; an input changed in place is displayed when the first result for it arrives."""
        assert self._prepared.images is not None
        return self._prepared.images[0]

    @property
    def annotations(self) -> Canvas:
        """The canvas over the map; reading this enables saving of the drawings."""
        self.drawing.sync_image_data = True  # the page sends back drawings from now on
        return self.drawing

    @property
    def drawn(self) -> dict[w.Widget, bytes]:
        """The annotations as last sent by the page, as PNG bytes by canvas."""
        data = self.drawing.image_data
        return {self.drawing: bytes(data)} if data else {}

    def show(self, event: Event) -> None:
        """Update the image if the input was changed in place."""
        fresh = event.attribution is not None and event.state in ("running", "done")
        if fresh and self.problem.prepared is not self._prepared:
            self._prepared = self.problem.prepared
            self.view.image = png_bytes(self.image)

    def wait(self, timeout: float | None) -> None:
        """Wait for the pinned maps."""
        self.pins.wait(timeout)

    def pin(self) -> None:
        """Pin the displayed map."""
        if not self._explorer.is_open:
            raise RuntimeError("pin: the explorer is closed. Create a new one.")
        self.pins.pin(self._explorer.request, self.panel.reduction)

    def _show_again(self, request: Request, reduction: Reduction) -> None:
        """Move the controls to the settings of a clicked pinned map."""
        settings = {name: value for name, value in request.settings.items() if name != "contrast"}
        self._explorer.update(**settings, sign=reduction.sign, channels=reduction.channels)

    def save_png(self, path: Any, scale: float | None, caption: str) -> None:
        """Write the displayed overlay."""
        shown = self._explorer.session.shown
        if shown is None or shown.frame is None or shown.attribution is None or shown.request is None:
            raise RuntimeError("There is no map to save yet: call explorer.wait() first.")
        attribution = shown.attribution
        progress = f" ({attribution.done} of {attribution.total} {attribution.unit})"
        title = self.panel.title_of(shown.request).replace(" · ", ", ") + ("" if attribution.complete else progress)
        layers = [Image.open(io.BytesIO(data)) for data in self.drawn.values()]
        extras = {"scale": scale, "layers": layers, "title": title, "caption": caption}
        render.overlay_png(path, self.image, shown.frame, **self.display.settings, **extras)

    def _on_clip(self) -> None:
        """Update the code to copy after a change of the clip range in the browser."""
        last = self._explorer.session.last
        if last is not None and last.state == "done":
            self.view.offer(None, self._explorer.status_of(last, last, ""))

    def snapshot(self, lines: Callable[..., list[str]]) -> Snapshot:
        """Return the overlay with its color bar and annotations."""
        shown = self._explorer.session.shown
        if shown is None or shown.frame is None:
            return Snapshot(lines())
        quantized, image, display = shown.frame, self.image, self.display
        layers = [Image.open(io.BytesIO(data)) for data in self.drawn.values()]
        scale = _SIDE / max(image.shape[:2])
        scale = scale if scale < 1 else round(scale)

        def draw(share: float) -> Image.Image:
            size = max(scale * share, 1 / min(image.shape[:2]))
            return render.overlay_image(image, quantized, **display.settings, scale=size, layers=layers)

        return Snapshot(lines(**{**self.look, **display.settings}), draw)

    def snapshot_sources(self) -> Mapping[w.Widget, Sequence[str]]:
        """Return the display settings and the annotations."""
        return {self.display: DISPLAY_NAMES, self.drawing: ("image_data",)}

    def close(self) -> None:
        """End the workers of the pinned maps and of the pages."""
        super().close()
        self.pins.close()
        self.drawing.sync_image_data = False  # the page must not send to a closed canvas


VIEW = ImageView
