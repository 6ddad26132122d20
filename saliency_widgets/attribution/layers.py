"""Layers for class activation maps: which have a spatial output, and how it is read as channels on a grid."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from saliency_widgets.attribution.call import Call
from saliency_widgets.attribution.errors import Unread
from saliency_widgets.attribution.taps import tensor_in, turn_of
from saliency_widgets.params import Param, unknown

LAYER = Param(
    "layer",
    default=None,
    kind="layer",
    optional=True,
    help="The layer whose channels are weighed. The last one with a spatial output unless given: "
    "deeper is coarser and knows more of the class.",
)

Grid = Callable[[Tensor], Tensor]


def _token_grid(output: Tensor, size: tuple[int, int] | None, batch: int) -> Grid | None:
    """How tokens (B, T, K) lie on the picture; None where they can't.

    Patches are squares in rows and columns, so their number and the picture's shape give the grid; tokens before
    them (class, distillation, registers) are dropped, as few as possible.
    """
    if output.ndim != 3 or size is None:
        return None
    if output.shape[0] != batch:
        # Some transformers put tokens first: (T, B, K).
        if output.shape[1] != batch:
            return None
        inner = _token_grid(output.transpose(0, 1), size, batch)
        return None if inner is None else lambda found: inner(found.transpose(0, 1))
    tokens = output.shape[1]
    grids = [(size[0] // p, size[1] // p) for p in range(1, min(size) + 1) if size[0] % p == size[1] % p == 0]
    height, width = next(((h, w) for h, w in grids if h * w <= tokens), (0, 0))
    prefix = tokens - height * width
    if height * width < 2 or prefix > _PREFIX:
        return None
    return lambda found: found[:, prefix:].transpose(1, 2).unflatten(2, (height, width))


_PREFIX = 16  # a class token, and as many registers as anybody has used


def _channels_last(output: Tensor, size: tuple[int, int] | None) -> bool:
    """Whether (B, a, b, c) are channels behind a grid, as in Swin transformers: a x b has the picture's shape."""
    if size is None:
        return False

    def like(height: int, width: int) -> float:
        return abs(height / width * size[1] / size[0] - 1) if height <= size[0] and width <= size[1] else 2.0

    _, a, b, c = output.shape
    return like(a, b) < 0.1 < like(b, c)


def _grid(output: Tensor, size: tuple[int, int] | None, batch: int) -> Grid | None:
    """How a layer's output is read as (B, K, h, w), judged by its shape; None where it is not spatial."""
    if output.ndim == 4:
        if _channels_last(output, size):
            return lambda found: found.movedim(-1, 1)
        return lambda found: found
    return _token_grid(output, size, batch)


RESHAPE = Param(
    "reshape",
    default="by shape",
    kind="open",
    choices=("by shape", "channels first", "channels last", "tokens"),
    advanced=True,
    label="Layer layout",
    help="How the layer's output is read as channels on a grid: judged by its shape unless given. Transformers have "
    "tokens, of which class tokens are dropped.",
)


def _reader(path: str, output: Tensor, call: Call, reshape: Any) -> Grid:
    """What reads the output of one layer, found or as asked.

    Raises:
        TypeError: ``reshape`` is neither a name nor a function.
        ValueError: The output can't be read so.
    """
    shape = tuple(output.shape)
    if reshape == "by shape":
        found = _grid(output, call.size, call.batch)
        if found is None:
            raise ValueError(
                f"layer: {path!r} has an output of shape {shape}; a class activation map needs (N, channels, height, "
                f"width), or one token for each patch of a picture. Leave layer= out to take the last layer that has "
                f"one, or pass reshape= a function from this output to that shape."
            )
        return found
    if callable(reshape):
        return lambda found: _four(reshape(found), path, shape)
    if reshape == "tokens":
        found = _token_grid(output, call.size, call.batch)
    else:
        last = reshape == "channels last"
        found = None if output.ndim != 4 else lambda given: given.movedim(-1, 1) if last else given
    if found is None:
        raise ValueError(f"reshape: the output of {path!r}, of shape {shape}, can't be read as {reshape!r}.")
    return found


def _four(found: Any, path: str, shape: tuple[int, ...]) -> Tensor:
    if not isinstance(found, Tensor) or found.ndim != 4 or found.shape[0] != shape[0]:
        got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise ValueError(
            f"reshape: the function must turn the output of {path!r}, of shape {shape}, into (N, channels, height, "
            f"width); got {got}."
        )
    return found


