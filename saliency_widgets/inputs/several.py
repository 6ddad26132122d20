"""Models of several inputs: which of them are explained, and what is held beside them."""

from __future__ import annotations

import inspect
import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from saliency_widgets.attribution.arguments import Arguments, Part, Slot
from saliency_widgets.attribution.isolation import stand_in
from saliency_widgets.attribution.targets import scores_in
from saliency_widgets.inputs import pictures
from saliency_widgets.inputs.prepared import Prepared, check_kind, prepare, prepare_table
from saliency_widgets.inputs.protocols import transform_of
from saliency_widgets.inputs.tables import Table, is_table, read_table
from saliency_widgets.params import unknown

Explain = str | int | Sequence[str | int] | None


def prepare_for(
    model: nn.Module,
    inputs: Any,
    transform: Any,
    explain: Explain,
    *,
    device: torch.device,
    dtype: torch.dtype | None,
    feature_names: Sequence[str] | None = None,
    background: Any = None,
) -> Prepared:
    """Bring whatever a model takes into the form it takes it in.

    Args:
        model: The model; the signature of its ``forward`` tells how it is called.
        inputs: One input, see :func:`~saliency_widgets.inputs.prepared.prepare`; a tuple of several, as positional
            arguments; or a mapping, as keyword arguments (as one dict where ``forward`` doesn't take these names).
            Numbers have their batch dimension then; those that aren't explained are given as they are, floating-point
            ones in the model's type. A list of numbers is an array where it is explained, or has one for each sample.
            One input of shape (a, b, c) is a picture or a batch of a, whichever the model can take.
        transform: See :func:`~saliency_widgets.inputs.protocols.transform_of`; of several inputs it is for the
            pictures, or a mapping from names to transforms.
        explain: Which of several inputs: a name or a position, or a list of them; all floating-point ones unless
            given.
        device: Where the model is.
        dtype: What it computes in; None for the inputs' own types, or for torch's default where it takes only that.
        feature_names: Of rows of a table, see :func:`~saliency_widgets.inputs.tables.read_table`.
        background: Other rows of it.

    Raises:
        TypeError: An input of no known kind.
        ValueError: An input that can't be explained, a name that isn't there, or batches of different sizes.
    """

    def typed(dtype: torch.dtype | None) -> Prepared:
        return _prepare_all(model, inputs, transform, explain, device, dtype, feature_names, background)

    prepared, default = typed(dtype), torch.get_default_dtype()
    alone = prepared.arguments is None
    if dtype is not None or (alone and prepared.tensor.dtype == default) or _runs(model, prepared):
        return prepared
    # No module holds its weights: a list of models does, a closure, a quantized layer.
    usual = typed(default)
    return usual if _runs(model, usual) else prepared


def _runs(model: nn.Module, prepared: Prepared) -> bool:
    return _try(model, prepared.tensor, prepared.arguments).runs


def _prepare_all(
    model: nn.Module, inputs: Any, transform: Any, explain: Explain, device: torch.device, dtype: torch.dtype | None,
    feature_names: Sequence[str] | None, background: Any,
) -> Prepared:  # fmt: skip
    if is_table(inputs, background, feature_names, transform):
        if explain is not None:
            raise ValueError("explain: a row of a table is one input. Leave it out.")
        read = inputs if isinstance(inputs, Table) else None
        read = read or read_table(inputs, background, feature_names=feature_names, transform=transform)
        return prepare_table(read, device=device, dtype=dtype)
    if isinstance(inputs, Mapping):
        names = [str(name) for name in inputs]
        values = dict(zip(names, inputs.values(), strict=True))
    elif _is_several(inputs):
        names = _positional_names(model, len(inputs))
        values = dict(zip(names, inputs, strict=True))
    else:
        if explain is not None:
            raise ValueError("explain: there is one input. Leave it out, or pass the inputs as a tuple or a dict.")
        if isinstance(inputs, Tensor):
            check_kind(inputs)
        if transform is None and pictures.is_numbers(inputs) and inputs.ndim == 3:
            return _told_apart(model, inputs, device, dtype)
        return _prepared(model, inputs, transform, device, dtype, batched=False)
    chosen = _chosen(explain, values)
    listed = {name: _listed(values[name]) for name in chosen}
    values |= {name: array for name, array in listed.items() if array is not None}
    named: Mapping[str, Any] | None = (
        transform if isinstance(transform, Mapping) and set(transform) <= set(values) else None
    )
    if transform is not None and named is None and not any(_is_picture(value) for value in values.values()):
        raise ValueError(
            f"transform: no input is a picture that it would be applied to (PIL, a path, bytes). Pass a mapping from "
            f"names, transform={{{chosen[0]!r}: ...}}, or leave it out for tensors that went through it."
        )
    prepared = {}
    for name in chosen:
        own = named.get(name) if named is not None else transform if _is_picture(values[name]) else None
        prepared[name] = _prepared(model, values[name], own, device, dtype, batched=True)
    for name, value in values.items():
        if name not in chosen and isinstance(value, (Image.Image, os.PathLike)):
            own = named.get(name) if named is not None else transform
            values[name] = _prepared(model, value, own, device, dtype, batched=True).tensor
    batches = {name: len(found.tensor) for name, found in prepared.items()}
    if len(set(batches.values())) > 1:
        flat = [name for name, found in prepared.items() if found.tensor.ndim == 1]
        hint = f" {_BATCHED} {flat[0]}[None] for one sample." if flat else ""
        raise ValueError(f"inputs: what is explained must have as many samples each, got {batches}.{hint}")
    batch = next(iter(batches.values()))
    slots = {name: Slot(index) for index, name in enumerate(chosen)}
    tree = {name: slots.get(name) or _held(_by_sample(value, batch), device, dtype) for name, value in values.items()}
    args, kwargs = _as_called(model, tree) if isinstance(inputs, Mapping) else (tuple(tree.values()), {})
    found = _together(prepared, Arguments(args, kwargs, batch))
    _check_rows(model, prepared, found)
    return found


