"""The columns of a table: which of the model's features come from each, and what other rows hold there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from saliency_widgets.attribution.numerics.noise import seeded


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

    def named(self, name: str, seed: int) -> Tensor | None:
        """A baseline that the background tells, shape (F,); None where it is not about the background.

        Args:
            name: "mean", "median", or "noise": uniform within each feature's range.
            seed: Of the noise.

        Raises:
            ValueError: There is no background, or no row of medians.
        """
        if name not in ("mean", "median", "noise"):
            return None
        if self.rows is None:
            if name == "noise":
                return None
            raise ValueError(f"baseline: {name!r} is one of other rows. Pass background= your training data.")
        if name == "mean":
            return self.rows.mean(0)
        if name == "median":
            if self.median is None:
                raise ValueError("baseline: the transform fails for the row of medians. Choose another baseline.")
            return self.median
        drawn = torch.rand(self.rows.shape[1], generator=seeded(seed, "baseline"), dtype=torch.float32, device="cpu")
        low, high = self.rows.amin(0), self.rows.amax(0)
        return low + drawn.to(low) * (high - low)

    def spread(self) -> Tensor | None:
        """The range max - min of each feature in the background, shape (F,)."""
        return None if self.rows is None else self.rows.amax(0) - self.rows.amin(0)
