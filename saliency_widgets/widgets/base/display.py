"""Display settings: a widget model without a view, shared by views that should look alike and linked in the browser."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import anywidget
import traitlets
from ipywidgets import Widget, widget_serialization

from saliency_widgets import render
from saliency_widgets.params import Param
from saliency_widgets.widgets.base.controls import Control
from saliency_widgets.widgets.bundle import bundle

_PARAMS = {param.name: param for param in render.DISPLAY}
DISPLAY_NAMES = tuple(_PARAMS)


def display_traits(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Convert settings to their form in the front end: choices as indices, pairs as lists."""
    return {name: _to_trait(_PARAMS[name], value) for name, value in settings.items()}


def display_settings(traits: Mapping[str, Any]) -> dict[str, Any]:
    """Convert settings to their form in Python: choices as names, pairs as tuples."""
    return {name: _from_trait(_PARAMS[name], value) for name, value in traits.items()}


def _trait(param: Param) -> traitlets.TraitType:
    traits = {"choice": traitlets.Int, "range": lambda: traitlets.List(traitlets.Float())}
    return traits.get(param.kind, traitlets.Float)().tag(sync=True)


_Settings = type("_Settings", (traitlets.HasTraits,), {name: _trait(param) for name, param in _PARAMS.items()})


class DisplaySettings(anywidget.AnyWidget, _Settings):
    """The settings of ``render.DISPLAY``, each as a trait; choices are stored by index.

    In the browser the traits follow their controls, so changing a setting needs no kernel, and moving a control sends
    only the control's message.
    """

    _esm = bundle("display.js")

    colormap_luts = traitlets.Bytes().tag(sync=True)
    diverging_luts = traitlets.Bytes().tag(sync=True)
    sources = traitlets.Dict(value_trait=traitlets.Instance(Widget)).tag(sync=True, **widget_serialization)

    def __init__(self, **settings: Any) -> None:
        self._controls: dict[str, Control] = {}
        self._moving = threading.RLock()
        super().__init__(
            **display_traits(render.check_display(settings)),
            colormap_luts=render.lut_bytes(_PARAMS["colormap"].options()),
            diverging_luts=render.lut_bytes(_PARAMS["diverging"].options()),
        )

    def __repr__(self) -> str:
        """Show the settings without the color tables."""
        return f"DisplaySettings({self.settings})"

    @property
    def settings(self) -> dict[str, Any]:
        """The settings by name; choices are names, not indices."""
        return display_settings({name: getattr(self, name) for name in DISPLAY_NAMES})

    def set(self, name: str, value: Any) -> None:
        """Set one setting and move its control; pass a choice as its name."""
        value = _PARAMS[name].check(value)
        if name in self._controls:
            self._controls[name].value = value
        setattr(self, name, _to_trait(_PARAMS[name], value))

    def controls(self) -> dict[str, Control]:
        """Create a control for each setting and make the settings follow the controls."""
        controls = {name: Control(param, value=self.settings[name]) for name, param in _PARAMS.items()}
        for control in controls.values():
            control.observe(lambda control=control: self._follow(control))
        self._controls = controls
        self.sources = {name: control.widget for name, control in controls.items()}
        return controls

    def _follow(self, control: Control) -> None:
        """Copy a control's value to its setting without sending it, because the page has this value or a newer one."""
        name, value = control.param.name, _to_trait(control.param, control.value)
        with self._moving, self._lock_property(**{name: value}):
            setattr(self, name, value)

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """Apply a message from the page while no other thread copies a control's value."""
        with self._moving:
            super().set_state(sync_data)


def _to_trait(param: Param, value: Any) -> Any:
    if param.kind == "choice":
        return param.options().index(value)
    return list(value) if param.kind == "range" else value


def _from_trait(param: Param, value: Any) -> Any:
    if param.kind == "choice":
        return param.options()[value]
    return tuple(value) if param.kind == "range" else value
