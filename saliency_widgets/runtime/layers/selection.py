"""Layers for class activation maps: which have a spatial output, and how to read it as channels on a grid."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from saliency_widgets.attribution.errors import Unread
from saliency_widgets.attribution.query import BY_POSITION, RESHAPE, LayerPoint
from saliency_widgets.params import unknown
from saliency_widgets.runtime.errors import without_gradient
from saliency_widgets.runtime.layers.coordinates import Coordinates
from saliency_widgets.runtime.layers.hooks import tensor_in, turn_of
from saliency_widgets.runtime.layers.layout import Layout
from saliency_widgets.runtime.layers.volumes import VolumeGrids
from saliency_widgets.runtime.model.isolation import is_exported, is_scripted
from saliency_widgets.runtime.passes import Passes
from saliency_widgets.runtime.reuse.graph_cache import SPATIAL, Store, layer_gradient, once


def _reader(
    path: str, output: Tensor, passes: Passes, reshape: Any, spatial: Callable[[], Mapping[str, Spatial]]
) -> Callable[[Tensor], Tensor]:
    """Return a function that reads the output of a layer as (B, K, h, w), or (B, K, d, h, w) for volumes.

    Raises:
        ValueError: The output can't be read that way.
    """
    shape = tuple(output.shape)
    if callable(reshape):
        return lambda tensor: _reshaped(reshape, tensor, path, passes)
    if reshape in ("channels first", "channels last"):
        if output.ndim != _dimensions(passes) or output.shape[0] != passes.batch:
            raise ValueError(f"reshape: the output of {path!r}, of shape {shape}, can't be read as {reshape!r}.")
        return lambda tensor: tensor.movedim(-1, 1) if reshape == "channels last" else tensor
    if output.ndim == _dimensions(passes) and shape[0] == passes.batch and {*shape[2:]} == {1}:
        return lambda tensor: tensor  # one cell for the whole input
    layers = spatial()
    name = path if path in layers else _first_name(passes.model, path)
    layer = layers.get(name)
    if layer is not None and layer.layout.fits(output, passes.batch) and (reshape == BY_POSITION or output.ndim == 3):
        _check_orders(passes, name, layer.layout)
        return layer.layout.read
    nearest = _nearest(path, layers, passes.model)
    near = f"The nearest suitable layer is {nearest!r}; omit" if nearest else "Omit"
    argument = "layer" if reshape == BY_POSITION else "reshape"
    raise ValueError(
        f"{argument}: {path!r} has an output of shape {shape}; a class activation "
        f"map needs {_wanted(passes)}, or one token for each patch of the image, but these values can't be "
        f"assigned to positions on the input. {near} layer= to use the last suitable layer, or pass reshape= a "
        f"function from this output to that shape."
    )


_VOLUME = 5


def _dimensions(passes: Passes) -> int:
    """Return the number of dimensions of the channels on a grid: 5 for volumes, otherwise 4."""
    return _VOLUME if passes.inputs.ndim == _VOLUME else 4


def _wanted(passes: Passes) -> str:
    return f"(N, channels, {'depth, ' if _dimensions(passes) == _VOLUME else ''}height, width)"


def _check_orders(passes: Passes, path: str, layout: Layout) -> None:
    """Check that tokens whose order may depend on the image have the same order in all samples.

    Raises:
        ValueError: The order differs between samples.
    """
    for sample in range(1, passes.batch if layout.shuffled else 1):
        other = _spatial_layers(passes, sample).get(path)
        if other is None or other.layout != layout:
            raise ValueError(
                f"layer: the tokens of {path!r} are in a different order for each image. Explain one image at a time."
            )


def _first_name(model: nn.Module, path: str) -> str:
    """Return the first of the names that a module may have, under which its runs are listed."""
    if turn_of(path) is not None:
        return path
    module = model.get_submodule(path)
    return next(name for name, other in model.named_modules() if other is module)


def _nearest(path: str, spatial: Mapping[str, Spatial], model: nn.Module) -> str | None:
    """Return the spatial layer around a layer, else the last one before it, else the first one after it."""
    parents = [path.rsplit(".", i)[0] for i in range(1, path.count(".") + 1)]
    around = next((parent for parent in parents if parent in spatial), None)
    if around is not None or not spatial:
        return around
    names = [name for name, _ in model.named_modules(remove_duplicate=False)]
    rank = {name: i for i, name in enumerate(names)}
    before = [name for name in spatial if rank.get(name, -1) < rank.get(path, 0)]
    return max(before, key=lambda name: rank.get(name, -1)) if before else next(iter(spatial))


def _reshaped(reshape: Callable[[Tensor], Any], output: Tensor, path: str, passes: Passes) -> Tensor:
    """Return the result of the caller's function for a layer's output, after checking it."""
    wanted = f"reshape: the function must turn the output of {path!r}, of shape {tuple(output.shape)}, into floats of "
    wanted += f"shape {_wanted(passes)}"
    try:
        result = reshape(output)
    except Exception as error:
        raise ValueError(f"{wanted}; it raised {type(error).__name__}: {error}.") from error
    if not isinstance(result, Tensor):
        raise ValueError(f"{wanted}; got a {type(result).__name__}.")
    if (
        result.ndim != _dimensions(passes)
        or result.shape[0] != passes.batch
        or not result.numel()
        or not result.is_floating_point()
    ):
        raise ValueError(f"{wanted}; got {result.dtype} of shape {tuple(result.shape)}.")
    if not bool(torch.isfinite(result).all()):
        raise ValueError(f"{wanted}; got NaN or infinite numbers.")
    return result


def activation_maps(passes: Passes, layer: str | None, reshape: Any, graphs: Store | None = None) -> LayerPoint:
    """Return the activation of a layer and its gradient, for class activation maps.

    Args:
        passes: The model and its inputs.
        layer: A layer's name, or None for the last spatial layer on which the score depends.
        reshape: See ``RESHAPE``; or a function from the layer's output to shape (B, K, h, w), or (B, K, d, h, w).
        graphs: Recorded passes of the inputs.

    Raises:
        TypeError: ``reshape`` is neither a name nor a function.
        ValueError: The layer does not exist, or its output is not spatial.
    """
    if not callable(reshape) and not isinstance(reshape, str):
        raise TypeError(
            f"reshape: expected one of {RESHAPE.options()}, or a function from the layer's output to (N, channels, "
            f"height, width); got a {type(reshape).__name__}."
        )
    if passes.parts:
        passes, graphs = _one_image(passes), None
    if layer is not None:
        check_layer(passes.model, layer)
        return _maps(passes, layer, reshape, lambda: spatial_layers(passes, graphs), graphs)
    spatial = spatial_layers(passes, graphs)
    candidates = [path for path, entry in spatial.items() if entry.default]
    if not candidates:
        quantized = without_gradient(passes.model)
        raise ValueError(f"model: {quantized}" if quantized else _HIDDEN if is_scripted(passes.model) else _NONE)
    for path in reversed(candidates):
        # With a class token, nothing reads the patches of a transformer's last layers; other branches may be unused.
        with contextlib.suppress(Unread):
            maps = _maps(passes, path, reshape, lambda: spatial, graphs)
            if bool(maps.gradient.any()):
                return maps if spatial[path].last else replace(maps, notes=(*maps.notes, _LOST.format(path)))
    return _maps(passes, candidates[-1], reshape, lambda: spatial, graphs)


def _one_image(passes: Passes) -> Passes:
    images = [part for part in passes.parts if len(part.shape) in (3, 4)]
    if len(images) != 1:
        names = [part.name for part in images or passes.parts]
        raise ValueError(f"explain: a class activation map explains a single image. Pass explain= one of {names}.")
    return passes.alone(images[0])


_NONE = (
    "layer: no layer of this model has a spatial output, such as (channels, height, width), that can be "
    "assigned to positions on the input, so class activation maps are not available by default. Use a gradient method "
    "such as 'integrated_gradients', or pass layer= and, if you know its layout on the input, reshape=."
)
_LOST = (
    "Convolutions after the layer {!r} can't be assigned to positions on the input, so this earlier layer is used. "
    "Pass layer= and reshape= if you know the layout of one of them."
)
_HIDDEN = (
    "layer: the layers of a scripted, traced or exported model are not accessible. Pass the original module, from "
    "before torch.jit or torch.export."
)


def _maps(
    passes: Passes, path: str, reshape: Any, spatial: Callable[[], Mapping[str, Spatial]], graphs: Store | None
) -> LayerPoint:
    activation, gradient, score, runs = layer_gradient(passes, path, graphs)
    notes = (f"The layer {path!r} ran {runs} times; the map explains its last run.",) if runs > 1 else ()
    with torch.no_grad():
        read = _reader(path, activation, passes, reshape, spatial)
        return LayerPoint(read(activation), read(gradient), score, path, notes)


def check_layer(model: nn.Module, layer: str) -> None:
    """Check that the model has a layer of this name; numbered convolutions are not checked.

    Raises:
        ValueError: The model has no such layer.
    """
    if turn_of(layer) is None:
        paths = [path for path, _ in model.named_modules(remove_duplicate=False) if path]
        if layer not in paths:
            raise ValueError(unknown("layer", layer, paths))


@dataclass(frozen=True)
class Spatial:
    """A layer with a spatial output.

    Attributes:
        layout: How to read its output as channels on the grid.
        default: Whether it may be selected if no layer is named.
        listed: Whether menus show it: of several layers that return one tensor, only the outermost is shown.
        runs: The number of its runs.
        last: Whether all convolutions after it have a known position.
    """

    layout: Layout
    default: bool
    listed: bool = True
    runs: int = 1
    last: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of channels, and the sides of the grid."""
        return self.layout.shape[self.layout.channel], *self.layout.grid


