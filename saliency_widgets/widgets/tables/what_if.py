"""What if the row held another value: one feature at a time, by slider, within what other rows hold."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

import ipywidgets as w
import numpy as np
import pandas as pd

from saliency_widgets.inputs import Table
from saliency_widgets.inputs.tables import is_numeric
from saliency_widgets.widgets.charts import INK, QUIET
from saliency_widgets.widgets.controls import LABEL_WIDTH
from saliency_widgets.widgets.tables.bars import value_text

_STEPS = 200


class WhatIf:
    """A feature to choose, its value to move, and what was moved so far.

    Args:
        table: The row as it was given, and its background.
        edit: Called with a name and a value.

    Attributes:
        widget: What is seen.
        controls: What is moved in it.
    """

    def __init__(self, table: Table, edit: Callable[[str, Any], None]) -> None:
        self._table, self._edit = table, edit
        self._changed: dict[str, Any] = {}
        self._hold = False
        style, layout = {"description_width": LABEL_WIDTH}, {"width": "auto"}
        self._feature: Any = w.Dropdown(options=table.names, description="Feature", style=style, layout=layout)
        common = {"description": "Value", "style": style, "layout": layout}
        # One of them is seen, whichever suits the column.
        self._number = w.FloatSlider(readout_format=".4g", **{**common, "layout": {"width": "auto"}})
        self._whole = w.IntSlider(**{**common, "layout": {"width": "auto"}})
        self._choice = w.Dropdown(**{**common, "layout": {"width": "auto"}})
        self._back = w.Button(description="Undo this", tooltip="The feature's own value again")
        self._all = w.Button(description="Undo all", tooltip="The row as it was given")
        self._said = w.HTML()
        for leaf, name in ((self._feature, "feature"), *((one, "value") for one in self._valued)):
            leaf.add_class("sw-control").add_class(f"sw-control-what-if-{name}")
        buttons = w.HBox([self._back, self._all])
        self.widget = w.VBox([self._feature, *self._valued, buttons, self._said])
        self.controls = [self._feature, *self._valued, self._back, self._all]
        self._feature.observe(lambda _change: self._show(), names="value")
        for one in self._valued:
            one.observe(lambda change: self._on_value(change["new"]), names="value")
        self._back.on_click(lambda _button: self._undo([self._feature.value]))
        self._all.on_click(lambda _button: self._undo(list(self._changed)))
        self._show()

    @property
    def changed(self) -> dict[str, Any]:
        """The values that are other than those of the row that was given."""
        return dict(self._changed)

    @property
    def _valued(self) -> tuple[Any, Any, Any]:
        return self._number, self._whole, self._choice

    def choose(self, column: int) -> None:
        """Move another feature from now on."""
        self._feature.value = self._table.names[column]

    def told(self, name: str, value: Any) -> None:
        """A value was set from Python."""
        self._note(name, value)
        if name == self._feature.value:
            self._show()

    def _own(self, name: str) -> Any:
        return self._table.rows.iloc[0, self._table.names.index(name)]

    def _note(self, name: str, value: Any) -> None:
        if value == self._own(name):
            self._changed.pop(name, None)
        else:
            self._changed[name] = value
        parts = [f"{key} {value_text(self._own(key))} → {value_text(new)}" for key, new in self._changed.items()]
        text = f"Changed: {'; '.join(parts)}." if parts else "Nothing is changed."
        self._said.value = f"<div style='line-height:1.4;color:{INK if parts else QUIET}'>{html.escape(text)}</div>"
        self._back.disabled = self._feature.value not in self._changed
        self._all.disabled = not self._changed

    def _on_value(self, value: Any) -> None:
        if self._hold:
            return
        name = self._feature.value
        self._edit(name, value)

    def _undo(self, names: list[str]) -> None:
        for name in names:
            if name in self._changed:
                self._edit(name, self._own(name))
        self._show()

    def _show(self) -> None:
        """The control that suits the chosen feature, where it stands."""
        name = self._feature.value
        value = self._changed.get(name, self._own(name))
        place = self._table.names.index(name)
        own = self._table.rows.iloc[:, place]
        rest = None if self._table.background is None else self._table.background.iloc[:, place]
        column: Any = own if rest is None else pd.concat([own, rest], ignore_index=True)
        held, self._hold = self._hold, True
        try:
            if not is_numeric(column) or pd.api.types.is_bool_dtype(column):
                shown: Any = self._choice
                options = sorted(column.unique().tolist(), key=str)
                shown.options = [(str(option), option) for option in options]
                shown.value = value
            else:
                low, high = float(column.min()), float(column.max())
                if low == high:  # nobody has another: around it
                    low, high = low - max(1.0, abs(low)), high + max(1.0, abs(high))
                low, high = min(low, float(value)), max(high, float(value))
                whole = bool((column == column.round()).all())
                shown = self._whole if whole else self._number
                with shown.hold_trait_notifications():
                    shown.min, shown.max = (int(low), int(high)) if whole else (low, high)
                    shown.value = int(value) if whole else float(value)
                if not whole:
                    shown.step = float(np.format_float_positional((high - low) / _STEPS, precision=2, fractional=False))
            for one in self._valued:
                one.layout.display = None if one is shown else "none"
        finally:
            self._hold = held
        self._note(name, value)
