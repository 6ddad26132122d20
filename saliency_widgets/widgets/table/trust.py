"""Tests of a row's attributions: shuffled features, many rows, saturation, stability."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from saliency_widgets.evaluation.importance import ROWS, Importance
from saliency_widgets.evaluation.shuffling import DRAWS, REPEATS, Permutation, Shuffled
from saliency_widgets.evaluation.similarity import spearman
from saliency_widgets.inputs import Table
from saliency_widgets.markup import joined
from saliency_widgets.session.examiner import Check
from saliency_widgets.session.explanation import Case, Shuffles
from saliency_widgets.widgets.base.charts import number, said
from saliency_widgets.widgets.base.controls import Control
from saliency_widgets.widgets.base.heatmap import HeatmapView
from saliency_widgets.widgets.table.bars import FeatureBars, size_text
from saliency_widgets.widgets.table.panel import BaselineControl
from saliency_widgets.widgets.trust.panel import TrustPanel
from saliency_widgets.widgets.trust.saturation import SaturationSection
from saliency_widgets.widgets.trust.section import Section
from saliency_widgets.widgets.trust.stability import StabilitySection

_NONE = "There are no other rows. Pass background= some of your training data to sw.explore."


class ShuffleSection(Section):
    """What each feature is worth: its value taken from other rows, and the column permuted.

    Args:
        table: The row and its background.
        labels: Of the background's rows, or None.
        value: Whether the model predicts values, and no classes.
        bars: Where the marks stand, beside the attributions.
    """

    name, title = "shuffle", "Shuffle"
    waiting = "The answer comes as soon as the bars are there."
    how = (
        "Diamonds above: by how much the score is higher with the row's own value than with those of other rows, one "
        "feature at a time. A bar and its diamond should tell the same story (a slope, in sign and order); where "
        "they don't, the feature acts together with others, or the method misses it. Bars here: the same over all of "
        "the background, as permutation importance. Rows with one value exchanged may be ones that no one has seen."
    )

    def __init__(self, table: Table, labels: Any, bars: FeatureBars, *, value: bool) -> None:
        self._value = value
        self._draws, self._repeats = Control(DRAWS), Control(REPEATS)
        super().__init__(self._draws, self._repeats)
        self._table, self._labels, self._marks = table, labels, bars
        self._bars = FeatureBars(table.names, signed=False)
        self.lay_out(self._bars.widget)
        if table.background is None:
            self._said.value = said(_NONE)

    def check(self, case: Case) -> Check | None:
        """Both, the row's first."""
        if self._table.background is None:
            return None
        draws, repeats = self._draws.value, self._repeats.value
        return case.shuffles(self._labels, value=self._value, draws=draws, repeats=repeats)

    def show(self, found: Shuffles, case: Case) -> None:
        """Marks beside the bars, and the importance over all rows."""
        names = self._table.names
        local, over = found
        worth = local.contribution.cpu().numpy()
        self._marks.beside(worth)
        own = case.attribution.by_feature().iloc[0].to_numpy()
        lines = [_told_here(local, worth, own, names)]
        if over is not None:
            values = over.importance.numpy()
            self._bars.show(np.nan_to_num(values), final=over.complete)
            lines.append(_told_over(over, values, names))
        self._said.value = joined(said(line, strong=True) for line in lines)


def _told_here(local: Shuffled, worth: np.ndarray, own: np.ndarray, names: list[str]) -> str:
    most = int(np.abs(worth).argmax())
    way = "higher" if worth[most] >= 0 else "lower"
    text = (
        f"This row: {names[most]} moves the score most; it is {size_text(abs(worth[most]))} {way} with the row's own "
        f"value than with {local.done} other rows'."
    )
    if len(names) > 2:
        alike = spearman(torch.from_numpy(np.abs(worth)), torch.from_numpy(np.abs(own)))
        text += f" The bars order the features alike to a rank correlation of {number(alike)}."
    return text


