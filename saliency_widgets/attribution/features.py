"""Features: what the values of an attribution are reduced to, such as the pixels of an image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import ClassVar

from torch import Tensor

from saliency_widgets.attribution.reduction import CHANNEL, SIGN, Reduction
from saliency_widgets.attribution.registry import Method


@dataclass(frozen=True)
class Features:
    """The pixels of an image. Other kinds of input have a subclass, next to their kind.

    Attributes:
        labels: The name of each feature of each sample; None if features have only positions.
        groups: The index of the group of each feature of each sample, as of the word of a token, -1 for features
            without one; None if there are no groups.
    """

    labels: tuple[tuple[str, ...], ...] | None = None
    groups: tuple[tuple[int, ...], ...] | None = None
    channels_title: ClassVar[str] = "Channels"
    """The name of the axis that a reduction reduces; empty if it reduces none."""
    partial: ClassVar[bool] = False
    """Whether only a part of the map is shown at a time, such as planes of a volume: see :meth:`part`."""

    def sign_for(self, method: Method) -> str:
        """Return the default sign of a method's map: that of the method's paper."""
        return method.sign

    def channels_for(self, sign: str) -> str:  # noqa: ARG002
        """Return the default reduction of the channels, for a sign of the map."""
        return CHANNEL.default

    def reduction_for(self, method: Method, sign: str | None = None, channels: str | None = None) -> Reduction:
        """Return a reduction of a method's map; None for the default sign, and the default channels for the sign."""
        return self.reduction(self.sign_for(method) if sign is None else sign, channels)

    def reduction(self, sign: str, channels: str | None = None) -> Reduction:
        """Return a reduction with a sign of the map; None for the default channels for the sign."""
        sign = SIGN.check(sign)
        return Reduction(sign, self.channels_for(sign) if channels is None else channels)

    def reduce(self, values: Tensor, reduction: Reduction, shape: tuple[int, ...]) -> Tensor:
        """Reduce values to one per feature.

        Args:
            values: Values of the inputs, shape (B, C, H, W), or of a layer, which are interpolated.
            reduction: How signs and channels are reduced.
            shape: The shape of the model's input, (B, ...).

        Returns:
            Shape (B, H, W).

        Raises:
            ValueError: The values don't form an image.
        """
        if values.ndim != 4 or len(shape) < 3:
            one = (1, *values.shape[1:])
            raise ValueError(
                f"values: a map needs shape (B, C, H, W), got {one}, which is not an image. Read "
                f"the numbers from .values, or from .part(name).values if several inputs were explained."
            )
        return reduction(values, (shape[-2], shape[-1]))

    def frame(self, values: Tensor, reduction: Reduction, shape: tuple[int, ...]) -> Tensor:
        """Return what is painted of one sample, a map of two dimensions.

        Args:
            values: The values of the sample, shape (1, ...).
            reduction: See :meth:`reduce`.
            shape: See :meth:`reduce`.
        """
        reduced = self.reduce(values, reduction, shape)[0]
        return reduced.reshape(-1, reduced.shape[-1])

    def of_input(self, name: str) -> Features:  # noqa: ARG002
        """Return the features of one of several inputs that are explained together."""
        return self

    def part(self, whole: Tensor, reduction: Reduction) -> Tensor:  # noqa: ARG002
        """Return the part of a map that is shown under a reduction, in one row, shape (N,)."""
        return whole.flatten()


@dataclass(frozen=True)
class JointFeatures(Features):
    """The features of several inputs that are explained together, side by side in one tensor.

    Attributes:
        inputs: The features of each input, by name.
        shapes: The shape of one sample of each input, by name.
        main: The name of the image among them, which is painted; None without one.
    """

    inputs: Mapping[str, Features] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    main: str | None = None

    def of_input(self, name: str) -> Features:
        """Return the features of an input."""
        return self.inputs[name]

    def frame(self, values: Tensor, reduction: Reduction, shape: tuple[int, ...]) -> Tensor:
        """Return the map of the image; values of a layer are those of the image alone."""
        if self.main is None or values.ndim != 2:
            return super().frame(values, reduction, shape)
        pieces = values.split([math.prod(one) for one in self.shapes.values()], 1)
        piece = dict(zip(self.shapes, pieces, strict=True))[self.main].reshape(-1, *self.shapes[self.main])
        return self.inputs[self.main].frame(piece, reduction, tuple(piece.shape))


def runs_of(groups: Sequence[int]) -> list[int]:
    """Return the index of the run of equal groups that each feature belongs to; a feature without a group is a run."""
    starts = [k == 0 or group < 0 or group != groups[k - 1] for k, group in enumerate(groups)]
    return [run - 1 for run in accumulate(starts)]


PIXELS = Features()
