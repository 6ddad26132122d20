"""The view of the shuffle test: markers on the bars of a row, and bars of the importance over all rows."""

from __future__ import annotations

import numpy as np
import torch

from saliency_widgets.evaluation.shuffling import Permutation, Shuffled, Shuffles
from saliency_widgets.evaluation.similarity import spearman
from saliency_widgets.session.explanation import FinishedMap
from saliency_widgets.widgets.base.bars import size_text
from saliency_widgets.widgets.base.charts import number
from saliency_widgets.widgets.trust.importance import BarsSection


class ShuffleSection(BarsSection):
    """A tab that shows the effect of taking a feature's value from other rows, and of permuting its column."""

    view = "shuffle"
    _local: Shuffled | None = None
    _row_line = ""

    def show(self, result: Shuffles, shown: FinishedMap) -> None:
        """Show markers on the bars of the row, and the importance of features over all rows."""
        local, permuted = result
        if local is not self._local:  # it is the same object while the background is permuted
            self._local, self._row_line = local, self._show_row(local, shown)
        lines = [self._row_line]
        if permuted is not None:
            values = permuted.importance.numpy()
            self._bars.show(np.nan_to_num(values), final=permuted.complete)
            lines.append(_describe_permutation(permuted, values, self._names))
        self.say(*lines)

    def _show_row(self, local: Shuffled, shown: FinishedMap) -> str:
        contributions = local.contribution.cpu().numpy()
        if self.context.bars is not None:
            self.context.bars.show_markers(contributions)
        attributions = shown.attribution.by_feature().iloc[0].to_numpy()
        return _describe_row(local, contributions, attributions, self._names)


def _describe_row(local: Shuffled, contributions: np.ndarray, attributions: np.ndarray, names: list[str]) -> str:
    largest = int(np.abs(contributions).argmax())
    direction = "higher" if contributions[largest] >= 0 else "lower"
    text = (
        f"This row: {names[largest]} changes the score most; it is {size_text(abs(contributions[largest]))} "
        f"{direction} with the row's value than with those of {local.done} other rows."
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
        what = f"permuting {names[largest]} changes the score most, by {size_text(finite[largest])} on average"
        return f"All rows{state}: {what}. Pass labels= to see the effect on the loss."
    return (
        f"All rows{state}: permuting {names[largest]} raises the {permuted.loss} most, by "
        f"{size_text(finite[largest])}, from {size_text(permuted.before)}."
    )
