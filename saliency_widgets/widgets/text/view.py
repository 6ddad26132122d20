"""The text explorer: a text with each token colored by its attribution, live controls on the right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets as w

from saliency_widgets.attribution import Reduction
from saliency_widgets.attribution.reduction import CHANNEL, SIGN
from saliency_widgets.attribution.registry import Method
from saliency_widgets.inputs import TextKind
from saliency_widgets.session import Problem
from saliency_widgets.widgets.base.controls import Control
from saliency_widgets.widgets.base.display import DISPLAY_NAMES, DisplaySettings
from saliency_widgets.widgets.base.heatmap import HeatmapView
from saliency_widgets.widgets.base.kind_view import Explored, KindView, Setup
from saliency_widgets.widgets.base.parts import close_whole
from saliency_widgets.widgets.export.static_output import Snapshot
from saliency_widgets.widgets.image.panel import REDUCTION_NAMES, ImagePanel
from saliency_widgets.widgets.trust import Context, TrustPanel


class TextPanel(ImagePanel):
    """Controls for a text; by default, a token's value is the signed sum over its embedding."""

    def _make_shared(self, first: Method) -> None:
        super()._make_shared(first)
        self._sign = Control(SIGN, "signed")
        self._channels = Control(CHANNEL, "sum")

    def _on_method(self) -> None:
        super(ImagePanel, self)._on_method()  # the sign is that of the text, not of the method's paper


class TextView(KindView):
    """The view of a text, which shows the tokens that the model's output depends on.

    Args:
        problem: The model and the text.
        setup: The initial settings; its ``params`` include display settings.

    Attributes:
        panel: The controls.
        display: The display settings.
    """

    noun = "a text"

    def __init__(self, problem: Problem, setup: Setup) -> None:
        super().__init__(problem, setup)
        if problem.tensor.shape[0] != 1:
            raise ValueError(
                f"inputs: the explorer shows one text, got a batch of {problem.tensor.shape[0]}. Pass one of them."
            )
        params = dict(setup.params)
        shown = {name: params.pop(name) for name in list(params) if name in (*DISPLAY_NAMES, *REDUCTION_NAMES)}
        reductions = {name: shown.pop(name) for name in REDUCTION_NAMES if name in shown}
        self.display = DisplaySettings(**shown)
        try:
            self.panel = TextPanel(problem, self.display, params=params, **setup.panel)
            if reductions:
                self.panel.update(reductions)
        except BaseException:
            close_whole(self.display)
            raise

    def build(self, explorer: Explored) -> Sequence[w.Widget]:
        """Create the text, and the trust tests."""
        session = explorer.session
        kind = self.problem.kind
        assert isinstance(kind, TextKind)
        self.view = HeatmapView(
            None, self.display, on_stop=session.stop, controls=self.panel.controls, tokens=kind.tokens.shown(0)
        )
        context = Context(kind, self.view, self.problem.baselines)
        self.trust = TrustPanel(context, busy=lambda: session.busy, executor=self.setup.executor)
        self.view.layout.flex, self.view.layout.min_width, self.view.layout.max_width = "3 1 380px", "320px", "900px"
        self.panel.on_reduction(session.reduce)
        return self.view, self.panel.widget, self.trust.widget

    @property
    def reduction(self) -> Reduction:
        """The selected reduction of the values to a map."""
        return self.panel.reduction

    @property
    def settings(self) -> dict[str, Any]:
        """The reduction and the display settings."""
        reduction = self.panel.reduction
        return {"sign": reduction.sign, "channels": reduction.channels, **self.display.settings}

    @property
    def look(self) -> dict[str, Any]:
        """The reduction and the clip range."""
        reduction = self.panel.reduction
        return {"sign": reduction.sign, "channels": reduction.channels, "clip": self.display.settings["clip"]}

    @property
    def sign(self) -> str | None:
        """The selected sign."""
        return self.panel.reduction.sign

    def snapshot(self, lines: Callable[..., list[str]]) -> Snapshot:
        """Return the texts around the map."""
        return Snapshot(lines(**{**self.look, **self.display.settings}))

    def snapshot_sources(self) -> Mapping[w.Widget, Sequence[str]]:
        """Return the display settings."""
        return {self.display: DISPLAY_NAMES}