def spatial_layers(passes: Passes, graphs: Store | None = None) -> Mapping[str, Spatial]:
    """Return the layers whose output lies on a grid over the image, stored or from :func:`_spatial_layers`."""
    return once(graphs, SPATIAL, lambda: _spatial_layers(passes))


def _spatial_layers(passes: Passes, sample: int = 0) -> Mapping[str, Spatial]:
    """Return the layers whose output has channels on a grid of more than one cell, in the order in which they finish.

    The model is run once, and the coordinates of the image are carried along: see :mod:`~.coordinates`. Convolutions
    that are called without a module are named by their number.

    Args:
        passes: The model and its inputs.
        sample: The index of the sample to run.
    """
    if isinstance(passes.model, torch.jit.ScriptModule) or is_exported(passes.model):  # its layers are hidden
        return {}
    coordinates, runs = VolumeGrids() if _dimensions(passes) == _VOLUME else Coordinates(), []

    def ran(path: str, output: Any) -> None:
        tensor = tensor_in(output)
        if tensor is not None and (tensor.requires_grad or coordinates.of(tensor) is not None):  # depends on the image
            runs.append(_Run(path, tensor, tensor._version, tensor is output, coordinates.placed(tensor)))

    output = tensor_in(passes.watch(ran, coordinates.begin, sample))
    blocks = _blocks(passes.model)
    named = dict(passes.model.named_modules())
    composed = {path for path, module in named.items() if not blocks and any(True for _ in module.children())}
    padded = {path for path, module in named.items() if type(module).__module__.endswith("nn.modules.padding")}
    whole: set[str] = set()  # layers that return a block's output
    tokens: set[str] = set()  # blocks that return tokens, or channels last
    layers: dict[str, tuple[_Run, Spatial]] = {}
    for run in runs:
        _, earlier = layers.pop(run.path, (None, None))
        layout = None if run.positions is None else coordinates.layout(run.positions)
        if layout is None:
            continue
        same = [path for path, (other, _) in layers.items() if other.tensor is run.tensor]
        if earlier is not None and run.path in composed:  # no list of blocks, but one that runs repeatedly
            blocks.add(run.path)
        if run.path in blocks or whole.intersection(same):
            whole.add(run.path)
        if run.path in blocks and not layout.image:
            tokens.add(run.path)
        listed = _makes(run, [layers[path][0] for path in same])
        for path in same if listed else ():
            layers[path] = layers[path][0], replace(layers[path][1], listed=False)
        # The border that padding adds to a map carries no evidence.
        default = (layout.planar and run.path not in padded) or run.path in whole
        layers[run.path] = run, Spatial(layout, default, listed, 1 if earlier is None else earlier.runs + 1)
    inside = tuple(f"{path}." for path in tokens)
    order = list(layers)
    last = max((order.index(path) for path in tokens if path in layers), default=-1)
    lost = max((i for i, run in enumerate(runs) if run.lost), default=-1)
    result = {}
    for path, (run, spatial) in layers.items():
        # Outputs before and inside token blocks are intermediate: convolutions there serve attention or positions.
        behind = spatial.layout.image and order.index(path) > last and turn_of(path) is None  # not a query or key
        halfway = path not in whole or (spatial.layout.image and path.startswith(inside))
        aside = bool(tokens) and not behind and halfway
        default = spatial.default and spatial.listed and run.tensor is not output and not aside
        result[path] = replace(spatial, default=default, last=runs.index(run) > lost)
    return result


