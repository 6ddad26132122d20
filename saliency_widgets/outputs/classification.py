"""Models that score classes, of which each sample belongs to one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from saliency_widgets.attribution.score import probabilities
from saliency_widgets.outputs.labels import is_numeric, read_column
from saliency_widgets.outputs.task import Prediction, Task
from saliency_widgets.params import brief, unknown


class Classification(Task):
    """A task with one logit for each class, or one for two classes."""

    shares = True
    loss = "cross-entropy"

    def _numbered(self, target: int) -> str:
        return f"class {target}"

    def default(self, scores: Tensor) -> Tensor:
        """Return the most probable class of each sample."""
        return self.logits(scores).argmax(1)

    def predictions(self, logits: Tensor, most: int) -> list[Prediction]:
        """Return the most probable classes and their probabilities."""
        shares = probabilities(logits.cpu().double()[None])[0]
        top = torch.topk(shares, min(most, len(shares)))
        pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        return [Prediction(index, self.label(index, short=True), share) for index, share in pairs]

    def text(self, value: float) -> str:
        """Format a probability in percent."""
        return f"{value:.1%}"

    def read_labels(self, labels: Any, rows: int, classes: int) -> Tensor:
        """Check class indices or names and return them as int64; a single logit means two classes."""
        column = read_column(labels, rows)
        return _indices(column if is_numeric(column) else self._by_name(column), max(2, classes), classes == 1)

    def _by_name(self, column: Any) -> Any:
        if self.class_names is None:
            raise ValueError(f"labels: got {brief(column.iloc[0])}, but no class_names= were passed to look it up in.")
        index_of = {str(name): index for index, name in enumerate(self.class_names)}
        other = next((label for label in column if str(label) not in index_of), None)
        if other is not None:
            raise ValueError(unknown("labels", str(other), list(index_of)))
        return column.map(lambda label: index_of[str(label)])


def _indices(column: Any, count: int, single: bool) -> Tensor:
    numbers = column.to_numpy(dtype=np.float64)
    invalid = numbers[~((numbers % 1 == 0) & (numbers >= 0) & (numbers < count))]
    if len(invalid):
        hint = " For a model that predicts a value, pass score='value'." if single else ""
        raise ValueError(f"labels: expected classes from 0 to {count - 1}, got {invalid[0]:g}.{hint}")
    if len(set(numbers)) == 1:
        raise ValueError(
            f"labels: expected several classes, got one ({numbers[0]:g}) for all {len(numbers)} rows. A loss on one "
            f"class says little about what distinguishes classes. Pass rows of several classes."
        )
    return torch.from_numpy(numbers.astype(np.int64))
