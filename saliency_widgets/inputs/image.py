"""Images: read them, apply the caller's transform, and recover the image that the model sees."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from saliency_widgets.attribution import PixelRange
from saliency_widgets.attribution.arrays import as_array, check_dense, check_unmasked
from saliency_widgets.files import as_path
from saliency_widgets.params import brief

_CHANNELS = (1, 3, 4)
_CURVED = "The transform is not linear in the pixels: the image shown is close to what the model sees, not exact."
_BYTES = "Bytes were scaled to [0, 1]. Pass floats if the model scales them itself."


@dataclass(frozen=True)
class EightBit:
    """One of our transforms, which takes RGB and L images; a caller's transform gets the image in its original mode.

    Attributes:
        transform: It also takes images in any other form.
    """

    transform: Callable[[Any], Any]

    def __call__(self, source: Any) -> Any:
        """Transform one input."""
        return self.transform(source)


def load(inputs: Any) -> Any:
    """Read an image from a path; return images, arrays and tensors unchanged.

    Raises:
        TypeError: The input has an unsupported type.
        ValueError: The file is not an image.
    """
    if isinstance(inputs, (str, os.PathLike)):
        path = Path(inputs) if isinstance(inputs, str) else as_path(inputs, "inputs")
        if not _is_file(path):
            raise ValueError(f"inputs: there is no file {brief(str(path))}. Pass the path of an image.")
        try:
            with Image.open(path) as opened:
                inputs = ImageOps.exif_transpose(opened).copy()
        except UnidentifiedImageError as error:
            raise ValueError(f"inputs: {str(path)!r} is not an image that Pillow can read.") from error
        except Exception as error:  # no permission, a truncated file, an image of a billion pixels
            raise ValueError(f"inputs: {str(path)!r} can't be read as an image: {error}.") from error
    check_unmasked(inputs, "inputs")
    if isinstance(inputs, (Image.Image, Tensor, np.ndarray)):
        return inputs
    if hasattr(inputs, "__array__") or isinstance(inputs, (list, tuple)):
        return as_array(inputs, "inputs")
    raise TypeError(f"inputs: expected a PIL image, a path, an array or a tensor, got a {type(inputs).__name__}.")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


def eight_bit(image: Image.Image) -> Image.Image:
    """Convert colors to RGB and grays to L; 16-bit and float grays are scaled, because Pillow would clip them."""
    if image.mode in ("RGB", "L"):
        return image
    if not _is_deep(image):
        return image.convert("L" if image.mode == "1" else "RGB")
    return Image.fromarray((_grays(image)[0] * 255).clip(0, 255).round().astype(np.uint8))


def _is_deep(image: Image.Image) -> bool:
    """Return whether its grays have more than 8 bits."""
    return image.mode[0] in "IF"


def _grays(image: Image.Image) -> tuple[np.ndarray, float, int]:
    """Return deep grays scaled to [0, 1], their original maximum, and the original number that became 1."""
    levels = np.nan_to_num(np.asarray(image, dtype=np.float64)).clip(0)
    brightest = float(levels.max(initial=0))
    if image.mode.startswith("I;16") or brightest > 255:
        white = 65535
    else:
        white = 1 if image.mode == "F" and brightest <= 1 else 255
    return levels / white, brightest, white


def is_numbers(source: Any) -> bool:
    """Return whether it is a tensor or an array of floating-point numbers."""
    return isinstance(source, (Tensor, np.ndarray)) and (
        source.is_floating_point() if isinstance(source, Tensor) else source.dtype.kind == "f"
    )


def plain(source: Any, notes: list[str] | None = None) -> Tensor:
    """Return the model's input without a transform: bytes scaled to [0, 1], other numbers unchanged.

    Args:
        source: An image, an array or a tensor.
        notes: Collects a note on a scale that may be unintended.

    Returns:
        Shape (B, ...).
    """
    notes = [] if notes is None else notes
    if isinstance(source, Image.Image):
        if _is_deep(source):
            grays, brightest, white = _grays(source)
            if 0 < brightest < white / 2:
                notes.append(
                    f"The grays were divided by {white}, and the brightest is {brightest:g}: the model sees a dark "
                    f"image. Pass transform= to scale them as it was trained."
                )
            return torch.from_numpy(grays.astype(np.float32))[None, None]
        source = eight_bit(source)
    tensor = batched(_tensor(source))
    if tensor.dtype == torch.uint8 and tensor.ndim in (4, 5):
        if isinstance(source, Tensor) or tensor.ndim == 5:  # arrays (H, W, C) are images, and have 255 levels
            notes.append(_BYTES)
        return tensor.to(torch.float32) / 255
    return tensor


def numbers(source: Tensor | np.ndarray) -> Tensor:
    """Return the numbers unchanged, as a tensor."""
    return source if isinstance(source, Tensor) else torch.from_numpy(np.array(_numeric(source), order="C"))


def _tensor(source: Any) -> Tensor:
    """Return images, including (H, W, C) and (H, W) arrays of bytes, as (C, H, W); everything else unchanged."""
    if isinstance(source, Tensor):
        return source
    image = isinstance(source, Image.Image)
    array = np.asarray(source)
    tensor = numbers(array)
    if array.ndim == 2 and (image or array.dtype == np.uint8):
        return tensor[None]
    return tensor.movedim(-1, -3) if _channels_last(array) or (image and array.ndim == 3) else tensor


def _numeric(array: np.ndarray) -> np.ndarray:
    """Convert the array to a type that torch supports, in native byte order."""
    if array.dtype.kind not in "uifbc":
        raise TypeError(f"inputs: expected numbers, got an array of {array.dtype}.")
    if array.dtype in (np.uint16, np.uint32, np.uint64, np.float16, np.bool_):
        return array.astype(np.float32)
    if array.dtype == np.longdouble:
        return array.astype(np.float64)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _channels_last(array: np.ndarray) -> bool:
    return array.ndim in (3, 4) and array.shape[-1] in _CHANNELS and array.shape[-3] not in _CHANNELS


def batched(tensor: Tensor) -> Tensor:
    """Return a (C, H, W) image or an (F,) row as a batch of one; batches are unchanged."""
    if tensor.ndim == 0:
        raise ValueError("inputs: expected an array or a tensor, got a single number.")
    single = tensor.ndim == 1 or (tensor.ndim == 3 and tensor.shape[0] in _CHANNELS)
    return tensor[None] if single else tensor


def transformed(source: Any, transform: Callable) -> Tensor:
    """Apply the caller's transform to the input; the result has shape (B, ...).

    Raises:
        ValueError: The transform fails, is random, or returns no tensor.
    """
    tensor = _transformed(source, transform)
    if not torch.equal(tensor, _transformed(source, transform)) and torch.isfinite(tensor).all():
        raise ValueError(
            "transform: it gives a different result each time (a random crop or flip?). Pass the deterministic "
            "transform that is used for validation."
        )
    return tensor


def pixel_range(
    tensor: Tensor, source: Any, transform: Callable | None, notes: list[str]
) -> tuple[PixelRange | None, PixelRange | None]:
    """Determine what black and white pixels look like to the model, by transforming a black and a white image.

    Args:
        tensor: The model's input, shape (B, ...).
        source: What it was made from.
        transform: How, or None.
        notes: Collects a note on a range that had to be guessed.

    Returns:
        The range, or None if it is unknown; and the range that is displayed from black to white, or None if the input
        is not an image.
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
            "black and the largest as white. Pass the image and transform= to see what the model sees."
        )
    # Per image: how an image is shown must not depend on the others in the batch.
    usual = (low >= 0) & (high <= 1) if transform is None else torch.zeros_like(low, dtype=torch.bool)
    ends = (torch.where(usual, 0, low), torch.where(usual, 1, torch.where(high > low, high, low + 1)))
    black, white = (end.view(-1, 1, 1, 1).expand(-1, *shape) for end in ends)
    return None, PixelRange(black, white) if len(tensor) > 1 else PixelRange(black[0], white[0])


