"""Storage of gradients in 16 bits, to save memory where there are many."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

WHOLE_BYTES = 40 * 2**20
_EXPONENT = 15  # float16 reaches 2^16


def full_precision_count(like: Tensor) -> int | None:
    """Return how many gradients of a tensor's shape to store in full before storing the rest as halves; None for all.

    For 224 x 224 images this is 69, and 1,024 gradients take 315 MiB instead of 590. Small inputs never reach the
    limit, and float64 gradients are always stored in full.
    """
    return None if like.dtype != torch.float32 else max(16, WHOLE_BYTES // (4 * max(1, like.numel())))


@dataclass(frozen=True)
class Half:
    """Tensors in 16 bits per value: value = codes * scale, with a scale for each sample of each tensor.

    The scale is a power of two, so that only the 11 significant bits of float16 limit the accuracy: a value is off by
    at most 2^-11 of itself (5e-4), or, if it is smaller than 2^-28 of its sample's largest, by 2^-39 of that.

    Attributes:
        codes: float16, shape (K, B, ...), or (B, ...) for a single tensor.
        scale: float32, broadcastable to ``codes``.
    """

    codes: Tensor
    scale: Tensor

    @classmethod
    def of(cls, values: Tensor) -> Half:
        """Round values of shape (K, B, ...), float32."""
        largest = values.flatten(2).abs().amax(2)
        exponent = (torch.frexp(largest).exponent - _EXPONENT).clamp(min=-126)
        scale = torch.ldexp(torch.ones_like(largest), exponent).view(*largest.shape, *[1] * (values.ndim - 2))
        return cls((values / scale).half(), scale)

    def unbind(self) -> list[Half]:
        """Return the K tensors."""
        return [Half(codes, scale) for codes, scale in zip(self.codes, self.scale, strict=True)]

    def __getitem__(self, sample: int) -> Tensor:
        """Return one sample of a single tensor, as float32."""
        return self.codes[sample].float() * self.scale[sample]

    def full(self) -> Tensor:
        """Return the values as float32."""
        return self.codes.float() * self.scale


def full(values: Tensor | Half) -> Tensor:
    """Return the values at full precision, regardless of how they are stored."""
    return values.full() if isinstance(values, Half) else values
