"""The controls of the table explorer, with the methods and baselines that apply to rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ipywidgets as w
import torch

from saliency_widgets.attribution.baselines import BASELINE, BASELINES
from saliency_widgets.attribution.registry import Method, get_method
from saliency_widgets.inputs import Table
from saliency_widgets.params import Param
from saliency_widgets.session import Problem, Request
from saliency_widgets.widgets.base.controls import AUTO, LABEL_WIDTH, Control
from saliency_widgets.widgets.base.panel import Panel

_ROW = "row"
_NAMED = {
    "mean of the background": "mean",
    "median of the background": "median",
    "zero in the model's input": "zero",
    "a row of the background": _ROW,
    "noise in each column's range": "noise",
}


class BaselineControl(Control):
    """A control for the baseline of a row: a statistic, noise or a row of the background, or zero.

    Args:
        table: The row and its background.
        value: The initial baseline. Default: the mean of the background, or zero without a background.
    """

    def __init__(self, table: Table, value: Any = None) -> None:
        background = table.background
        options = _NAMED if background is not None else {"zero in the model's input": "zero"}
        super().__init__(BASELINE, value, options=options)
        self._background = background
        self._rows: dict[int, Any] = {}  # the same row must be the same object, as it is part of the request
        self._row = w.IntSlider(min=0, max=0 if background is None else len(background) - 1, description="Row")
        self._row.style.description_width = LABEL_WIDTH
        self._row.layout.width = "auto"
        self._row.add_class("sw-control").add_class("sw-control-baseline-row")
        self.widget = w.VBox([self._holder, self._row], layout={"width": "auto"})
        self._holder.observe(lambda _change: self._show_row(), names="value")
        self._show_row()

    @property
    def leaves(self) -> list[Any]:
        """The menu and the slider for the row."""
        return [self._holder, self._row]

    @property
    def row(self) -> int | None:
        """The index of the selected background row; None for another baseline."""
        return int(self._row.value) if self._holder.value == _ROW else None

    @property
    def value(self) -> Any:
        """The baseline: a name, a row of the background, or a value set from Python."""
        if self.row is None:
            return super().value
        if self.row not in self._rows:
            assert self._background is not None
            self._rows[self.row] = self._background.iloc[[self.row]]
        return self._rows[self.row]

    @value.setter
    def value(self, value: Any) -> None:
        super(BaselineControl, type(self)).value.fset(self, value)  # type: ignore[attr-defined]

    def _show_row(self) -> None:
        self._row.layout.display = None if self._holder.value == _ROW else "none"


def check_baseline(table: Table, value: Any) -> None:
    """Check a pandas row that is passed as the baseline.

    Raises:
        ValueError: It has other columns or unusable values, or is not one row.
    """
    count = len(table.columns.encode(value, "baseline"))
    if count != 1:
        raise ValueError(f"baseline: expected one row, got {count}. Pass one of them, such as df.iloc[[0]].")


class TablePanel(Panel):
    """Controls for the method, the target and the method's parameters, for rows of a table.

    Args:
        problem: The model and the row.
        **arguments: See :class:`Panel`.
    """

    accepted = (*Panel.accepted, "top")

    def __init__(self, problem: Problem, **arguments: Any) -> None:
        table = problem.table
        assert table is not None
        self._table = table
        super().__init__(problem, **arguments)

    @property
    def baseline_row(self) -> int | None:
        """The index of the background row that is the baseline of the selected method; None for another baseline."""
        control = self._params.get(BASELINE)
        used = BASELINE in self._methods[self._method.value].params
        return control.row if used and isinstance(control, BaselineControl) else None

    def title_of(self, request: Request) -> str:
        """Return the method and target of a request; only the method for a single output without class names."""
        if self._problem.class_names is None and self._classes == 1:
            return get_method(request.method).title
        return super().title_of(request)

    def predicted(self, logits: Any) -> None:
        """Show the model's predictions for the current row; changes only display widgets."""
        previous, self._predicted = self._predicted, logits
        if self._bars is not None and (previous is None or not torch.equal(previous, logits)):
            self._show_predicted()

    def _fits(self, entry: Method) -> bool:
        return not {"layer", "image"} & {*entry.needs}

    def _has_bars(self, classes: int) -> bool:
        return classes > 1 and self._task.shares

    def _control(self, param: Param, value: Any) -> Control:
        if param is BASELINE:
            return BaselineControl(self._table, value)
        if param is BASELINES:
            return Control(param, value, options=self._baselines())
        return Control(param, value)

    def _checked(self, control: Control, value: Any) -> Any:
        if control.param is BASELINE and hasattr(value, "iloc"):
            check_baseline(self._table, value)
        return super()._checked(control, value)

    def _baselines(self) -> Mapping[str, Any]:
        if self._table.background is None:
            return {"noise": "noise", "zero": "zero"}
        return {"the background's rows": AUTO, "their mean": "mean", "their median": "median", "noise": "noise"}

    def _target_section(self) -> list[w.Widget]:
        return super()._target_section() if self._classes > 1 else []
