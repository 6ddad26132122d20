"""Which layers of a model have a spatial output: candidates for class activation maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from saliency_widgets.attribution.call import Call
from saliency_widgets.params import Param, unknown

LAYER = Param(
    "layer",
    default=None,
    kind="layer",
    optional=True,
    help="The layer whose channels are weighed. The last one with a spatial output unless given: "
    "deeper is coarser and knows more of the class.",
)
RESHAPE = Param(
    "reshape",
    default=None,
    kind="open",
    choices=("channels first", "channels last", "tokens"),
    optional=True,
    advanced=True,
    label="Layer layout",
    help="How the layer's output is read as channels on a grid. Found from its shape unless given: transformers have "
    "tokens, of which class tokens are dropped.",
)


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
        layer: A module path, or None for the last spatial layer.
        reshape: See ``RESHAPE``; or a function from the layer's output to shape (B, K, h, w).

    Raises:
        ValueError: There is no such layer, or its output is not spatial.
    """
    path = resolve_layer(call, layer)
    activation, gradient, score = call.at_layer(path)
    if activation.ndim != 4:
        raise ValueError(
            f"layer: {path!r} has an output of shape {tuple(activation.shape)}; a class activation map needs "
            f"(N, channels, height, width). Leave layer= out to take the last layer that has one."
        )
    return ActivationMaps(activation, gradient, score, path)


def spatial_layers(call: Call) -> dict[str, tuple[int, int, int]]:
    """The layers with an output of shape (N, C, h, w), h * w > 1, in the order in which they finish.

    The model is run once. Of several names for one tensor (a container and its last child, an activation in
    place) the last to finish, the outermost, is kept.

    Args:
        call: The model and its inputs.

    Returns:
        Module path -> (C, h, w).
    """
    found: dict[str, Tensor] = {}

    def seen(path: str, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[-1] * output.shape[-2] > 1:
            for other in [p for p, tensor in found.items() if tensor is output]:
                del found[other]
            found.pop(path, None)
            found[path] = output

    call.watch(seen)
    return {path: (tensor.shape[1], tensor.shape[2], tensor.shape[3]) for path, tensor in found.items()}


def resolve_layer(call: Call, layer: str | None) -> str:
    """The layer to use: the one named, or the last spatial one.

    Raises:
        ValueError: The model has no such layer, or none with a spatial output.
    """
    if layer is not None:
        paths = [path for path, _ in call.model.named_modules(remove_duplicate=False) if path]
        if layer not in paths:
            raise ValueError(unknown("layer", layer, paths))
        return layer
    spatial = spatial_layers(call)
    if not spatial and any(isinstance(module, torch.jit.ScriptModule) for module in call.model.modules()):
        raise ValueError(
            "layer: a scripted or traced model hides its layers. Pass the original module, from before torch.jit."
        )
    if not spatial:
        raise ValueError(
            "layer: no layer of this model has a spatial output (channels, height, width), so a class activation map "
            "does not apply. Use a gradient method such as 'integrated_gradients'."
        )
    return list(spatial)[-1]
