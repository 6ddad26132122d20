"""Models that predict numbers, which are shown unchanged."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from saliency_widgets.outputs.labels import is_numeric, read_column
from saliency_widgets.outputs.task import Prediction, Task
from saliency_widgets.params import brief


class Regression(Task):
    """A task with one value for each output."""

    shares = False
    loss = "squared error"

    def _numbered(self, target: int) -> str:
        return "value" if self.outputs == 1 else f"output {target}"

    def default(self, scores: Tensor) -> Tensor:
        """Return the index of the only value."""
        if scores.shape[1] > 1:
            raise ValueError(
                f"target: the model returns {scores.shape[1]} values; with score='value', pass the index of one of "
                f"them."
            )
        return torch.full((len(scores),), int(self.binary), device=scores.device)

    def predictions(self, logits: Tensor, most: int) -> list[Prediction]:
        """Return the values in order."""
        if self.paired:  # a single number, although two classes are named
            return [Prediction(1, "value", float(logits[1]))]
        return [Prediction(k, self.label(k, short=True), float(value)) for k, value in enumerate(logits[:most])]

    def text(self, value: float) -> str:
        """Format a number with four significant digits."""
        return f"{value:.4g}"

    def read_labels(self, labels: Any, rows: int, classes: int) -> Tensor:  # noqa: ARG002
        """Check numbers and return them as float64."""
        column = read_column(labels, rows)
        if not is_numeric(column):
            raise ValueError(f"labels: expected numbers, as the model predicts a value; got {brief(column.iloc[0])}.")
        values = column.to_numpy(dtype=np.float64, copy=True)
        if not np.isfinite(values).all():
            raise ValueError("labels: some are infinite. Leave those rows out.")
        return torch.from_numpy(values)
