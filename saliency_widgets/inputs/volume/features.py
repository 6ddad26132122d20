"""The voxels of volumes, and the planes through them that are shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from saliency_widgets.attribution.features import Features
from saliency_widgets.attribution.reduction import CHANNELS, SIGNS, Reduction

DEPTH, AXIAL, TIME, TIME_FIRST = "depth", "axial", "time", "time first"
SLICES = (DEPTH, AXIAL, TIME, TIME_FIRST)


@dataclass(frozen=True)
class Planes(Reduction):
    """A reduction with the planes that are shown of the result.

    Attributes:
        at: The voxel in which the planes meet, (d, h, w); None for the center.
    """

    at: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class VolumeFeatures(Features):
    """The voxels of volumes, or the pixels of the frames of video.

    Attributes:
        slices: What the slices of an input follow each other in: one of ``SLICES``.
    """

    slices: str = DEPTH
    partial: ClassVar[bool] = True

    @property
    def read_as(self) -> dict[str, str]:
        """The option under which an input is read the same way."""
        return {"slices": self.slices}

    @property
    def is_video(self) -> bool:
        """Whether slices are frames over time."""
        return self.slices in (TIME, TIME_FIRST)

    def voxels(self, inputs: Tensor) -> Tensor:
        """Return inputs, or values in their shape, as (B, C, D, H, W)."""
        return inputs.transpose(1, 2) if self.slices == TIME_FIRST else inputs

    def size(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Return (D, H, W) of inputs of a shape, (B, ...)."""
        return shape[1 if self.slices == TIME_FIRST else 2], shape[3], shape[4]

    def reduce(self, values: Tensor, reduction: Reduction, shape: tuple[int, ...]) -> Tensor:
        """Reduce the channels to one value per voxel; the values of a layer are interpolated trilinearly.

        Args:
            values: Values of the inputs, shape (B, C, D, H, W) or (B, T, C, H, W) as these, or of a layer,
                (B, K, d, h, w).
            reduction: How signs and channels are reduced.
            shape: The shape of the model's input.

        Returns:
            Shape (B, D, H, W).

        Raises:
            ValueError: The values don't form a volume.
        """
        if values.ndim != 5:
            raise ValueError(
                f"values: a map of a volume needs shape (B, C, D, H, W), got {tuple(values.shape)}. Read the numbers "
                f"from .values."
            )
        voxels = self.voxels(values) if tuple(values.shape[1:]) == tuple(shape[1:]) else values
        maps = CHANNELS[reduction.channels](SIGNS[reduction.sign](voxels))
        if tuple(maps.shape[1:]) != self.size(shape):
            maps = F.interpolate(maps[:, None], size=self.size(shape), mode="trilinear", align_corners=False)[:, 0]
        return maps

    def part(self, whole: Tensor, reduction: Reduction) -> Tensor:
        """Return the shown planes of a map (D, H, W), one after the other, row by row, shape (N,): see :meth:`planes`.

        Args:
            whole: The map.
            reduction: The planes, if it is one of :class:`Planes`; otherwise those through the center.
        """
        at = reduction.at if isinstance(reduction, Planes) else None
        return torch.cat([plane.flatten() for plane in self.planes(whole, at)])

    def planes(self, volume: Tensor, at: tuple[int, int, int] | None = None) -> list[Tensor]:
        """Return the planes of a volume that meet in a voxel; of video, the frame at that time.

        Args:
            volume: Shape (D, H, W, ...).
            at: The voxel, (d, h, w); by default the center.
        """
        d, h, w = center(volume.shape[:3]) if at is None else at
        return [volume[d]] if self.is_video else [volume[d], volume[:, h], volume[:, :, w]]

    def sides(self, size: tuple[int, int, int]) -> list[tuple[int, int]]:
        """Return the rows and columns of each plane of a volume (D, H, W)."""
        d, h, w = size
        return [(h, w)] if self.is_video else [(h, w), (d, w), (d, h)]


def center(size: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the voxel in the middle of a volume (D, H, W)."""
    return size[0] // 2, size[1] // 2, size[2] // 2
