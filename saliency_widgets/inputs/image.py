"""Images as inputs: their baselines, shapes and masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from saliency_widgets.attribution import Kind, PixelRange, Reduction
from saliency_widgets.attribution.baselines import NAMES, blur, limits, mean, median, noise, zero
from saliency_widgets.attribution.kind import Baseline
from saliency_widgets.inputs.pixels import recover


@dataclass(frozen=True, eq=False)
class ImageKind(Kind):
    """An image: channels on a grid of pixels, shape (C, H, W).

    Attributes:
        pixels: The values of black and white pixels in the model's input; None if unknown.
        display: The values shown as black and as white; None if the numbers are not colors.
    """

    name = noun = "image"
    feature = "pixel"
    interpolated = True
    mark = "A bright region"
    drawn = True
    pixels: PixelRange | None = None
    display: PixelRange | None = None

    @property
    def default_fill(self) -> str:
        """The default fill: a blurred copy."""
        return "blur"

    @property
    def baselines(self) -> Mapping[str, Baseline]:
        """The baselines by name: black first if its value is known, else zero; "noise" is between black and white."""
        make: dict[str, Baseline] = {"mean": mean, "median": median, "blur": blur, "noise": self._noise, "zero": zero}
        if self.pixels is not None:
            black, white = self.pixels.black, self.pixels.white
            make["black"] = lambda inputs, _: black.to(inputs).expand_as(inputs).clone()
            make["white"] = lambda inputs, _: white.to(inputs).expand_as(inputs).clone()
        first = "black" if self.pixels is not None and not self.pixels.assumed else "zero"
        return {name: make[name] for name in (first, *NAMES) if name in make}

    @property
    def bounded(self) -> bool:
        """Return whether the values of black and white are known."""
        return self.pixels is not None

    @property
    def zero_note(self) -> str:
        """The reason why zero is the default baseline, and whether it is black."""
        if self.pixels is None:
            return "because the value of black pixels is unknown"
        return "which is black if pixels range from 0 to 1"

    def why_no_baseline(self, name: str, inputs: Tensor) -> str:  # noqa: ARG002
        """Return an error message that explains why black and white are unknown."""
        return (
            f"baseline: {name!r} means {name} pixels, but their values are unknown: the inputs are not in [0, 1], and "
            f"there is no transform to apply to a {name} image. Use 'zero', 'mean' or 'blur', a tensor, or pass the "
            f"image and transform=."
        )

    def shape_of(self, inputs: Tensor) -> tuple[int, ...]:
        """Return the height and width of the inputs."""
        return tuple(inputs.shape[2:])

    def reduce(self, values: Tensor, reduction: Reduction, inputs: Tensor) -> Tensor:
        """Reduce channels to one value per pixel; a layer's values are interpolated to the size of the inputs."""
        return self.features.reduce(values, reduction, tuple(inputs.shape))

    def broadcast(self, masks: Tensor) -> Tensor:
        """Add a channel dimension to pixel masks, so that they apply to all channels."""
        return masks[:, None]

    def image_of(self, inputs: Tensor) -> np.ndarray | None:
        """Return the first image without normalization, or None if the numbers are not colors."""
        return None if self.display is None else recover(inputs, self.display, [])[0]

    def _noise(self, inputs: Tensor, seed: int) -> Tensor:
        if self.pixels is not None:
            return noise(inputs, seed, self.pixels.black, self.pixels.white)
        low, high = limits(inputs)
        usual = (low >= 0) & (high <= 1)  # per sample: an image's noise must not depend on the other images
        return noise(inputs, seed, torch.where(usual, 0.0, low), torch.where(usual, 1.0, high))
