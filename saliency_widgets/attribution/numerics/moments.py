"""Mean and variance of samples that come in chunks."""

from __future__ import annotations

import torch
from torch import Tensor

Chunk = tuple[int, Tensor, Tensor, Tensor]


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
        self._even = torch.zeros_like(self._mean)  # sum of the samples with even numbers

    def of(self, drawn: Tensor, first: int = 0) -> Chunk:
        """What K samples, shape (K, ...), add.

        Args:
            drawn: The samples.
            first: The number of the first.

        Returns:
            How many they are, their mean, their squared deviations from it, and the sum of those with even numbers.
        """
        drawn = drawn.to(self._wide)
        mean = drawn.mean(0)  # twice through the numbers: torch.var_mean over the first dimension is many times slower
        return len(drawn), mean, (drawn - mean).square_().sum(0), drawn[first % 2 :: 2].sum(0)

    def add(self, chunk: Chunk) -> None:
        """Take in what K more samples add."""
        count, mean, squares, even = chunk
        done, shift = self.count, mean - self._mean
        self._squares = self._squares + squares + shift**2 * (done * count / (done + count))
        self._mean = self._mean + shift * (count / (done + count))
        self._even = self._even + even
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

    @property
    def agreement(self) -> Tensor | None:
        """How far two halves of the samples, every other one, order the places alike, shape (B,); None for one sample.

        The rank correlation (Spearman) of the sizes of their means: see :func:`rank_correlation`. Of half as many
        samples each, they agree less than two maps of all samples would.
        """
        if self.count < 2:
            return None
        even = (self.count + 1) // 2
        halves = self._even / even, (self._mean * self.count - self._even) / (self.count - even)
        return rank_correlation(*(half.abs() for half in halves))

    @property
    def relative_error(self) -> Tensor | None:
        """The mean standard error over the mean size of the mean, shape (B,); None for one sample."""
        if self.count < 2:
            return None
        error = (self._variance / self.count).sqrt().flatten(1).mean(1)
        return error / self._mean.abs().flatten(1).mean(1).clamp(min=torch.finfo(self._wide).tiny)


_PLACES = 4096


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's rank correlation of two maps of each sample, shape (B,).

    Args:
        a: Shape (B, ...); of images (B, C, H, W) the largest over the channels counts.
        b: Likewise. Of large maps, some 4,000 places evenly spread are compared; equal values keep their order.
    """

    def ranks(values: Tensor) -> Tensor:
        flat = (values.amax(1) if values.ndim == 4 else values).flatten(1)
        flat = flat[:, :: max(1, flat.shape[1] // _PLACES)]
        order = flat.argsort(dim=1, stable=True).argsort(dim=1).double()
        return order - order.mean(1, keepdim=True)

    x, y = ranks(a), ranks(b)
    return (x * y).sum(1) / (x.square().sum(1) * y.square().sum(1)).sqrt().clamp(min=1e-300)
