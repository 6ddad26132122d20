"""The text explorer: a text with each token colored by its attribution, live controls on the right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets as w

from saliency_widgets.attribution import Reduction
from saliency_widgets.attribution.features import runs_of
from saliency_widgets.attribution.registry import Method
from saliency_widgets.inputs import Prepared, TextKind
from saliency_widgets.inputs.text.kind import TokenReduction
from saliency_widgets.params import Param, brief
from saliency_widgets.session import Event, Problem, Request
from saliency_widgets.widgets.base.controls import Control
from saliency_widgets.widgets.base.display import DISPLAY_NAMES, DisplaySettings
from saliency_widgets.widgets.base.heatmap import HeatmapView
from saliency_widgets.widgets.base.inbox import whole_number
from saliency_widgets.widgets.base.kind_view import Explored
from saliency_widgets.widgets.export.save_panel import WithPages
from saliency_widgets.widgets.export.static_output import Snapshot
from saliency_widgets.widgets.map.panel import MapPanel, MapView
from saliency_widgets.widgets.trust import Context, TrustPanel

_PER = Param(
    "per",
    default="token",
    kind="choice",
    choices=("token", "word"),
    help="Whether each token has a value of its own, or that of its word: the sum over the tokens of the word.",
)
_MASK = "mask"  # the name of the token in the vocabulary


class TextPanel(MapPanel):
    """Controls for a text; if the model scores each token, a token can be chosen.

    Attributes:
        on_token: Called when another token is explained.
    """

    reducing = (*MapPanel.reducing, _PER)
    accepted = (*MapPanel.accepted, _PER.name)

    def __init__(self, problem: Problem, display: DisplaySettings, **arguments: Any) -> None:
        self.on_token: Callable[[], None] = lambda: None
        super().__init__(problem, display, **arguments)

    def _fits(self, entry: Method) -> bool:
        return super()._fits(entry) and ("layer" not in entry.needs or bool(self._problem.layers))

    def _make_shared(self, first: Method) -> None:
        super()._make_shared(first)
        self._per = Control(_PER)
        self.show_words()

    def show_words(self) -> None:
        """Offer words if a word has several tokens."""
        groups = self._problem.kind.features.groups
        self._per.show(groups is not None and runs_of(groups[0])[-1] + 1 < len(groups[0]))

    @property
    def reduction(self) -> TokenReduction:
        """The selected reduction of embeddings to tokens or words."""
        return TokenReduction(self._sign.value, self._channels.value, self._per.value == "word")

    def reduction_of(self, changes: Mapping[str, Any]) -> TokenReduction:
        """Return the reduction for changed settings, to the same tokens or words."""
        changed = super().reduction_of(changes)
        return TokenReduction(changed.sign, changed.channels, self.reduction.words)

    @property
    def _reducing(self) -> dict[str, Control]:
        return {**super()._reducing, _PER.name: self._per}

    @property
    def token(self) -> int | None:
        """The index of the token whose score is explained; None if the score is that of the whole text."""
        kind = self._problem.kind
        assert isinstance(kind, TextKind)
        return kind.token_of(self._target)

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


class TextView(WithPages, MapView):
    """The view of a text, which shows the tokens that the model's output depends on, and can edit it.

    Args:
        problem: The model and the text.
        setup: The initial settings.
    """

    noun = "a text"
    part_noun = "tokens"
    last_layer = "the last layer over tokens"
    panel_class = TextPanel
    panel: TextPanel  # pyright: ignore[reportIncompatibleVariableOverride]

    def build(self, explorer: Explored) -> Sequence[w.Widget]:
        """Create the text, and the trust tests."""
        self._explorer, session = explorer, explorer.session
        self._prepared, self._first = self.problem.prepared, self._kind.tokens.text
        self.view = HeatmapView(
            None,
            self.display,
            on_stop=session.stop,
            controls=self.panel.controls,
            scene=self._scene(),
        )
        self.view.on_scene(self._on_scene)
        self.panel.on_token = self._refresh
        context = Context(self.problem.kind, self.view, self.problem.baselines, shape=(-1,))
        self.trust = TrustPanel(context, busy=lambda: session.busy, executor=self.setup.executor)
        self.view.layout.flex, self.view.layout.min_width, self.view.layout.max_width = "3 1 380px", "320px", "900px"
        self.panel.on_reduction(session.reduce)
        return self.view, self.add_saving(self.panel.widget), self.trust.widget

    @property
    def _kind(self) -> TextKind:
        kind = self.problem.kind
        assert isinstance(kind, TextKind)
        return kind

    def _scene(self) -> dict[str, Any]:
        """Return the tokens, and what can be edited."""
        tokens = self._kind.tokens
        scene = scene_of(self._kind, self.panel.token)
        if tokens.text is not None:
            masks = bool(tokens.spans) and _MASK in tokens.vocabulary
            scene |= {"text": tokens.text, "edited": tokens.text != self._first, "masks": masks}
            scene["editable"] = [start < stop for start, stop in tokens.spans]
        return scene

    @classmethod
    def still(
        cls,
        prepared: Prepared,
        request: Request,
        reduction: Reduction | None = None,  # noqa: ARG003
    ) -> dict[str, Any]:
        """Return the tokens, and which of them is explained by a map."""
        kind = prepared.kind
        assert isinstance(kind, TextKind)
        return {**scene_of(kind, kind.token_of(request.target)), "still": True}

    def show(self, event: Event) -> None:
        """Show another text, of which the event is the first map."""
        if event.attribution is not None and event.state in ("running", "done"):
            self._refresh()

    def _refresh(self) -> None:
        """Show the tokens of the problem's text, and which of them is explained."""
        prepared = self.problem.prepared
        if prepared is self._prepared and self.panel.token == self.view.scene["explained"]:
            return
        if prepared is not self._prepared:
            self._prepared = prepared
            self.trust.unmark()
            self.panel.show_words()
        self.view.scene = self._scene()

    def edit(self, values: Mapping[str, Any]) -> None:
        """Explain another text."""
        wrong = next((name for name in values if name != "text"), None)
        text = values.get("text")
        if wrong is not None or not isinstance(text, str):
            raise TypeError(f"edit: expected text=, a text, got {brief(dict(values))}.")
        prepared, before = self.problem.read(text), self._explorer.arguments["inputs"]
        self._move(text, prepared)
        try:
            self.panel.update({"target": self._target_in(prepared)})
        except BaseException:
            self._move(before, None)
            raise

    @property
    def stored(self) -> Mapping[str, Any]:
        """The text, or its ids.

        Raises:
            TypeError: More than ids was passed.
        """
        tokens = self._kind.tokens
        if tokens.text is None and isinstance(self._explorer.arguments["inputs"], Mapping):
            raise TypeError("inputs: a mapping of ids and more can't be stored. Pass a text, or the ids alone.")
        return {"text": tokens.ids if tokens.text is None else tokens.text}

    def restore(self, state: Mapping[str, Any]) -> Callable[[], object]:
        """Show the text of a state, and return a function that undoes it."""
        saved, before = state["text"], self._kind.tokens.text
        if not isinstance(saved, str) or before is None or saved == before:
            return super().restore(state)
        self.edit({"text": saved})
        return lambda: self.edit({"text": before})

    @classmethod
    def arguments(cls, state: Mapping[str, Any], inputs: Any, further: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Return the text; the caller must pass the tokenizer."""
        if "tokenizer" not in further:
            raise ValueError("tokenizer: a state doesn't store it. Pass the tokenizer= of the explorer that was saved.")
        return state["text"] if inputs is None else inputs, {}

    def comments(self) -> list[str]:
        """Return the assignment of an edited text."""
        text = self._kind.tokens.text
        words = ["# The explorer shows words: attribution.by_token(words=True)"] if self.panel.reduction.words else []
        return [*words, *([] if text == self._first else [f"inputs = {text!r}"])]

    def _move(self, text: Any, prepared: Prepared | None) -> None:
        self.problem.move(text, prepared)
        self._explorer.arguments["inputs"] = text

    def _target_in(self, prepared: Prepared) -> Any:
        """Return what to explain of an edited text: the same position and class, if there are as many tokens."""
        target, positions, before = self.panel.selection["target"], prepared.kind.positions, self._kind.positions
        if positions is None or before is None or not isinstance(target, tuple):
            return target
        same = positions.count == before.count and positions.default == before.default
        return target if same else None

    def _on_scene(self, content: Mapping[str, Any]) -> None:
        """Explain a token that the user has clicked, or edit the text."""
        try:
            if "edit" in content:
                self._on_edit(content)
            else:
                self._on_click(content)
        except (TypeError, ValueError) as error:
            self._explorer.refuse(error)

    def _on_click(self, content: Mapping[str, Any]) -> None:
        positions, token = self.problem.kind.positions, whole_number(content, "token")
        if positions is not None and token is not None and 0 <= token <= positions.count:  # the last is the next one
            self.panel.explain(token)

    def _on_edit(self, content: Mapping[str, Any]) -> None:
        tokens, text = self._kind.tokens, content.get("text", "")
        chosen = [one for one in content.get("tokens", []) if isinstance(one, int)]
        edits: dict[Any, Callable[[], Any]] = {
            "text": lambda: text,
            "restore": lambda: self._first,
            "delete": lambda: tokens.edited(chosen, ""),
            "replace": lambda: tokens.edited(chosen, text),
            "mask": lambda: tokens.edited(chosen, tokens.names([tokens.vocabulary[_MASK]])[0], each=True),
        }
        if content["edit"] in edits:
            self.edit({"text": edits[content["edit"]]()})

    def snapshot(self, lines: Callable[..., list[str]]) -> Snapshot:
        """Return the texts around the map."""
        return Snapshot(lines(**{**self.look, **self.display.settings}))

    def snapshot_sources(self) -> Mapping[w.Widget, Sequence[str]]:
        """Return the display settings."""
        return {self.display: DISPLAY_NAMES}


def scene_of(kind: TextKind, explained: int | None) -> dict[str, Any]:
    """Return the tokens for the page.

    Args:
        kind: The kind.
        explained: The index of the token whose score is explained; None for that of the whole text.
    """
    positions = kind.positions
    scene = {"kind": "text", **kind.tokens.shown(0), "explained": explained}
    if positions is not None:
        output = list(positions.pieces[0]) if positions.generated else None
        scene |= {"scores": positions.role, "output": output}
    return scene


VIEW = TextView
