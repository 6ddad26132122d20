"""Adapters for models and transforms of other libraries, recognized by their attributes without importing them."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import EnumMeta
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from saliency_widgets.inputs import reading
from saliency_widgets.params import brief, unknown

_CHANNELS = (1, 3, 4)
_CONFIG = ("input_size", "mean", "std")
_INNER = ("model", "net", "backbone", "module")
_RESAMPLING = {name: Image.Resampling[name.upper()] for name in ("bicubic", "bilinear", "nearest", "lanczos", "box")}
_RESAMPLING["random"] = _RESAMPLING["bicubic"]  # randomness is for training: explanations need a fixed transform


def transform_of(transform: Any, model: Any, inputs: Any, notes: list[str]) -> Callable | None:
    """Return the transform that converts an image to the model's input.

    Args:
        transform: A function from the input to a tensor; torchvision weights; a Hugging Face image processor; a timm
            data config; or None.
        model: The model, whose timm data config (``pretrained_cfg``, ``default_cfg``) is used if there is no transform
            and the inputs are images.
        inputs: The inputs for :func:`saliency_widgets.inputs.prepare`.
        notes: List to which a note is appended if the model's data config is used.

    Returns:
        The caller's function unchanged; a function that converts an image in any form to a tensor (1, C, H, W), and N
        images to (N, C, H, W); or None.

    Raises:
        TypeError: ``transform`` has an unsupported type.
        ValueError: A data config is invalid or unsupported.
    """
    if transform is None:
        config = _model_config(model) if _is_image(inputs) else None
        if config is not None:
            notes.append(f"The model's data config is used: {config}. Pass transform= to use another.")
        return None if config is None else reading.EightBit(config)
    _refuse_class(transform, "transform")
    if _is_weights(transform):
        return reading.EightBit(partial(_preset, transform.transforms()))
    if _is_processor(transform):  # a processor for text and images contains one for images
        return reading.EightBit(partial(_processed, getattr(transform, "image_processor", transform)))
    if callable(transform):
        return transform
    if isinstance(transform, Mapping) or _has_config(transform):
        return reading.EightBit(_Evaluation.of(transform, "transform"))
    raise TypeError(
        f"transform: expected a function from an image to a tensor, torchvision weights, a Hugging Face image "
        f"processor or a timm data config, got a {type(transform).__name__}."
    )


def class_names_of(class_names: Any, transform: Any, model: Any) -> tuple[Any, bool]:
    """Return the names of the classes, and whether the caller passed them.

    If none are passed, they are looked up on the model (``class_names``, ``classes``, ``names``, Hugging Face's
    ``config.id2label``, timm's ``label_names``), then in torchvision weights passed as the transform.

    Args:
        class_names: The caller's argument: names, torchvision weights, or None.
        transform: The caller's ``transform`` argument.
        model: The model.

    Returns:
        The passed names, or a list of names from the lookup, or None; and True if they were passed. Names from the
        lookup may be outdated, e.g. from before fine-tuning: discard them if their number doesn't match the outputs.

    Raises:
        TypeError: ``class_names`` is a class of weights.
        ValueError: ``class_names`` are weights without names.
    """
    if class_names is not None:
        _refuse_class(class_names, "class_names")
        if not _is_weights(class_names):
            return class_names, True
        names = _texts(class_names.meta.get("categories"))
        if names is None:
            raise ValueError(f"class_names: the weights {class_names} have no class names. Pass a list of names.")
        return names, True
    for module in _config_modules(model):
        for carried in (
            *(getattr(module, name, None) for name in ("class_names", "classes", "names")),
            getattr(getattr(module, "config", None), "id2label", None),
            *(_read(config, "label_names") for config in _configs(module)),
        ):
            names = _texts(carried)
            if names is not None:
                return names, False
    return (_texts(transform.meta.get("categories")) if _is_weights(transform) else None), False


def unwrapped(model: Any) -> tuple[Any, list[str]]:
    """Return the module inside ``torch.compile``, ``DataParallel`` and ``DistributedDataParallel``, at any depth.

    Args:
        model: The module; any other wrapper, including Lightning's, is returned unchanged.

    Returns:
        The module, and notes about it.
    """
    notes: list[str] = []
    while True:
        inner = getattr(model, "_orig_mod", None)
        if isinstance(inner, nn.Module):
            notes.append("torch.compile hides a model's layers, so the wrapped model is used.")
            model = inner
        elif type(model) in (nn.DataParallel, nn.parallel.DistributedDataParallel):
            notes.append(f"The model wrapped in {type(model).__name__} is used, on one device.")
            model = model.module
        else:
            return model, list(dict.fromkeys(notes))


# ---- recognizing objects


def _refuse_class(value: Any, argument: str) -> None:
    """Reject an enum of weights: ``ResNet50_Weights`` itself is callable and iterable, and would be misread."""
    if isinstance(value, EnumMeta):
        raise TypeError(
            f"{argument}: {value.__name__} is a class of weights; pass one of its members, such as "
            f"{value.__name__}.DEFAULT."
        )


def _is_weights(value: Any) -> bool:
    return callable(getattr(value, "transforms", None)) and isinstance(getattr(value, "meta", None), Mapping)


def _is_processor(value: Any) -> bool:
    # A caller's transform may have these attributes as well, but is unlikely to have an argument `images`.
    if not callable(value) or not any(hasattr(value, n) for n in ("image_mean", "preprocess", "image_processor")):
        return False
    try:
        return "images" in inspect.signature(value).parameters
    except (TypeError, ValueError):
        return False


def _is_image(inputs: Any) -> bool:
    """Return whether the inputs are untransformed images."""
    if isinstance(inputs, (list, tuple)):
        return len(inputs) > 0 and all(_is_image(item) for item in inputs)
    if isinstance(inputs, np.ndarray):
        channels = inputs.ndim in (3, 4) and not {inputs.shape[-3], inputs.shape[-1]}.isdisjoint(_CHANNELS)
        return inputs.dtype == np.uint8 and (inputs.ndim == 2 or channels)
    if isinstance(inputs, Tensor):
        return inputs.dtype == torch.uint8 and inputs.ndim in (3, 4) and inputs.shape[-3] in _CHANNELS
    return isinstance(inputs, (Image.Image, str, os.PathLike))


def _read(carrier: Any, name: str) -> Any:
    return carrier.get(name) if isinstance(carrier, Mapping) else getattr(carrier, name, None)


def _has_config(carrier: Any) -> bool:
    return all(_read(carrier, name) is not None for name in _CONFIG)


def _config_modules(model: Any) -> Iterator[Any]:
    """Yield the modules that may carry the config and names of a model.

    Only Lightning modules are searched, one level deep. Any other wrapper may add a normalization or a head, in which
    case the inner model's config and names do not apply.
    """
    model = unwrapped(model)[0]
    yield model
    if callable(getattr(model, "training_step", None)):
        inner = (getattr(model, name, None) for name in _INNER)
        yield from (unwrapped(module)[0] for module in inner if isinstance(module, nn.Module))


def _configs(module: Any) -> list[Any]:
    return [getattr(module, name, None) for name in ("pretrained_cfg", "default_cfg")]


def _model_config(model: Any) -> _Evaluation | None:
    carried = (config for module in _config_modules(model) for config in _configs(module))
    config = next(filter(_has_config, carried), None)
    try:
        return None if config is None else _Evaluation.of(config, "model")
    except ValueError as error:
        raise ValueError(f"{error} Pass transform= instead.") from None


def _texts(carried: Any) -> list[str] | None:
    """Return the names in a list or a mapping from index to name, in order; None for placeholders or anything else."""
    if isinstance(carried, Mapping):
        try:
            by_index = {int(index): name for index, name in carried.items()}
        except (TypeError, ValueError):
            return None
        if sorted(by_index) != list(range(len(carried))):
            return None
        carried = [by_index[index] for index in range(len(by_index))]
    if not isinstance(carried, (list, tuple)) or not carried or not all(isinstance(name, str) for name in carried):
        return None
    if all(name == f"LABEL_{index}" for index, name in enumerate(carried)):
        return None  # Hugging Face's placeholders
    return list(carried)


# ---- applying transforms


def _preset(preset: Callable, source: Any) -> Any:
    """Apply a torchvision preset, which takes color images and tensors, but not arrays or grayscale images."""
    if isinstance(source, Tensor):
        return preset(source)
    return torch.stack([preset(image.convert("RGB")) for image in _eight_bit(source)])


def _processed(processor: Any, source: Any) -> Tensor:
    mean = getattr(processor, "image_mean", None)
    mode = "L" if isinstance(mean, Iterable) and len(list(mean)) == 1 else "RGB"
    tensors = []
    for image in _eight_bit(source):
        result = processor(images=image.convert(mode), return_tensors="pt")
        values = result.get("pixel_values") if isinstance(result, Mapping) else None
        if isinstance(values, Tensor) and values.ndim == 4 and len(values) == 1:
            values = values[0]
        if not isinstance(values, Tensor) or values.ndim != 3:
            kind = f"a {type(result).__name__}{f' of {list(result)}' if isinstance(result, Mapping) else ''}"
            got = tuple(values.shape) if isinstance(values, Tensor) else kind
            raise ValueError(f"the image processor must return pixel_values of shape (1, C, H, W), got {got}")
        tensors.append(values)
    return torch.stack(tensors)


def _eight_bit(source: Any) -> list[Image.Image]:
    """Convert one image or a batch, in any form, to a list of RGB or L images."""
    if isinstance(source := reading.load(source), Image.Image):
        return [reading.eight_bit(source)]
    x = reading.plain(source).detach().cpu()
    if x.ndim != 4 or x.shape[1] not in _CHANNELS:
        raise ValueError(f"expected images of 1, 3 or 4 channels, got an array of shape {tuple(source.shape)}")
    if not x.is_floating_point() or not bool(((x >= 0) & (x <= 1)).all()):
        raise ValueError("expected images in uint8 or in [0, 1]; omit transform= if they are already normalized")
    levels = (x.double() * 255).round().to(torch.uint8).movedim(1, -1).numpy()
    return [Image.fromarray(one[..., 0] if one.shape[-1] == 1 else one[..., :3]) for one in levels]


@dataclass(frozen=True)
class _Evaluation:
    """timm's evaluation transform: resize, crop, scale to [0, 1], normalize.

    Attributes:
        size: The height and width of the model's input.
        mean: The mean of each channel, for numbers in [0, 1]; a single channel means that the model takes grayscale.
        std: The standard deviation of each channel.
        interpolation: The resampling filter, a key of :data:`_RESAMPLING`.
        crop_pct: The fraction of the resized image's sides that the crop keeps.
        crop_mode: ``"center"`` keeps the aspect ratio and cuts the sides; ``"squash"`` changes the aspect ratio;
            ``"border"`` keeps both and pads with the mean color.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop_pct: float
    crop_mode: str

    @classmethod
    def of(cls, config: Any, argument: str) -> _Evaluation:
        """Create the transform from a timm data config: a mapping, or an object with attributes."""
        what = f"{argument}: a data config"
        missing = [name for name in _CONFIG if _read(config, name) is None]
        if missing:
            raise ValueError(f"{what} must have {', '.join(_CONFIG)}; this one has no {' and no '.join(missing)}.")
        input_size = _row(_read(config, "input_size"))
        channels, height, width = {1: (3, *input_size * 2), 2: (3, *input_size), 3: input_size}.get(
            len(input_size), (0, 0, 0)
        )
        if channels not in (1, 3) or min(height, width) < 1:
            raise ValueError(f"{what}'s input_size must be (C, H, W) with 1 or 3 channels, got {input_size}.")
        rows = {name: _row(_read(config, name)) for name in ("mean", "std")}
        for name, row in rows.items():
            if len(row) not in (1, channels) or (name == "std" and min(row) <= 0):
                wanted = "number" if name == "mean" else "positive number"
                raise ValueError(f"{what}'s {name} must be one {wanted} per channel ({channels}), got {row}.")
        crop_pct = _read(config, "crop_pct") or 0.875
        if not isinstance(crop_pct, (int, float)) or crop_pct <= 0:
            raise ValueError(f"{what}'s crop_pct must be a positive number, got {brief(crop_pct)}.")
        chosen = {}
        for name, allowed in (("interpolation", (*_RESAMPLING,)), ("crop_mode", ("center", "squash", "border"))):
            chosen[name] = _read(config, name) or allowed[0]
            if chosen[name] not in allowed:
                raise ValueError(unknown(f"{what}'s {name}", chosen[name], allowed))
        mean, std = (row * (channels // len(row)) for row in rows.values())
        return cls((height, width), mean, std, crop_pct=crop_pct, **chosen)

    def __str__(self) -> str:
        (height, width), (h, w) = self.size, self._scale()
        means, stds = (", ".join(f"{number:g}" for number in row) for row in (self.mean, self.std))
        to = f"the shorter side to {h}" if self.crop_mode == "center" and h == w else f"to {w} x {h} ({self.crop_mode})"
        return f"resize {to} ({self.interpolation}), crop {width} x {height}, mean {means}, std {stds}"

    def __call__(self, source: Any) -> Tensor:
        mode = "L" if len(self.mean) == 1 else "RGB"
        seen = [np.asarray(self._cropped(self._resized(one.convert(mode)))) for one in _eight_bit(source)]
        x = torch.from_numpy(np.stack(seen).reshape(len(seen), *self.size, len(self.mean))).movedim(-1, 1)
        mean, std = (torch.tensor(row, device="cpu").view(-1, 1, 1) for row in (self.mean, self.std))
        return (x.to(torch.float32) / 255 - mean) / std

    def _scale(self) -> tuple[int, int]:
        height, width = (math.floor(side / self.crop_pct) for side in self.size)
        return height, width

    def _resized(self, image: Image.Image) -> Image.Image:
        h, w = self._scale()
        if self.crop_mode != "squash":
            width, height = image.size
            if self.crop_mode == "border" or h != w:
                ratio = (max if self.crop_mode == "border" else min)(height / h, width / w)
                h, w = round(height / ratio), round(width / ratio)
            else:  # rounded down, as torchvision does
                short = min(height, width)
                h, w = h * height // short, w * width // short
        return image.resize((max(w, 1), max(h, 1)), _RESAMPLING[self.interpolation])

    def _cropped(self, image: Image.Image) -> Image.Image:
        """Crop the center, after padding an image that is too small."""
        height, width = self.size
        room = (max(width, image.width), max(height, image.height))
        if room != image.size:
            color = tuple(round(255 * mean) if self.crop_mode == "border" else 0 for mean in self.mean)
            small, image = image, Image.new(image.mode, room, color)
            image.paste(small, ((room[0] - small.width) // 2, (room[1] - small.height) // 2))
        left, top = round((image.width - width) / 2), round((image.height - height) / 2)
        return image.crop((left, top, left + width, top + height))


def _row(value: Any) -> tuple[float, ...]:
    return tuple(value) if isinstance(value, Iterable) else (value,)
