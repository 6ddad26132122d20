"""The view of the importance of features over many rows."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as w

from saliency_widgets.evaluation.importance import Importance
from saliency_widgets.session.explanation import FinishedMap
from saliency_widgets.widgets.base.bars import FeatureBars
from saliency_widgets.widgets.trust.section import Section


class BarsSection(Section):
    """A tab for a test that yields a number for each feature of a table, shown as bars."""

    waiting = "The result appears as soon as the bars are computed."

    def _make_parts(self) -> Sequence[w.Widget]:
        assert self.context.table is not None
        self._names = self.context.table.names
        self._bars = FeatureBars(self._names, signed=False)
        return [self._bars.widget]


class ImportanceSection(BarsSection):
    """A tab that shows the features that the scores of many rows depend on."""

    view = "importance"

    def show(self, result: Importance, shown: FinishedMap) -> None:  # noqa: ARG002
        """Show the mean absolute values over the rows computed so far, with their means as markers."""
        self._bars.show(result.size.numpy(), markers=result.mean.numpy(), final=result.complete)
        largest = result.size.argsort(descending=True)[:3].tolist()
        state = "" if result.complete else f" of {result.total}"
        self.say(
            f"Over {result.done}{state} rows, the scores depend most on {', '.join(self._names[k] for k in largest)}."
        )
