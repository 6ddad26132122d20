"""What if the row held another value: one feature at a time, by slider, within what other rows hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

import ipywidgets as w
import numpy as np
import pandas as pd

from saliency_widgets.inputs import Table
from saliency_widgets.inputs.table import is_numeric
from saliency_widgets.markup import element
from saliency_widgets.widgets.base.charts import INK, QUIET
from saliency_widgets.widgets.base.controls import LABEL_WIDTH, Menu
from saliency_widgets.widgets.base.parts import close_whole
from saliency_widgets.widgets.base.text import RichText
from saliency_widgets.widgets.table.bars import value_text

_STEPS = 200  # of a slider
_CHOICES = 300  # of a menu, the most frequent
_LISTED = 20  # of the changed values
_CLASS = "sw-control-what-if-value"
_SAME = 1e-6  # of a step: what the browser sends back differs in the last bits


class WhatIf:
    """A feature to choose, its value to move, and what was moved so far.

    Args:
        table: The row as it was given, and its background.
        edit: Called with a name and a value; tells whether it can be used.

    Attributes:
        widget: What is seen.
        made: Called with each control that is made anew.
    """

    def __init__(self, table: Table, edit: Callable[[str, Any], bool]) -> None:
        self._table, self._edit = table, edit
        self._changed: dict[str, Any] = {}
        self._step = 1.0
        style, layout = {"description_width": LABEL_WIDTH}, {"width": "auto"}
        self._feature: Any = Menu(options=table.names, description="Feature", style=style, layout=layout)
        self._value: Any = None
        self._place = w.VBox()
        self._back = w.Button(description="Undo this", tooltip="The feature's own value again")
        self._all = w.Button(description="Undo all", tooltip="The row as it was given")
        self._said = RichText()
        self._feature.add_class("sw-control").add_class("sw-control-what-if-feature")
        buttons = w.HBox([self._back, self._all])
        self.widget = w.VBox([self._feature, self._place, buttons, self._said])
        self.made: Callable[[w.Widget], None] = lambda _widget: None
        self._feature.observe(lambda _change: self._show(), names="value")
        self._back.on_click(lambda _button: self._undo([self._feature.value]))
        self._all.on_click(lambda _button: self._undo(list(self._changed)))
        self._show()

    @property
    def changed(self) -> dict[str, Any]:
        """The values that are other than those of the row that was given."""
        return dict(self._changed)

    @property
    def controls(self) -> list[w.Widget]:
        """What is moved in it."""
        return [self._feature, self._value, self._back, self._all]

    def choose(self, column: int) -> None:
        """Move another feature from now on."""
        self._feature.value = self._table.names[column]

    def told(self, values: Mapping[str, Any]) -> None:
        """Values were set from Python."""
        self._note(values)
        shown = self._feature.value
        if shown in values and not self._same(self._value.value, values[shown]):
            self._show()

    def _own(self, name: str) -> Any:
        return self._table.rows.iloc[0, self._table.column_index[name]]

    def _note(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if value == self._own(name):
                self._changed.pop(name, None)
            else:
                self._changed[name] = value
        some = islice(self._changed.items(), _LISTED)
        parts = [f"{key} {value_text(self._own(key))} → {value_text(new)}" for key, new in some]
        if len(self._changed) > _LISTED:
            parts.append(f"and {len(self._changed) - _LISTED} more")
        text = f"Changed: {'; '.join(parts)}." if parts else "Nothing is changed."
        self._said.value = element("div", text, style=f"line-height:1.4;color:{INK if parts else QUIET}")
        self._back.disabled = self._feature.value not in self._changed
        self._all.disabled = not self._changed

    def _on_value(self, change: Any) -> None:
        if change["owner"] is not self._value:  # one that was replaced while it was dragged
            return
        name, value = self._feature.value, change["new"]
        known = (self._own(name), self._changed.get(name, self._own(name)))
        value = next((one for one in known if self._same(value, one)), value)
        if value != known[1] and not self._edit(name, value):
            self._show()  # where it stood

    def _same(self, shown: Any, value: Any) -> bool:
        return abs(shown - value) < _SAME * self._step if isinstance(shown, float) else bool(shown == value)

    def _undo(self, names: list[str]) -> None:
        for name in names:
            if name in self._changed:
                self._edit(name, self._own(name))
        self._show()

    def _show(self) -> None:
        """The control that suits the chosen feature, where it stands.

        It is made anew: a slider in the browser moves its value into whatever limits and steps it is given, and sends
        that back as if a person had moved it.
        """
        name = self._feature.value
        value = self._changed.get(name, self._own(name))
        place = self._table.column_index[name]
        own = self._table.rows.iloc[:, place]
        rest = None if self._table.background is None else self._table.background.iloc[:, place]
        old, self._value = self._value, self._made(own if rest is None else pd.concat([own, rest]), value)
        self._value.add_class("sw-control").add_class(_CLASS)
        self._value.observe(self._on_value, names="value")
        closed = self._place.children[:-1]
        if old is None:
            self._place.children = (self._value,)
        else:
            # Hidden, and not closed before the next one comes: who drags it would have its page send to nobody.
            old.layout.display = "none"
            old.remove_class(_CLASS)
            self._place.children = (old, self._value)
        for child in closed:
            close_whole(child)
        self.made(self._value)
        self._note({name: value})

    def _made(self, column: Any, value: Any) -> Any:
        common: dict[str, Any] = {
            "description": "Value",
            "style": {"description_width": LABEL_WIDTH},
            "layout": {"width": "auto"},
        }
        if not is_numeric(column) or pd.api.types.is_bool_dtype(column):
            common_first = column.value_counts().index.tolist()[:_CHOICES]
            options = sorted({*common_first, value}, key=str)
            return Menu(options=[(str(option), option) for option in options], value=value, **common)
        low, high = float(column.min()), float(column.max())
        if low == high:  # nobody has another: around it
            low, high = low - max(1.0, abs(low)), high + max(1.0, abs(high))
        value = float(value)
        low, high = min(low, value), max(high, value)
        if value.is_integer() and bool((column == column.round()).all()):
            return w.IntSlider(value=int(value), min=math.floor(low), max=math.ceil(high), **common)
        self._step = float(np.format_float_positional((high - low) / _STEPS, precision=2, fractional=False))
        digits = max(0, 1 - math.floor(math.log10(self._step)))
        # It moves in steps from its lower end, and must be able to stand where it is.
        low = value - math.floor((value - low) / self._step) * self._step
        return w.FloatSlider(value=value, min=low, max=high, step=self._step, readout_format=f".{digits}f", **common)
