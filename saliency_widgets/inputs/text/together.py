"""A text that is explained together with other inputs, such as an image; or such inputs, given the text."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import nn

from saliency_widgets.inputs.joint import JointKind, batch_of, prepare_one, together, transforms_of
from saliency_widgets.inputs.nested import chosen
from saliency_widgets.inputs.options import Options
from saliency_widgets.inputs.prepared import Prepared
from saliency_widgets.inputs.text.tokens import IDS
from saliency_widgets.runtime.arguments import Slot


def explained_names(inputs: Any, options: Options) -> list[str]:
    """Return the names of the inputs to explain, in order: by default, of the ids alone.

    Raises:
        TypeError: ``explain`` has an unsupported type.
        ValueError: There is only a text; or a name is unknown, or is that of integers other than the ids.
    """
    if options.explain is None:
        return [IDS]
    if not isinstance(inputs, Mapping):
        raise ValueError("explain: there is only a text. Omit it, or pass a mapping from the names of the inputs.")
    values = {str(name): value for name, value in inputs.items()}
    if IDS in values:
        values[IDS] = torch.zeros(1, 1, device="cpu")  # their embeddings have a gradient
    return chosen(options.explain, values, list(values), [], gradients=True)


def prepare_others(
    model: nn.Module,
    inputs: Any,
    names: Sequence[str],
    options: Options,
    device: torch.device,
    dtype: torch.dtype | None,
) -> dict[str, Prepared]:
    """Prepare the inputs besides the text that are explained, and images in any case, by name.

    Raises:
        TypeError, ValueError: An input or its transform can't be used.
    """
    values = {str(name): value for name, value in inputs.items() if name != IDS} if isinstance(inputs, Mapping) else {}
    transforms = transforms_of(options.transform, values, names)
    return {
        name: prepare_one(model, value, transforms[name], device, dtype, batched=True)
        for name, value in values.items()
        if name in names or isinstance(value, (Image.Image, os.PathLike))
    }


def joined(text: Prepared, others: Mapping[str, Prepared], names: Sequence[str]) -> Prepared:
    """Combine a text with the other explained inputs, or explain only these and hold the text.

    Args:
        text: The text, with the arguments of the model.
        others: The other inputs by name.
        names: The names of the explained inputs, in order; the text is that of the ids.

    Raises:
        ValueError: The model takes no argument of a name, or the inputs differ in the number of samples.
    """
    called = text.arguments
    assert called is not None
    for name in names:
        if name != IDS and name not in called.kwargs:
            raise ValueError(f"explain: the model's forward doesn't take {name!r}, only {[*called.kwargs] or 'ids'}.")
    explained = {name: text if name == IDS else others[name] for name in names}
    slots = {name: Slot(index) for index, name in enumerate(names) if name != IDS}
    lookups = tuple(replace(one, index=names.index(IDS)) for one in called.lookups if IDS in names)
    batch = batch_of(explained)
    result = together(explained, replace(called, kwargs={**called.kwargs, **slots}, lookups=lookups, batch=batch))
    if IDS not in names:
        return result
    assert result.arguments is not None
    kind = JointKind(result.arguments.parts, text.kind.positions)
    images = None if kind.image is None else explained[kind.image.name].images
    return replace(result, kind=kind, images=images, from_weights=True)
