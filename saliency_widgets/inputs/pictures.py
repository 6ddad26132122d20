"""Pictures: reading them, sending them through the caller's transform, and recovering what the model sees."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from saliency_widgets.attribution import PixelRange

_CHANNELS = (1, 3, 4)


def load(inputs: Any) -> Any:
    """A path becomes a picture, a picture gets a usable mode, arrays and tensors stay as they are.

    Raises:
        TypeError: The input is of no known kind.
        ValueError: The file is no picture.
    """
    if isinstance(inputs, (str, os.PathLike)):
        path = Path(inputs)
        if not path.is_file():
            raise ValueError(f"inputs: there is no file {str(path)!r}.")
        try:
            with Image.open(path) as opened:
                inputs = ImageOps.exif_transpose(opened).copy()
        except UnidentifiedImageError as error:
            raise ValueError(f"inputs: {str(path)!r} is no picture that Pillow can read.") from error
    if isinstance(inputs, Image.Image):
        return inputs if inputs.mode in ("RGB", "L") else inputs.convert("L" if inputs.mode in ("1", "I;16") else "RGB")
    if isinstance(inputs, (Tensor, np.ndarray)):
        return inputs
    if hasattr(inputs, "__array__") or isinstance(inputs, (list, tuple)):
        return np.asarray(inputs)
    raise TypeError(
        f"inputs: expected a PIL image, a path, an array or a tensor, got a {type(inputs).__name__}."
    )


def without_transform(source: Any, notes: list[str]) -> tuple[Tensor, PixelRange | None]:
    """The model's input where the caller gave no transform: pictures scaled to [0, 1], tensors as they are.

    Returns:
        Shape (B, ...), and the pixel range; None where it is no picture.
    """
    if isinstance(source, Image.Image):
        source = np.asarray(source)
    if isinstance(source, np.ndarray):
        numbers = torch.from_numpy(np.ascontiguousarray(_numeric(source)))
        if _is_hwc(source):
            numbers = numbers.movedim(-1, 0)
        elif source.ndim == 2 and source.dtype == np.uint8:
            numbers = numbers[None]
    else:
        numbers = source
    whole = numbers.dtype == torch.uint8
    tensor = batched(numbers)
    if not whole and not tensor.is_floating_point() and not tensor.is_complex():
        tensor = tensor.to(torch.get_default_dtype())
    if tensor.ndim != 4:
        return tensor, None
    if whole:
        tensor = tensor.to(torch.float32) / 255
    return tensor, _range_of(tensor, notes)


def _numeric(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "uifbc":
        raise TypeError(f"inputs: expected numbers, got an array of {array.dtype}.")
    return array.astype(np.float32) if array.dtype in (np.uint16, np.uint32, np.uint64, np.float16, np.bool_) else array


def _is_hwc(array: np.ndarray) -> bool:
    return array.ndim == 3 and array.shape[-1] in _CHANNELS and array.shape[0] not in _CHANNELS


def batched(tensor: Tensor) -> Tensor:
    """A (C, H, W) picture or an (F,) row becomes a batch of one; batches stay."""
    if tensor.ndim == 0:
        raise ValueError("inputs: a single number is no input; pass an array or a tensor.")
    single = tensor.ndim == 1 or (tensor.ndim == 3 and tensor.shape[0] in _CHANNELS)
    return tensor[None] if single else tensor


def _range_of(tensor: Tensor, notes: list[str]) -> PixelRange:
    low, high = float(tensor.min()), float(tensor.max())
    shape = (tensor.shape[1], 1, 1)
    if low >= 0 and high <= 1:
        return PixelRange(torch.zeros(shape), torch.ones(shape))
    notes.append(
        "No transform was given and the numbers are not in [0, 1]: the smallest is shown as black and the "
        "largest as white. Pass the picture and transform= to see what the model sees."
    )
    return PixelRange(torch.full(shape, low), torch.full(shape, high if high > low else low + 1))


def with_transform(source: Any, transform: Callable, notes: list[str]) -> tuple[Tensor, PixelRange | None]:
    """Send the input and a black and a white picture of its size through the transform.

    Returns:
        Shape (B, ...), and what black and white became, each (C, H, W); None where the result is no picture.

    Raises:
        ValueError: The transform fails, is random, or returns no tensor.
    """
    tensor = _transformed(source, transform)
    if not torch.equal(tensor, _transformed(source, transform)) and torch.isfinite(tensor).all():
        raise ValueError(
            "transform: it gives another result each time (a random crop or flip?). Pass the deterministic transform "
            "that is used for validation."
        )
    if tensor.ndim != 4:
        return tensor, None
    black, white = (_transformed(_uniform(source, bright), transform)[0] for bright in (False, True))
    if torch.isfinite(black).all() and torch.isfinite(white).all() and black.shape == tensor.shape[1:]:
        contrast = (white - black).flatten(1).abs().amax(1)
        if bool((contrast > 0).all()):
            return tensor, PixelRange(black, white)
    notes.append(
        "The transform makes no difference between black and white pictures (does it normalise each picture by "
        "itself?): the smallest number is shown as black and the largest as white."
    )
    low, high = float(tensor.min()), float(tensor.max())
    shape = (tensor.shape[1], 1, 1)
    return tensor, PixelRange(torch.full(shape, low), torch.full(shape, high if high > low else low + 1))


def _transformed(source: Any, transform: Callable) -> Tensor:
    try:
        result = transform(source)
    except Exception as error:
        raise ValueError(
            f"transform: it raised {type(error).__name__} for a {_described(source)}: {error}. "
            f"Pass the input in the form that your transform expects."
        ) from error
    if isinstance(result, (np.ndarray, Image.Image)):
        return without_transform(result, [])[0] if isinstance(result, Image.Image) else batched(torch.as_tensor(result))
    if not isinstance(result, Tensor):
        raise ValueError(
            f"transform: it must return a tensor, got a {type(result).__name__}; end it with ToTensor() or similar."
        )
    return batched(result)


def _uniform(source: Any, bright: bool) -> Any:
    if isinstance(source, Image.Image):
        return Image.new(source.mode, source.size, ("white" if bright else "black"))
    whole = source.dtype in (np.uint8, torch.uint8)
    top = 255 if whole or float(source.max()) > 1.5 else 1
    fill = torch.full_like if isinstance(source, Tensor) else np.full_like
    return fill(source, top if bright else 0)


def _described(source: Any) -> str:
    if isinstance(source, Image.Image):
        return f"{source.mode} picture of {source.size[0]} x {source.size[1]}"
    return f"{type(source).__name__} of shape {tuple(source.shape)}"


def recover(tensor: Tensor, pixels: PixelRange, notes: list[str]) -> np.ndarray:
    """The picture the model sees: (x - black) / (white - black).

    Args:
        tensor: The model's input, shape (B, C, H, W).
        pixels: What black and white look like to it.
        notes: Where a picture that can't be recovered exactly is mentioned.

    Returns:
        uint8, shape (B, H, W, 3).
    """
    x = tensor.detach().double().cpu()
    black, white = pixels.black.double().expand(x.shape[1:]), pixels.white.double().expand(x.shape[1:])
    contrast = white - black
    # Padding that the transform adds is the same in both probes: there, the channel's own scale applies.
    strongest = contrast.flatten(1).abs().argmax(1, keepdim=True)
    typical = contrast.flatten(1).gather(1, strongest)[:, :, None]
    origin = black.flatten(1).gather(1, strongest)[:, :, None]
    padded = contrast.abs() < 1e-6 * typical.abs()
    shares = (x - torch.where(padded, origin, black)) / torch.where(padded, typical, contrast)
    if float(shares.min()) < -0.02 or float(shares.max()) > 1.02:
        notes.append("The transform is not linear in the pixels: the picture shown is close to what the model sees, not exact.")
    shares = shares.clamp(0, 1)
    if shares.shape[1] == 4:
        shares = shares[:, :3]
    elif shares.shape[1] != 3:
        shares = shares.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    return (shares * 255).round().to(torch.uint8).movedim(1, -1).contiguous().numpy()
