"""What of a comparison goes down and across, and menus for the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from saliency_widgets.api.compare import TITLES, Axis, Cell
from saliency_widgets.params import check_choice, unknown
from saliency_widgets.widgets.base.controls import LABEL_WIDTH, Menu


def menu(title: str, options: Any, value: Any, name: str) -> Menu:
    """A menu in the panel of a comparison."""
    made = Menu(
        options=options, value=value, description=title, style={"description_width": LABEL_WIDTH},
        layout={"width": "auto"},
    )  # fmt: skip
    return made.add_class(f"sw-menu-{name}")


class Pivot:
    """Which axes go down and across, and which variant of the others is shown.

    Args:
        axes: What is compared, by name.
        rows: What goes down; chosen unless given.
        columns: What goes across.
        moved: Called when something else is to be shown.

    Attributes:
        rows: The axis that goes down.
        columns: The axis that goes across.
        menus: A menu for each axis that has several variants.
        turning: Menus for what goes down and across, where there is a choice.
    """

    def __init__(
        self, axes: Mapping[str, Axis], rows: str | None, columns: str | None, moved: Callable[[], None]
    ) -> None:
        self._axes, self._moved = axes, moved
        varied = [name for name in TITLES if len(axes[name]) > 1]
        self.rows, self.columns = _chosen(varied, rows, columns)
        self.menus = {
            name: menu(TITLES[name], [(label, k) for k, label in enumerate(axes[name].labels)], 0, name)
            for name in varied
        }
        for one in self.menus.values():
            one.observe(lambda _change: moved(), names="value")
        self.turning: list[Menu] = []
        if len(varied) > 1:
            for title, value in (("Down", self.rows), ("Across", self.columns)):
                options = [(TITLES[name], name) for name in dict.fromkeys((*varied, self.rows, self.columns))]
                self.turning.append(menu(title, options, value, title.lower()))
                self.turning[-1].observe(self._on_turn, names="value")

    @property
    def choosable(self) -> list[str]:
        """The axes that have a menu to choose a variant: neither down nor across."""
        return [name for name in self.menus if name not in (self.rows, self.columns)]

    @property
    def headings(self) -> tuple[list[str], list[str]]:
        """What the rows and the columns are called; empty where there is nothing to tell apart."""
        down, across = self._axes[self.rows], self._axes[self.columns]
        single = len(down) == len(across) == 1
        return (
            down.labels if len(down) > 1 else [""],
            across.labels if len(across) > 1 or single else [""],
        )

    def places(self) -> list[Cell]:
        """What is shown, row by row."""
        for name, one in self.menus.items():
            one.layout.display = "none" if name in (self.rows, self.columns) else None
        chosen = {name: one.value for name, one in self.menus.items()}
        return [
            Cell(**{**chosen, self.rows: row, self.columns: column})
            for row in range(len(self._axes[self.rows]))
            for column in range(len(self._axes[self.columns]))
        ]

    def name(self, place: Cell) -> tuple[str, str]:
        """The row and the column of a place."""
        row, column = (self._axes[name].labels[getattr(place, name)] for name in (self.rows, self.columns))
        return row, column

    def choose(self, choices: Mapping[str, Any]) -> None:
        """Move menus, by label or place.

        Raises:
            ValueError: There is no such menu or variant. Nothing is moved then.
        """
        found = {}
        known = self.choosable
        for name, choice in choices.items():
            if name not in known:
                raise ValueError(unknown("menu", name, known))
            labels = self._axes[name].labels
            if isinstance(choice, int) and not isinstance(choice, bool) and 0 <= choice < len(labels):
                found[name] = choice
            else:
                found[name] = labels.index(check_choice(name, choice, labels))
        for name, value in found.items():
            self.menus[name].value = value

    def _on_turn(self, change: Any) -> None:
        down, across = self.turning
        if down.value == across.value:  # the other takes the place that was left
            other = across if change["owner"] is down else down
            other.value = change["old"]
            return  # which has shown it
        self.rows, self.columns = str(down.value), str(across.value)
        self._moved()


def _chosen(varied: list[str], rows: str | None, columns: str | None) -> tuple[str, str]:
    """What goes down and what across: what was asked for, or else the first that varies."""
    for name, given in (("rows", rows), ("columns", columns)):
        if given is not None:
            check_choice(name, given, list(TITLES))
    if rows is not None and rows == columns:
        raise ValueError(f"rows: {rows!r} are the columns already. Choose another of {list(TITLES)}.")
    free = [name for name in dict.fromkeys((*varied, *TITLES)) if name not in (rows, columns)]
    if len(varied) < 2 and rows is None:  # one row of maps
        columns = columns or free.pop(0)
    down = rows or free.pop(0)
    return down, columns or free[0]
