"""Prepare several inputs of a model: those to explain, and those to hold constant."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from saliency_widgets.attribution.arrays import check_dense, check_unmasked
from saliency_widgets.attribution.score import scores_in
from saliency_widgets.inputs import reading
from saliency_widgets.inputs.joint import BATCHED, batch_of, prepare_one, together, transforms_of
from saliency_widgets.inputs.kinds import special_kind
from saliency_widgets.inputs.nested import (
    check_depth,
    chosen,
    is_nest,
    is_several,
    is_whole,
    leaves,
    listed,
)
from saliency_widgets.inputs.options import Options
from saliency_widgets.inputs.prepared import Prepared, kind_of, prepare_table
from saliency_widgets.inputs.signal.kind import as_signal
from saliency_widgets.inputs.table import Table, is_table, read_table
from saliency_widgets.inputs.volume.kind import as_volume
from saliency_widgets.runtime.arguments import Arguments, Slot, entries, mapped, rebuilt
from saliency_widgets.runtime.model.isolation import isolated_copy


def prepare_for(
    model: nn.Module,
    inputs: Any,
    options: Options,
    *,
    device: torch.device,
    dtype: torch.dtype | None,
    gradients: bool = True,
) -> Prepared:
    """Convert inputs of any supported form to the form that a model takes.

    Args:
        model: The model; the signature of its ``forward`` determines how it is called.
        inputs: One input, see :func:`~saliency_widgets.inputs.prepared.prepare`; a tuple of several, as positional
            arguments; or a mapping, as keyword arguments (as one dict if ``forward`` doesn't take these names). In a
            tuple or a mapping, numbers have their batch dimension: shape (N,) is one number for each sample, while a
            single tensor of shape (F,) is a row. Inputs that aren't explained are passed unchanged, except that
            floating-point numbers get the model's type. A list of numbers becomes an array if it is explained, or has
            one number for each sample. Tensors may be nested in lists, tuples, mappings and dataclasses; they are named
            by their path, "batch.x" or "xs.0". A list at the top level is a batch of inputs. One input of shape
            (a, b, c) is an image or a batch of size a, depending on which of the two the model can take.
        options: The options for the model and the inputs.
        device: The model's device.
        dtype: The model's dtype; None for the inputs' types, or for torch's default if the model takes only that.
        gradients: Whether the method needs gradients; if not, integers and booleans can be explained, too.

    Raises:
        TypeError: An input has an unsupported type.
        ValueError: An input can't be explained, a name is unknown, or batches differ in size.
    """
    check_depth(inputs)
    kind = special_kind(inputs, options)
    if kind is not None:
        return kind.prepare(model, inputs, options, device=device, dtype=dtype)

    def typed(dtype: torch.dtype | None) -> Prepared:
        prepared = _prepare_all(model, inputs, options, device, dtype, gradients=gradients)
        return as_volume(as_signal(model, prepared))

    prepared, default = typed(dtype), torch.get_default_dtype()
    alone = prepared.arguments is None
    if dtype is not None or (alone and prepared.tensor.dtype == default) or _runs(model, prepared):
        return prepared
    # No module has weights that show the dtype: they are in a list of models, a closure or a quantized layer.
    usual = typed(default)
    return usual if _runs(model, usual) else prepared


def _runs(model: nn.Module, prepared: Prepared) -> bool:
    return _try(model, prepared.tensor, prepared.arguments).runs


def _prepare_all(
    model: nn.Module, inputs: Any, options: Options, device: torch.device, dtype: torch.dtype | None, *, gradients: bool
) -> Prepared:
    transform, explain, background = options.transform, options.explain, options.background
    if background is not None and is_nest(inputs) and not _are_rows(inputs):
        raise ValueError(
            "background: it applies only to rows of a table. For a model with several inputs, pass "
            "method='expected_gradients' and baselines= a mapping from names to stacks."
        )
    if is_table(inputs, background, options.feature_names, transform):
        if explain is not None:
            raise ValueError("explain: a row of a table is a single input. Omit it.")
        read = inputs if isinstance(inputs, Table) else None
        read = read or read_table(inputs, background, feature_names=options.feature_names, transform=transform)
        return prepare_table(read, device=device, dtype=dtype)
    if isinstance(inputs, Mapping):
        top = {str(name): value for name, value in inputs.items()}
    elif is_several(inputs):
        top = dict(zip(_positional_names(model, len(inputs)), inputs, strict=True))
    else:
        if explain is not None:
            raise ValueError("explain: there is only one input. Omit it, or pass the inputs as a tuple or a dict.")
        return _lone(model, inputs, transform, device, dtype, gradients)
    notes: list[str] = []
    values = leaves(top)
    explained = chosen(explain, values, list(top), notes, gradients=gradients)
    arrays = {name: listed(values[name]) for name in explained}
    values |= {name: array for name, array in arrays.items() if array is not None}
    transforms = transforms_of(transform, values, explained)
    prepared = {}
    for name in explained:
        if not gradients and is_whole(values[name]):
            tensor = _whole_numbers(values[name], device)
            prepared[name] = Prepared(tensor, kind_of(tensor))
            continue
        prepared[name] = prepare_one(model, values[name], transforms[name], device, dtype, batched=True)
    for name, value in values.items():
        if name not in explained and isinstance(value, (Image.Image, os.PathLike)):
            values[name] = prepare_one(model, value, transforms[name], device, dtype, batched=True).tensor
    batch = batch_of(prepared)
    slots = {name: Slot(index) for index, name in enumerate(explained)}

    def laid_out(path: str, value: Any) -> Any:
        if is_nest(value):
            return rebuilt(value, {key: laid_out(f"{path}.{key}", item) for key, item in entries(value) or ()})
        return slots.get(path) or _held(_by_sample(values[path], batch), device, dtype)

    tree = {name: laid_out(name, value) for name, value in top.items()}
    args, kwargs = _as_called(model, inputs, tree) if isinstance(inputs, Mapping) else (tuple(tree.values()), {})
    combined = together(prepared, Arguments(args, kwargs, batch))
    _check_rows(model, prepared, combined)
    return replace(combined, notes=(*notes, *combined.notes))


def _lone(
    model: nn.Module, inputs: Any, transform: Any, device: torch.device, dtype: torch.dtype | None, gradients: bool
) -> Prepared:
    """Prepare the only input of a model."""
    if isinstance(inputs, Tensor):
        check_dense(inputs, "inputs")
    check_unmasked(inputs, "inputs")
    inside = next((item for item in inputs if _is_no_row(item)), None) if type(inputs) is list else None
    if inside is not None or (_is_no_row(inputs) and type(inputs) is not tuple):
        what = (
            f"a {type(inputs).__name__} can't be passed as a single input"
            if inside is None
            else f"a list is a batch of inputs of one shape, but this one contains a {type(inside).__name__} of tensors"
        )
        raise TypeError(
            f"inputs: {what}. Pass a tuple of the model's arguments, (a, b) for two and (a,) for one that is a tuple, "
            f"a list or a dataclass; or a mapping from their names."
        )
    whole = _whole_rows(inputs, device) if not gradients and transform is None else None
    # If the model runs only with floats, rows of integers are converted to floats.
    if whole is not None and (_try(model, whole).runs or not _try(model, whole.to(dtype)).runs):
        return Prepared(whole, kind_of(whole))
    if transform is None and isinstance(inputs, (Tensor, np.ndarray)) and _is_undecided(inputs):
        return _image_or_batch(model, inputs, device, dtype)
    return prepare_one(model, inputs, transform, device, dtype, batched=False)


def _are_rows(inputs: Any) -> bool:
    """Return whether the inputs are single rows of a table rather than several inputs."""
    if not isinstance(inputs, (list, tuple)):
        return not isinstance(inputs, Mapping)
    return all(getattr(item, "ndim", 0) == 1 for item in inputs)


def _is_undecided(inputs: Tensor | np.ndarray) -> bool:
    """Return whether the inputs could be either one image or a batch of rows."""
    return reading.is_numbers(inputs) and inputs.ndim == 3


def _is_no_row(item: Any) -> bool:
    return is_nest(item) and not isinstance(item, list)


def _whole_rows(inputs: Any, device: torch.device) -> Tensor | None:
    """Return integers or booleans as a batch, without converting them to floats; None for anything else."""
    array: Any = inputs
    if isinstance(inputs, (list, tuple)) and not is_nest(inputs):
        try:
            array = np.asarray(inputs)
        except ValueError:  # rows of different lengths
            return None
    return reading.batched(_whole_numbers(array, device)) if is_whole(array) else None


def _whole_numbers(value: Tensor | np.ndarray, device: torch.device) -> Tensor:
    """Return a private copy of integers or booleans, with the same dtype; unsigned arrays become int64.

    Raises:
        ValueError: The value is empty.
    """
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value.astype(np.int64) if value.dtype.kind == "u" else np.array(value, order="C"))
    if not value.numel():
        raise ValueError(f"inputs: they are empty, with shape {tuple(value.shape)}.")
    with torch.inference_mode(False):
        return value.detach().clone().to(device)


def _check_rows(model: nn.Module, prepared: dict[str, Prepared], combined: Prepared) -> None:
    """Raise ValueError for a single row instead of a batch of rows, if the model can take only the latter."""
    flat = [name for name, one in prepared.items() if one.tensor.ndim == 1]
    if not flat or combined.arguments is None or _try(model, combined.tensor, combined.arguments).scores is not None:
        return
    lifted = {name: replace(one, tensor=one.tensor[None]) if name in flat else one for name, one in prepared.items()}
    if any(len(one.tensor) != 1 for one in lifted.values()):
        return
    single = together(lifted, replace(combined.arguments, batch=1, parts=()))
    if single.arguments is not None and _try(model, single.tensor, single.arguments).scores is not None:
        count = len(prepared[flat[0]].tensor)
        raise ValueError(
            f"inputs: {flat[0]!r} has shape ({count},), which is {count} samples of one number each, but the model "
            f"takes one sample of {count} numbers. {BATCHED} {flat[0]}[None]."
        )


def _positional_names(model: nn.Module, count: int) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    named = [p.name for p in _signature(model).parameters.values() if p.kind in kinds][:count]
    return named + [str(index) for index in range(len(named), count)]


def _signature(model: nn.Module) -> inspect.Signature:
    try:
        return inspect.signature(model.forward)
    except (TypeError, ValueError):
        return inspect.Signature()


def _as_called(model: nn.Module, inputs: Mapping, tree: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    try:
        _signature(model).bind(**tree)
    except TypeError:
        return (rebuilt(inputs, dict(zip(inputs, tree.values(), strict=True))),), {}
    return (), tree


def _by_sample(value: Any, batch: int) -> Any:
    """Convert a list with one number per sample to an array, so that it is batched; other lists may be settings."""
    array = listed(value)
    return value if array is None or len(array) != batch else array


@dataclass(frozen=True)
class _Tried:
    """The result of a trial run: whether the model takes an input, and its scores per row, or None without any."""

    runs: bool
    scores: Tensor | None = None


def _try(model: nn.Module, rows: Tensor, arguments: Arguments | None = None) -> _Tried:
    samples = torch.arange(len(rows), device="cpu")
    with isolated_copy(model) as tried, torch.no_grad():
        try:
            output = (arguments or Arguments(batch=len(rows))).run(tried, rows, samples)
        except Exception:  # only whether it runs matters here
            return _Tried(runs=False)
        try:
            scores = scores_in(output, len(rows))
        except TypeError:
            scores = None
    if scores is not None and scores.ndim > 0 and len(scores) == len(rows):
        return _Tried(runs=True, scores=scores)
    listed = isinstance(output, (list, tuple)) and len(output) == len(rows)  # as detection models return
    return _Tried(runs=True, scores=torch.empty(len(rows), 0, device="cpu") if listed else None)


def _image_or_batch(
    model: nn.Module, numbers: Tensor | np.ndarray, device: torch.device, dtype: torch.dtype | None
) -> Prepared:
    """Read numbers of shape (a, b, c) as one image or as a batch of size a, depending on what the model can take."""
    with torch.inference_mode(False):
        rows, usual = (tensor.detach().clone() for tensor in (reading.numbers(numbers), reading.plain(numbers)))
    image = usual if usual.ndim == 4 else rows[None]
    one, many = _try(model, image.to(device, dtype)), _Tried(runs=False)
    if one.scores is None or not any(isinstance(module, nn.Conv2d) for module in model.modules()):
        many = _try(model, rows.to(device, dtype))
    note = None
    if one.scores is None and many.scores is None:
        chosen = rows if many.runs and not one.runs else usual
    elif one.scores is None or many.scores is None:
        chosen = image if many.scores is None else rows
    elif one.scores.shape == many.scores.shape and torch.allclose(one.scores, many.scores, equal_nan=True):
        chosen = image
    elif one.scores.ndim == 3 and many.scores.ndim == 2:  # only the batch gives one score per class
        chosen = rows
    elif one.scores.ndim == 2 and many.scores.ndim == 1:  # only the image gives one score per class
        chosen, note = image, f"one image. Pass (x,) for a batch of {len(rows)}."
    else:
        chosen, note = rows, f"a batch of {len(rows)}. Pass x[None] for one image."
    prepared = prepare_one(model, chosen, None, device, dtype, batched=True)
    if note is None:
        return prepared
    return replace(prepared, notes=(f"The input of shape {tuple(numbers.shape)} was read as {note}", *prepared.notes))


def _held(value: Any, device: torch.device, dtype: torch.dtype | None) -> Any:
    """Return a private copy of an input that isn't explained."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        value = torch.from_numpy(value.copy())
    if isinstance(value, Tensor):
        with torch.inference_mode(False):
            copied = value.detach().clone()
        return copied.to(device=device, dtype=dtype if value.is_floating_point() else value.dtype)
    return mapped(lambda item: _held(item, device, dtype), value)
