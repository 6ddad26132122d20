"""The section that recomputes the map and compares methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from saliency_widgets.evaluation.stability import RADIUS, TURNS, Stability, agreement
from saliency_widgets.markup import Markup, element
from saliency_widgets.session.examiner import Check
from saliency_widgets.session.explanation import Case
from saliency_widgets.widgets.base.charts import INK, QUIET, number, result_line
from saliency_widgets.widgets.base.controls import Control
from saliency_widgets.widgets.base.text import RichText
from saliency_widgets.widgets.trust.section import Section

_HOW = (
    "The map is recomputed with other seeds, and for the image with noise that is too weak to see. A rank correlation "
    "of 1 means the same order of all pixels, 0 means no relation. Green: always above 0.8; amber: above 0.5; red: "
    "below. The table: rank correlations between the maps computed so far."
)
_WORDS = {
    "green": ("●", "#2e9e4f", "Stable"),
    "amber": ("▲", "#e69f00", "Partly stable"),
    "red": ("■", "#d33", "Unstable"),
}


class StabilitySection(Section):
    """Tests whether the map is stable and whether the methods agree."""

    name, title = "stability", "Stability and agreement"
    waiting, how = "The maps are compared as soon as the map is finished.", _HOW

    def __init__(self, others: Callable[[], Mapping[str, Case]]) -> None:
        self._turns, self._radius = Control(TURNS), Control(RADIUS)
        super().__init__(self._turns, self._radius)
        self._others = others
        self._table = RichText()
        self.lay_out(self._table)

    def check(self, case: Case) -> Check:
        """Return the stability of this map."""
        return case.stability(turns=self._turns.value, radius=self._radius.value)

    def show(self, result: Stability, case: Case) -> None:
        """Show the rating, the numbers behind it, and the table."""
        mark, color, word = _WORDS[result.light]
        numbers = [f"barely visible noise {number(min(result.noises, default=float('nan')))} at worst"]
        if result.seeds:
            numbers.insert(0, f"other seeds {number(min(result.seeds))} at worst")
        if result.complete:
            numbers.append(f"max-sensitivity {number(result.sensitivity)}")
        error = case.attribution.standard_error
        if error is not None:
            size = float(case.attribution.values.abs().mean())
            numbers.append(f"sampling error {float(error.mean()) / size:.0%}" if size else "no values")
        state = "" if result.complete else f" ({result.done} of {result.total})"
        light = element("span", mark, style=f"color:{color}")
        self._said.value = result_line(light, f" {word}{state}: {'; '.join(numbers)}.", strong=True)
        self._table.value = _table(
            {"this map": case.values, **{name: other.values for name, other in self._others().items()}}
        )


def _table(maps: Mapping[str, Tensor]) -> Markup:
    if len(maps) < 2:
        return result_line("Choose other methods, and their maps are compared here.")
    cells = agreement(maps).tolist()
    quiet = f"padding:2px 8px;color:{QUIET}"

    def cell(value: float) -> Markup:
        background = f"rgba(243,119,38,{max(0.0, value) * 0.5:.2f})"  # NaN becomes transparent
        return element(
            "td", number(value), style=f"text-align:right;padding:2px 8px;color:{INK};background:{background}"
        )

    head = element("tr", element("td"), *(element("th", name, style=quiet) for name in maps))
    rows = (
        element("tr", element("th", name, style=f"text-align:left;{quiet}"), *map(cell, row))
        for name, row in zip(maps, cells, strict=True)
    )
    return element("table", head, *rows, class_="sw-agreement", style="border-collapse:collapse")
