"""Find the values of black and white pixels in a model's input, and recover the image from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from saliency_widgets.attribution import PixelRange
from saliency_widgets.inputs.reading import apply_transform, is_deep

_CURVED = "The transform is not linear in the pixels: the image shown is only an approximation of the model's input."


def pixel_range(
    tensor: Tensor, source: Any, transform: Callable | None, notes: list[str]
) -> tuple[PixelRange | None, PixelRange | None]:
    """Determine the values of black and white in a model's input, by transforming a black and a white image.

    Args:
        tensor: The model's input, shape (B, ...).
        source: The image, array or tensor that the input was made from.
        transform: The transform that was applied, or None.
        notes: List to which a note is appended if the range is a guess or an approximation.

    Returns:
        The range, or None if it is unknown; and the range to display from black to white, or None if the input is not
        an image.
    """
    if tensor.ndim != 4:
        return None, None
    flat = tensor.flatten(1)
    low, high = flat.amin(1), flat.amax(1)
    shape = (tensor.shape[1], 1, 1)
    if transform is not None:
        pixels = _probed(tensor, source, transform, notes)
        if pixels is not None:
            return pixels, pixels
        notes.append(
            "The transform fails for black and white images, or makes them equal (does it normalize each image "
            "separately?): for display only, the smallest number is shown as black and the largest as white."
        )
    elif bool((low >= 0).all() and (high <= 1).all()):
        black, white = torch.zeros(shape, device="cpu"), torch.ones(shape, device="cpu")
        bytes_ = isinstance(source, Image.Image) or source.dtype in (np.uint8, torch.uint8)
        pixels = PixelRange(black, white, assumed=not bytes_)
        return pixels, pixels
    else:
        notes.append(
            "There is no transform and the numbers are not in [0, 1]: for display only, the smallest is shown as "
            "black and the largest as white. Pass the image and transform= to show the original colors."
        )
    # Per image: the display of an image must not depend on the others in the batch.
    usual = (low >= 0) & (high <= 1) if transform is None else torch.zeros_like(low, dtype=torch.bool)
    ends = (torch.where(usual, 0, low), torch.where(usual, 1, torch.where(high > low, high, low + 1)))
    black, white = (end.view(-1, 1, 1, 1).expand(-1, *shape) for end in ends)
    return None, PixelRange(black, white) if len(tensor) > 1 else PixelRange(black[0], white[0])


def _probed(tensor: Tensor, source: Any, transform: Callable, notes: list[str]) -> PixelRange | None:
    """Return the transformed black and white images of the input's size, or None if they are inconclusive."""
    ends = _ends(tensor, source, transform)
    if ends is None and isinstance(source, Image.Image) and source.mode == "RGBA":
        ends = _ends(tensor, source, transform, opaque=False)  # in case alpha is a channel like the others
    if ends is None:
        return None
    pixels, curved = ends
    if curved:
        notes.append(_CURVED)
    return pixels


def _ends(tensor: Tensor, source: Any, transform: Callable, opaque: bool = True) -> tuple[PixelRange, bool] | None:
    """Return the range, and whether a gray image shows that the transform is nonlinear; None if inconclusive."""
    levels = _levels(source)
    try:
        black, gray, white = (apply_transform(_uniform(source, level, opaque), transform)[0] for level in levels)
    except ValueError:  # the transform accepts the input, but not these images
        return None
    if not black.shape == gray.shape == white.shape == tensor.shape[1:]:
        return None
    contrast = (white.double() - black.double()).flatten(1)
    strongest = contrast.abs().argmax(1, keepdim=True)
    contrast = contrast.gather(1, strongest)
    if not bool((contrast.abs() > 0).all() and torch.isfinite(contrast).all()):
        return None
    share = (gray.double() - black.double()).flatten(1).gather(1, strongest) / contrast
    return PixelRange(black, white), bool(((share - levels[1] / levels[2]).abs() > 0.02).any())


def _levels(source: Any) -> tuple[float, float, float]:
    """Return the values of black, a dark gray and white on the source's scale."""
    if isinstance(source, Image.Image):
        if not is_deep(source):
            return (0, 51, 255) if source.mode != "1" else (0, 255, 255)  # mode "1" has no gray
        brightest = np.nan_to_num(np.asarray(source, dtype=np.float64)).max(initial=0)
        if source.mode == "F" and brightest <= 1.5:
            return (0, 0.2, 1)
        white = 2 ** max(8, int(np.ceil(brightest)).bit_length()) - 1
        return (0, white / 5 if source.mode == "F" else white // 5, white)
    if source.dtype in (np.uint8, torch.uint8):
        return (0, 51, 255)
    if source.dtype in (np.uint16, torch.uint16):
        return (0, 13107, 65535)
    top = 255 if float(source.max()) > 1.5 else 1
    whole = not source.dtype.is_floating_point if isinstance(source, Tensor) else source.dtype.kind != "f"
    return (0, top // 5 if whole else top / 5, top)


def _uniform(source: Any, level: float, opaque: bool) -> Any:
    """Return a uniformly gray image of the source's type and size; RGB for modes whose numbers are not gray levels."""
    if not isinstance(source, Image.Image):
        return (torch.full_like if isinstance(source, Tensor) else np.full_like)(source, level)
    if source.mode in ("L", "1") or is_deep(source):
        return Image.new(source.mode, source.size, level if source.mode == "F" else int(level))
    if source.mode == "RGBA":
        return Image.new("RGBA", source.size, (int(level),) * 3 + (255 if opaque else int(level),))
    return Image.new("RGB", source.size, (int(level),) * 3)


def recover(tensor: Tensor, pixels: PixelRange, notes: list[str]) -> np.ndarray:
    """Recover the image from the model's input: (x - black) / (white - black).

    Args:
        tensor: The model's input, shape (B, C, H, W).
        pixels: The values to show as black and as white.
        notes: List to which a note is appended if the image can't be recovered exactly.

    Returns:
        The images, uint8, shape (B, H, W, 3).
    """
    if pixels.black.ndim == 4:
        ranges = map(PixelRange, pixels.black, pixels.white)
        return np.concatenate([recover(x[None], pixels, notes) for x, pixels in zip(tensor, ranges, strict=True)])
    x = tensor.detach().cpu().double()
    black, white = (end.detach().cpu().double().expand(x.shape[1:]) for end in (pixels.black, pixels.white))
    contrast = white - black
    # Padding added by the transform is the same for black and white images: use the channel's typical scale there.
    strongest = contrast.flatten(1).abs().argmax(1, keepdim=True)
    typical = contrast.flatten(1).gather(1, strongest)[:, :, None]
    origin = black.flatten(1).gather(1, strongest)[:, :, None]
    padded = contrast.abs() < 1e-6 * typical.abs()
    shares = (x - torch.where(padded, origin, black)) / torch.where(padded, typical, contrast)
    if (float(shares.min()) < -0.02 or float(shares.max()) > 1.02) and _CURVED not in notes:
        notes.append(_CURVED)
    shares = shares.clamp(0, 1)
    if shares.shape[1] == 4:
        shares = shares[:, :3]
    elif shares.shape[1] != 3:
        shares = shares.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    return (shares * 255).round().to(torch.uint8).movedim(1, -1).contiguous().numpy()