_BATCHED = "In a mapping or a tuple numbers have their batch dimension already: pass"


def _together(prepared: dict[str, Prepared], called: Arguments) -> Prepared:
    """What is explained as one tensor: the only one as it is, several side by side."""
    if len(prepared) == 1:
        ((name, only),) = prepared.items()
        return replace(only, arguments=replace(called, name=name))
    parts = tuple(Part(name, tuple(found.tensor.shape[1:]), found.pixels) for name, found in prepared.items())
    return Prepared(
        torch.cat([found.tensor.reshape(called.batch, -1) for found in prepared.values()], 1),
        pixels=None,
        pictures=None,
        notes=tuple(dict.fromkeys(note for found in prepared.values() for note in found.notes)),
        arguments=replace(called, parts=parts),
    )


def _check_rows(model: nn.Module, prepared: dict[str, Prepared], found: Prepared) -> None:
    """Refuse a row that was passed where a batch of rows is meant; the model tells by what it can take."""
    flat = [name for name, one in prepared.items() if one.tensor.ndim == 1]
    if not flat or found.arguments is None or _try(model, found.tensor, found.arguments).scores is not None:
        return
    lifted = {name: replace(one, tensor=one.tensor[None]) if name in flat else one for name, one in prepared.items()}
    if any(len(one.tensor) != 1 for one in lifted.values()):
        return
    single = _together(lifted, replace(found.arguments, batch=1, parts=()))
    if single.arguments is not None and _try(model, single.tensor, single.arguments).scores is not None:
        count = len(prepared[flat[0]].tensor)
        raise ValueError(
            f"inputs: {flat[0]!r} has shape ({count},), which is {count} samples of one number each, and the model "
            f"takes one sample of {count} numbers. {_BATCHED} {flat[0]}[None]."
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


def _listed(value: Any) -> np.ndarray | None:
    """A list of numbers, nested or not, as an array of floats; None for everything else, whole numbers too."""
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


def _by_sample(value: Any, batch: int) -> Any:
    """A list of a number for each sample as an array, so that it goes with its samples; others may be settings."""
    array = _listed(value)
    return value if array is None or len(array) != batch else array


def _chosen(explain: Explain, values: Mapping[str, Any]) -> list[str]:
    if not values:
        raise ValueError("inputs: the mapping is empty. Pass what the model's forward takes, by name.")
    if explain is None:
        chosen = [name for name, value in values.items() if _can_be_explained(value)]
        # Beside a tensor, a list may as well be a setting.
        chosen = chosen or [name for name, value in values.items() if _listed(value) is not None]
        if not chosen:
            kinds = {name: str(getattr(value, "dtype", type(value).__name__)) for name, value in values.items()}
            raise ValueError(
                f"inputs: none of them has a gradient; got {kinds}. Whole numbers (tokens, categories) can't be "
                f"moved a little: pass their embeddings, if the model takes them (inputs_embeds=)."
            )
        return chosen
    names = list(values)
    chosen = []
    for item in _asked(explain, names):
        name = names[item] if isinstance(item, int) and -len(names) <= item < len(names) else str(item)
        if name not in values:
            raise ValueError(unknown("explain", name, names))
        if isinstance(values[name], Tensor) and not _can_be_explained(values[name]):
            raise ValueError(
                f"explain: {name!r} holds {values[name].dtype}, and whole numbers have no gradient. Choose another "
                f"input, or pass embeddings in its place."
            )
        chosen.append(name)
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"explain: expected one or more of {names}, each once, got {explain!r}.")
    return [name for name in names if name in chosen]


