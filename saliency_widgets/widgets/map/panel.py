"""The controls of an input with a map over it, for the request and the display, and what views with them share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import ipywidgets as w

from saliency_widgets.attribution import Reduction
from saliency_widgets.attribution.baselines import BACKGROUND, BASELINE, BASELINES
from saliency_widgets.attribution.reduction import CHANNEL, SIGN
from saliency_widgets.attribution.registry import Method
from saliency_widgets.params import Param
from saliency_widgets.session import Problem
from saliency_widgets.widgets.base.controls import AUTO, Control, channels_param
from saliency_widgets.widgets.base.display import DISPLAY_NAMES, DisplaySettings
from saliency_widgets.widgets.base.kind_view import KindView, Setup, view_of
from saliency_widgets.widgets.base.panel import Panel, section
from saliency_widgets.widgets.base.parts import close_whole


class MapPanel(Panel):
    """Controls for the method, the target, the method's parameters, the reduction and the display.

    Args:
        problem: The model and the input.
        display: The display settings, linked to the controls of the last section.
        **arguments: See :class:`Panel`.

    Attributes:
        reducing: The parameters of the reduction.
    """

    reducing: ClassVar[tuple[Param, ...]] = (SIGN, CHANNEL)
    accepted = (*Panel.accepted, *(param.name for param in reducing), *DISPLAY_NAMES)

    def __init__(self, problem: Problem, display: DisplaySettings, **arguments: Any) -> None:
        self._settings = display
        super().__init__(problem, **arguments)

    def _fits(self, entry: Method) -> bool:
        return "image" not in entry.needs or self._problem.prepared.images is not None

    def _make_shared(self, first: Method) -> None:
        default = self._default_of(first)
        self._sign = Control(SIGN, default.sign)
        self._channels = Control(channels_param(self._problem.kind.features.channels_title), default.channels)
        self._display = self._settings.controls()

    def _default_of(self, method: Method) -> Reduction:
        """Return the reduction in which the map of a method is shown at first."""
        return self._problem.kind.features.reduction_for(method)

    @property
    def reduction(self) -> Reduction:
        """The selected reduction of the values to a map."""
        return Reduction(self._sign.value, self._channels.value)

    def reduction_of(self, changes: Mapping[str, Any]) -> Reduction:
        """Return the reduction for changed settings: the method's default for what the user hasn't changed."""
        method = self.selection["method"]
        default = self._after(method, changes.get("method", method))
        return Reduction(changes.get(SIGN.name, default.sign), changes.get(CHANNEL.name, default.channels))

    def _after(self, old: str, new: str) -> Reduction:
        """Return the selected reduction after a change of the method, which moves only what was its default."""
        shown, before, after = self.reduction, *(self._default_of(self.menu[name]) for name in (old, new))
        return Reduction(
            after.sign if shown.sign == before.sign else shown.sign,
            after.channels if shown.channels == before.channels else shown.channels,
        )

    @property
    def _reducing(self) -> dict[str, Control]:
        return {SIGN.name: self._sign, CHANNEL.name: self._channels}

    @property
    def _shared(self) -> dict[str, Control]:
        return {**super()._shared, **self._reducing, **self._display}

    @property
    def controls(self) -> list[w.Widget]:
        """All widgets that send messages to the kernel, without those of the display settings."""
        display = [leaf for control in self._display.values() for leaf in control.leaves]
        return [widget for widget in super().controls if not any(widget is leaf for leaf in display)]

    def on_reduction(self, reduced: Callable[[Reduction], None]) -> None:
        """Call ``reduced`` now and whenever the reduction changes."""

        def reduce() -> None:
            self._show_parameters()
            reduced(self.reduction)

        for control in self._reducing.values():
            control.observe(reduce)
        reduced(self.reduction)

    def _control(self, param: Param, value: Any) -> Control:
        names = self._problem.baselines
        if param is BASELINE:
            return Control(param, value, options={name: name for name in names})
        if param is BASELINES:
            kind = self._problem.kind
            more = () if kind.background is None else (BACKGROUND,)
            drawn = [name for name in param.options() if name in (*names, *more)]
            drawn.sort(key=lambda name: name != kind.default_pool)  # the default first
            return Control(param, value, options={name: name for name in drawn})
        return Control(param, value, options=self._layers() if param.kind == "layer" else None)

    def _layers(self) -> Mapping[str, Any]:
        sized = {f"{path} · {_size_text(shape)}": path for path, shape in self._problem.layers.items()}
        return {f"auto · {view_of(self._problem.kind.name).last_layer}": AUTO, **dict(reversed(sized.items()))}

    def _on_method(self) -> None:
        reduction = self._after(self._shown, self._method.value)
        self._sign.value, self._channels.value = reduction.sign, reduction.channels
        super()._on_method()

    def _show_parameters(self) -> None:
        super()._show_parameters()
        signed = self.reduction.signed
        self._display["diverging"].show(signed)
        self._display["colormap"].show(not signed)

    def _sections(self) -> Sequence[w.Widget]:
        return (
            section("Map", [control.widget for control in self._reducing.values()]),
            section("Display", [control.widget for control in self._display.values()]),
        )


def _size_text(shape: tuple[int, ...]) -> str:
    """Return the channels and the size of a layer; a layer over time or tokens has a single row."""
    sizes = (shape[0], shape[2]) if len(shape) == 3 and shape[1] == 1 else shape
    return " × ".join(map(str, sizes))


class MapView(KindView):
    """The view of an input with a map over it.

    Args:
        problem: The model and the input.
        setup: The initial settings; its ``params`` include the reduction and display settings.

    Attributes:
        panel_class: The class of the controls.
        panel: The controls.
        display: The display settings.
    """

    panel_class: ClassVar[type[MapPanel]] = MapPanel
    panel: MapPanel

    def __init__(self, problem: Problem, setup: Setup) -> None:
        super().__init__(problem, setup)
        noun, count = problem.kind.noun, len(problem.tensor)
        if count != 1:
            raise ValueError(f"inputs: the explorer shows one {noun}, got a batch of {count}. Pass one of them.")
        params = dict(setup.params)
        shown = {name: params.pop(name) for name in DISPLAY_NAMES if name in params}
        reducing = self.panel_class.reducing
        reductions = {param.name: params.pop(param.name) for param in reducing if param.name in params}
        for param in reducing:
            param.check(reductions.get(param.name, param.default))
        self.display = DisplaySettings(**shown)
        try:
            self.panel = self.panel_class(problem, self.display, params=params, **setup.panel)
            if reductions:
                self.panel.update(reductions)
        except BaseException:
            close_whole(self.display)
            raise

    @property
    def reduction(self) -> Reduction:
        """The selected reduction of the values to a map."""
        return self.panel.reduction

    @property
    def settings(self) -> dict[str, Any]:
        """The reduction and the display settings."""
        reductions = {param.name: self.panel.control(param).value for param in self.panel.reducing}
        return {**reductions, **self.display.settings}

    @property
    def look(self) -> dict[str, Any]:
        """The reduction and the clip range."""
        reduction = self.panel.reduction
        return {"sign": reduction.sign, "channels": reduction.channels, "clip": self.display.settings["clip"]}

    @property
    def sign(self) -> str | None:
        """The selected sign."""
        return self.panel.reduction.sign
