"""The controls of a comparison: what is shown, of which layer, how; and the predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import ipywidgets as w
import torch

from saliency_widgets.api.compare import Cell, Comparison
from saliency_widgets.attribution.reduction import CHANNEL, SIGN
from saliency_widgets.attribution.score import probabilities
from saliency_widgets.markup import Markup, element, joined
from saliency_widgets.session import Problem
from saliency_widgets.widgets.base.charts import QUIET, result_line
from saliency_widgets.widgets.base.controls import Control, Menu
from saliency_widgets.widgets.base.display import DisplaySettings
from saliency_widgets.widgets.base.panel import section
from saliency_widgets.widgets.base.text import RichText
from saliency_widgets.widgets.compare.pivot import Pivot, menu

_OWN = "each method's own"
_TOP = 3
_CUT = "flex:1;min-width:0;overflow:hidden;text-overflow:ellipsis;white-space:nowrap"


class ComparisonPanel:
    """Menus, predictions, layers, reduction and display.

    Args:
        asked: What is compared.
        pivot: Which of it is shown.
        display: The display settings of all maps.
        sign: How all maps are shown; each method's own unless given.
        channels: Likewise.
        reduced: Called with sign (None for each method's own) and channels, now and whenever they are moved.
        moved: Called when other maps are asked for.

    Attributes:
        widget: The column of controls.
        sign: The sign of all maps.
        channels: The channels of all maps.
        layers: A menu of layers for each model, where a method asks for one and the settings don't.
        predictions: What the models say.
    """

    def __init__(
        self,
        asked: Comparison,
        pivot: Pivot,
        display: DisplaySettings,
        *,
        sign: str | None,
        channels: str | None,
        reduced: Callable[[str | None, str], None],
        moved: Callable[[], None],
    ) -> None:
        self._asked, self._pivot, self._reduced, self._moved = asked, pivot, reduced, moved
        self.sign = Control(
            SIGN, _OWN if sign is None else sign, options={_OWN: _OWN, **{name: name for name in SIGN.options()}}
        )
        self.channels = Control(CHANNEL, channels)
        self.layers = self._layer_menus()
        self.predictions = RichText()
        self._display = display.controls()
        self._choice = section("Shown", [*pivot.turning, *pivot.menus.values()])
        self.widget = w.VBox(
            [
                self._choice,
                section("Predictions", [self.predictions]),
                *([section("Layer", list(self.layers.values()))] if self.layers else []),
                section("Map", [self.sign.widget, self.channels.widget]),
                section("Display", [control.widget for control in self._display.values()]),
            ]
        )
        for control in (self.sign, self.channels):
            control.observe(self._reduce)
        self._reduce()

    @property
    def controls(self) -> list[w.Widget]:
        """Everything a person can move that asks the kernel: the display settings don't."""
        menus = [*self._pivot.menus.values(), *self._pivot.turning, *self.layers.values()]
        return [*menus, *self.sign.leaves, *self.channels.leaves]

    def sign_of(self, place: Cell) -> str:
        """How a map is shown."""
        return self._asked.method(place).sign if self.sign.value == _OWN else self.sign.value

    def show(self, places: Sequence[Cell]) -> None:
        """Other maps are shown: the menus that are left, and what is predicted of these."""
        self._choice.layout.display = None if self._pivot.turning or self._pivot.choosable else "none"
        self.predict(places)

    def predict(self, places: Sequence[Cell]) -> None:
        """Tell what each model says of each input that is shown, as far as it is known."""
        axes, told = self._asked.axes, {}
        for models, inputs in dict.fromkeys((place.models, place.inputs) for place in places):
            about = (("inputs", inputs), ("models", models))
            heading = " · ".join(axes[name].labels[k] for name, k in about if len(axes[name]) > 1)
            told[heading] = self._asked.problem(Cell(models=models, inputs=inputs))
        self.predictions.value = predictions_of(told, self._asked.score)

    def _reduce(self) -> None:
        signs = {self.sign_of(Cell(methods=k)) for k in range(len(self._asked.axes["methods"]))}
        self._display["diverging"].show("signed" in signs)
        self._display["colormap"].show(bool(signs - {"signed"}))
        self._reduced(None if self.sign.value == _OWN else self.sign.value, self.channels.value)

    def _layer_menus(self) -> dict[int, Menu]:
        asked, axes = self._asked, self._asked.axes
        methods = [asked.method(Cell(methods=k)) for k in range(len(axes["methods"]))]
        needed = any(param.name == "layer" for method in methods for param in method.params)
        if not needed or "layer" in asked.params or any("layer" in one for one in axes["settings"].values):
            return {}
        made = {}
        for k, label in enumerate(axes["models"].labels):
            sized = asked.problem(Cell(models=k)).layers.items()
            options = [(f"{path} · {c} × {h} × {width}", path) for path, (c, h, width) in reversed(sized)]
            title = label if len(axes["models"]) > 1 else "Layer"
            made[k] = menu(title, [("auto · the last that matters", ""), *options], "", f"layer-{k}")
            made[k].observe(lambda change, k=k: self._on_layer(k, change["new"]), names="value")
        return made

    def _on_layer(self, model: int, path: str) -> None:
        if path:
            self._asked.layers[model] = path
        else:
            self._asked.layers.pop(model, None)
        self._moved()


def predictions_of(problems: Mapping[str, Problem], score: str) -> Markup:
    """What each model says of each input, as far as it is known, as HTML.

    Args:
        problems: By what each is called.
        score: The scale: values are shown as they are, and classes with their probabilities.
    """
    lines = []
    for name, problem in problems.items():
        if (logits := problem.predicted) is None:
            continue
        count = _TOP if len(problems) <= 2 else 1
        if score == "value":
            rows = [(name, f"{value:.4g}") for name, value in problem.values_of(logits[0])[:count]]
        else:
            shares = probabilities(logits.cpu().double())[0]
            top = torch.topk(shares, min(count, len(shares)))
            names = [problem.name_of(int(index), short=True) for index in top.indices]
            rows = [(name, f"{float(share):.1%}") for name, share in zip(names, top.values, strict=True)]
        heading = [element("div", name, style=f"color:{QUIET}")] if name else []
        told = [
            element("div", element("span", name, style=_CUT), element("span", number), style="display:flex;gap:8px")
            for name, number in rows
        ]
        lines.append(element("div", *heading, *told, style="margin-bottom:4px;line-height:1.35"))
    return joined(lines) if lines else result_line("Not computed yet")
