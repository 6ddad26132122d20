"""Layers for class activation maps: which have a spatial output, and how it is read as channels on a grid."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from saliency_widgets.attribution.call import Call
from saliency_widgets.attribution.errors import Unread, without_gradient
from saliency_widgets.attribution.isolation import is_scripted
from saliency_widgets.attribution.recording import SPATIAL, once
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
_PREFIX = 8  # class and distillation tokens, and registers


def _token_size(tokens: int, size: tuple[int, int], seen: Sequence[Spatial]) -> tuple[int, int] | None:
    """How many rows and columns of patches the tokens are; None where they can't be a picture's.

    As a layer before them made them, or else as squares would cut the picture: tokens before them (class,
    distillation, registers) are dropped, as few as possible, and no more than the first layer of tokens had, but one.
    """
    begun = [found.prefix for found in seen if found.prefix is not None]
    most = begun[0] + 1 if begun else _PREFIX
    cut = [(size[0] // patch, size[1] // patch) for patch in range(1, min(size) + 1)]
    for height, width in (*(found.shape[1:] for found in reversed(seen)), *cut):
        if 2 <= height * width <= tokens <= height * width + most:
            return height, width
    return None


def _token_grid(output: Tensor, batch: int, grid: tuple[int, int] | None) -> Grid | None:
    """How tokens (B, T, K), or (T, B, K), are read as a grid."""
    first = output.shape[0] == batch
    if grid is None or (not first and output.shape[1] != batch):
        return None
    count = grid[0] * grid[1]

    def read(found: Tensor) -> Tensor:
        rows = found if first else found.transpose(0, 1)
        return rows[:, rows.shape[1] - count :].transpose(1, 2).unflatten(2, grid)

    return read


def _channels_last(output: Tensor, size: tuple[int, int] | None) -> bool:
    """Whether (B, a, b, c) are channels behind a grid, as in Swin transformers: a x b has the picture's shape."""
    if size is None:
        return False

    def like(height: int, width: int) -> float:
        return abs(height / width * size[1] / size[0] - 1) if height <= size[0] and width <= size[1] else 2.0

    _, a, b, c = output.shape
    return like(a, b) < 0.1 < like(b, c)


def _grid(output: Tensor, size: tuple[int, int] | None, batch: int, seen: Sequence[Spatial]) -> Grid | None:
    """How a layer's output is read as (B, K, h, w), judged by its shape; None where it is not spatial.

    Args:
        output: The output.
        size: Of the picture.
        batch: B.
        seen: The layers that ran before it.
    """
    if output.ndim == 4:
        if _channels_last(output, size):
            return lambda found: found.movedim(-1, 1)
        return lambda found: found
    if output.ndim != 3 or size is None:
        return None
    tokens = output.shape[1] if output.shape[0] == batch else output.shape[0]
    return _token_grid(output, batch, _token_size(tokens, size, seen))


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


def _reader(path: str, output: Tensor, call: Call, reshape: Any, known: Spatial | None, told: bool) -> Grid:
    """What reads the output of one layer, found or as asked.

    Raises:
        TypeError: ``reshape`` is neither a name nor a function.
        ValueError: The output can't be read so.
    """
    shape = tuple(output.shape)
    if reshape == "by shape":
        found = _known_grid(output, call, known) if known is not None or not told else None
        if found is None:
            raise ValueError(
                f"layer: {path!r} has an output of shape {shape}; a class activation map needs (N, channels, height, "
                f"width), or one token for each patch of a picture. Leave layer= out to take the last layer that has "
                f"one, or pass reshape= a function from this output to that shape."
            )
        return found
    if callable(reshape):
        return lambda found: _reshaped(reshape, found, path, call.batch)
    if reshape == "tokens":
        found = _known_grid(output, call, known) if output.ndim == 3 else None
    else:
        last = reshape == "channels last"
        found = (
            None
            if output.ndim != 4 or output.shape[0] != call.batch
            else lambda given: given.movedim(-1, 1) if last else given
        )
    if found is None:
        raise ValueError(f"reshape: the output of {path!r}, of shape {shape}, can't be read as {reshape!r}.")
    return found


def _known_grid(output: Tensor, call: Call, known: Spatial | None) -> Grid | None:
    """The layout of tokens can be told only beside what ran before them: as it was found then.

    What has other rows than samples (windows, crops, patches) has a place on the picture that nobody told.
    """
    if output.ndim == 4 and output.shape[0] != call.batch:
        return None
    if output.ndim == 3:
        return None if known is None else _token_grid(output, call.batch, known.shape[1:])
    return _grid(output, call.size, call.batch, [])


def _reshaped(reshape: Callable[[Tensor], Any], output: Tensor, path: str, batch: int) -> Tensor:
    """What the caller's function makes of a layer's output."""
    wanted = f"reshape: the function must turn the output of {path!r}, of shape {tuple(output.shape)}, into floats of "
    wanted += "shape (N, channels, height, width)"
    try:
        found = reshape(output)
    except Exception as error:
        raise ValueError(f"{wanted}; it raised {type(error).__name__}: {error}.") from error
    if not isinstance(found, Tensor):
        raise ValueError(f"{wanted}; got a {type(found).__name__}.")
    if found.ndim != 4 or found.shape[0] != batch or not found.numel() or not found.is_floating_point():
        raise ValueError(f"{wanted}; got {found.dtype} of shape {tuple(found.shape)}.")
    if not bool(torch.isfinite(found).all()):
        raise ValueError(f"{wanted}; got NaN or infinite numbers.")
    return found


