"""Mean and variance of samples that come in chunks."""

from __future__ import annotations

import torch
from torch import Tensor


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

    def add(self, drawn: Tensor) -> None:
        """Take in K more samples, shape (K, ...)."""
        drawn = drawn.to(self._wide)
        done, count = self.count, len(drawn)
        shift = drawn.mean(0) - self._mean
        self._squares += (drawn - drawn.mean(0)).square().sum(0) + shift**2 * (done * count / (done + count))
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
