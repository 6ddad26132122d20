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
from saliency_widgets.widgets.base.charts import number, result_line
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
    """The effect of each feature: its value taken from other rows, and its column permuted.

    Args:
        table: The row and its background.
        labels: The labels of the background's rows, or None.
        value: Whether the model predicts values instead of classes.
        bars: The bars of the attributions, which get the markers.
    """

    name, title = "shuffle", "Shuffle"
    waiting = "The answer comes as soon as the bars are there."
    how = (
        "Diamonds above: how much higher the score is with the row's value than with those of other rows, one feature "
        "at a time. A bar and its diamond should agree (for a slope, in sign and order); if they don't, the feature "
        "acts together with others, or the method misses it. Bars here: permutation importance over all rows of the "
        "background. Exchanging one value can create unrealistic rows."
    )

    def __init__(self, table: Table, labels: Any, bars: FeatureBars, *, value: bool) -> None:
        self._value = value
        self._draws, self._repeats = Control(DRAWS), Control(REPEATS)
        super().__init__(self._draws, self._repeats)
        self._table, self._labels, self._attribution_bars = table, labels, bars
        self._bars = FeatureBars(table.names, signed=False)
        self.lay_out(self._bars.widget)
        if table.background is None:
            self._said.value = result_line(_NONE)

    def check(self, case: Case) -> Check | None:
        """Return the check of the row, then of the background."""
        if self._table.background is None:
            return None
        draws, repeats = self._draws.value, self._repeats.value
        return case.shuffles(self._labels, value=self._value, draws=draws, repeats=repeats)

    def show(self, result: Shuffles, case: Case) -> None:
        """Show markers on the bars, and the importance over all rows."""
        names = self._table.names
        local, permuted = result
        contributions = local.contribution.cpu().numpy()
        self._attribution_bars.show_markers(contributions)
        attributions = case.attribution.by_feature().iloc[0].to_numpy()
        lines = [_describe_row(local, contributions, attributions, names)]
        if permuted is not None:
            values = permuted.importance.numpy()
            self._bars.show(np.nan_to_num(values), final=permuted.complete)
            lines.append(_describe_permutation(permuted, values, names))
        self._said.value = joined(result_line(line, strong=True) for line in lines)


def _describe_row(local: Shuffled, contributions: np.ndarray, attributions: np.ndarray, names: list[str]) -> str:
    largest = int(np.abs(contributions).argmax())
    direction = "higher" if contributions[largest] >= 0 else "lower"
    text = (
        f"This row: {names[largest]} moves the score most; it is {size_text(abs(contributions[largest]))} {direction} "
        f"with the row's value than with those of {local.done} other rows."
    )
    if len(names) > 2:
        correlation = spearman(torch.from_numpy(np.abs(contributions)), torch.from_numpy(np.abs(attributions)))
        text += f" The rank correlation with the bars is {number(correlation)}."
    return text


def _describe_permutation(permuted: Permutation, values: np.ndarray, names: list[str]) -> str:
    finite = np.nan_to_num(values, nan=-np.inf)
    largest = int(finite.argmax())
    state = "" if permuted.complete else f" ({permuted.done} of {permuted.total})"
    if permuted.loss == "change of the score":
        what = f"permuting {names[largest]} moves the score most, by {size_text(finite[largest])} on average"
        return f"All rows{state}: {what}. Pass labels= to see the effect on the loss."
    return (
        f"All rows{state}: permuting {names[largest]} raises the {permuted.loss} most, by "
        f"{size_text(finite[largest])}, from {size_text(permuted.before)}."
    )


class ImportanceSection(Section):
    """The features that the scores of many rows depend on.

    Args:
        table: The row and its background.
    """

    name, title = "importance", "Over many rows"
    waiting = "The answer comes as soon as the bars are there."
    how = (
        "Bars: the mean absolute attribution over many rows of the background, with the method and settings above. "
        "Diamonds: the signed mean; if it is near 0 under a long bar, the feature raises the score in some rows and "
        "lowers it in others."
    )

    def __init__(self, table: Table) -> None:
        self._rows = Control(ROWS)
        super().__init__(self._rows)
        self._table = table
        self._bars = FeatureBars(table.names, signed=False)
        self.lay_out(self._bars.widget)
        if table.background is None:
            self._said.value = result_line(_NONE)

    def check(self, case: Case) -> Check | None:
        """Return the importance over the chosen number of rows."""
        return None if self._table.background is None else case.importance(rows=self._rows.value)

    def show(self, result: Importance, case: Case) -> None:  # noqa: ARG002
        """Show the mean sizes over the rows computed so far."""
        names = self._table.names
        self._bars.show(result.size.numpy(), final=result.complete)
        self._bars.show_markers(result.mean.numpy())
        largest = result.size.argsort(descending=True)[:3].tolist()
        state = "" if result.complete else f" of {result.total}"
        text = f"Over {result.done}{state} rows, the scores depend most on {', '.join(names[k] for k in largest)}."
        self._said.value = result_line(text, strong=True)


class TableSaturation(SaturationSection):
    """Tests where the score saturates on the path from a baseline to the row."""

    what = "row"

    def __init__(self, table: Table) -> None:
        self._table = table
        super().__init__()

    def _start(self, baselines: Sequence[str]) -> Control:  # noqa: ARG002
        return BaselineControl(self._table)


class TableStability(StabilitySection):
    """Tests whether the attributions are stable and whether the methods agree."""

    how = (
        "The attributions are recomputed with other seeds, and for the row with a little noise in each column, "
        "relative to its range. A rank correlation of 1 means the same order of all features, 0 means no relation. "
        "Green: always above 0.8; amber: above 0.5; red: below. The table: rank correlations between the methods "
        "computed so far."
    )


class TableTrust(TrustPanel):
    """Tests of a row's attributions: shuffled features, many rows, saturation, stability and agreement.

    Args:
        view: The view of progress, readings and errors.
        table: The row and its background.
        labels: The labels of the background's rows, or None.
        bars: The bars of the attributions.
        value: Whether the model predicts values instead of classes.
        busy: Returns whether attributions are being computed.
        executor: "thread" or "inline".
    """

    kinds = (ShuffleSection, ImportanceSection, TableSaturation, TableStability)
    introduction = "A long bar shows what the score is sensitive to, not what causes it. Test it here."

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
        self._marked_case: Case | None = None  # the explanation that the markers belong to
        super().__init__(view, busy=busy, executor=executor)

    def _make_section(self, kind: type[Section]) -> Section:
        if kind is ShuffleSection:
            return ShuffleSection(self._table, self._labels, self._bars, value=self._value)
        if kind in (ImportanceSection, TableSaturation):
            return kind(self._table)  # type: ignore[arg-type]
        return super()._make_section(kind)

    def show(self, case: Case, title: str) -> None:
        """Test finished attributions; markers of another row or score are removed."""
        if self._marked_case is None or not self._marked_case.is_comparable(case):
            self._bars.show_markers(None)
        self._marked_case = case
        super().show(case, title)

    def _on_choice(self) -> None:
        self._bars.show_markers(None)
        super()._on_choice()
