"""The text explorer: a text with each token colored by its attribution, live controls on the right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import ipywidgets as w

from saliency_widgets.inputs import TextKind
from saliency_widgets.session import Problem
from saliency_widgets.widgets.base.display import DISPLAY_NAMES
from saliency_widgets.widgets.base.heatmap import HeatmapView
from saliency_widgets.widgets.base.kind_view import Explored, Setup
from saliency_widgets.widgets.export.static_output import Snapshot
from saliency_widgets.widgets.map.panel import MapView
from saliency_widgets.widgets.trust import Context, TrustPanel


class TextView(MapView):
    """The view of a text, which shows the tokens that the model's output depends on.

    Args:
        problem: The model and the text.
        setup: The initial settings.
    """

    noun = "a text"

    def __init__(self, problem: Problem, setup: Setup) -> None:
        if problem.tensor.shape[0] != 1:
            raise ValueError(
                f"inputs: the explorer shows one text, got a batch of {problem.tensor.shape[0]}. Pass one of them."
            )
        super().__init__(problem, setup)

    def build(self, explorer: Explored) -> Sequence[w.Widget]:
        """Create the text, and the trust tests."""
        session = explorer.session
        kind = self.problem.kind
        assert isinstance(kind, TextKind)
        self.view = HeatmapView(
            None,
            self.display,
            on_stop=session.stop,
            controls=self.panel.controls,
            scene={"kind": "text", **kind.tokens.shown(0)},
        )
        context = Context(kind, self.view, self.problem.baselines)
        self.trust = TrustPanel(context, busy=lambda: session.busy, executor=self.setup.executor)
        self.view.layout.flex, self.view.layout.min_width, self.view.layout.max_width = "3 1 380px", "320px", "900px"
        self.panel.on_reduction(session.reduce)
        return self.view, self.panel.widget, self.trust.widget

    def snapshot(self, lines: Callable[..., list[str]]) -> Snapshot:
        """Return the texts around the map."""
        return Snapshot(lines(**{**self.look, **self.display.settings}))

    def snapshot_sources(self) -> Mapping[w.Widget, Sequence[str]]:
        """Return the display settings."""
        return {self.display: DISPLAY_NAMES}


VIEW = TextView
