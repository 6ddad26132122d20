"""Images: their baselines, features and regions."""

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
        pixels: What black and white pixels look like to the model; None if unknown.
        display: What is shown as black and as white; None if the numbers are no colors.
    """

    name = noun = "image"
    mark = "A bright region"
    drawn = True
    pixels: PixelRange | None = None
    display: PixelRange | None = None

    @property
    def default_fill(self) -> str:
        """A blurred copy."""
        return "blur"

    @property
    def baselines(self) -> Mapping[str, Baseline]:
        """Black first if it is known what black is, otherwise zero; "noise" lies between black and white."""
        make: dict[str, Baseline] = {"mean": mean, "median": median, "blur": blur, "noise": self._noise, "zero": zero}
        if self.pixels is not None:
            black, white = self.pixels.black, self.pixels.white
            make["black"] = lambda inputs, _: black.to(inputs).expand_as(inputs).clone()
            make["white"] = lambda inputs, _: white.to(inputs).expand_as(inputs).clone()
        first = "black" if self.pixels is not None and not self.pixels.assumed else "zero"
        return {name: make[name] for name in (first, *NAMES) if name in make}

    @property
    def bounded(self) -> bool:
        """Whether black and white are known."""
        return self.pixels is not None

    @property
    def zero_note(self) -> str:
        """Why zero is the default baseline, and whether it is black."""
        if self.pixels is None:
            return "because it is unknown which numbers are black"
        return "which is black where pixels go from 0 to 1"

    def why_no_baseline(self, name: str, inputs: Tensor) -> str:  # noqa: ARG002
        """Return why black and white are unknown."""
        return (
            f"baseline: {name!r} means {name} pixels, and nothing tells which numbers those are: they are not in "
            f"[0, 1], and there is no transform that a {name} image comes through. Use 'zero', 'mean' or 'blur', a "
            f"tensor, or pass the image and transform=."
        )

    def shape_of(self, inputs: Tensor) -> tuple[int, ...]:
        """Height and width."""
        return tuple(inputs.shape[2:])

    def reduce(self, values: Tensor, reduction: Reduction, inputs: Tensor) -> Tensor:
        """Reduce channels to one value for each pixel; the values of a layer are interpolated."""
        return reduction(values, (inputs.shape[2], inputs.shape[3]))

    def broadcast(self, masks: Tensor) -> Tensor:
        """Apply masks of pixels to all channels."""
        return masks[:, None]

    def image_of(self, inputs: Tensor) -> np.ndarray | None:
        """Undo the normalization; None if the numbers are no colors."""
        return None if self.display is None else recover(inputs, self.display, [])[0]

    def _noise(self, inputs: Tensor, seed: int) -> Tensor:
        if self.pixels is not None:
            return noise(inputs, seed, self.pixels.black, self.pixels.white)
        low, high = limits(inputs)
        usual = (low >= 0) & (high <= 1)  # sample by sample: an image's noise must not depend on the others
        return noise(inputs, seed, torch.where(usual, 0.0, low), torch.where(usual, 1.0, high))
