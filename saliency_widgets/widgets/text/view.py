"""The text explorer: a text with each token colored by its attribution, live controls on the right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets as w

from saliency_widgets.inputs import TextKind
from saliency_widgets.session import Problem
from saliency_widgets.widgets.base.display import DISPLAY_NAMES, DisplaySettings
from saliency_widgets.widgets.base.heatmap import HeatmapView
from saliency_widgets.widgets.base.inbox import whole_number
from saliency_widgets.widgets.base.kind_view import Explored
from saliency_widgets.widgets.export.static_output import Snapshot
from saliency_widgets.widgets.map.panel import MapPanel, MapView
from saliency_widgets.widgets.trust import Context, TrustPanel


class TextPanel(MapPanel):
    """Controls for a text; if the model scores each token, a token can be chosen.

    Attributes:
        on_token: Called when another token is explained.
    """

    def __init__(self, problem: Problem, display: DisplaySettings, **arguments: Any) -> None:
        self.on_token: Callable[[], None] = lambda: None
        super().__init__(problem, display, **arguments)

    @property
    def token(self) -> int | None:
        """The index of the token whose score is explained; None if the score is that of the whole text."""
        positions, target = self._problem.kind.positions, self._target
        return positions.token(target[0]) if positions is not None and isinstance(target, tuple) else None

    def explain(self, token: int) -> None:
        """Explain a token.

        Raises:
            ValueError: Nothing precedes the token.
        """
        positions = self._problem.kind.positions
        if positions is not None:
            self.update({"target": positions.explain(token)})

    def _choose(self, target: Any) -> None:
        super()._choose(target)
        self.on_token()


class TextView(MapView):
    """The view of a text, which shows the tokens that the model's output depends on.

    Args:
        problem: The model and the text.
        setup: The initial settings.
    """

    noun = "a text"
    panel_class = TextPanel
    panel: TextPanel  # pyright: ignore[reportIncompatibleVariableOverride]

    def build(self, explorer: Explored) -> Sequence[w.Widget]:
        """Create the text, and the trust tests."""
        self._explorer, session, kind = explorer, explorer.session, self.problem.kind
        self.view = HeatmapView(
            None,
            self.display,
            on_stop=session.stop,
            controls=self.panel.controls,
            scene=self._scene(),
        )
        self.view.on_scene(self._on_click)
        self.panel.on_token = self._show_token
        shape = kind.shape_of(self.problem.tensor)
        context = Context(kind, self.view, self.problem.baselines, shape=shape)
        self.trust = TrustPanel(context, busy=lambda: session.busy, executor=self.setup.executor)
        self.view.layout.flex, self.view.layout.min_width, self.view.layout.max_width = "3 1 380px", "320px", "900px"
        self.panel.on_reduction(session.reduce)
        return self.view, self.panel.widget, self.trust.widget

    def _scene(self) -> dict[str, Any]:
        kind = self.problem.kind
        assert isinstance(kind, TextKind)
        positions = kind.positions
        scene = {"kind": "text", **kind.tokens.shown(0), "explained": self.panel.token}
        if positions is None:
            return scene
        output = list(positions.pieces[0]) if positions.generated else None
        return {**scene, "scores": positions.role, "output": output}

    def _show_token(self) -> None:
        token = self.panel.token
        if token != self.view.scene["explained"]:
            self.view.scene = {**self.view.scene, "explained": token}

    def _on_click(self, content: Mapping[str, Any]) -> None:
        """Explain a token that the user has clicked; the token after the text is the next one to come."""
        positions, token = self.problem.kind.positions, whole_number(content, "token")
        if positions is None or token is None or not 0 <= token <= positions.count:
            return
        try:
            self.panel.explain(token)
        except (TypeError, ValueError) as error:
            self._explorer.refuse(error)

    def snapshot(self, lines: Callable[..., list[str]]) -> Snapshot:
        """Return the texts around the map."""
        return Snapshot(lines(**{**self.look, **self.display.settings}))

    def snapshot_sources(self) -> Mapping[w.Widget, Sequence[str]]:
        """Return the display settings."""
        return {self.display: DISPLAY_NAMES}


VIEW = TextView
