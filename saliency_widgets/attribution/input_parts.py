"""Inputs that are explained together, side by side in the single tensor that methods see."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from saliency_widgets.attribution.kind import NUMBERS, Kind


@dataclass(frozen=True)
class InputPart:
    """One of several inputs that are explained together, or the only input if a sample of it is a single number.

    Attributes:
        name: Its name or position among the model's arguments.
        shape: The shape of one sample; () for a single number.
        kind: The kind of input.
        dtype: Its type, if that differs from the type of the tensor that holds all inputs.
    """

    name: str
    shape: tuple[int, ...]
    kind: Kind = NUMBERS
    dtype: torch.dtype | None = None

    @property
    def size(self) -> int:
        """The number of elements in one sample."""
        return int(torch.Size(self.shape).numel())


def split_parts(parts: tuple[InputPart, ...], rows: Tensor) -> list[Tensor]:
    """Split rows of the tensor that methods see into the model's inputs, each in its own shape and type.

    Args:
        parts: The inputs; empty for a single input, whose rows already have its shape.
        rows: The rows, shape (N, ...), or (N, F) with the parts side by side.
    """
    if not parts:
        return [rows]
    flat = rows.split([part.size for part in parts], dim=1)
    shaped = [piece.reshape(-1, *part.shape) for piece, part in zip(flat, parts, strict=True)]
    return [x if part.dtype is None else x.to(part.dtype) for x, part in zip(shaped, parts, strict=True)]
