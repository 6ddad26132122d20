"""The explorer of an image and a text that are explained together: the text is below the image, with one panel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import ipywidgets as w
from PIL import Image

from saliency_widgets import render
from saliency_widgets.attribution.baselines import BASELINE
from saliency_widgets.attribution.registry import Method
from saliency_widgets.inputs import TextKind
from saliency_widgets.inputs.joint import JointKind
from saliency_widgets.inputs.text.tokens import IDS
from saliency_widgets.params import Param
from saliency_widgets.session import Event, Problem
from saliency_widgets.session.frames import frame_of
from saliency_widgets.widgets.base import messages
from saliency_widgets.widgets.base.controls import AUTO, Control
from saliency_widgets.widgets.base.display import DISPLAY_NAMES
from saliency_widgets.widgets.base.heatmap import HeatmapView
from saliency_widgets.widgets.base.kind_view import Explored, Setup
from saliency_widgets.widgets.base.text import RichText
from saliency_widgets.widgets.export.static_output import Snapshot
from saliency_widgets.widgets.image.png import png_bytes
from saliency_widgets.widgets.map.panel import MapPanel, MapView
from saliency_widgets.widgets.text.view import scene_of
from saliency_widgets.widgets.trust import Context, TrustPanel

_SIDE = 480  # pixels on the longer side of the image in a snapshot


class JointPanel(MapPanel):
    """Controls for an image and a text, with the methods that explain both."""

    def _fits(self, entry: Method) -> bool:
        return not {"layer", "image"} & {*entry.needs}

    def _why_not(self, entry: Method) -> str:  # noqa: ARG002
        return "explains an image, not an image and a text together: pass its name alone as explain="

    def _control(self, param: Param, value: Any) -> Control:
        if param is not BASELINE:
            return super()._control(param, value)
        kind = self._problem.kind
        assert isinstance(kind, JointKind)
        each = ", ".join(next(iter(part.kind.baselines)) for part in kind.parts)
        names = {name: name for name in self._problem.baselines}
        return Control(param, value, options={f"auto · {each}": AUTO, **names})


class JointView(MapView):
    """The view of an image and a text that are explained together.

    Args:
        problem: The model, and its inputs.
        setup: The initial settings.

    Attributes:
        view: The view of the text, with progress, readings and errors.
        picture: The view of the image, above it.
    """

    panel_class = JointPanel

    def __init__(self, problem: Problem, setup: Setup) -> None:
        if problem.prepared.images is None:
            raise ValueError(
                f"explain: the explorer shows an image with a text, but there is no image among {[*problem.parts]}. "
                f"Pass one of them, or use sw.attribute."
            )
        super().__init__(problem, setup)
        self._prepared = problem.prepared

    def build(self, explorer: Explored) -> Sequence[w.Widget]:
        """Create the image with its map, and the text with its own below it."""
        self._explorer, session = explorer, explorer.session
        self.picture = HeatmapView(self._png(), self.display).add_class("sw-above")
        scene = self._scene(explorer.request.target)
        self.view = HeatmapView(
            None, self.display, on_stop=session.stop, controls=self.panel.controls, scene=scene
        ).add_class("sw-below")
        # The tests are about one input: they stay without a panel, and a line says what to do.
        context = Context(self.problem.kind, self.view, self.problem.baselines)
        self.trust = TrustPanel(context, busy=lambda: session.busy, executor=self.setup.executor)
        self.panel.on_reduction(session.reduce)
        both = w.VBox([self.picture, self.view])
        both.layout.flex, both.layout.min_width, both.layout.max_width = "3 1 260px", "240px", "640px"
        return both, self.panel.widget, RichText(_SINGLE.format(self._names), layout={"flex": "1 1 100%"})

    @property
    def _names(self) -> list[str]:
        return [*self.problem.parts]

    @property
    def _kind(self) -> JointKind:
        kind = self.problem.kind
        assert isinstance(kind, JointKind)
        return kind

    def _png(self) -> bytes:
        images = self._prepared.images
        assert images is not None
        return png_bytes(images[0])

    def _scene(self, target: Any) -> dict[str, Any]:
        """Return the tokens, and which of them is explained by a target."""
        kind = next(part.kind for part in self._kind.parts if part.name == IDS)
        assert isinstance(kind, TextKind)
        return {**scene_of(kind, kind.token_of(target)), "still": True}

    def show(self, event: Event) -> None:
        """Show the map of the image, and inputs that were changed in place."""
        attribution = event.attribution
        if attribution is not None and event.request is not None and event.state in ("running", "done"):
            scene = self._scene(event.request.target)
            if scene != self.view.scene:
                self.view.scene = scene
            if self.problem.prepared is not self._prepared:
                self._prepared = self.problem.prepared
                self.picture.image = self._png()
        title = "" if event.request is None else self.panel.title_of(event.request)
        status = messages.status(title=title, generation=event.generation, state=event.state)
        self.picture.offer(messages.frame_of(event), {**status, "dim": event.error is not None})

    def frame_of(self, event: Event) -> dict[str, Any] | None:
        """Return the map of the text, reduced as texts are; None without one, as for the values of a layer."""
        attribution, reduction = event.attribution, event.reduction
        if attribution is None or reduction is None or not attribution.parts:
            return None
        part = attribution.part(IDS)
        quantized = frame_of(part, part.features.reduction(reduction.sign))
        final = event.state != "running"
        return messages.raw_frame(quantized, generation=event.generation, index=event.index, final=final)

    @property
    def look(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """None, because the code computes both maps: see :meth:`comments`."""

    def comments(self) -> list[str]:
        """Return how to read the two maps from the attribution."""
        image, reduction = self._kind.image, self.panel.reduction
        assert image is not None
        shown = f"sign={reduction.sign!r}, channels={reduction.channels!r}"
        return [
            f"# The image: attribution.part({image.name!r}).saliency_map({shown})",
            f"# The text: attribution.part({IDS!r}).by_token(sign={reduction.sign!r})",
        ]

    def snapshot(self, lines: Callable[..., list[str]]) -> Snapshot:
        """Return the image with its map, and the tokens with their attributions."""
        shown = self._explorer.session.shown
        if shown is None or shown.frame is None or shown.attribution is None:
            return Snapshot(lines())
        quantized, images, reduction = shown.frame, self._prepared.images, self.panel.reduction
        assert images is not None
        words = ""
        if shown.attribution.parts:
            table = shown.attribution.part(IDS).by_token(sign=reduction.sign)
            words = ", ".join(f"{token} {messages.number(value)}" for token, value in table.itertuples(index=False))

        def draw(share: float) -> Image.Image:
            size = max(_SIDE * share / max(images[0].shape[:2]), 1 / min(images[0].shape[:2]))
            return render.overlay_image(images[0], quantized, **self.display.settings, scale=size, layers=[])

        look = {"sign": reduction.sign, "channels": reduction.channels}
        return Snapshot([*lines(**{**look, **self.display.settings}), words], draw)

    def snapshot_sources(self) -> Mapping[w.Widget, Sequence[str]]:
        """Return the display settings."""
        return {self.display: DISPLAY_NAMES}

    @property
    def stored(self) -> NoReturn:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Not available: a state holds one input."""
        self._refuse("save_state", "")

    def close(self) -> None:
        """Drop the pending frame of the image."""
        self.picture.retire()

    def _refuse(self, name: str, why: str) -> NoReturn:
        raise NotImplementedError(
            f"{name}: it covers one input, but this explorer shows {self._names} together. Pass explain= one of them."
        )


_SINGLE = "Trust tests, pins, pages and states cover one input: for these, pass explain= one of {}."
VIEW = JointView
