"""The columns of a table: which of the model's features come from each, and the values of other rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Columns:
    """The columns of the table that the inputs are rows of.

    Attributes:
        names: The names of the C columns.
        of: The column that each of the model's F features comes from, shape (F,); -1 where it is unknown.
        encode: A function from pandas rows (a Series, a DataFrame) and the argument's name, for errors, to the model's
            input, shape (N, F).
        rows: Other rows, the background, as model input, shape (N, F), or None.
        median: The median of each column (for text, the most frequent value), as model input, shape (F,), or None.
    """

    names: tuple[str, ...]
    of: Tensor
    encode: Callable[[Any, str], Tensor]
    rows: Tensor | None = None
    median: Tensor | None = None

    def summed(self, values: Tensor) -> Tensor:
        """Sum attributions of the model's features by column: (B, F) becomes (B, C).

        An attribution proportional to the change of its feature doesn't depend on the unit: for a linear model on
        scaled features, Integrated Gradients gives w (x - x') in the units of the columns.
        """
        total = values.new_zeros(len(values), len(self.names))
        from_column = (self.of >= 0).to(values.device)
        return total.index_add_(1, self.of.to(values.device)[from_column], values[:, from_column])