@dataclass(frozen=True)
class ActivationMaps:
    """A layer's channels on a grid, and how the score moves with them.

    Attributes:
        activation: A, shape (B, K, h, w).
        gradient: dF / dA, of the same shape.
        score: F, shape (B,).
        layer: The layer's path.
        notes: What a reader should know.
    """

    activation: Tensor
    gradient: Tensor
    score: Tensor
    layer: str
    notes: tuple[str, ...] = ()


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
    if call.parts:
        call = _one_picture(call)
    if layer is not None:
        check_layer(call.model, layer)
        return _maps(call, layer, reshape, None)
    spatial = spatial_layers(call)
    candidates = [path for path, found in spatial.items() if found.default]
    if not candidates:
        quantized = without_gradient(call.model)
        raise ValueError(f"model: {quantized}" if quantized else _HIDDEN if is_scripted(call.model) else _NONE)
    for path in reversed(candidates[-_TRIED:]):
        # Of a transformer with a class token, the last layers' patches are read by nobody; other branches end unused.
        with contextlib.suppress(Unread):
            maps = _maps(call, path, reshape, spatial)
            if bool(maps.gradient.any()):
                return maps
    return _maps(call, candidates[-1], reshape, spatial)


def _one_picture(call: Call) -> Call:
    pictures = [part for part in call.parts if len(part.shape) == 3]
    if len(pictures) != 1:
        names = [part.name for part in pictures or call.parts]
        raise ValueError(f"explain: a class activation map is of one picture. Pass explain= one of {names}.")
    return call.alone(pictures[0])


_TRIED = 4
_NONE = (
    "layer: no layer of this model has a spatial output (channels, height, width), so a class activation map "
    "does not apply. Use a gradient method such as 'integrated_gradients'."
)
_HIDDEN = (
    "layer: a scripted or traced model hides its layers, and so does an exported one. Pass the original module, from "
    "before torch.jit or torch.export."
)


def _maps(call: Call, path: str, reshape: Any, spatial: Mapping[str, Spatial] | None) -> ActivationMaps:
    activation, gradient, score, runs = call.at_layer(path)
    notes = (f"The layer {path!r} ran {runs} times; this is its last run.",) if runs > 1 else ()
    if spatial is None and not callable(reshape) and (activation.ndim == 3 or path.startswith(_inside(call.model))):
        spatial = spatial_layers(call)  # how tokens lie is told by what ran before
    known = (spatial or {}).get(path)
    with torch.no_grad():
        read = _reader(path, activation, call, reshape, known, told=spatial is not None)
        return ActivationMaps(read(activation), read(gradient), score, path, notes)


def _inside(model: nn.Module) -> tuple[str, ...]:
    return tuple(f"{path}." for path in _blocks(model))


def check_layer(model: nn.Module, layer: str) -> None:
    """Look for a layer by its name.

    Raises:
        ValueError: The model has none of that name.
    """
    if turn_of(layer) is None:
        paths = [path for path, _ in model.named_modules(remove_duplicate=False) if path]
        if layer not in paths:
            raise ValueError(unknown("layer", layer, paths))


@dataclass(frozen=True)
class Spatial:
    """A layer with a spatial output.

    Attributes:
        shape: Channels, height and width.
        default: Whether it may be taken where no layer is named.
        prefix: How many tokens before the grid are dropped; None where the output is a grid by itself.
        runs: How often it ran.
    """

    shape: tuple[int, int, int]
    default: bool
    prefix: int | None = None
    runs: int = 1


def spatial_layers(call: Call) -> Mapping[str, Spatial]:
    """The layers whose output has channels on a grid, kept from before or found by :func:`_spatial_layers`."""
    return once(call.recordings, SPATIAL, lambda: _spatial_layers(call))


def _spatial_layers(call: Call) -> Mapping[str, Spatial]:
    """The layers whose output has channels on a grid of more than one place, in the order in which they finish.

    The model is run once. Of several names for one tensor (a container and its last child, an activation in
    place) the last to finish, the outermost, is kept. Convolutions that no module made are named by their turn.

    Args:
        call: The model and its inputs, of which the first sample is looked at.
    """
    found: dict[str, tuple[Tensor, Spatial]] = {}
    blocks = _blocks(call.model)
    tokens: set[str] = set()  # blocks that give tokens

    def seen(path: str, output: Any) -> None:
        tensor = tensor_in(output)
        before = [spatial for _, spatial in found.values()]
        read = None if tensor is None else _grid(tensor, call.size, 1, before)
        if tensor is None or read is None or 1 not in tensor.shape[: 5 - tensor.ndim]:
            return  # windows, crops or patches as rows of their own: whose place they have on the picture is not told
        _, channels, height, width = read(tensor).shape
        if height * width > 1:
            if tensor is not output and any(known is tensor for known, _ in found.values()):
                return  # one of several things that a container gives: whoever made it is the layer
            same = [found.pop(p) for p, (known, _) in list(found.items()) if known is tensor]
            earlier = found.pop(path, None)
            runs = 1 if earlier is None else earlier[1].runs + 1
            # Inside a transformer's block tokens are halfway; what a block gives is what people look at.
            whole = tensor.ndim == 4 or path in blocks or any(spatial.default for _, spatial in same)
            prefix = None
            if tensor.ndim == 3:
                prefix = tensor[..., 0].numel() - height * width
                tokens.update({path} & blocks)
            found[path] = tensor, Spatial((channels, height, width), whole, prefix, runs)

    output = tensor_in(call.watch(seen))
    halfway = tuple(f"{path}." for path in tokens)
    return {
        path: spatial if tensor is not output else replace(spatial, default=False)
        for path, (tensor, spatial) in found.items()
        # Inside a block of tokens, (B, heads, T, ...) are no channels on a picture.
        if tensor.ndim == 3 or not path.startswith(halfway)
    }


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
