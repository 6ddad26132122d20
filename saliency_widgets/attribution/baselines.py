"""Baselines: the input that stands for "nothing there", from which Integrated Gradients starts.

Which one is meant decides the image: what equals the baseline can get no attribution (Sturmfels, Lundberg and Lee,
"Visualizing the Impact of Feature Attribution Baselines", Distill 2020).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from saliency_widgets.attribution.arrays import as_numbers
from saliency_widgets.attribution.columns import Columns
from saliency_widgets.attribution.errors import out_of_memory
from saliency_widgets.attribution.numerics.noise import seeded
from saliency_widgets.params import Param, brief, is_truth_value


@dataclass(frozen=True)
class PixelRange:
    """What a black and a white image look like to the model.

    Attributes:
        black: The model's input for black pixels, broadcastable to the inputs' shape.
        white: The same for white pixels.
        assumed: Whether nothing but the numbers speaks for it: floats in [0, 1], without a transform.
    """

    black: Tensor
    white: Tensor
    assumed: bool = False


def _black(inputs: Tensor, pixels: PixelRange | None, _: int) -> Tensor:
    return _pixels("black", pixels, inputs).black.to(inputs).expand_as(inputs).clone()


def _white(inputs: Tensor, pixels: PixelRange | None, _: int) -> Tensor:
    return _pixels("white", pixels, inputs).white.to(inputs).expand_as(inputs).clone()


def _pixels(name: str, pixels: PixelRange | None, inputs: Tensor) -> PixelRange:
    if pixels is None and inputs.ndim == 4:
        raise ValueError(
            f"baseline: {name!r} means {name} pixels, and nothing tells which numbers those are: they are not in "
            f"[0, 1], and there is no transform that a {name} image comes through. Use 'zero', 'mean' or 'blur', a "
            f"tensor, or pass the image and transform=."
        )
    if pixels is None:
        raise ValueError(
            f"baseline: {name!r} means {name} pixels, and these inputs are no image. Use 'zero' or a tensor."
        )
    return pixels


def _mean(inputs: Tensor, _pixels: PixelRange | None, _: int) -> Tensor:
    if inputs.ndim == 1:  # one number for each sample
        return inputs.clone()
    over = tuple(range(2, inputs.ndim)) or (1,)
    return inputs.mean(over, keepdim=True).expand_as(inputs).clone()


def _median(inputs: Tensor, _pixels: PixelRange | None, _: int) -> Tensor:
    if inputs.ndim == 1:
        return inputs.clone()
    flat = inputs.flatten(2) if inputs.ndim > 2 else inputs[:, None]
    middle = flat.median(-1).values
    return middle.view(len(inputs), -1, *[1] * (inputs.ndim - 2)).expand_as(inputs).clone()


def _blur(inputs: Tensor, _pixels: PixelRange | None, _: int) -> Tensor:
    if inputs.ndim != 4:
        raise ValueError(f"baseline: 'blur' needs images (N, C, H, W), got shape {tuple(inputs.shape)}. Use 'mean'.")
    sigma = 0.1 * min(inputs.shape[-2:])
    radius = max(1, round(3 * sigma))
    offsets = torch.arange(-radius, radius + 1, dtype=inputs.dtype, device=inputs.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(inputs.shape[1], 1, -1)
    channels = inputs.shape[1]
    rows = F.conv2d(F.pad(inputs, (radius, radius, 0, 0), mode="replicate"), kernel[:, :, None, :], groups=channels)
    return F.conv2d(F.pad(rows, (0, 0, radius, radius), mode="replicate"), kernel[:, :, :, None], groups=channels)


def _noise(inputs: Tensor, pixels: PixelRange | None, seed: int) -> Tensor:
    drawn = torch.rand(inputs.shape[1:], generator=seeded(seed, "baseline"), dtype=torch.float32, device="cpu")
    uniform = drawn.to(inputs)
    if pixels is not None:
        low, high = pixels.black.to(inputs), pixels.white.to(inputs)
    else:
        flat = inputs.reshape(len(inputs), -1)
        shape = (-1, *[1] * (inputs.ndim - 1))
        low, high = flat.amin(1), flat.amax(1)
        # As alone: an image's noise is not to depend on the images beside it.
        usual = (low >= 0) & (high <= 1) & (inputs.ndim == 4)
        low, high = (torch.where(usual, end, value).view(shape) for end, value in ((0.0, low), (1.0, high)))
    return (low + uniform * (high - low)).expand_as(inputs).clone()


def _zero(inputs: Tensor, _pixels: PixelRange | None, _: int) -> Tensor:
    return torch.zeros_like(inputs)


NAMED: dict[str, Callable[[Tensor, PixelRange | None, int], Tensor]] = {
    "black": _black,
    "white": _white,
    "mean": _mean,
    "median": _median,
    "blur": _blur,
    "noise": _noise,
    "zero": _zero,
}

BASELINE = Param(
    "baseline",
    default=None,
    kind="open",
    choices=tuple(NAMED),
    optional=True,
    help="The input that stands for 'nothing there'; what equals it gets no attribution. Unless given, black where a "
    "transform or bytes tell what black is, the mean of the background for rows that have one, and zero otherwise.",
)


BACKGROUND = "background"
BASELINES = Param(
    "baselines",
    default=None,
    kind="open",
    choices=("noise", BACKGROUND, *(name for name in NAMED if name != "noise")),
    optional=True,
    help="The inputs that stand for 'nothing there', one drawn for each sample: a stack of your data is best. The rows "
    "of the background where there is one, and otherwise fresh uniform noise for each sample, unless given.",
)


def default_baseline(pixels: PixelRange | None, columns: Columns | None = None) -> str:
    """The baseline where none is given: "mean" of a background; "black" where that is told; "zero" otherwise."""
    if columns is not None and columns.rows is not None:
        return "mean"
    return "black" if pixels is not None and not pixels.assumed else "zero"


def default_pool(columns: Columns | None) -> str:
    """What baselines are drawn from where none are given: the rows of a background, or noise."""
    return "noise" if columns is None or columns.rows is None else BACKGROUND


def baselines_for(inputs: Tensor, pixels: PixelRange | None, columns: Columns | None = None) -> tuple[str, ...]:
    """The names that mean something for such inputs, the default first."""
    first = default_baseline(pixels, columns)
    needs = {"black": pixels is not None, "white": pixels is not None, "blur": inputs.ndim == 4}
    if columns is not None:
        needs |= {"mean": columns.rows is not None, "median": columns.median is not None}
    return (first, *(name for name in NAMED if name != first and needs.get(name, True)))


def _made(function: Callable[[Tensor], Any], inputs: Tensor) -> Any:
    """What the caller's function makes of the inputs; what it raises is retold as an error of ``baseline``."""
    try:
        return function(inputs.clone())
    except Exception as error:
        if out_of_memory(error):
            raise
        raise ValueError(
            f"baseline: the function raised {type(error).__name__} for the inputs, of shape {tuple(inputs.shape)}: "
            f"{str(error).rstrip('.')}. It gets what the model sees and must give a tensor that broadcasts to it."
        ) from error


