"""Volumes as inputs: their baselines, and how they are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saliency_widgets.attribution import Kind, Reduction
from saliency_widgets.attribution.arrays import as_numbers
from saliency_widgets.attribution.baselines import blur_kernel, limits, mean, noise, zero
from saliency_widgets.attribution.kind import NUMBERS, Baseline
from saliency_widgets.inputs.options import Options
from saliency_widgets.inputs.prepared import Prepared, prepare
from saliency_widgets.inputs.volume.features import SLICES, TIME_FIRST, VolumeFeatures
from saliency_widgets.params import check_choice

_OTHERS = ("transform", "tokenizer", "explain", "feature_names", "background")
_BYTES = "Bytes were scaled to [0, 1]. Pass floats if the model scales them itself."


@dataclass(frozen=True, eq=False)
class VolumeKind(Kind):
    """A volume: channels on a grid of voxels, shape (C, D, H, W); or video, with time as the first axis of the grid.

    Attributes:
        features: The voxels.
    """

    name = noun = "volume"
    feature = "voxel"
    mark = "A bright region"
    drawn = True
    one_size = False
    features: VolumeFeatures = field(default_factory=VolumeFeatures)  # pyright: ignore[reportIncompatibleVariableOverride]

    @staticmethod
    def accepts(inputs: Any, options: Options) -> bool:  # noqa: ARG004
        """Return whether the option of volumes is set."""
        return options.slices is not None

    @staticmethod
    def prepare(
        model: nn.Module,  # noqa: ARG004
        inputs: Any,
        options: Options,
        *,
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> Prepared:
        """Read a volume as the model takes it: see :func:`prepare_volume`."""
        return prepare_volume(inputs, options, device=device, dtype=dtype)

    @property
    def state(self) -> tuple[Any, ...]:
        """The axis of the slices."""
        return (self.features,)

    @property
    def default_fill(self) -> str:
        """The default fill: a blurred copy."""
        return "blur"

    @property
    def baselines(self) -> Mapping[str, Baseline]:
        """The baselines by name: zero, the mean of each channel, a blurred copy, noise, and the smallest value."""
        return {
            "zero": zero,
            "mean": self._of_voxels(mean),
            "blur": self._of_voxels(blur),
            "noise": noise,
            "min": _least,
        }

    def why_no_baseline(self, name: str, inputs: Tensor) -> str:  # noqa: ARG002
        """Return an error message that names the baselines of volumes."""
        return f"baseline: {name!r} isn't defined for volumes. Use one of {list(self.baselines)}, or a tensor."

    def shape_of(self, inputs: Tensor) -> tuple[int, int, int]:
        """Return (D, H, W)."""
        return self.features.size(tuple(inputs.shape))

    def reduce(self, values: Tensor, reduction: Reduction, inputs: Tensor) -> Tensor:
        """Reduce channels to one value per voxel, shape (B, D, H, W); a layer's values are interpolated."""
        return self.features.reduce(values, reduction, tuple(inputs.shape))

    def broadcast(self, masks: Tensor) -> Tensor:
        """Add a channel dimension to masks of voxels, so that they apply to all channels."""
        return masks[:, :, None] if self.features.slices == TIME_FIRST else masks[:, None]

    def _of_voxels(self, baseline: Baseline) -> Baseline:
        def make(inputs: Tensor, seed: int) -> Tensor:
            return self.features.voxels(baseline(self.features.voxels(inputs), seed))

        return make


def _least(inputs: Tensor, _seed: int) -> Tensor:
    return limits(inputs)[0].expand_as(inputs).clone()


def blur(volumes: Tensor, _seed: int = 0) -> Tensor:
    """Convolve volumes (B, C, D, H, W) with a Gaussian whose standard deviation is a tenth of the shortest side."""
    kernel, radius = blur_kernel(volumes)
    for dim in (2, 3, 4):  # one axis after the other
        lines = volumes.movedim(dim, -1)
        padded = F.pad(lines.reshape(-1, 1, lines.shape[-1]), (radius, radius), mode="replicate")
        volumes = F.conv1d(padded, kernel[None, None]).view(lines.shape).movedim(-1, dim)
    return volumes


def prepare_volume(inputs: Any, options: Options, *, device: torch.device, dtype: torch.dtype | None) -> Prepared:
    """Read a volume in the form that the model takes.

    Args:
        inputs: Numbers of shape (D, H, W), (C, D, H, W), or a batch of these with channels; or video, see
            ``Options.slices``.
        options: The options, among them the axis of slices.
        device: The model's device.
        dtype: The model's dtype; None for the inputs' type.

    Raises:
        TypeError: The inputs hold no numbers.
        ValueError: The volume is empty, has NaN or another number of dimensions, or an option doesn't fit.
    """
    features = VolumeFeatures(slices=check_choice("slices", options.slices, SLICES))
    for name in _OTHERS:
        if getattr(options, name) is not None:
            raise ValueError(f"{name}: it doesn't apply to a volume. Omit it, or omit slices=.")
    numbers = as_numbers(inputs, "inputs")
    form = "(T, C, H, W)" if features.slices == TIME_FIRST else "(T, H, W) or (C, T, H, W)"
    form = form if features.is_video else "(D, H, W) or (C, D, H, W)"
    if not numbers.numel() or numbers.ndim not in ((4, 5) if features.slices == TIME_FIRST else (3, 4, 5)):
        raise ValueError(
            f"inputs: expected {'a video' if features.is_video else 'a volume'} of shape {form}, or a batch with "
            f"channels, got shape {tuple(numbers.shape)}."
        )
    scaled = numbers.float() / 255 if numbers.dtype == torch.uint8 else numbers
    typed = scaled if scaled.is_floating_point() else scaled.to(torch.get_default_dtype())
    volume = typed.reshape(*[1] * (5 - typed.ndim), *typed.shape)
    _check_finite(features, volume)
    prepared = prepare(volume, device=device, dtype=dtype, batched=True)
    notes = (_BYTES, *prepared.notes) if numbers.dtype == torch.uint8 else prepared.notes
    return replace(prepared, kind=VolumeKind(features), notes=notes, read_as=features.read_as)


def as_volume(prepared: Prepared) -> Prepared:
    """Return an input of five dimensions without a kind as a volume, and anything else unchanged."""
    tensor = prepared.tensor
    if prepared.kind is not NUMBERS or tensor.ndim != 5 or prepared.arguments is not None:
        return prepared
    if not tensor.is_floating_point():
        return prepared
    kind = VolumeKind()
    return replace(prepared, kind=kind, read_as=kind.features.read_as)


def _check_finite(features: VolumeFeatures, volume: Tensor) -> None:
    if bool(torch.isfinite(volume).all()):
        return
    bad = (~torch.isfinite(features.voxels(volume))).nonzero()
    d, h, w = bad[0, 2:].tolist()
    raise ValueError(
        f"inputs: {len(bad)} of {volume.numel()} numbers are NaN or infinite, the first in slice {d} at row {h}, "
        f"column {w}. Replace them, for example by the value of the background."
    )