def _told_over(over: Permutation, values: np.ndarray, names: list[str]) -> str:
    known = np.nan_to_num(values, nan=-np.inf)
    most = int(known.argmax())
    state = "" if over.complete else f" ({over.done} of {over.total})"
    if over.loss == "change of the score":
        what = f"permuting {names[most]} moves the score by {size_text(known[most])} on average, the most"
        return f"All rows{state}: {what}. With labels= it would be told what that does to the loss."
    return (
        f"All rows{state}: permuting {names[most]} raises the {over.loss} most, by {size_text(known[most])}, "
        f"from {size_text(over.before)}."
    )


class ImportanceSection(Section):
    """What the scores of many rows rest on.

    Args:
        table: The row and its background.
    """

    name, title = "importance", "Over many rows"
    waiting = "The answer comes as soon as the bars are there."
    how = (
        "Bars: the mean size of the attributions over many rows of the background, by the method and the settings "
        "above. Diamonds: their mean with its sign; near 0 under a long bar, the feature speaks for it in some rows "
        "and against it in others."
    )

    def __init__(self, table: Table) -> None:
        self._rows = Control(ROWS)
        super().__init__(self._rows)
        self._table = table
        self._bars = FeatureBars(table.names, signed=False)
        self.lay_out(self._bars.widget)
        if table.background is None:
            self._said.value = said(_NONE)

    def check(self, case: Case) -> Check | None:
        """So many rows."""
        return None if self._table.background is None else case.importance(rows=self._rows.value)

    def show(self, found: Importance, case: Case) -> None:  # noqa: ARG002
        """The mean sizes, over ever more rows."""
        names = self._table.names
        self._bars.show(found.size.numpy(), final=found.complete)
        self._bars.beside(found.mean.numpy())
        most = found.size.argsort(descending=True)[:3].tolist()
        state = "" if found.complete else f" of {found.total}"
        text = f"Over {found.done}{state} rows, the scores rest most on {', '.join(names[k] for k in most)}."
        self._said.value = said(text, strong=True)


class TableSaturation(SaturationSection):
    """Where the score settles on the way from a baseline to the row."""

    what = "row"

    def __init__(self, table: Table) -> None:
        self._table = table
        super().__init__()

    def _start(self, baselines: Sequence[str]) -> Control:  # noqa: ARG002
        return BaselineControl(self._table)


class TableStability(StabilitySection):
    """Whether the attributions stay, and whether the methods agree."""

    how = (
        "The attributions are computed again with other seeds, and for the row with a little noise in each column, "
        "as a part of its range. Rank correlation 1 is the same order of all features, 0 is none. Green: above 0.8 "
        "each time; amber: above 0.5; red: below. The table: how far the methods that were computed so far put the "
        "features in one order."
    )


class TableTrust(TrustPanel):
    """Shuffled features, many rows, saturation, stability and agreement of a row's attributions.

    Args:
        view: Where the answer's state is told.
        table: The row and its background.
        labels: Of the background's rows, or None.
        bars: The bars that are tested.
        value: Whether the model predicts values, and no classes.
        busy: Whether attributions are being computed.
        executor: "thread" or "inline".
    """

    kinds = (ShuffleSection, ImportanceSection, TableSaturation, TableStability)
    says = "A long bar shows what the score is sensitive to, not what causes it. Test it here."

    def __init__(
        self,
        view: HeatmapView,
        table: Table,
        labels: Any,
        bars: FeatureBars,
        *,
        value: bool,
        busy: Callable[[], bool],
        executor: str,
    ) -> None:
        self._table, self._labels, self._bars, self._value = table, labels, bars, value
        self._about: Case | None = None  # what the marks beside the bars are about
        super().__init__(view, busy=busy, executor=executor)

    def _made(self, kind: type[Section]) -> Section:
        if kind is ShuffleSection:
            return ShuffleSection(self._table, self._labels, self._bars, value=self._value)
        if kind in (ImportanceSection, TableSaturation):
            return kind(self._table)  # type: ignore[arg-type]
        return super()._made(kind)

    def show(self, case: Case, title: str) -> None:
        """Attributions are finished; marks of another row or score are taken away."""
        if self._about is None or not self._about.is_comparable(case):
            self._bars.beside(None)
        self._about = case
        super().show(case, title)

    def _on_choice(self) -> None:
        self._bars.beside(None)
        super()._on_choice()
