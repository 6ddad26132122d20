"""Name inputs nested in lists, tuples, mappings and dataclasses, and choose those to explain."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from numbers import Real
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from saliency_widgets.params import brief, unknown
from saliency_widgets.runtime.arguments import entries

_DEEPEST = 32
Explain = str | int | Sequence[str | int] | None


def check_depth(inputs: Any) -> None:
    """Check how deeply containers are nested, before other functions recurse into them.

    Raises:
        ValueError: The containers are nested too deeply, or contain themselves.
    """
    layer = [inputs]
    for _ in range(_DEEPEST):
        items = (item for node in layer for _, item in entries(node) or ())
        layer = list({id(item): item for item in items if _is_container(item)}.values())  # each container once
    if layer:
        raise ValueError(
            f"inputs: they are nested more than {_DEEPEST} levels deep, or contain themselves. Pass the tensors by "
            f"name."
        )


def _is_container(value: Any) -> bool:
    return isinstance(value, (list, tuple, Mapping)) or (is_dataclass(value) and not isinstance(value, type))


def is_nest(value: Any) -> bool:
    """Return whether a value contains tensors or arrays at any depth; a list of images is a batch instead."""
    items = [item for _, item in entries(value) or ()]
    if isinstance(value, list) and items and all(map(is_image, items)):
        return False
    return any(isinstance(item, (Tensor, np.ndarray)) or is_nest(item) for item in items)


def is_several(inputs: Any) -> bool:
    """Return whether the inputs are a tuple of arguments; a tuple of images is a batch, and one of numbers is a row."""
    return isinstance(inputs, tuple) and any(isinstance(item, (Tensor, np.ndarray)) or is_nest(item) for item in inputs)


def leaves(top: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values inside the arguments by path: "batch.x", "xs.0".

    Raises:
        ValueError: Two values have the same path.
    """
    result: dict[str, Any] = {}

    def walk(path: str, value: Any) -> None:
        if is_nest(value):
            for key, item in entries(value) or ():
                walk(f"{path}.{key}", item)
        elif path in result:
            raise ValueError(f"inputs: two inputs have the path {path!r}. Rename a key of the mapping.")
        else:
            result[path] = value

    for name, value in top.items():
        walk(name, value)
    return result


def is_image(value: Any) -> bool:
    """Return whether a value is an untransformed image: uint8 with two or more dimensions, a PIL image or a path."""
    if isinstance(value, (np.ndarray, Tensor)):
        return value.dtype in (np.uint8, torch.uint8) and value.ndim >= 2
    return isinstance(value, (Image.Image, os.PathLike))


def is_whole(value: Any) -> bool:
    """Return whether a value is a tensor or an array of integers or booleans, and not an image."""
    if isinstance(value, Tensor):
        return not (value.is_floating_point() or value.is_complex() or is_image(value))
    return isinstance(value, np.ndarray) and value.dtype.kind in "iub" and not is_image(value)


def listed(value: Any) -> np.ndarray | None:
    """Convert a list of floats, nested or not, to an array; return None for anything else, including integers."""
    flat = [value] if isinstance(value, list) else []
    while flat and all(isinstance(item, list) for item in flat):
        flat = [inner for item in flat for inner in item]
    if not flat or not all(isinstance(item, Real) for item in flat):
        return None
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different lengths
        return None
    return array if array.dtype.kind == "f" else None


def chosen(
    explain: Explain, values: Mapping[str, Any], top: Sequence[str], notes: list[str], *, gradients: bool
) -> list[str]:
    """Return the paths of the inputs to explain, in order.

    Args:
        explain: The caller's argument: paths, path prefixes, or positions of arguments.
        values: The inputs by path, see :func:`leaves`.
        top: The arguments' names.
        notes: List to which a note is appended if inputs are held constant although they have a gradient.
        gradients: Whether the method needs gradients.

    Raises:
        TypeError: ``explain`` has an unsupported type.
        ValueError: ``explain`` names an input that is unknown or can't be explained, or one twice; or none can be.
    """
    if not values:
        raise ValueError("inputs: the mapping is empty. Pass the arguments of the model's forward, by name.")
    if explain is None:
        return _all_of_them(values, top, notes, gradients)
    names: list[str] = []
    for item in _requested(explain, [*dict.fromkeys([*values, *top])]):
        name = top[item] if isinstance(item, int) and -len(top) <= item < len(top) else str(item)
        inside = [path for path in values if path == name or path.startswith(f"{name}.")]
        if not inside:
            raise ValueError(unknown("explain", name, [*dict.fromkeys([*top, *values])]))
        if name not in values:
            sampled = [path for path in inside if _has_samples(values[path])]
            inside = sampled or [path for path in inside if not gradients and is_whole(values[path])]
            if not inside:
                kinds = _kinds({path: value for path, value in values.items() if path.startswith(f"{name}.")})
                raise ValueError(f"explain: nothing in {name!r} can be explained; it holds {kinds}.")
        for path in inside:
            _check(path, values[path], gradients)
        names += inside
    if not names or len(set(names)) < len(names):
        raise ValueError(f"explain: expected one or more of {list(values)}, each once, got {brief(explain)}.")
    return [name for name in values if name in names]


