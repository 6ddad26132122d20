"""Mean and variance of samples that arrive in chunks."""

from __future__ import annotations

import torch
from torch import Tensor

Chunk = tuple[int, Tensor, Tensor, Tensor]


class Moments:
    """Running mean and variance of samples.

    Chunks are merged as in Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample
    Variances", 1979, which avoids cancellation.

    Args:
        like: A tensor of the samples' shape and type.

    Attributes:
        count: The number of samples added.
    """

    def __init__(self, like: Tensor) -> None:
        self.count = 0
        # Sums of many samples lose accuracy in half precision.
        self._type, self._wide = like.dtype, torch.promote_types(like.dtype, torch.float32)
        self._mean = torch.zeros_like(like, dtype=self._wide)
        self._squares = torch.zeros_like(self._mean)  # sum of squared deviations from the mean
        self._even = torch.zeros_like(self._mean)  # sum of the samples with even numbers

    def of(self, drawn: Tensor, first: int = 0) -> Chunk:
        """Summarize K samples as a chunk for :meth:`add`.

        Args:
            drawn: The samples, shape (K, ...).
            first: The number of the first sample.

        Returns:
            Their count, their mean, the sum of squared deviations from it, and the sum of the even-numbered samples.
        """
        drawn = drawn.to(self._wide)
        mean = drawn.mean(0)  # two passes, as torch.var_mean over the first dimension is many times slower
        return len(drawn), mean, (drawn - mean).square_().sum(0), drawn[first % 2 :: 2].sum(0)

    def add(self, chunk: Chunk) -> None:
        """Merge a chunk of samples."""
        count, mean, squares, even = chunk
        done, shift = self.count, mean - self._mean
        self._squares = self._squares + squares + shift**2 * (done * count / (done + count))
        self._mean = self._mean + shift * (count / (done + count))
        self._even = self._even + even
        self.count += count

    @property
    def mean(self) -> Tensor:
        """The samples' mean, a new tensor after each addition, so that callers can hold on to it."""
        return self._mean.to(self._type)

    @property
    def variance(self) -> Tensor:
        """The samples' variance, with divisor n - 1; zero for a single sample."""
        return self._variance.to(self._type)

    @property
    def _variance(self) -> Tensor:
        return self._squares / max(self.count - 1, 1)

    @property
    def standard_error(self) -> Tensor | None:
        """The standard error of the mean; None for a single sample."""
        return (self._variance / self.count).sqrt().to(self._type) if self.count > 1 else None

    @property
    def agreement(self) -> Tensor | None:
        """Rank correlation between two halves of the samples (even and odd), shape (B,); None for a single sample.

        It compares the magnitudes of their means: see :func:`rank_correlation`. With half the samples each, they agree
        less than two maps of all samples would.
        """
        if self.count < 2:
            return None
        even = (self.count + 1) // 2
        halves = self._even / even, (self._mean * self.count - self._even) / (self.count - even)
        return rank_correlation(*(half.abs() for half in halves))

    @property
    def relative_error(self) -> Tensor | None:
        """The mean standard error over the mean magnitude of the mean, shape (B,); None for a single sample."""
        if self.count < 2:
            return None
        error = (self._variance / self.count).sqrt().flatten(1).mean(1)
        return error / self._mean.abs().flatten(1).mean(1).clamp(min=torch.finfo(self._wide).tiny)


_PLACES = 4096


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Return Spearman's rank correlation between two maps of each sample, shape (B,).

    Args:
        a: Maps of shape (B, ...); for images (B, C, H, W), the maximum over channels is used.
        b: Likewise. For large maps, some 4,000 evenly spaced positions are compared; ties keep their order.
    """

    def ranks(values: Tensor) -> Tensor:
        flat = (values.amax(1) if values.ndim == 4 else values).flatten(1)
        flat = flat[:, :: max(1, flat.shape[1] // _PLACES)]
        order = flat.argsort(dim=1, stable=True).argsort(dim=1).double()
        return order - order.mean(1, keepdim=True)

    x, y = ranks(a), ranks(b)
    return (x * y).sum(1) / (x.square().sum(1) * y.square().sum(1)).sqrt().clamp(min=1e-300)