def baseline_of(
    value: Any, inputs: Tensor, pixels: PixelRange | None = None, seed: int = 0, columns: Columns | None = None
) -> Tensor:
    """The baseline of each sample.

    Args:
        value: A name ("black", "white", "mean", "median", "blur", "noise", "zero"), a tensor that broadcasts to the
            inputs, a function from the inputs to such a tensor, or None for :func:`default_baseline`. Of rows of a
            table, a Series or a DataFrame of one row, too.
        inputs: What the model sees, shape (B, ...).
        pixels: What black and white look like to the model; None where nothing tells.
        seed: The seed of "noise": uniform between black and white, or between each sample's own least and largest
            number where nothing tells them; the same shares for all samples.
        columns: The table that the inputs are rows of: "mean", "median" and "noise" are those of its background.

    Returns:
        A tensor of the inputs' shape, type and device.

    Raises:
        TypeError: ``value`` is of no known kind.
        ValueError: An unknown name, a function that raises, a shape that doesn't fit, or numbers that aren't finite.
    """
    value = default_baseline(pixels, columns) if value is None else value
    if isinstance(value, str):
        name = BASELINE.check(value)
        if name not in ("zero", "black", "white") and not inputs.is_floating_point():
            raise ValueError(
                f"baseline: {name!r} of whole numbers or truth values is none of them. Use 'zero', or a tensor of them."
            )
        row = None if columns is None else columns.named(name, seed)
        return NAMED[name](inputs, pixels, seed) if row is None else row.to(inputs).expand_as(inputs).clone()
    if hasattr(value, "iloc"):  # a row as people have it
        if columns is None:
            raise TypeError("baseline: a row of pandas goes with inputs that are one. Pass what the model sees.")
        value = columns.encode(value, "baseline")
    if callable(value) and not isinstance(value, Tensor):
        value = _made(value, inputs)
    if isinstance(value, Real) and not isinstance(value, bool):
        value = _number(value)
    if is_truth_value(value) or not (isinstance(value, Tensor) or hasattr(value, "__array__")):
        raise TypeError(
            f"baseline: expected a name, a tensor or a function that returns one, got a {type(value).__name__}."
        )
    value = as_numbers(value, "baseline")
    if not inputs.is_floating_point() and bool((value.to(inputs) != value).any()):
        raise ValueError(f"baseline: the inputs are {inputs.dtype}, and it holds other numbers than these can be.")
    try:
        tensor = value.detach().to(inputs).expand_as(inputs).clone()
    except RuntimeError as error:
        raise ValueError(
            f"baseline: shape {tuple(value.shape)} doesn't broadcast to the inputs' shape {tuple(inputs.shape)}."
        ) from error
    if not torch.isfinite(tensor).all():
        raise ValueError("baseline: it holds NaN or infinite values.")
    return tensor


def _number(value: Real) -> Tensor:
    try:
        return torch.tensor(value, dtype=torch.float64, device="cpu")
    except OverflowError:
        raise ValueError(f"baseline: {brief(value)} is too large a number.") from None
