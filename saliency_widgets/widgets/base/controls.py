"""Controls for parameters: the mapping from parameter kinds to widgets."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import ipywidgets as w
import traitlets

from saliency_widgets.attribution.reduction import CHANNEL
from saliency_widgets.params import Param
from saliency_widgets.widgets.base.text import describe

LABEL_WIDTH = "104px"
AUTO = "auto"  # represents None, which a selection slider treats as "nothing selected"


def channels_param(title: str) -> Param:
    """Return the parameter for what a reduction reduces, such as "Embedding", see :class:`.Features`."""
    return replace(CHANNEL, label=title, help=CHANNEL.help.replace("color channels", title.lower()))


class Menu(w.Dropdown):
    """A menu that always has a selection; messages from the page that would clear it are rejected."""

    index = traitlets.Int().tag(sync=True)


class Control:
    """A parameter and its widget.

    Args:
        param: The parameter.
        value: The initial value. Default: the parameter's default.
        options: Menu options as label -> value, such as layer label -> module path. Default: the parameter's.

    Attributes:
        param: The parameter.
        widget: The displayed widget.
    """

    def __init__(self, param: Param, value: Any = None, *, options: Mapping[str, Any] | None = None) -> None:
        self.param = param
        value = param.default if value is None else value
        maker = _MAKERS["log2" if param.scale == "log2" else param.kind]
        self.widget: Any = maker(param, value, dict(options or {}))
        title = f"{param.title} (%)" if param.unit == "%" else param.title
        describe(self.widget, title, param.help)
        self.widget.tooltip = param.help
        self.widget.style.description_width = LABEL_WIDTH
        self.widget.layout.width = "auto"
        self.widget.add_class("sw-control")
        self.widget.add_class(f"sw-control-{param.name}")
        if param.unit.isalpha():
            self.widget.add_class(f"sw-unit-{param.unit}")  # a screen reader announces the unit after the value
        self._holder = self.widget  # the widget that holds the value
        self._exact = value if param.kind == "float" else None

    @property
    def leaves(self) -> list[Any]:
        """The interactive widgets."""
        return [self._holder]

    @property
    def value(self) -> Any:
        """The parameter's value."""
        value = self._holder.value
        if isinstance(self._holder, w.FloatSlider):  # the browser returns a value that differs in the last bits
            near = self._exact is not None and abs(value - self._exact) <= 1e-12 * (self._holder.max - self._holder.min)
            return self._exact if near else float(f"{value:.12g}")
        if isinstance(value, _ObjectOption):
            return value.value
        return None if isinstance(value, str) and value == AUTO else value

    @value.setter
    def value(self, value: Any) -> None:
        if hasattr(self._holder, "options"):
            value = _option_for(self._holder, self.param, value)
        if isinstance(self._holder, (w.FloatSlider, w.IntSlider)):  # these clamp values to their limits
            self._holder.min, self._holder.max = _limits_with(self._holder.min, self._holder.max, value)
        if isinstance(self._holder, w.FloatSlider):
            self._exact = value
            if _between_steps(self._holder, value):
                self._holder.step = _finer(self._holder)  # sent before the value, which the page would round
        self._holder.value = value

    def observe(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when the value changes, on the page or from Python."""
        for leaf in self.leaves:
            leaf.observe(lambda _change: callback(), names="value")

    def show(self, shown: bool) -> None:
        """Show or hide the control."""
        wanted = None if shown else "none"
        if self.widget.layout.display != wanted:
            self.widget.layout.display = wanted


class _ObjectOption:
    """A menu option that holds a tensor, an array or a function, so that the menu compares it by identity."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _option_for(widget: Any, param: Param, value: Any) -> Any:
    """Return the menu option for a value; a value that is missing from the menu is added to it."""
    pairs = list(widget.options)
    if value is None:  # automatic: the option "auto", or the first option
        return AUTO if param.scale == "log2" else pairs[0][1]
    named = isinstance(value, (str, int))
    for _, option in pairs:
        if option.value is value if isinstance(option, _ObjectOption) else named and option == value:
            return option
    number = sum(isinstance(option, _ObjectOption) for _, option in pairs) + 1
    choice = value if named else _ObjectOption(value)
    pairs.append((str(value) if named else f"custom {type(value).__name__.lower()} {number}", choice))
    if param.scale == "log2":
        pairs.sort(key=lambda pair: 0 if pair[1] == AUTO else pair[1])
    widget.options = pairs
    return choice


def _limits_with(low: float, high: float, value: float) -> tuple[float, float]:
    """Return the limits of a slider, extended to include a value."""
    return min(low, value), max(high, value)


def _slider(param: Param, value: Any, _: dict) -> Any:
    assert param.low is not None
    assert param.high is not None
    span = float(param.high) - float(param.low)
    low, high = _limits_with(param.low, param.high, value)
    slider = w.FloatSlider(value=value, min=low, max=high, step=span / 100, readout_format=".2f")
    if _between_steps(slider, param.default):
        slider.step = 10.0 ** math.floor(math.log10(span / 50))
    if _between_steps(slider, value):
        slider.step = _finer(slider)
    return slider


def _between_steps(slider: Any, value: float) -> bool:
    """Return whether the slider in the browser would round the value to a step and send back the rounded value."""
    steps = (value - slider.min) / slider.step
    return abs(steps - round(steps)) > 1e-6


def _finer(slider: Any) -> float:
    return (slider.max - slider.min) / 1e6


def _int(param: Param, value: Any, _: dict) -> Any:
    if param.high is not None and param.low is not None and param.high - param.low <= 1000:
        low, high = _limits_with(int(param.low), int(param.high), value)
        return w.IntSlider(value=value, min=low, max=high)
    least, most = param.limits
    return w.BoundedIntText(value=value, min=int(max(least, 0)), max=int(min(most, 2**31 - 1)))


def _log2(param: Param, value: Any, _: dict) -> Any:
    powers = [2**k for k in range(31) if (param.low or 1) <= 2**k <= (param.high or 2**30)]
    pairs = ([(AUTO, AUTO)] if param.optional else []) + [(str(p), p) for p in powers]
    widget = w.SelectionSlider(options=pairs, value=pairs[0][1])
    if value is not None:
        widget.value = _option_for(widget, param, value)
    return widget


def _choice(param: Param, value: Any, options: dict) -> Any:
    pairs = list(options.items()) or [(name, name) for name in param.options()]
    widget = Menu(options=pairs, value=pairs[0][1] if pairs else None)
    if value is not None:
        widget.value = _option_for(widget, param, value)
    return widget


def _range(param: Param, value: Any, _: dict) -> Any:
    return w.FloatRangeSlider(value=value, min=param.low, max=param.high, step=0.5, readout_format=".1f")


_MAKERS: dict[str, Callable[[Param, Any, dict], Any]] = {
    "float": _slider,
    "int": _int,
    "log2": _log2,
    "choice": _choice,
    "open": _choice,
    "layer": _choice,
    "range": _range,
}
