"""The view of the stability test, with the agreement between methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import ipywidgets as w
from torch import Tensor

from saliency_widgets.evaluation.stability import Stability, agreement
from saliency_widgets.markup import Markup, element, joined
from saliency_widgets.session.explanation import FinishedMap
from saliency_widgets.widgets.base.charts import INK, QUIET, number, result_line
from saliency_widgets.widgets.base.text import RichText
from saliency_widgets.widgets.trust.section import Section

_WORDS = {
    "green": ("●", "#2e9e4f", "Stable"),
    "amber": ("▲", "#e69f00", "Partly stable"),
    "red": ("■", "#d33", "Unstable"),
}


class StabilitySection(Section):
    """A tab that shows whether the map is stable and whether methods agree."""

    view, waiting = "stability", "The maps are compared as soon as the map is finished."

    def _make_parts(self) -> Sequence[w.Widget]:
        self._table = RichText()
        return [self._table]

    def show(self, result: Stability, shown: FinishedMap) -> None:
        """Show the rating, the numbers it is based on, and the table of agreement."""
        mark, color, word = _WORDS[result.light]
        numbers = [f"barely visible noise {number(min(result.noises, default=float('nan')))} at worst"]
        if result.seeds:
            numbers.insert(0, f"other seeds {number(min(result.seeds))} at worst")
        if result.complete:
            numbers.append(f"max-sensitivity {number(result.sensitivity)}")
        error = shown.attribution.standard_error
        if error is not None:
            size = float(shown.attribution.values.abs().mean())
            numbers.append(f"sampling error {float(error.mean()) / size:.0%}" if size else "no values")
        state = "" if result.complete else f" ({result.done} of {result.total})"
        light = element("span", mark, style=f"color:{color}")
        self.say(joined([light, f" {word}{state}: {'; '.join(numbers)}."]))
        self._table.value = _table(
            {"this map": shown.values, **{name: other.values for name, other in self.others().items()}}
        )


def _table(maps: Mapping[str, Tensor]) -> Markup:
    if len(maps) < 2:
        return result_line("Select other methods to compare their maps here.")
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