@dataclass(frozen=True)
class ActivationMaps:
    """A layer's channels on a grid, and how the score moves with them.

    Attributes:
        activation: A, shape (B, K, h, w).
        gradient: dF / dA, of the same shape.
        score: F, shape (B,).
        layer: The layer's path.
    """

    activation: Tensor
    gradient: Tensor
    score: Tensor
    layer: str


def activation_maps(call: Call, layer: str | None, reshape: Any) -> ActivationMaps:
    """What class activation maps are made of.

    Args:
        call: The model and its inputs.
        layer: A layer's name, or None for the last spatial layer on which the score depends.
        reshape: See ``RESHAPE``; or a function from the layer's output to shape (B, K, h, w).

    Raises:
        TypeError: ``reshape`` is neither a name nor a function.
        ValueError: There is no such layer, or its output is not spatial.
    """
    if not callable(reshape) and not isinstance(reshape, str):
        raise TypeError(
            f"reshape: expected one of {RESHAPE.options()}, or a function from the layer's output to (N, channels, "
            f"height, width); got a {type(reshape).__name__}."
        )
    if layer is not None:
        _check(call, layer)
        return _maps(call, layer, reshape)
    candidates = [path for path, found in spatial_layers(call).items() if found.default]
    if not candidates:
        raise ValueError(_NONE if not _scripted(call) else _HIDDEN)
    for path in reversed(candidates[-_TRIED:]):
        # Of a transformer with a class token, the last layers' patches are read by nobody; other branches end unused.
        with contextlib.suppress(Unread):
            maps = _maps(call, path, reshape)
            if bool(maps.gradient.any()):
                return maps
    return _maps(call, candidates[-1], reshape)


_TRIED = 4
_NONE = (
    "layer: no layer of this model has a spatial output (channels, height, width), so a class activation map "
    "does not apply. Use a gradient method such as 'integrated_gradients'."
)
_HIDDEN = "layer: a scripted or traced model hides its layers. Pass the original module, from before torch.jit."


def _scripted(call: Call) -> bool:
    return any(isinstance(module, torch.jit.ScriptModule) for module in call.model.modules())


def _maps(call: Call, path: str, reshape: Any) -> ActivationMaps:
    activation, gradient, score = call.at_layer(path)
    with torch.no_grad():
        read = _reader(path, activation, call, reshape)
        return ActivationMaps(read(activation), read(gradient), score, path)


def _check(call: Call, layer: str) -> None:
    if turn_of(layer) is None:
        paths = [path for path, _ in call.model.named_modules(remove_duplicate=False) if path]
        if layer not in paths:
            raise ValueError(unknown("layer", layer, paths))


@dataclass(frozen=True)
class Spatial:
    """A layer with a spatial output.

    Attributes:
        shape: Channels, height and width.
        default: Whether it may be taken where no layer is named.
    """

    shape: tuple[int, int, int]
    default: bool


def spatial_layers(call: Call) -> Mapping[str, Spatial]:
    """The layers whose output has channels on a grid of more than one place, in the order in which they finish.

    The model is run once. Of several names for one tensor (a container and its last child, an activation in
    place) the last to finish, the outermost, is kept. Convolutions that no module made are named by their turn.

    Args:
        call: The model and its inputs, of which the first sample is looked at.
    """
    found: dict[str, tuple[Tensor, Spatial]] = {}
    blocks = _blocks(call.model)

    def seen(path: str, output: Any) -> None:
        tensor = tensor_in(output)
        read = None if tensor is None else _grid(tensor, call.size, 1)
        if tensor is None or read is None:
            return
        _, channels, height, width = read(tensor).shape
        if height * width > 1:
            if tensor is not output and any(known is tensor for known, _ in found.values()):
                return  # one of several things that a container gives: whoever made it is the layer
            same = [found.pop(p) for p, (known, _) in list(found.items()) if known is tensor]
            found.pop(path, None)
            # Inside a transformer's block tokens are halfway; what a block gives is what people look at.
            whole = tensor.ndim == 4 or path in blocks or any(spatial.default for _, spatial in same)
            found[path] = tensor, Spatial((channels, height, width), whole)

    call.watch(seen)
    return {path: spatial for path, (_, spatial) in found.items()}


def _blocks(model: nn.Module) -> set[str]:
    """The modules with parts that stand in a list or a sequence: a transformer's blocks."""
    rows = [
        (path, module) for path, module in model.named_modules() if isinstance(module, (nn.ModuleList, nn.Sequential))
    ]
    return {
        f"{path}.{name}".lstrip(".")
        for path, row in rows
        for name, block in row.named_children()
        if any(True for _ in block.children())
    }
