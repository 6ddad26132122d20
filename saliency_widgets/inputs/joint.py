"""Inputs that are explained together: each is prepared alone, and then all of them lie side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from saliency_widgets.attribution import Kind
from saliency_widgets.attribution.features import Features, JointFeatures
from saliency_widgets.attribution.input_parts import InputPart
from saliency_widgets.attribution.positions import Positions
from saliency_widgets.inputs.adapters import transform_of
from saliency_widgets.inputs.nested import is_image
from saliency_widgets.inputs.prepared import Prepared, prepare
from saliency_widgets.runtime.arguments import Arguments

BATCHED = "In a mapping or a tuple, numbers must have a batch dimension: pass"


@dataclass(frozen=True, eq=False)
class JointKind(Kind):
    """Several inputs that are explained together, one of which is a text.

    Attributes:
        parts: The inputs.
        positions: The positions at which the model scores classes, if it scores the tokens of the text.
    """

    name = "joint"
    drawn = True
    parts: tuple[InputPart, ...]
    positions: Positions | None = None

    @property
    def image(self) -> InputPart | None:
        """The first image among the inputs; None without one."""
        return next((part for part in self.parts if part.kind.name == "image"), None)

    @property
    def features(self) -> Features:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The features of each input."""
        return JointFeatures(
            inputs={part.name: part.kind.features for part in self.parts},
            shapes={part.name: part.shape for part in self.parts},
            main=None if self.image is None else self.image.name,
        )

    @property
    def cautions(self) -> tuple[tuple[str, str], ...]:
        """What the check-up says about each input."""
        return tuple(caution for part in self.parts for caution in part.kind.cautions)


def prepare_one(
    model: nn.Module, value: Any, transform: Any, device: torch.device, dtype: torch.dtype | None, batched: bool
) -> Prepared:
    """Prepare one input: see :func:`~saliency_widgets.inputs.prepared.prepare`.

    Args:
        model: The model, for which a transform may have settings.
        value: The input.
        transform: Any supported form of a transform, or None.
        device: The model's device.
        dtype: The model's dtype, or None.
        batched: Whether floating-point numbers already have a batch dimension.
    """
    notes: list[str] = []
    applied = transform_of(transform, model, value, notes)
    prepared = prepare(value, applied, device=device, dtype=dtype, batched=batched)
    return replace(prepared, notes=(*notes, *prepared.notes))


def transforms_of(transform: Any, values: Mapping[str, Any], explained: Sequence[str]) -> dict[str, Any]:
    """Return the transform of each input: that of its name in a mapping, or else the only one for each image.

    Args:
        transform: The caller's transform, or a mapping from names to transforms.
        values: The inputs by name.
        explained: The names of the explained inputs, for the error.

    Raises:
        ValueError: There is no image.
    """
    if isinstance(transform, Mapping) and set(transform) <= set(values):
        return {name: transform.get(name) for name in values}
    if transform is not None and not any(map(is_image, values.values())):
        raise ValueError(
            f"transform: no input is an image that it could be applied to (PIL, a path, bytes). Pass a mapping from "
            f"names, transform={{{explained[0]!r}: ...}}, or omit it for transformed tensors."
        )
    return {name: transform if is_image(value) else None for name, value in values.items()}


def batch_of(prepared: Mapping[str, Prepared]) -> int:
    """Return the number of samples.

    Raises:
        ValueError: The inputs differ in it.
    """
    batches = {name: len(part.tensor) for name, part in prepared.items()}
    if len(set(batches.values())) > 1:
        flat = [name for name, part in prepared.items() if part.tensor.ndim == 1]
        hint = f" {BATCHED} {flat[0]}[None] for one sample." if flat else ""
        hint = hint or " Pass explain= inputs with the same number; the others are held constant."
        raise ValueError(f"inputs: expected the same number of samples in all explained inputs, got {batches}.{hint}")
    return next(iter(batches.values()))


def together(prepared: Mapping[str, Prepared], called: Arguments) -> Prepared:
    """Combine the explained inputs: one stays unchanged, several are concatenated, one number per sample is (B, 1).

    Args:
        prepared: The explained inputs by name.
        called: How the model is called with them.
    """
    if len(prepared) == 1:
        ((name, only),) = prepared.items()
        if only.tensor.ndim > 1:
            return replace(only, arguments=replace(called, name=name))
    types = {one.tensor.dtype for one in prepared.values()}
    wide = torch.float64 if len(types) > 1 else next(iter(types))  # float64 represents all of them exactly
    parts = tuple(
        InputPart(name, tuple(one.tensor.shape[1:]), one.kind, one.tensor.dtype if len(types) > 1 else None)
        for name, one in prepared.items()
    )
    return Prepared(
        torch.cat([one.tensor.reshape(called.batch, -1).to(wide) for one in prepared.values()], 1),
        notes=tuple(dict.fromkeys(note for one in prepared.values() for note in one.notes)),
        arguments=replace(called, parts=parts, name=parts[0].name if len(parts) == 1 else None),
    )
