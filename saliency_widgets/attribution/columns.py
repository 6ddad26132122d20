"""The columns of a table: which of the model's features come from each, and what other rows hold there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Columns:
    """What is known of the table that a row is from.

    Attributes:
        names: Of its C columns.
        of: Which column each of the model's F features comes from, shape (F,); -1 where that can't be told.
        encode: From rows as people have them (a Series, a DataFrame), and what they are called in an error, to what the
            model sees, (N, F).
        rows: Other rows, the background, as the model sees them, shape (N, F), or None.
        median: The median of each column, and of one of words the most frequent, as the model sees it, (F,), or None.
    """

    names: tuple[str, ...]
    of: Tensor
    encode: Callable[[Any, str], Tensor]
    rows: Tensor | None = None
    median: Tensor | None = None

    def summed(self, values: Tensor) -> Tensor:
        """Attributions of the model's features, summed back to the columns: (B, F) becomes (B, C).

        An attribution in proportion to the change of its feature is the same in any unit: of a linear model on scaled
        features, Integrated Gradients give w (x - x') in the units of the columns.
        """
        total = values.new_zeros(len(values), len(self.names))
        from_column = (self.of >= 0).to(values.device)
        return total.index_add_(1, self.of.to(values.device)[from_column], values[:, from_column])
