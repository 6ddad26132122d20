"""The inputs that are explained together, and how they lie side by side in the one tensor that methods see."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from saliency_widgets.attribution.kind import NUMBERS, Kind


@dataclass(frozen=True)
class InputPart:
    """One of several inputs that are explained together, or the only one where a sample of it is one number.

    Attributes:
        name: Its name or position among the model's arguments.
        shape: Of one sample; () where that is one number.
        kind: What it is.
        dtype: Its type, where that is not the type of the tensor that holds all of them.
    """

    name: str
    shape: tuple[int, ...]
    kind: Kind = NUMBERS
    dtype: torch.dtype | None = None

    @property
    def size(self) -> int:
        """Numbers of one sample."""
        return int(torch.Size(self.shape).numel())


def split_parts(parts: tuple[InputPart, ...], rows: Tensor) -> list[Tensor]:
    """Rows of the tensor that methods see as the inputs themselves, each in its own shape and type.

    Args:
        parts: The inputs; empty where there is one, in its own shape.
        rows: Shape (N, ...), or (N, F) with the parts side by side.
    """
    if not parts:
        return [rows]
    flat = rows.split([part.size for part in parts], dim=1)
    shaped = [piece.reshape(-1, *part.shape) for piece, part in zip(flat, parts, strict=True)]
    return [x if part.dtype is None else x.to(part.dtype) for x, part in zip(shaped, parts, strict=True)]