def _asked(explain: Any, names: list[str]) -> list[str | int]:
    """The names and positions that were asked for."""
    several = isinstance(explain, Iterable) and not isinstance(explain, (str, bytes, Mapping, Tensor))
    items: list[Any] = list(explain) if several else [explain]
    found: list[str | int] = []
    for item in items:
        try:
            if isinstance(item, bool):
                raise TypeError
            found.append(item if isinstance(item, str) else operator.index(item))
        except TypeError:
            raise TypeError(
                f"explain: expected a name or a position, or a list of them, got {item!r} ({type(item).__name__}). "
                f"Choose from {names}."
            ) from None
    return found


def _prepared(
    model: nn.Module, value: Any, transform: Any, device: torch.device, dtype: torch.dtype | None, batched: bool
) -> Prepared:
    notes: list[str] = []
    applied = transform_of(transform, model, value, notes)
    found = prepare(value, applied, device=device, dtype=dtype, batched=batched)
    return replace(found, notes=(*notes, *found.notes))


@dataclass(frozen=True)
class _Tried:
    """Whether the model takes an input, and what it says of each row; None where it doesn't say that."""

    runs: bool
    scores: Tensor | None = None


def _try(model: nn.Module, rows: Tensor, arguments: Arguments | None = None) -> _Tried:
    samples = torch.arange(len(rows), device="cpu")
    with stand_in(model) as tried, torch.no_grad():
        args, kwargs = (arguments or Arguments(batch=len(rows))).fill(rows, samples)
        try:
            output = tried(*args, **kwargs)
        except Exception:  # whatever it says: it is only asked whether it can
            return _Tried(runs=False)
        try:
            scores = scores_in(output, len(rows))
        except TypeError:
            scores = None
    if scores is not None and scores.ndim > 0 and len(scores) == len(rows):
        return _Tried(runs=True, scores=scores)
    listed = isinstance(output, (list, tuple)) and len(output) == len(rows)  # as detectors do it
    return _Tried(runs=True, scores=torch.empty(len(rows), 0, device="cpu") if listed else None)


def _told_apart(
    model: nn.Module, given: Tensor | np.ndarray, device: torch.device, dtype: torch.dtype | None
) -> Prepared:
    """(a, b, c) numbers, which are one picture or a batch of a: the model tells by what it can take."""
    with torch.inference_mode(False):
        rows, usual = (found.detach().clone() for found in (pictures.numbers(given), pictures.plain(given)))
    picture = usual if usual.ndim == 4 else rows[None]
    one, many = _try(model, picture.to(device, dtype)), _Tried(runs=False)
    if one.scores is None or not any(isinstance(module, nn.Conv2d) for module in model.modules()):
        many = _try(model, rows.to(device, dtype))
    note = None
    if one.scores is None and many.scores is None:
        chosen = rows if many.runs and not one.runs else usual
    elif one.scores is None or many.scores is None:
        chosen = picture if many.scores is None else rows
    elif one.scores.shape == many.scores.shape and torch.allclose(one.scores, many.scores, equal_nan=True):
        chosen = picture
    elif one.scores.ndim == 3 and many.scores.ndim == 2:  # only one of them is a score for each class
        chosen = rows
    elif one.scores.ndim == 2 and many.scores.ndim == 1:  # its rows were taken for samples that have no classes
        chosen, note = picture, f"one picture. Pass (x,) for a batch of {len(rows)}."
    else:
        chosen, note = rows, f"a batch of {len(rows)}. Pass x[None] for one picture."
    found = _prepared(model, chosen, None, device, dtype, batched=True)
    if note is None:
        return found
    return replace(found, notes=(f"Numbers of shape {tuple(given.shape)} were read as {note}", *found.notes))


def _held(value: Any, device: torch.device, dtype: torch.dtype | None) -> Any:
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