def _all_of_them(values: Mapping[str, Any], top: Sequence[str], notes: list[str], gradients: bool) -> list[str]:
    """Return the inputs that have a gradient; if there are none and no gradient is needed, the integer inputs."""
    names = [name for name, value in values.items() if _has_samples(value)]
    # Lists count only if there are no tensors: next to a tensor, a list may be a setting.
    names = names or [name for name, value in values.items() if listed(value) is not None]
    if not names and not gradients:
        names = [name for name, value in values.items() if is_whole(value) and value.ndim > 0]
    if not names:
        whole = any(is_whole(value) or isinstance(value, int) for value in values.values())
        why = (
            "Integers (tokens, categories) have no gradient. For a text, pass tokenizer=; otherwise pass their "
            "embeddings, if the model takes them (inputs_embeds=); or use a method that needs no gradient with "
            "sw.attribute, such as method='captum.FeatureAblation'."
            if whole
            else "Pass floating-point tensors with one row for each sample; they may be nested in lists, "
            "tuples, mappings and dataclasses."
        )
        raise ValueError(f"inputs: no input has a gradient; got {_kinds(values)}. {why}")
    outer = [name for name in names if name in top]
    if not outer or len(outer) == len(names):
        return names
    samples = _samples(values[outer[0]])
    others = [name for name in names if name not in top and _samples(values[name]) != samples]
    if others:
        sizes = {name: _samples(values[name]) for name in others}
        notes.append(
            f"Held constant, because they don't have {samples} rows, one for each sample: {sizes}. Pass explain= to "
            f"choose others."
        )
    return [name for name in names if name not in others]


def _kinds(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(getattr(value, "dtype", type(value).__name__)) for name, value in values.items()}


def _has_samples(value: Any) -> bool:
    """Return whether a value is an image, or floating-point numbers with one row per sample."""
    if isinstance(value, Tensor):
        return (value.is_floating_point() and value.ndim > 0) or is_image(value)
    return is_image(value) or (isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.ndim > 0)


def _samples(value: Any) -> int:
    """Return the number of samples: the length of a batch, rows or list of floats; one for anything else."""
    array = listed(value)
    value = value if array is None else array
    return len(value) if isinstance(value, (Tensor, np.ndarray)) and not (is_image(value) and value.ndim < 4) else 1


def _check(name: str, value: Any, gradients: bool) -> None:
    if not isinstance(value, (Tensor, np.ndarray)) or is_image(value):
        return
    if value.ndim == 0:
        raise ValueError(
            f"explain: {name!r} is a single number for all samples. Pass one number for each sample, shape (N,)."
        )
    if isinstance(value, Tensor) and gradients and is_whole(value):
        raise ValueError(
            f"explain: {name!r} holds {value.dtype}, and integers or booleans have no gradient. Choose another input, "
            f"pass embeddings instead, or use sw.attribute with a method that needs no gradient, such as "
            f"method='captum.FeatureAblation'."
        )


def _requested(explain: Any, names: list[str]) -> list[str | int]:
    """Return the requested names and positions as a list."""
    several = isinstance(explain, Iterable) and not isinstance(explain, (str, bytes, Mapping, Tensor))
    items: list[Any] = list(explain) if several else [explain]
    result: list[str | int] = []
    for item in items:
        try:
            if isinstance(item, bool):
                raise TypeError
            result.append(item if isinstance(item, str) else operator.index(item))
        except TypeError:
            raise TypeError(
                f"explain: expected a name or a position, or a list of them, got {brief(item)} "
                f"({type(item).__name__}). Choose from {names}."
            ) from None
    return result