def _probed(tensor: Tensor, source: Any, transform: Callable, notes: list[str]) -> PixelRange | None:
    """Return what black and white images of the input's size are transformed to, or None if that is inconclusive."""
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
    """Return the range, and whether the transform is nonlinear, judged by a gray image."""
    levels = _levels(source)
    try:
        black, gray, white = (_transformed(_uniform(source, level, opaque), transform)[0] for level in levels)
    except ValueError:  # the transform takes the input, but not these images
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


def _transformed(source: Any, transform: Callable) -> Tensor:
    try:  # on a copy: some transforms work in place
        result = transform(source.detach().clone() if isinstance(source, Tensor) else source.copy())
    except Exception as error:
        raise ValueError(
            f"transform: it raised {type(error).__name__} for a {_described(source)}: {str(error).rstrip('.')}. "
            f"Pass the input in the form that your transform expects{_converted(source)}."
        ) from error
    if isinstance(result, Image.Image):
        return batched(_tensor(result)).float() / 255 if result.mode == "RGBA" else plain(result)
    if not isinstance(result, (Tensor, np.ndarray)):
        raise ValueError(
            f"transform: it must return a tensor, got a {type(result).__name__}; end it with ToTensor() or similar."
        )
    if isinstance(result, Tensor):
        check_dense(result, "transform", returned=True)
    tensor = _tensor(result)
    # For one image, three dimensions are (C, H, W) with any number of channels.
    return tensor[None] if tensor.ndim == 3 and isinstance(source, Image.Image) else batched(tensor)


