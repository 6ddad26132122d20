"""What-if controls: change the row's values one feature at a time, within the range of the other rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

import ipywidgets as w
import numpy as np
import pandas as pd

from saliency_widgets.inputs import Table
from saliency_widgets.markup import element
from saliency_widgets.outputs.labels import is_numeric
from saliency_widgets.widgets.base.bars import value_text
from saliency_widgets.widgets.base.charts import INK, QUIET
from saliency_widgets.widgets.base.controls import LABEL_WIDTH, Menu
from saliency_widgets.widgets.base.parts import close_whole
from saliency_widgets.widgets.base.text import RichText

_STEPS = 200  # steps of a slider
_CHOICES = 300  # options of a menu, the most frequent values
_LISTED = 20  # changed values in the summary
_CLASS = "sw-control-what-if-value"
_SAME = 1e-6  # of a step; the browser returns a value that differs in the last bits


class WhatIf:
    """Controls that select a feature and change its value, with a summary of the changes.

    Args:
        table: The original row and its background.
        edit: Called with a feature's name and its new value; returns whether the value can be used.

    Attributes:
        widget: The column of controls.
        on_new_control: Called with each new value control.
    """

    def __init__(self, table: Table, edit: Callable[[str, Any], bool]) -> None:
        self._table, self._edit = table, edit
        self._changed: dict[str, Any] = {}
        self._step = 1.0
        style, layout = {"description_width": LABEL_WIDTH}, {"width": "auto"}
        self._feature: Any = Menu(options=table.names, description="Feature", style=style, layout=layout)
        self._value: Any = None
        self._value_box = w.VBox()
        self._back = w.Button(description="Undo this", tooltip="Restore this feature's original value")
        self._all = w.Button(description="Undo all", tooltip="Restore the original row")
        self._said = RichText()
        self._feature.add_class("sw-control").add_class("sw-control-what-if-feature")
        buttons = w.HBox([self._back, self._all])
        self.widget = w.VBox([self._feature, self._value_box, buttons, self._said])
        self.on_new_control: Callable[[w.Widget], None] = lambda _widget: None
        self._feature.observe(lambda _change: self._show(), names="value")
        self._back.on_click(lambda _button: self._undo([self._feature.value]))
        self._all.on_click(lambda _button: self._undo(list(self._changed)))
        self._show()

    @property
    def changed(self) -> dict[str, Any]:
        """The values that differ from the original row."""
        return dict(self._changed)

    @property
    def controls(self) -> list[w.Widget]:
        """The interactive widgets."""
        return [self._feature, self._value, self._back, self._all]

    def choose(self, column: int) -> None:
        """Select the feature to change, by its column index."""
        self._feature.value = self._table.names[column]

    def set_values(self, values: Mapping[str, Any]) -> None:
        """Show values that were set from Python."""
        self._summarize(values)
        shown = self._feature.value
        if shown in values and not self._same(self._value.value, values[shown]):
            self._show()

    def _original(self, name: str) -> Any:
        return self._table.rows.iloc[0, self._table.column_index[name]]

    def _summarize(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if value == self._original(name):
                self._changed.pop(name, None)
            else:
                self._changed[name] = value
        some = islice(self._changed.items(), _LISTED)
        parts = [f"{key} {value_text(self._original(key))} → {value_text(new)}" for key, new in some]
        if len(self._changed) > _LISTED:
            parts.append(f"and {len(self._changed) - _LISTED} more")
        text = f"Changed: {'; '.join(parts)}." if parts else "No changes."
        self._said.value = element("div", text, style=f"line-height:1.4;color:{INK if parts else QUIET}")
        self._back.disabled = self._feature.value not in self._changed
        self._all.disabled = not self._changed

    def _on_value(self, change: Any) -> None:
        if change["owner"] is not self._value:  # the control was replaced while the user dragged it
            return
        name, value = self._feature.value, change["new"]
        original = self._original(name)
        current = self._changed.get(name, original)
        value = next((exact for exact in (original, current) if self._same(value, exact)), value)
        if value != current and not self._edit(name, value):
            self._show()  # show the previous value

    def _same(self, shown: Any, value: Any) -> bool:
        return abs(shown - value) < _SAME * self._step if isinstance(shown, float) else bool(shown == value)

    def _undo(self, names: list[str]) -> None:
        for name in names:
            if name in self._changed:
                self._edit(name, self._original(name))
        self._show()

    def _show(self) -> None:
        """Show a control for the selected feature at its current value.

        The control is a new one each time, because a slider in the browser would clamp its value to new limits and
        steps and send the result as if the user had moved it.
        """
        name = self._feature.value
        value = self._changed.get(name, self._original(name))
        position = self._table.column_index[name]
        column = self._table.rows.iloc[:, position]
        if self._table.background is not None:
            column = pd.concat([column, self._table.background.iloc[:, position]])
        old, self._value = self._value, self._value_control(column, value)
        self._value.add_class("sw-control").add_class(_CLASS)
        self._value.observe(self._on_value, names="value")
        closed = self._value_box.children[:-1]
        if old is None:
            self._value_box.children = (self._value,)
        else:
            # Hide the old control and close it with the next change, as the user may still be dragging it.
            old.layout.display = "none"
            old.remove_class(_CLASS)
            self._value_box.children = (old, self._value)
        for child in closed:
            close_whole(child)
        self.on_new_control(self._value)
        self._summarize({name: value})

    def _value_control(self, column: Any, value: Any) -> Any:
        common: dict[str, Any] = {
            "description": "Value",
            "style": {"description_width": LABEL_WIDTH},
            "layout": {"width": "auto"},
        }
        if not is_numeric(column) or pd.api.types.is_bool_dtype(column):
            frequent = column.value_counts().index.tolist()[:_CHOICES]
            options = sorted({*frequent, value}, key=str)
            return Menu(options=[(str(option), option) for option in options], value=value, **common)
        low, high = float(column.min()), float(column.max())
        if low == high:  # all rows have the same value, so use a range around it
            low, high = low - max(1.0, abs(low)), high + max(1.0, abs(high))
        value = float(value)
        low, high = min(low, value), max(high, value)
        if value.is_integer() and bool((column == column.round()).all()):
            return w.IntSlider(value=int(value), min=math.floor(low), max=math.ceil(high), **common)
        self._step = float(np.format_float_positional((high - low) / _STEPS, precision=2, fractional=False))
        digits = max(0, 1 - math.floor(math.log10(self._step)))
        # Align the slider's lower end with the current value, as its steps start there.
        low = value - math.floor((value - low) / self._step) * self._step
        return w.FloatSlider(value=value, min=low, max=high, step=self._step, readout_format=f".{digits}f", **common)
