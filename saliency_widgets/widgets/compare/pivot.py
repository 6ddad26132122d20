"""The axes of a comparison's grid, and menus for the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from saliency_widgets.api.compare import TITLES, Cell
from saliency_widgets.api.grid import Axis
from saliency_widgets.params import check_choice, unknown
from saliency_widgets.widgets.base.controls import LABEL_WIDTH, Menu


def menu(title: str, options: Any, value: Any, name: str) -> Menu:
    """Create a menu for the panel of a comparison."""
    widget = Menu(
        options=options, value=value, description=title, style={"description_width": LABEL_WIDTH},
        layout={"width": "auto"},
    )  # fmt: skip
    return widget.add_class(f"sw-menu-{name}")


class Pivot:
    """The axes shown as rows and columns, and the selected variant of every other axis.

    Args:
        axes: The axes of the comparison, by name.
        rows: The axis of the rows. Chosen by default.
        columns: The axis of the columns.
        moved: Called when the selection has changed.
        wide: Whether inputs are wider than high, as texts and signals are: maps along one axis are then in one column.

    Attributes:
        rows: The axis of the rows.
        columns: The axis of the columns.
        menus: A menu for each axis with several variants.
        turning: Menus that select the axes of the rows and columns, if several axes vary.
    """

    def __init__(
        self,
        axes: Mapping[str, Axis],
        rows: str | None,
        columns: str | None,
        moved: Callable[[], None],
        *,
        wide: bool = False,
    ) -> None:
        self._axes, self._moved = axes, moved
        varied = [name for name in TITLES if len(axes[name]) > 1]
        self.rows, self.columns = _chosen(varied, rows, columns, wide)
        self.menus = {
            name: menu(TITLES[name], [(label, k) for k, label in enumerate(axes[name].labels)], 0, name)
            for name in varied
        }
        for variants in self.menus.values():
            variants.observe(lambda _change: moved(), names="value")
        self.turning: list[Menu] = []
        if len(varied) > 1:
            for title, name, value in (("Rows", "down", self.rows), ("Columns", "across", self.columns)):
                options = [(TITLES[axis], axis) for axis in dict.fromkeys((*varied, self.rows, self.columns))]
                self.turning.append(menu(title, options, value, name))
                self.turning[-1].observe(self._on_turn, names="value")

    @property
    def choosable(self) -> list[str]:
        """The axes with a visible menu of variants: all that are neither rows nor columns."""
        return [name for name in self.menus if name not in (self.rows, self.columns)]

    @property
    def headings(self) -> tuple[list[str], list[str]]:
        """The labels of rows and columns; an axis with one variant has an empty label, unless there is only one map."""
        rows, columns = self._axes[self.rows], self._axes[self.columns]
        single = len(rows) == len(columns) == 1
        return (
            rows.labels if len(rows) > 1 else [""],
            columns.labels if len(columns) > 1 or single else [""],
        )

    def cells(self) -> list[Cell]:
        """Update which menus are visible, and return the displayed cells row by row."""
        for name, variants in self.menus.items():
            variants.layout.display = "none" if name in (self.rows, self.columns) else None
        chosen = {name: variants.value for name, variants in self.menus.items()}
        return [
            Cell(**{**chosen, self.rows: row, self.columns: column})
            for row in range(len(self._axes[self.rows]))
            for column in range(len(self._axes[self.columns]))
        ]

    def name(self, cell: Cell) -> tuple[str, str]:
        """Return the labels of a cell's row and column."""
        row, column = (self._axes[name].labels[getattr(cell, name)] for name in (self.rows, self.columns))
        return row, column

    def choose(self, choices: Mapping[str, Any]) -> None:
        """Select variants in the menus, by label or index.

        Raises:
            ValueError: A menu or variant doesn't exist. The selection stays as it was.
        """
        indices = {}
        names = self.choosable
        for name, choice in choices.items():
            if name not in names:
                raise ValueError(unknown("menu", name, names))
            labels = self._axes[name].labels
            if isinstance(choice, int) and not isinstance(choice, bool) and 0 <= choice < len(labels):
                indices[name] = choice
            else:
                indices[name] = labels.index(check_choice(name, choice, labels))
        for name, value in indices.items():
            self.menus[name].value = value

    def _on_turn(self, change: Any) -> None:
        rows, columns = self.turning
        if rows.value == columns.value:  # swap the two
            other = columns if change["owner"] is rows else rows
            other.value = change["old"]
            return  # setting the value has already called this method again
        self.rows, self.columns = str(rows.value), str(columns.value)
        self._moved()


def _chosen(varied: list[str], rows: str | None, columns: str | None, wide: bool) -> tuple[str, str]:
    """Return the axes of the rows and columns: the requested ones, else the first that vary."""
    for name, axis in (("rows", rows), ("columns", columns)):
        if axis is not None:
            check_choice(name, axis, list(TITLES))
    if rows is not None and rows == columns:
        raise ValueError(f"rows: {rows!r} is already used for the columns. Choose another of {list(TITLES)}.")
    free = [name for name in dict.fromkeys((*varied, *TITLES)) if name not in (rows, columns)]
    if len(varied) < 2 and rows is None and not wide:  # one row of maps
        columns = columns or free.pop(0)
    first = rows or free.pop(0)
    return first, columns or free[0]
