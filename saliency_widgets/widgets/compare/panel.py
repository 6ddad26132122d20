"""The control panel of a comparison: axes, predictions, layers, reduction and display settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import ipywidgets as w

from saliency_widgets.api.compare import Cell, Comparison
from saliency_widgets.attribution import Reduction
from saliency_widgets.attribution.reduction import SIGN
from saliency_widgets.markup import Markup, element, joined
from saliency_widgets.params import Param
from saliency_widgets.session import Problem
from saliency_widgets.widgets.base.charts import QUIET, result_line
from saliency_widgets.widgets.base.controls import LABEL_WIDTH, Control, Menu, channels_param
from saliency_widgets.widgets.base.display import DisplaySettings
from saliency_widgets.widgets.base.kind_view import view_of
from saliency_widgets.widgets.base.panel import section
from saliency_widgets.widgets.base.text import RichText
from saliency_widgets.widgets.compare.pivot import Pivot, menu

_PER_METHOD = "method default"
_TOP = 3
_SPREAD = "display:flex;gap:8px"
_CUT = "flex:1;min-width:0;overflow:hidden;text-overflow:ellipsis;white-space:nowrap"


class ComparisonPanel:
    """The control panel of a comparison.

    Args:
        comparison: The compared models, inputs, methods and settings.
        pivot: The selected axes and variants.
        display: The display settings of all maps.
        sign: The sign of all maps. Default: each method's default.
        channels: The channel reduction of all maps. Default: that of the kind of input.
        reduced: Called with sign and channels (None for the default of each map), and the part that is shown,
            immediately and whenever they change.
        moved: Called when the user selects another layer, which requires other maps.

    Attributes:
        widget: The column of controls.
        sign: The sign of all maps.
        channels: The channels of all maps.
        positions: A slider for each axis along which cells show a part of the input.
        layers: A menu of layers for each model, if a method needs a layer and the settings don't choose it.
        predictions: The models' predictions.
    """

    def __init__(
        self,
        comparison: Comparison,
        pivot: Pivot,
        display: DisplaySettings,
        *,
        sign: str | None,
        channels: str | None,
        reduced: Callable[[str | None, str | None, Sequence[float] | None], None],
        moved: Callable[[], None],
    ) -> None:
        self._comparison, self._pivot, self._reduced, self._moved = comparison, pivot, reduced, moved
        self.sign = _menu_of(SIGN, sign, per_method=True)
        features = comparison.problem(Cell()).kind.features
        several = len({features.channels_for(name) for name in SIGN.options()}) > 1
        self.channels = _menu_of(channels_param(features.channels_title), channels, per_method=several)
        self.channels.show(bool(features.channels_title))
        self.layers = self._layer_menus()
        self.positions = self._position_sliders()
        self.predictions = RichText()
        self._display = display.controls()
        self._choice = section("Shown", [*pivot.turning, *pivot.menus.values()])
        self.widget = w.VBox(
            [
                self._choice,
                section("Predictions", [self.predictions]),
                *([section("Layer", list(self.layers.values()))] if self.layers else []),
                *([section("Shown slices", self.positions)] if self.positions else []),
                section("Map", [self.sign.widget, self.channels.widget]),
                section("Display", [control.widget for control in self._display.values()]),
            ]
        )
        for control in (self.sign, self.channels):
            control.observe(self._reduce)
        self._reduce()

    @property
    def controls(self) -> list[w.Widget]:
        """The widgets that send requests to the kernel, that is, all but the display settings."""
        menus = [*self._pivot.menus.values(), *self._pivot.turning, *self.layers.values()]
        return [*menus, *self.sign.leaves, *self.channels.leaves, *self.positions]

    @property
    def _chosen(self) -> tuple[str | None, str | None]:
        """The selected sign and channels; None for the default of each map."""
        sign, channels = (None if one.value == _PER_METHOD else one.value for one in (self.sign, self.channels))
        return sign, channels

    def reduction_of(self, cell: Cell) -> Reduction:
        """Return the reduction of a map."""
        return self._comparison.reduction(cell, *self._chosen)

    def show(self, cells: Sequence[Cell]) -> None:
        """Update the menus and the predictions for the displayed maps."""
        self._choice.layout.display = None if self._pivot.turning or self._pivot.choosable else "none"
        self.predict(cells)

    def predict(self, cells: Sequence[Cell]) -> None:
        """Show the predictions computed so far, for each displayed model and input."""
        axes, problems = self._comparison.axes, {}
        for models, inputs in dict.fromkeys((cell.models, cell.inputs) for cell in cells):
            indices = (("inputs", inputs), ("models", models))
            heading = " · ".join(axes[name].labels[k] for name, k in indices if len(axes[name]) > 1)
            problems[heading] = self._comparison.problem(Cell(models=models, inputs=inputs))
        self.predictions.value = predictions_of(problems, self._comparison.score)

    def _reduce(self) -> None:
        signs = {self.reduction_of(Cell(methods=k)).sign for k in range(len(self._comparison.axes["methods"]))}
        self._display["diverging"].show("signed" in signs)
        self._display["colormap"].show(bool(signs - {"signed"}))
        self._reduced(*self._chosen, [slider.value / max(1, slider.max) for slider in self.positions] or None)

    def _position_sliders(self) -> list[w.IntSlider]:
        """Return a slider for each axis along which cells show a part of the input, as slices of a volume."""
        problem = self._comparison.problem(Cell())
        sliders = []
        for name, count in view_of(problem.kind.name).axes(problem.prepared).items():
            sliders.append(w.IntSlider(
                value=count // 2, max=count - 1, description=name, style={"description_width": LABEL_WIDTH},
                layout={"width": "auto"},
            ))  # fmt: skip
            sliders[-1].observe(lambda _change: self._reduce(), names="value")
            sliders[-1].add_class(f"sw-slices-{name.lower()}")
        return sliders

    def _layer_menus(self) -> dict[int, Menu]:
        comparison, axes = self._comparison, self._comparison.axes
        methods = [comparison.method(Cell(methods=k)) for k in range(len(axes["methods"]))]
        needed = any(param.name == "layer" for method in methods for param in method.params)
        if (
            not needed
            or "layer" in comparison.params
            or any("layer" in settings for settings in axes["settings"].values)
        ):
            return {}
        menus = {}
        for k, label in enumerate(axes["models"].labels):
            sized = comparison.problem(Cell(models=k)).layers.items()
            options = [(f"{path} · {' × '.join(map(str, shape))}", path) for path, shape in reversed(sized)]
            title = label if len(axes["models"]) > 1 else "Layer"
            view = view_of(comparison.problem(Cell(models=k)).kind.name)
            menus[k] = menu(title, [(f"auto · {view.last_layer}", ""), *options], "", f"layer-{k}")
            menus[k].observe(lambda change, k=k: self._on_layer(k, change["new"]), names="value")
        return menus

    def _on_layer(self, model: int, path: str) -> None:
        if path:
            self._comparison.layers[model] = path
        else:
            self._comparison.layers.pop(model, None)
        self._moved()


def _menu_of(param: Param, value: str | None, *, per_method: bool) -> Control:
    """Create a control, if ``per_method`` with an entry for the default of each method, which is then selected."""
    names = [*([_PER_METHOD] if per_method else []), *param.options()]
    return Control(
        param, _PER_METHOD if per_method and value is None else value, options={name: name for name in names}
    )


def predictions_of(problems: Mapping[str, Problem], score: str) -> Markup:
    """Format the predictions computed so far as HTML, for each model and input.

    Args:
        problems: The problems by heading.
        score: The score, which decides whether values or class probabilities are shown.
    """
    lines = []
    for name, problem in problems.items():
        if (logits := problem.predicted) is None:
            continue
        count = _TOP if len(problems) <= 2 else 1
        task = problem.task(score)
        heading = [element("div", name, style=f"color:{QUIET}")] if name else []
        lines_of_problem = [
            element("div", element("span", label, style=_CUT), element("span", task.text(value)), style=_SPREAD)
            for _, label, value in task.predictions(logits[0], count)
        ]
        lines.append(element("div", *heading, *lines_of_problem, style="margin-bottom:4px;line-height:1.35"))
    return joined(lines) if lines else result_line("Not computed yet")
