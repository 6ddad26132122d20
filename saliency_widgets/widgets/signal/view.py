"""The signal explorer: a lane for each channel, colored by attribution over time, live controls on the right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets as w
import numpy as np
import torch
from PIL import Image

from saliency_widgets import render
from saliency_widgets.attribution import Reduction
from saliency_widgets.inputs import Prepared
from saliency_widgets.inputs.signal import SignalKind
from saliency_widgets.session import Event, Request
from saliency_widgets.widgets.base.display import DISPLAY_NAMES
from saliency_widgets.widgets.base.heatmap import HeatmapView
from saliency_widgets.widgets.base.kind_view import Explored
from saliency_widgets.widgets.export.save_panel import WithPages
from saliency_widgets.widgets.export.static_output import Snapshot
from saliency_widgets.widgets.map.panel import MapPanel, MapView
from saliency_widgets.widgets.trust import Context, TrustPanel


class SignalPanel(MapPanel):
    """The controls of a signal. Each channel has a lane, so channels are not reduced."""

    def _sections(self) -> Sequence[w.Widget]:
        self._channels.show(False)
        return super()._sections()


class SignalView(WithPages, MapView):
    """The view of a signal, which shows the samples that the model's output depends on.

    Args:
        problem: The model and the signal.
        setup: The initial settings.
    """

    noun = "a signal"
    part_noun = "samples"
    last_layer = "the last layer over time"
    panel_class = SignalPanel

    def build(self, explorer: Explored) -> Sequence[w.Widget]:
        """Create the lanes, the trust tests and the controls that save a page."""
        self._explorer, session = explorer, explorer.session
        self._prepared = self.problem.prepared
        self.view = HeatmapView(
            None, self.display, on_stop=session.stop, controls=self.panel.controls, scene=_scene_of(self._prepared)
        )
        context = Context(self.problem.kind, self.view, self.problem.baselines)
        self.trust = TrustPanel(context, busy=lambda: session.busy, executor=self.setup.executor)
        self.view.layout.flex, self.view.layout.min_width = "3 1 480px", "320px"
        self.panel.on_reduction(session.reduce)
        return self.view, self.add_saving(self.panel.widget), self.trust.widget

    @classmethod
    def still(
        cls,
        prepared: Prepared,
        request: Request,  # noqa: ARG003
        reduction: Reduction | None = None,  # noqa: ARG003
    ) -> dict[str, Any]:
        """Return the signal."""
        return _scene_of(prepared)

    def show(self, event: Event) -> None:
        """Update the signal if it was changed in place."""
        fresh = event.attribution is not None and event.state in ("running", "done")
        if fresh and self.problem.prepared is not self._prepared:
            self._prepared = self.problem.prepared
            self.view.scene = _scene_of(self._prepared)

    def snapshot(self, lines: Callable[..., list[str]]) -> Snapshot:
        """Return the lanes."""
        shown, display = self._explorer.session.shown, self.display
        if shown is None or shown.frame is None:
            return Snapshot(lines())
        quantized, prepared = shown.frame, self._prepared

        def draw(share: float) -> Image.Image:
            lanes, names = _lanes_of(prepared)
            return render.lanes_image(lanes, quantized, names, width=max(64, round(600 * share)), **display.settings)

        return Snapshot(lines(**{**self.look, **display.settings}), draw)

    def snapshot_sources(self) -> Mapping[w.Widget, Sequence[str]]:
        """Return the display settings."""
        return {self.display: DISPLAY_NAMES}


def _scene_of(prepared: Prepared) -> dict[str, Any]:
    """Return the signal for the page, as float32, channel by channel."""
    kind = prepared.kind
    assert isinstance(kind, SignalKind)
    lanes, names = _lanes_of(prepared)
    channels, samples = lanes.shape
    return {
        "kind": "signal",
        "values": np.ascontiguousarray(lanes, "<f4").tobytes(),
        "channels": channels,
        "samples": samples,
        "names": list(names),
        "rate": kind.sampling_rate,
    }


def _lanes_of(prepared: Prepared) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the signal as float32 (C, T), and the names of its channels."""
    kind, largest = prepared.kind, torch.finfo(torch.float32).max
    assert isinstance(kind, SignalKind)
    lanes = kind.features.lanes(prepared.tensor)[0].detach().cpu().clamp(-largest, largest).float()
    return lanes.numpy(), kind.channel_names


VIEW = SignalView
