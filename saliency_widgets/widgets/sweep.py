"""The widget of a sweep: the recommendation, a chart of quality against cost, and the maps of all settings."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import ipywidgets as w
import numpy as np
from bqplot.marks import Lines, Scatter
from bqplot.scales import LinearScale, LogScale

from saliency_widgets.api import sweep as sweeping
from saliency_widgets.api.compare.arguments import LIMIT
from saliency_widgets.evaluation.metrics import METRICS
from saliency_widgets.markup import Markup, element, escape, joined
from saliency_widgets.session import Problem, Request
from saliency_widgets.widgets.base.charts import (
    ACCENT,
    INK,
    OTHERS,
    QUIET,
    SECOND,
    chart,
    draw,
    explanation,
    number,
    result_line,
    round_ticks,
)
from saliency_widgets.widgets.base.controls import LABEL_WIDTH, Menu
from saliency_widgets.widgets.base.display import DISPLAY_NAMES, DisplaySettings
from saliency_widgets.widgets.base.kind_view import view_of
from saliency_widgets.widgets.base.lifetime import Showable, refer_weakly
from saliency_widgets.widgets.base.messages import error_text
from saliency_widgets.widgets.base.panel import section
from saliency_widgets.widgets.base.parts import LAYOUT, parts_of
from saliency_widgets.widgets.base.text import RichText
from saliency_widgets.widgets.compare.static_grid import StillMaps
from saliency_widgets.widgets.explorer import Explorer
from saliency_widgets.widgets.export import snapshots
from saliency_widgets.widgets.export.static_output import Snapshot, WithStaticOutput

_HOW = (
    "Each line is one setting with different numbers of samples or steps; points further to the right cost more. The "
    "ring marks the recommended setting, and the diamond the knee of all lines together: beyond it, a higher cost "
    "improves the quality little."
)

_NO_PLANES = (
    "The maps of volumes are not drawn here: map_of(...) returns each as an array, and an explorer shows its planes."
)

_MAPS = "The maps of one input with their quality; ○ marks the recommended setting. Click a map {}."

_TICKS = 8
_MOST = LIMIT  # maps in the grid, as in a comparison


class SweepView(WithStaticOutput, Showable, w.VBox):
    """A widget that shows the results of a sweep.

    Args:
        result: The sweep.
        explorer: The explorer whose sliders the button "Use these" moves; None to omit the button.
    """

    def __init__(self, result: Sweep, explorer: Explorer | None = None) -> None:
        self._result, self._explorer = result, explorer
        self._words, self._refused = RichText(), RichText()
        self._quality = self._menu("Quality", [m.name for m in result.metrics if not m.cost], result.quality)
        self._cost = self._menu("Cost", [m.name for m in result.metrics if m.cost], result.cost)
        self._input = w.IntSlider(
            min=0, max=max(1, result.inputs - 1), description="Input", continuous_update=False,
            style={"description_width": LABEL_WIDTH},
            layout={"width": "auto", "max_width": "460px", "display": "" if result.inputs > 1 else "none"},
        )  # fmt: skip
        self._input.observe(lambda _change: self._on_input(), names="value")
        self._x, self._y = LogScale(min=1.0, max=2.0), LinearScale(min=0.0, max=1.0)
        scales = {"x": self._x, "y": self._y}
        lines = {"stroke_width": 2, "marker": "circle", "marker_size": 36}
        colors = [ACCENT, SECOND, *OTHERS]
        self._colors = [colors[k % len(colors)] for k in range(len(result.groups))]
        self._lines = [
            Lines(
                x=[1.0, 2.0], y=[0.0, 0.0], scales=scales, colors=[color], **lines,
            )
            for color in self._colors
        ]  # fmt: skip
        marked = {"scales": scales, "colors": ["transparent"], "stroke": INK, "stroke_width": 2}
        self._ring = Scatter(x=[], y=[], marker="circle", default_size=240, **marked)
        self._knee = Scatter(x=[], y=[], marker="diamond", default_size=240, **marked)
        self._figure = chart(
            [*self._lines, self._ring, self._knee], self._x, self._y, x_label="cost", y_label="quality", x_ticks=(),
            y_ticks=(), height=260,
        )  # fmt: skip
        for axis in self._figure.axes:
            axis.tick_format = "~g"
        named = zip(self._colors, result.groups, strict=True)
        legend = RichText(joined(_legend_entry(color, name) for color, name in named if name))
        self._use = w.Button(description="Use these", tooltip="Set the explorer's sliders to the recommended setting.")
        self._use.on_click(lambda _button: self._on_use())
        menus = w.HBox([self._quality, self._cost], layout={"flex_flow": "row wrap"})
        use = [w.HBox([self._use, self._refused])] if explorer is not None else []
        self._numbers = [k for group in result.groups.values() for k in group][:_MOST]
        self._maps = self._grid()
        maps: list[w.Widget] = []
        if self._maps is not None:
            maps = [self._input, *self._around(self._maps)]
        elif any(cell.values is not None and cell.values.ndim == 3 for cell in result.cells.values()):
            maps = [explanation(_NO_PLANES)]
        super().__init__(
            [self._words, *use, menus, self._figure, legend, explanation(_HOW), *maps],
            layout={"width": "100%", "overflow": "visible"},
        )
        if self._maps is not None:
            self._maps.view.root = self.model_id
        self.add_class("sw-sweep")
        self._show_maps()
        self._show()
        for whole in (self, self._use, self._refused):  # the last two are not always displayed
            for widget in (whole, *parts_of(whole, [])):
                refer_weakly(widget)
        self._open_lifetime()

    @property
    def result(self) -> Sweep:
        """The sweep with the selected metrics."""
        return self._result

    @property
    def maps(self) -> StillMaps | None:
        """The maps of the settings; None if no map is available."""
        return self._maps

    def _snapshot(self) -> Snapshot:
        return snapshots.of_sweep(self._result, None if self.maps is None else self.maps.view)

    def _snapshot_sources(self) -> Mapping[w.Widget, Sequence[str]]:
        shown: dict[w.Widget, Sequence[str]] = {self._words: ("value",), self._input: ("value",)}
        if self._maps is not None:
            shown |= {self._maps.view: ("scale", "unlocked"), self._maps.view.display: DISPLAY_NAMES}
        return shown

    def _menu(self, title: str, names: Sequence[str], value: str) -> Menu:
        menu = Menu(
            options=[(METRICS[name].title, name) for name in names], value=value, description=title,
            style={"description_width": LABEL_WIDTH}, layout={"width": "auto", "min_width": "300px"},
        )  # fmt: skip
        menu.observe(lambda _change: self._show(), names="value")
        return menu

    def _grid(self) -> StillMaps | None:
        """Create the grid with a map for each setting; its columns are the refining parameters, such as samples."""
        result = self._result
        values = [
            cell.values
            for (index, _), cell in result.cells.items()
            if cell.values is not None and (cell.values.ndim == 2 or result.scenes[index])
        ]
        if not values:
            return None
        rows, columns = (
            list(result.groups),
            [result.describe(k, result.refining) for k in next(iter(result.groups.values()))],
        )
        if len(rows) == 1 or not result.refining:
            rows, columns = [""], [result.describe(k) for k in self._numbers]
        rows = rows[: -(-len(self._numbers) // len(columns))]
        signed = any(bool((array < 0).any()) for array in values)
        names = [result.describe(k) for k in self._numbers]
        maps = StillMaps(
            DisplaySettings(), rows, columns, names, group=result.method.title, signed=signed, on_open=self._on_open
        )
        maps.view.controls = [self._quality, self._cost, self._input]
        maps.view.scale = "separate"  # noise makes values larger, so a shared scale would make the better maps fainter
        return maps

    def _around(self, maps: StillMaps) -> list[w.Widget]:
        """Return the explanation, and a box with the grid and its display settings."""
        controls = maps.view.display.controls()
        controls["colormap" if maps.signed else "diverging"].show(False)
        side = section("Display", [control.widget for control in controls.values()])
        purpose = "to show it in the explorer" if self._explorer is not None else "to see the code that shows it"
        text = _MAPS.format(purpose)
        if len(self._numbers) < len(self._result.settings):
            text += f" These are {len(self._numbers)} of {len(self._result.settings)}; map_of(...) returns any of them."
        return [explanation(text), w.Box(maps.view.with_controls(side), layout=LAYOUT)]

    def _on_input(self) -> None:
        self._show_maps()
        self._say_quality()

    def _on_open(self, cell: int) -> None:
        """Show the setting of a clicked map in the explorer, or the code that shows it."""
        result, number = self._result, self._numbers[cell]
        setting = {"method": result.method.name, **result.fixed, **result.settings[number]}
        if self._explorer is None:
            arguments = ", ".join(f"{name}={_brief(value)}" for name, value in setting.items())
            words = f"explorer.update({arguments}) shows it."
        else:
            words = self._bring(setting) or f"The explorer shows {result.describe(number)}."
        assert self._maps is not None
        self._maps.view.set_traits(opened={"words": words, "mark": ""})

    def _on_use(self) -> None:
        if self._result.recommended:
            refused = self._bring({"method": self._result.method.name, **self._result.recommended})
            self._refused.value = result_line(refused) if refused else escape("")

    def _bring(self, setting: Mapping[str, Any]) -> str:
        """Move the explorer's controls to a setting. Return the reason if that fails, else an empty text."""
        if self._explorer is None or self._explorer.comm is None:
            return "The explorer is closed: create a new one and pass it to widget_for."
        try:
            self._explorer.update(**setting)
        except (TypeError, ValueError) as error:
            return f"The setting can't be applied to the explorer: {error_text(error)}"
        return ""

    def _show(self) -> None:
        result = self._result = self._result.by(self._quality.value, self._cost.value)
        notes = [element("li", note) for note in result.notes]
        listed = element("ul", *notes, style=f"margin:2px 0;padding-left:18px;color:{QUIET};line-height:1.4")
        self._words.value = joined([result_line(result.words, strong=True), *([listed] if notes else [])])
        self._use.disabled = not result.recommended
        quality, cost = (result.summary[name].to_numpy(float) for name in (result.quality, result.cost))
        valid = np.isfinite(quality) & (cost > 0)
        x_axis, y_axis = self._figure.axes
        if valid.any():
            low, high = float(quality[valid].min()), float(quality[valid].max())
            room = (high - low or 1.0) * 0.1
            y_axis.tick_values = round_ticks(low - room, high + room)
            with self._y.hold_sync():
                self._y.min, self._y.max = low - room, high + room
            with self._x.hold_sync():
                self._x.min, self._x.max = float(cost[valid].min()) / 1.15, float(cost[valid].max()) * 1.15
        for mark, group in zip(self._lines, result.groups.values(), strict=True):
            points = [k for k in group if valid[k]]
            draw(mark, cost[points], quality[points], visible=bool(points))
        for mark, index in ((self._ring, result.choice), (self._knee, result.bend)):
            points = [] if index is None or not valid[index] else [index]
            draw(mark, cost[points], quality[points])
        ticks = sorted({float(f"{value:.2g}") for value in cost[valid]})
        x_axis.tick_values = np.array(ticks if len(ticks) <= _TICKS else ticks[:: -(-len(ticks) // _TICKS)])
        x_axis.label = _with_unit(result.cost)
        y_axis.label = METRICS[result.quality].title
        self._say_quality()

    def _show_maps(self) -> None:
        """Show the maps of the selected input."""
        if self._maps is None:
            return
        index = int(self._input.value)
        cells = [self._result.cells[index, k] for k in self._numbers]
        maps = [cell.error if cell.values is None else cell.values for cell in cells]
        self._maps.show(self._result.images[index], maps, self._result.scenes[index])

    def _say_quality(self) -> None:
        """Show the quality below each map."""
        if self._maps is None:
            return
        result, index = self._result, int(self._input.value)
        lines = [number(result.number_of(index, k, result.quality)) for k in self._numbers]
        self._maps.say(
            [f"○ {line}" if k == result.choice else line for k, line in zip(self._numbers, lines, strict=True)]
        )


def _legend_entry(color: str, name: str) -> Markup:
    """Format the name of a line, after a dot in the line's color."""
    dot = element("span", "●", aria_hidden="true", style=f"color:{color}")
    return element("span", dot, f" {name}", style=f"color:{INK};margin-right:14px;white-space:nowrap")


def _brief(value: Any) -> str:
    """Return the code of a value, or "..." if it is longer than 40 characters."""
    text = repr(value)
    return text if len(text) <= 40 else "..."


def _with_unit(name: str) -> str:
    metric = METRICS[name]
    return f"{metric.title} ({metric.unit})" if metric.unit else metric.title


@dataclass(frozen=True, eq=False, repr=False)
class Sweep(sweeping.Sweep):
    """A sweep that a notebook displays as a widget, with an image and a text that show without a kernel.

    See :func:`~saliency_widgets.static_output`.

    Attributes:
        scenes: What is shown of each input that is not an image; empty for images, tables and volumes.
    """

    scenes: Sequence[Mapping[str, Any]] = ()

    @cached_property
    def widget(self) -> SweepView:
        """The widget with the recommendation, a chart of quality against cost, and the maps."""
        return SweepView(self)

    def widget_for(self, explorer: Explorer) -> SweepView:
        """Return the widget with a button that moves an explorer's sliders to the recommended setting.

        Raises:
            TypeError: ``explorer`` is not an explorer.
            ValueError: The explorer is closed.
        """
        if not isinstance(explorer, Explorer):
            raise TypeError(f"explorer: expected an explorer from sw.explore, got a {type(explorer).__name__}.")
        if not explorer.is_open:
            raise ValueError("explorer: the explorer is closed. Create a new one.")
        return SweepView(self, explorer)

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        return self.widget._repr_mimebundle_(**kwargs)

    def _ipython_display_(self) -> None:
        self.widget._ipython_display_()


@functools.wraps(sweeping.sweep)
def sweep(*args: Any, **kwargs: Any) -> Sweep:
    """See :func:`saliency_widgets.api.sweep.sweep`."""
    result = sweeping.sweep(*args, **kwargs)
    values = {field.name: getattr(result, field.name) for field in fields(result)}
    scenes = [{} if subject is None else _scene_of(*subject) for subject in result.subjects]
    return Sweep(**{**values, "subjects": ()}, scenes=scenes)  # the result doesn't keep the model


def _scene_of(problem: Problem, request: Request) -> dict[str, Any]:
    kind = problem.kind
    try:
        return {} if kind.features.partial else view_of(kind.name).still(problem.prepared, request)
    except ValueError:  # this text lacks the position of the target, and its cells show the error
        return {}
