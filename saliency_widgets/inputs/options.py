"""What is said about a model and its input once, by whoever explains it: transform, names, device, precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch

from saliency_widgets.inputs.nested import Explain

_REPEATED_BY_NAME = ("transform", "class_names")  # functions, or read from the model again


@dataclass(frozen=True, eq=False, kw_only=True)
class Options:
    """The options of every function that takes a model and inputs.

    Attributes:
        transform: From the input to what the model takes: a function, torchvision weights, a Hugging Face image
            processor, a timm data config or, for rows, a fitted scikit-learn transformer. With several inputs it is for
            the images, or a mapping from names to transforms.
        class_names: Names of the classes in order. Default: looked up on the model.
        explain: Which of several inputs: a name, a path or path prefix, a position, or a list of them. Default: all
            floating-point ones with a row for each sample.
        device: Where to compute, on a private copy. Default: the model's device, without a copy.
        fold: Whether BatchNorms may be folded into convolutions, and channels laid out last.
        precision: See :mod:`~saliency_widgets.runtime.precision`.
        cuda_graphs: Whether to record passes and replay them for repeated shapes.
        feature_names: The columns' names, for table rows without names.
        background: Other rows of the table.
    """

    transform: Any = None
    class_names: Any = None
    explain: Explain = None
    device: torch.device | str | None = None
    fold: bool = True
    precision: str | None = None
    cuda_graphs: bool = False
    feature_names: Sequence[str] | None = None
    background: Any = None

    def __post_init__(self) -> None:
        for name in ("fold", "cuda_graphs"):
            switch = getattr(self, name)
            if not isinstance(switch, bool):
                raise TypeError(f"{name}: expected True or False, got a {type(switch).__name__}.")

    def to_repeat(self) -> dict[str, Any]:
        """Return the options that are not defaults, in the form in which settings and stored states hold them."""
        repeated = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name not in _REPEATED_BY_NAME and getattr(self, field.name) is not field.default
        }
        if "device" in repeated:
            repeated["device"] = str(repeated["device"])
        if "feature_names" in repeated:
            repeated["feature_names"] = [*map(str, repeated["feature_names"])]
        return repeated


def split_options(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options among keyword arguments, and the rest."""
    names = {field.name for field in fields(Options)}
    options = {name: value for name, value in arguments.items() if name in names}
    return options, {name: value for name, value in arguments.items() if name not in names}