def _converted(source: Any) -> str:
    usual = not isinstance(source, Image.Image) or source.mode in ("RGB", "L")
    return "" if usual else ", for example image.convert('RGB')"


def _levels(source: Any) -> tuple[float, float, float]:
    """Return black, a dark gray and white on the source's scale."""
    if isinstance(source, Image.Image):
        if not _is_deep(source):
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
    """Return a uniformly gray image of the source's type and size; RGB for modes whose numbers are not levels."""
    if not isinstance(source, Image.Image):
        return (torch.full_like if isinstance(source, Tensor) else np.full_like)(source, level)
    if source.mode in ("L", "1") or _is_deep(source):
        return Image.new(source.mode, source.size, level if source.mode == "F" else int(level))
    if source.mode == "RGBA":
        return Image.new("RGBA", source.size, (int(level),) * 3 + (255 if opaque else int(level),))
    return Image.new("RGB", source.size, (int(level),) * 3)


def _described(source: Any) -> str:
    if isinstance(source, Image.Image):
        return f"{source.mode} image of {source.size[0]} x {source.size[1]}"
    return f"{type(source).__name__} of shape {tuple(source.shape)}"


def recover(tensor: Tensor, pixels: PixelRange, notes: list[str]) -> np.ndarray:
    """Recover the image that the model sees: (x - black) / (white - black).

    Args:
        tensor: The model's input, shape (B, C, H, W).
        pixels: What is shown as black and as white.
        notes: Collects a note if the image can't be recovered exactly.

    Returns:
        uint8, shape (B, H, W, 3).
    """
    if pixels.black.ndim == 4:
        ranges = map(PixelRange, pixels.black, pixels.white)
        return np.concatenate([recover(x[None], pixels, notes) for x, pixels in zip(tensor, ranges, strict=True)])
    x = tensor.detach().cpu().double()
    black, white = (end.detach().cpu().double().expand(x.shape[1:]) for end in (pixels.black, pixels.white))
    contrast = white - black
    # Padding that the transform adds is the same in black and white: use the channel's typical scale there.
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
