"""Controls made from parameters: the one place that knows which widget fits which kind."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as w
import traitlets

from saliency_widgets.params import Param
from saliency_widgets.widgets.base.text import describe

LABEL_WIDTH = "104px"
AUTO = "auto"  # stands for None: a selection slider takes None for "nothing selected"


class Menu(w.Dropdown):
    """A menu in which something is always chosen; a page that takes the choice away is refused."""

    index = traitlets.Int().tag(sync=True)


class Control:
    """A parameter and its widget.

    Args:
        param: The parameter.
        value: Where it stands; the parameter's default unless given.
        options: For layers: label -> module path.

    Attributes:
        param: The parameter.
        widget: What the person sees.
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
            self.widget.add_class(f"sw-unit-{param.unit}")  # said behind the value to a screen reader
        self._holder = self.widget  # whose value it is
        self._exact = value if param.kind == "float" else None

    @property
    def leaves(self) -> list[Any]:
        """The widgets that send what a person does."""
        return [self._holder]

    @property
    def value(self) -> Any:
        """The parameter's value."""
        value = self._holder.value
        if isinstance(self._holder, w.FloatSlider):  # what comes back from the browser is off in the last bits
            near = self._exact is not None and abs(value - self._exact) <= 1e-12 * (self._holder.max - self._holder.min)
            return self._exact if near else float(f"{value:.12g}")
        if isinstance(value, _Own):
            return value.thing
        return None if isinstance(value, str) and value == AUTO else value

    @value.setter
    def value(self, value: Any) -> None:
        if hasattr(self._holder, "options"):
            value = _admitted(self._holder, self.param, value)
        if isinstance(self._holder, (w.FloatSlider, w.IntSlider)):  # which would move a value beyond its ends
            self._holder.min, self._holder.max = _ends(self._holder.min, self._holder.max, value)
        if isinstance(self._holder, w.FloatSlider):
            self._exact = value
            if _between_steps(self._holder, value):
                self._holder.step = _finer(self._holder)  # sent before the value, which would be moved to a step
        self._holder.value = value

    def observe(self, callback: Callable[[], None]) -> None:
        """Call back when the value changes, however it was changed."""
        for leaf in self.leaves:
            leaf.observe(lambda _change: callback(), names="value")

    def show(self, shown: bool) -> None:
        """Show or hide it."""
        wanted = None if shown else "none"
        if self.widget.layout.display != wanted:
            self.widget.layout.display = wanted


class _Own:
    """A tensor, an array or a function as a choice of a menu, which compares its choices: these by identity."""

    def __init__(self, thing: Any) -> None:
        self.thing = thing


def _admitted(widget: Any, param: Param, value: Any) -> Any:
    """The choice that stands for a value; one that was given from Python becomes a choice of the menu."""
    pairs = list(widget.options)
    if value is None:  # "decide for me": said in words, or the first choice
        return AUTO if param.scale == "log2" else pairs[0][1]
    named = isinstance(value, (str, int))
    for _, option in pairs:
        if option.thing is value if isinstance(option, _Own) else named and option == value:
            return option
    own = sum(isinstance(option, _Own) for _, option in pairs) + 1
    choice = value if named else _Own(value)
    pairs.append((str(value) if named else f"own {type(value).__name__.lower()} {own}", choice))
    if param.scale == "log2":
        pairs.sort(key=lambda pair: 0 if pair[1] == AUTO else pair[1])
    widget.options = pairs
    return choice


def _ends(low: float, high: float, value: float) -> tuple[float, float]:
    """The ends of a slider that holds a value, which may lie beyond its usual range."""
    return min(low, value), max(high, value)


def _slider(param: Param, value: Any, _: dict) -> Any:
    assert param.low is not None
    assert param.high is not None
    span = float(param.high) - float(param.low)
    low, high = _ends(param.low, param.high, value)
    made = w.FloatSlider(value=value, min=low, max=high, step=span / 100, readout_format=".2f")
    if _between_steps(made, param.default):
        made.step = 10.0 ** math.floor(math.log10(span / 50))
    if _between_steps(made, value):
        made.step = _finer(made)
    return made


def _between_steps(slider: Any, value: float) -> bool:
    """Whether the slider in the browser would move a value to its next step, and send that back."""
    steps = (value - slider.min) / slider.step
    return abs(steps - round(steps)) > 1e-6


def _finer(slider: Any) -> float:
    return (slider.max - slider.min) / 1e6


def _int(param: Param, value: Any, _: dict) -> Any:
    if param.high is not None and param.low is not None and param.high - param.low <= 1000:
        low, high = _ends(int(param.low), int(param.high), value)
        return w.IntSlider(value=value, min=low, max=high)
    least, most = param.limits
    return w.BoundedIntText(value=value, min=int(max(least, 0)), max=int(min(most, 2**31 - 1)))


def _log2(param: Param, value: Any, _: dict) -> Any:
    powers = [2**k for k in range(31) if (param.low or 1) <= 2**k <= (param.high or 2**30)]
    pairs = ([(AUTO, AUTO)] if param.optional else []) + [(str(p), p) for p in powers]
    widget = w.SelectionSlider(options=pairs, value=pairs[0][1])
    if value is not None:
        widget.value = _admitted(widget, param, value)
    return widget


def _choice(param: Param, value: Any, options: dict) -> Any:
    pairs = list(options.items()) or [(name, name) for name in param.options()]
    widget = Menu(options=pairs, value=pairs[0][1] if pairs else None)
    if value is not None:
        widget.value = _admitted(widget, param, value)
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
