"""The section that computes the map again, and compares methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from saliency_widgets.evaluation.stability import RADIUS, TURNS, Stability, agreement
from saliency_widgets.markup import Markup, element
from saliency_widgets.session.examiner import Check
from saliency_widgets.session.explanation import Case
from saliency_widgets.widgets.base.charts import INK, QUIET, number, said
from saliency_widgets.widgets.base.controls import Control
from saliency_widgets.widgets.base.text import RichText
from saliency_widgets.widgets.trust.section import Section

_HOW = (
    "The map is computed again with other seeds, and for the image with a noise that nobody would see. Rank "
    "correlation 1 is the same order of all pixels, 0 is none. Green: above 0.8 each time; amber: above 0.5; red: "
    "below. The table: how far the maps that were computed so far put the pixels in one order."
)
_WORDS = {"green": ("●", "#2e9e4f", "Stable"), "amber": ("▲", "#e69f00", "Wavering"), "red": ("■", "#d33", "Unstable")}


class StabilitySection(Section):
    """Whether the map stays, and whether the methods agree."""

    name, title = "stability", "Stability and agreement"
    waiting, how = "The comparison comes as soon as the map is there.", _HOW

    def __init__(self, others: Callable[[], Mapping[str, Case]]) -> None:
        self._turns, self._radius = Control(TURNS), Control(RADIUS)
        super().__init__(self._turns, self._radius)
        self._others = others
        self._table = RichText()
        self.lay_out(self._table)

    def check(self, case: Case) -> Check:
        """The stability of this map."""
        return case.stability(turns=self._turns.value, radius=self._radius.value)

    def show(self, found: Stability, case: Case) -> None:
        """The light with the numbers behind it, and the table."""
        mark, color, word = _WORDS[found.light]
        numbers = [f"hardly visible noise {number(min(found.noises, default=float('nan')))} at worst"]
        if found.seeds:
            numbers.insert(0, f"other seeds {number(min(found.seeds))} at worst")
        if found.complete:
            numbers.append(f"max-sensitivity {number(found.sensitivity)}")
        error = case.attribution.standard_error
        if error is not None:
            size = float(case.attribution.values.abs().mean())
            numbers.append(f"sampling error {float(error.mean()) / size:.0%}" if size else "no values")
        state = "" if found.complete else f" ({found.done} of {found.total})"
        light = element("span", mark, style=f"color:{color}")
        self._said.value = said(light, f" {word}{state}: {'; '.join(numbers)}.", strong=True)
        self._table.value = _table(
            {"this map": case.values, **{name: other.values for name, other in self._others().items()}}
        )


def _table(maps: Mapping[str, Tensor]) -> Markup:
    if len(maps) < 2:
        return said("Choose other methods, and their maps are compared here.")
    cells = agreement(maps).tolist()
    quiet = f"padding:2px 8px;color:{QUIET}"

    def cell(value: float) -> Markup:
        ground = f"rgba(243,119,38,{max(0.0, value) * 0.5:.2f})"  # NaN is no ground
        return element("td", number(value), style=f"text-align:right;padding:2px 8px;color:{INK};background:{ground}")

    head = element("tr", element("td"), *(element("th", name, style=quiet) for name in maps))
    rows = (
        element("tr", element("th", name, style=f"text-align:left;{quiet}"), *map(cell, row))
        for name, row in zip(maps, cells, strict=True)
    )
    return element("table", head, *rows, class_="sw-agreement", style="border-collapse:collapse")
