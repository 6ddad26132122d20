"""Models of several inputs: which of them are explained, and what is held beside them."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from saliency_widgets.attribution.arguments import Arguments, Part, Slot
from saliency_widgets.attribution.isolation import stand_in
from saliency_widgets.inputs import pictures
from saliency_widgets.inputs.prepared import Prepared, prepare
from saliency_widgets.inputs.protocols import transform_of
from saliency_widgets.params import unknown

Explain = str | int | Sequence[str | int] | None


def prepare_for(
    model: nn.Module,
    inputs: Any,
    transform: Any,
    explain: Explain,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> Prepared:
    """Bring whatever a model takes into the form it takes it in.

    Args:
        model: The model; the signature of its ``forward`` tells how it is called.
        inputs: One input, see :func:`~saliency_widgets.inputs.prepared.prepare`; a tuple of several, as positional
            arguments; or a mapping, as keyword arguments (as one dict where ``forward`` doesn't take these names).
            Numbers have their batch dimension then; those that aren't explained are given as they are, floating-point
            ones in the model's type.
        transform: See :func:`~saliency_widgets.inputs.protocols.transform_of`; of several inputs it is for the
            pictures, or a mapping from names to transforms.
        explain: Which of several inputs: a name or a position, or a list of them; all floating-point ones unless
            given.
        device: Where the model is.
        dtype: What it computes in.

    Raises:
        TypeError: An input of no known kind.
        ValueError: An input that can't be explained, a name that isn't there, or batches of different sizes.
    """
    if isinstance(inputs, Mapping):
        names = [str(name) for name in inputs]
        values = dict(zip(names, inputs.values(), strict=True))
    elif _is_several(inputs):
        names = _positional_names(model, len(inputs))
        values = dict(zip(names, inputs, strict=True))
    else:
        if explain is not None:
            raise ValueError("explain: there is one input. Leave it out, or pass the inputs as a tuple or a dict.")
        batched = transform is None and _is_sequences(model, inputs, device, dtype)
        return _prepared(model, inputs, transform, device, dtype, batched)
    chosen = _chosen(explain, values)
    named = isinstance(transform, Mapping) and bool(transform) and set(transform) <= set(values)
    prepared = {}
    for name in chosen:
        own = transform.get(name) if named else transform if _is_picture(values[name]) else None
        prepared[name] = _prepared(model, values[name], own, device, dtype, batched=True)
    batches = {name: len(found.tensor) for name, found in prepared.items()}
    if len(set(batches.values())) > 1:
        raise ValueError(f"inputs: what is explained must have as many samples each, got {batches}.")
    batch = next(iter(batches.values()))
    slots = {name: Slot(index) for index, name in enumerate(chosen)}
    tree = {name: slots.get(name) or _held(value, device, dtype) for name, value in values.items()}
    args, kwargs = _as_called(model, tree) if isinstance(inputs, Mapping) else (tuple(tree.values()), {})
    if len(chosen) == 1:
        only = prepared[chosen[0]]
        return replace(only, arguments=Arguments(args, kwargs, batch, name=chosen[0]))
    parts = tuple(Part(name, tuple(found.tensor.shape[1:]), found.pixels) for name, found in prepared.items())
    return Prepared(
        torch.cat([found.tensor.flatten(1) for found in prepared.values()], 1),
        pixels=None,
        pictures=None,
        notes=tuple(dict.fromkeys(note for found in prepared.values() for note in found.notes)),
        arguments=Arguments(args, kwargs, batch, parts),
    )


def _is_several(inputs: Any) -> bool:
    """A tuple with tensors or arrays in it; pictures and numbers in a tuple are a batch and a row."""
    return isinstance(inputs, tuple) and any(isinstance(item, (Tensor, np.ndarray)) for item in inputs)


def _positional_names(model: nn.Module, count: int) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    named = [p.name for p in _signature(model).parameters.values() if p.kind in kinds][:count]
    return named + [str(place) for place in range(len(named), count)]


def _signature(model: nn.Module) -> inspect.Signature:
    try:
        return inspect.signature(model.forward)
    except (TypeError, ValueError):
        return inspect.Signature()


def _as_called(model: nn.Module, values: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    try:
        _signature(model).bind(**values)
    except TypeError:
        return (values,), {}
    return (), values


def _is_picture(value: Any) -> bool:
    if isinstance(value, (np.ndarray, Tensor)):
        return value.dtype in (np.uint8, torch.uint8) and value.ndim >= 2
    return isinstance(value, (Image.Image, os.PathLike))


def _can_be_explained(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.is_floating_point() or _is_picture(value)
    return _is_picture(value) or (isinstance(value, np.ndarray) and value.dtype.kind == "f")


def _chosen(explain: Explain, values: Mapping[str, Any]) -> list[str]:
    if explain is None:
        chosen = [name for name, value in values.items() if _can_be_explained(value)]
        if not chosen:
            kinds = {name: str(getattr(value, "dtype", type(value).__name__)) for name, value in values.items()}
            raise ValueError(
                f"inputs: none of them has a gradient; got {kinds}. Whole numbers (tokens, categories) can't be "
                f"moved a little: pass their embeddings, if the model takes them (inputs_embeds=)."
            )
        return chosen
    names = list(values)
    wanted = [explain] if isinstance(explain, (str, int)) else list(explain)
    chosen = []
    for item in wanted:
        name = names[item] if isinstance(item, int) and -len(names) <= item < len(names) else str(item)
        if name not in values:
            raise ValueError(unknown("explain", str(item), names))
        if isinstance(values[name], Tensor) and not _can_be_explained(values[name]):
            raise ValueError(
                f"explain: {name!r} holds {values[name].dtype}, and whole numbers have no gradient. Choose another "
                f"input, or pass embeddings in its place."
            )
        chosen.append(name)
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"explain: expected one or more of {names}, each once, got {explain!r}.")
    return [name for name in names if name in chosen]


def _prepared(
    model: nn.Module, value: Any, transform: Any, device: torch.device, dtype: torch.dtype, batched: bool
) -> Prepared:
    notes: list[str] = []
    applied = transform_of(transform, model, value, notes)
    found = prepare(value, applied, device=device, dtype=dtype, batched=batched)
    return replace(found, notes=(*notes, *found.notes))


_SEQUENTIAL = (nn.RNNBase, nn.Conv1d, nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


def _is_sequences(model: nn.Module, value: Any, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether (3, a, b) numbers are three sequences and not one picture: the model tells by what it can take."""
    if not pictures.is_numbers(value) or value.ndim != 3:
        return False
    if not any(isinstance(module, _SEQUENTIAL) for module in model.modules()):
        return False
    given = torch.as_tensor(value).to(device, dtype)
    return not _runs(model, given[None]) and _runs(model, given)


def _runs(model: nn.Module, given: Tensor) -> bool:
    with stand_in(model) as tried, torch.no_grad():
        try:
            tried(given)
        except Exception:  # whatever it says: it is only asked whether it can
            return False
    return True


def _held(value: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """A private copy of what is given beside the explained inputs."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        value = torch.from_numpy(value.copy())
    if isinstance(value, Tensor):
        with torch.inference_mode(False):
            copied = value.detach().clone()
        return copied.to(device=device, dtype=dtype if value.is_floating_point() else value.dtype)
    if isinstance(value, Mapping):
        return {key: _held(item, device, dtype) for key, item in value.items()}
    if isinstance(value, list):
        return [_held(item, device, dtype) for item in value]
    if type(value) is tuple:
        return tuple(_held(item, device, dtype) for item in value)
    return value
