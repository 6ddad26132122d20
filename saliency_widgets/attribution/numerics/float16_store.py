"""Gradients kept in 16 bits, where so many of them are kept that memory is short."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

WHOLE_BYTES = 40 * 2**20
_EXPONENT = 15  # float16 reaches 2^16


def full_precision_count(like: Tensor) -> int | None:
    """How many gradients of a tensor's form are kept as they are, before others are kept as halves; None: all.

    Of 224 x 224 images that is 69, and 1,024 take 315 MiB instead of 590. Small inputs never come that far, and
    float64 is left to those who want its digits.
    """
    return None if like.dtype != torch.float32 else max(16, WHOLE_BYTES // (4 * max(1, like.numel())))


@dataclass(frozen=True)
class Half:
    """Tensors in 16 bits each: value = codes * scale, with a scale for each sample of each tensor.

    The scale is a power of two, so that nothing but the 11 significant digits of float16 rounds: a value is off by
    2^-11 of itself at most (5e-4), or, where it is smaller than 2^-28 of its sample's largest, by 2^-39 of that.

    Attributes:
        codes: float16, shape (K, B, ...), or (B, ...) for one of them.
        scale: float32, broadcastable to it.
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
        """The K tensors."""
        return [Half(codes, scale) for codes, scale in zip(self.codes, self.scale, strict=True)]

    def __getitem__(self, sample: int) -> Tensor:
        """One sample of one tensor, as float32."""
        return self.codes[sample].float() * self.scale[sample]

    def full(self) -> Tensor:
        """The values, as float32."""
        return self.codes.float() * self.scale


def full(values: Tensor | Half) -> Tensor:
    """The values, however they are kept."""
    return values.full() if isinstance(values, Half) else values