@dataclass(frozen=True, eq=False)
class _Run:
    """A run of a layer: its first tensor, that tensor's version and positions, and whether it is the whole output."""

    path: str
    tensor: Tensor
    version: int
    alone: bool
    positions: Any

    @property
    def lost(self) -> bool:
        """Whether a convolution's result for one sample, of several cells, has no positions."""
        return (
            turn_of(self.path) is not None
            and self.positions is None
            and self.tensor.shape[0] == 1
            and self.tensor[0, 0].numel() > 1
        )


def _makes(run: _Run, same: Sequence[_Run]) -> bool:
    """Return whether menus show a layer instead of the earlier layers that returned the same tensor.

    They show the outermost layer that computed the tensor, not one that only passes it on, nor a container that returns
    it among other things. Numbered convolutions are shown only if no other layer is.
    """
    makers = [
        other
        for other in same
        if turn_of(other.path) is None and not other.path.startswith(f"{run.path}.") and other.version == run.version
    ]
    return not same or (run.alone and not makers)


def _blocks(model: nn.Module) -> set[str]:
    """Return a transformer's blocks: items of a list or a sequence with submodules, or with custom code and parameters.

    Several attributes of one class with submodules are blocks too: if lists have that class, or if lists have no block.
    """
    listed: dict[str, type] = {}
    attributes: dict[str, type] = {}
    for path, parent in model.named_modules():  # parents before their children
        children = dict(parent.named_children())
        kinds = [type(child) for child in children.values()]
        inside = any(path == block or path.startswith(f"{block}.") for block in attributes)
        for name, child in children.items():
            composed, several = any(True for _ in child.children()), kinds.count(type(child)) > 1
            bare = not type(child).__module__.startswith("torch.nn") and any(True for _ in child.parameters(False))
            here = f"{path}.{name}".lstrip(".")
            if isinstance(parent, (nn.ModuleList, nn.ModuleDict, nn.Sequential)):
                listed |= {here: type(child)} if composed or (bare and several) else {}
            elif composed and several and not inside:
                attributes[here] = type(child)
    of_a_kind = {path for path, kind in attributes.items() if not listed or kind in listed.values()}
    return listed.keys() | of_a_kind
