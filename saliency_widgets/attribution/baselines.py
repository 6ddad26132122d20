"""Baselines: the input that stands for "nothing there", from which Integrated Gradients starts.

The choice shapes the map: a feature equal to its baseline can get no attribution (Sturmfels, Lundberg and Lee,
"Visualizing the Impact of Feature Attribution Baselines", Distill 2020).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from saliency_widgets.attribution.numerics.noise import seeded
from saliency_widgets.params import Param


@dataclass(frozen=True)
class PixelRange:
    """The model's input for black and for white pixels.

    Attributes:
        black: The model's input for black pixels, broadcastable to the inputs' shape.
        white: The same for white pixels.
        assumed: Whether the range was inferred from the values alone: floats in [0, 1], without a transform.
    """

    black: Tensor
    white: Tensor
    assumed: bool = False


def zero(inputs: Tensor, _: int = 0) -> Tensor:
    """Return zeros."""
    return torch.zeros_like(inputs)


def mean(inputs: Tensor, _: int = 0) -> Tensor:
    """Return the mean of each channel of each sample; for rows, of the whole row."""
    if inputs.ndim == 1:  # one number per sample
        return inputs.clone()
    over = tuple(range(2, inputs.ndim)) or (1,)
    return inputs.mean(over, keepdim=True).expand_as(inputs).clone()


def median(inputs: Tensor, _: int = 0) -> Tensor:
    """Return the lower median of each channel of each sample; for rows, of the whole row."""
    if inputs.ndim == 1:
        return inputs.clone()
    flat = inputs.flatten(2) if inputs.ndim > 2 else inputs[:, None]
    middle = flat.median(-1).values
    return middle.view(len(inputs), -1, *[1] * (inputs.ndim - 2)).expand_as(inputs).clone()


def blur(images: Tensor, _: int = 0) -> Tensor:
    """Convolve images (B, C, H, W) with a Gaussian whose standard deviation is a tenth of the shorter side."""
    kernel, radius = blur_kernel(images)
    channels = images.shape[1]
    kernel = kernel.expand(channels, 1, -1)
    rows = F.conv2d(F.pad(images, (radius, radius, 0, 0), mode="replicate"), kernel[:, :, None, :], groups=channels)
    return F.conv2d(F.pad(rows, (0, 0, radius, radius), mode="replicate"), kernel[:, :, :, None], groups=channels)


def blur_kernel(inputs: Tensor) -> tuple[Tensor, int]:
    """Return the Gaussian, shape (2 r + 1,), whose deviation is a tenth of the shortest side of (B, C, ...), and r."""
    sigma = 0.1 * min(inputs.shape[2:])
    radius = max(1, round(3 * sigma))
    offsets = torch.arange(-radius, radius + 1, dtype=inputs.dtype, device=inputs.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    return kernel / kernel.sum(), radius


def limits(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest number of each sample, broadcastable to the inputs."""
    flat = inputs.reshape(len(inputs), -1)
    shape = (-1, *[1] * (inputs.ndim - 1))
    return flat.amin(1).view(shape), flat.amax(1).view(shape)


def noise(inputs: Tensor, seed: int = 0, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """Return uniform noise, the same draw for all samples, within a range: by default that of each sample's values."""
    drawn = torch.rand(inputs.shape[1:], generator=seeded(seed, "baseline"), dtype=torch.float32, device="cpu")
    if low is None or high is None:
        low, high = limits(inputs)
    low, high = low.to(inputs), high.to(inputs)
    return (low + drawn.to(inputs) * (high - low)).expand_as(inputs).clone()


NAMES = ("black", "white", "mean", "median", "blur", "first", "min", "pad", "mask", "unknown", "text", "noise", "zero")

BASELINE = Param(
    "baseline",
    default=None,
    kind="open",
    choices=NAMES,
    optional=True,
    help="The input that stands for 'nothing there'; features equal to it get no attribution. By default, black if the "
    "transform or the image's data type defines it, the mean of the background for rows with one, otherwise zero.",
)


BACKGROUND = "background"
BASELINES = Param(
    "baselines",
    default=None,
    kind="open",
    choices=("noise", BACKGROUND, *(name for name in NAMES if name != "noise")),
    optional=True,
    help="The inputs that stand for 'nothing there', one drawn for each sample: a stack of your data is best. By "
    "default, the rows of the background if there is one, otherwise fresh uniform noise for each sample.",
)
