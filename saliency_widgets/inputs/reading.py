"""Read images, arrays and tensors, with or without the caller's transform."""

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

from saliency_widgets.attribution.arrays import as_array, check_dense, check_unmasked
from saliency_widgets.files import as_path
from saliency_widgets.params import brief

_CHANNELS = (1, 3, 4)
_BYTES = "Bytes were scaled to [0, 1]. Pass floats if the model scales them itself."


@dataclass(frozen=True)
class EightBit:
    """A built-in transform, which takes RGB and L images; a caller's transform gets the image in its original mode.

    Attributes:
        transform: The function that is applied, to images in any form.
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
            raise ValueError(
                f"inputs: there is no file {brief(str(path))}. Pass the path of an image; for a text, pass tokenizer=."
            )
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
    except OSError:  # the name is too long
        return False


def eight_bit(image: Image.Image) -> Image.Image:
    """Convert colors to RGB and grays to L; 16-bit and float grays are scaled, because Pillow would clip them."""
    if image.mode in ("RGB", "L"):
        return image
    if not is_deep(image):
        return image.convert("L" if image.mode == "1" else "RGB")
    return Image.fromarray((_grays(image)[0] * 255).clip(0, 255).round().astype(np.uint8))


def is_deep(image: Image.Image) -> bool:
    """Return whether an image has grays of more than 8 bits."""
    return image.mode[0] in "IF"


def _grays(image: Image.Image) -> tuple[np.ndarray, float, int]:
    """Return grays of more than 8 bits scaled to [0, 1], their original maximum, and the number that divided them."""
    levels = np.nan_to_num(np.asarray(image, dtype=np.float64)).clip(0)
    brightest = float(levels.max(initial=0))
    if image.mode.startswith("I;16") or brightest > 255:
        white = 65535
    else:
        white = 1 if image.mode == "F" and brightest <= 1 else 255
    return levels / white, brightest, white


def is_numbers(source: Any) -> bool:
    """Return whether the source is a tensor or an array of floating-point numbers."""
    return isinstance(source, (Tensor, np.ndarray)) and (
        source.is_floating_point() if isinstance(source, Tensor) else source.dtype.kind == "f"
    )


def plain(source: Any, notes: list[str] | None = None) -> Tensor:
    """Return the model's input without a transform: bytes scaled to [0, 1], other numbers unchanged.

    Args:
        source: An image, an array or a tensor.
        notes: List to which a note is appended if the scale may be unintended.

    Returns:
        The model's input, shape (B, ...).
    """
    notes = [] if notes is None else notes
    if isinstance(source, Image.Image):
        if is_deep(source):
            grays, brightest, white = _grays(source)
            if 0 < brightest < white / 2:
                notes.append(
                    f"Gray values were divided by {white}, and the largest is {brightest:g}: the model's input is a "
                    f"dark image. Pass transform= to scale them as in training."
                )
            return torch.from_numpy(grays.astype(np.float32))[None, None]
        source = eight_bit(source)
    tensor = batched(_tensor(source))
    if tensor.dtype == torch.uint8 and tensor.ndim in (4, 5):
        if isinstance(source, Tensor) or tensor.ndim == 5:  # arrays (H, W, C) are images with 255 levels
            notes.append(_BYTES)
        return tensor.to(torch.float32) / 255
    return tensor


def numbers(source: Tensor | np.ndarray) -> Tensor:
    """Return the numbers as a tensor, with their values unchanged."""
    return source if isinstance(source, Tensor) else torch.from_numpy(np.array(_numeric(source), order="C"))


def _tensor(source: Any) -> Tensor:
    """Return images, including (H, W, C) and (H, W) arrays of bytes, as (C, H, W); anything else unchanged."""
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
    """Return a (C, H, W) image or an (F,) row as a batch of one, and a batch unchanged."""
    if tensor.ndim == 0:
        raise ValueError("inputs: expected an array or a tensor, got a single number.")
    single = tensor.ndim == 1 or (tensor.ndim == 3 and tensor.shape[0] in _CHANNELS)
    return tensor[None] if single else tensor


def transformed(source: Any, transform: Callable) -> Tensor:
    """Apply the caller's transform to the input; the result has shape (B, ...).

    Raises:
        ValueError: The transform fails, is random, or returns no tensor.
    """
    tensor = apply_transform(source, transform)
    if not torch.equal(tensor, apply_transform(source, transform)) and torch.isfinite(tensor).all():
        raise ValueError(
            "transform: it returns a different result each time (a random crop or flip?). Pass the deterministic "
            "transform that is used for validation."
        )
    return tensor


def apply_transform(source: Any, transform: Callable) -> Tensor:
    """Apply a transform once, to a copy of the source; see :func:`transformed`."""
    try:  # some transforms work in place
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
    # The result for one image has shape (C, H, W), with any number of channels.
    return tensor[None] if tensor.ndim == 3 and isinstance(source, Image.Image) else batched(tensor)


def _converted(source: Any) -> str:
    usual = not isinstance(source, Image.Image) or source.mode in ("RGB", "L")
    return "" if usual else ", for example image.convert('RGB')"


def _described(source: Any) -> str:
    if isinstance(source, Image.Image):
        return f"{source.mode} image of {source.size[0]} x {source.size[1]}"
    return f"{type(source).__name__} of shape {tuple(source.shape)}"
