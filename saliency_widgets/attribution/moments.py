"""Mean and variance of samples that come in chunks."""

from __future__ import annotations

import torch
from torch import Tensor

Chunk = tuple[int, Tensor, Tensor]


class Moments:
    """The running mean of samples and their variance.

    Chunks are merged as in Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample
    Variances", 1979, which does not cancel.

    Args:
        like: A tensor of the samples' shape and type.

    Attributes:
        count: How many samples were added.
    """

    def __init__(self, like: Tensor) -> None:
        self.count = 0
        # In half precision sums of many samples drift away.
        self._type, self._wide = like.dtype, torch.promote_types(like.dtype, torch.float32)
        self._mean = torch.zeros_like(like, dtype=self._wide)
        self._squares = torch.zeros_like(self._mean)  # sum of squared deviations from the mean

    def of(self, drawn: Tensor) -> Chunk:
        """What K samples, shape (K, ...), add: their number, their mean and their squared deviations from it."""
        drawn = drawn.to(self._wide)
        mean = drawn.mean(0)
        return len(drawn), mean, (drawn - mean).square().sum(0)

    def add(self, chunk: Chunk) -> None:
        """Take in what K more samples add."""
        count, mean, squares = chunk
        done, shift = self.count, mean - self._mean
        self._squares = self._squares + squares + shift**2 * (done * count / (done + count))
        self._mean = self._mean + shift * (count / (done + count))
        self.count += count

    @property
    def mean(self) -> Tensor:
        """The samples' mean; a new tensor after each addition, so that it can be handed out."""
        return self._mean.to(self._type)

    @property
    def variance(self) -> Tensor:
        """The samples' variance, with n - 1; zero for one sample."""
        return self._variance.to(self._type)

    @property
    def _variance(self) -> Tensor:
        return self._squares / max(self.count - 1, 1)

    @property
    def standard_error(self) -> Tensor | None:
        """Of the mean; None for one sample."""
        return (self._variance / self.count).sqrt().to(self._type) if self.count > 1 else None
