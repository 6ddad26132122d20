"""Prepare inputs: images, arrays and tensors, with or without the caller's transform."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from saliency_widgets.attribution import Kind, PixelRange
from saliency_widgets.attribution.arrays import check_dense
from saliency_widgets.attribution.kind import NUMBERS
from saliency_widgets.inputs import reading
from saliency_widgets.inputs.image import ImageKind
from saliency_widgets.inputs.pixels import pixel_range, recover
from saliency_widgets.inputs.table import Table, TableKind
from saliency_widgets.runtime.arguments import Arguments

Transform = Callable[[Any], Any]


@dataclass(frozen=True, eq=False)
class Prepared:
    """Inputs in the form that a model takes, and how to display them.

    Attributes:
        tensor: The model's input, shape (B, ...), a private copy.
        kind: The kind of the inputs.
        images: The inputs as images, cropped and resized as for the model, uint8 (B, H, W, 3), or None.
        notes: Notes for the user, such as assumptions about the inputs.
        arguments: The arguments to call the model with, if it takes more than the tensor.
        from_weights: Whether the tensor was computed with the model's weights, as embeddings are.
        read_as: The options under which the inputs are read the same way, without trying the model.
    """

    tensor: Tensor
    kind: Kind = NUMBERS
    images: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    arguments: Arguments | None = None
    from_weights: bool = False
    read_as: Mapping[str, Any] = field(default_factory=dict)

    @property
    def table(self) -> Table | None:
        """The table whose rows are the inputs, or None."""
        return self.kind.table if isinstance(self.kind, TableKind) else None


def kind_of(tensor: Tensor, pixels: PixelRange | None = None, display: PixelRange | None = None) -> Kind:
    """Return the kind of a tensor (B, ...), by its shape: images have four dimensions."""
    return ImageKind(pixels, display) if tensor.ndim == 4 else NUMBERS


def prepare(
    inputs: Any,
    transform: Transform | None = None,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = torch.float32,
    batched: bool = False,
) -> Prepared:
    """Convert inputs to the form that a model takes.

    Args:
        inputs: A PIL image; a path; an array (H, W, 3) or (N, H, W, 3) of uint8 or of floats in [0, 1], or (H, W) of
            uint8; a tensor (C, H, W) or (N, C, H, W); rows of numbers (F,) or (N, F); or a list of images of
            one size.
        transform: A function from one such input to the model's input, e.g. torchvision's; None if the input is ready
            (tensors of floats) or only needs scaling to [0, 1] (images and bytes).
        device: The model's device.
        dtype: The model's dtype; None for the inputs' floating-point dtype.
        batched: Whether floating-point numbers already have a batch dimension.

    Returns:
        The tensor, pixel range and image. The image is cropped and resized as for the model: the range of transformed
        black and white images is used to undo any normalization.

    Raises:
        TypeError: The input has an unsupported type.
        ValueError: The shape is wrong, numbers are NaN or infinite, or the transform is random or returns no tensor.
    """
    with torch.inference_mode(False), torch.no_grad():
        if isinstance(inputs, (list, tuple)) and inputs and not _numbers(inputs):
            return _stacked([prepare(item, transform, device=device, dtype=dtype) for item in inputs])
        if isinstance(inputs, Tensor):
            check_dense(inputs, "inputs")
        source = reading.load(inputs)
        notes: list[str] = []
        if transform is not None:
            if isinstance(transform, reading.EightBit) and isinstance(source, Image.Image):
                source = reading.eight_bit(source)
            tensor = reading.transformed(source, transform)
        elif batched and reading.is_numbers(source):
            tensor = reading.numbers(source)
        else:
            tensor = reading.plain(source, notes)
        seen = tensor.detach().cpu()  # one copy to the host for all checks
        _check(seen)
        pixels, display = pixel_range(seen, source, transform, notes)
        shown = recover(seen, display, notes) if display is not None else None
        if dtype is None:
            typed = transform is not None or reading.is_numbers(source)
            dtype = floating_type(tensor) if typed else torch.get_default_dtype()
        _check_size(seen, dtype)
        ready = tensor.detach().clone().to(device=device, dtype=dtype)
        return Prepared(ready, kind_of(ready, pixels, display), shown, tuple(notes))


def floating_type(tensor: Tensor) -> torch.dtype:
    """Return the dtype for a model without weights: the tensor's, or torch's default for integers and 8-bit floats."""
    computes = tensor.is_floating_point() and tensor.element_size() > 1  # 8-bit floats are for storage only
    return tensor.dtype if computes else torch.get_default_dtype()


def prepare_table(table: Table, *, device: torch.device | str, dtype: torch.dtype | None) -> Prepared:
    """Convert rows of a table to the form that a model takes.

    Args:
        table: The rows.
        device: The model's device.
        dtype: The model's dtype; None for float32 if all columns are float32 or float16, and otherwise for float64.

    Raises:
        ValueError: Numbers are too large for the dtype.
    """
    if dtype is None:
        narrow = all(kind in (np.float32, np.float16) for kind in table.rows.dtypes)
        dtype = torch.float32 if narrow else table.tensor.dtype

    def ready(values: Tensor | None) -> Tensor | None:
        if values is None:
            return None
        _check_size(values, dtype)
        return values.to(device=device, dtype=dtype).clone()

    with torch.inference_mode(False), torch.no_grad():
        tensor, columns = ready(table.tensor), table.columns
        assert tensor is not None
        columns = replace(columns, rows=ready(columns.rows), median=ready(columns.median))
        return Prepared(tensor, TableKind(columns, table), notes=table.notes)


def _numbers(items: Any) -> bool:
    return all(isinstance(item, Real) for item in items)


def _check(tensor: Tensor) -> None:
    if tensor.numel() == 0:
        raise ValueError(f"inputs: they are empty, with shape {tuple(tensor.shape)}.")
    if tensor.is_complex():
        raise TypeError("inputs: complex numbers are not supported. Pass real and imaginary parts as channels.")
    bad = int((~torch.isfinite(tensor)).sum())
    if bad:
        raise ValueError(
            f"inputs: {bad} of {tensor.numel()} numbers are NaN or infinite. Clean the input, or check the transform "
            f"(a division by zero, a log of zero)."
        )


def _check_size(tensor: Tensor, dtype: torch.dtype) -> None:
    """Raise ValueError if finite numbers become infinite in another dtype."""
    if not torch.isfinite(tensor.to(dtype)).all():
        raise ValueError(f"inputs: some numbers are too large for the model's type, {dtype}.")


def _stacked(parts: list[Prepared]) -> Prepared:
    shapes = {tuple(part.tensor.shape[1:]) for part in parts}
    if len(shapes) > 1:
        raise ValueError(
            f"inputs: expected a list of inputs of one shape, got {sorted(shapes)}. Pass transform= with a resize "
            f"and a crop."
        )
    shown = [part.images for part in parts if part.images is not None]
    kinds = [part.kind for part in parts if isinstance(part.kind, ImageKind)]  # of one shape: all images, or none
    tensors = [part.tensor for part in parts]
    tensor = torch.cat(tensors)
    pixels = _together([(kind.pixels, x) for kind, x in zip(kinds, tensors, strict=False)])
    display = _together([(kind.display, x) for kind, x in zip(kinds, tensors, strict=False)])
    return Prepared(
        tensor,
        kind_of(tensor, pixels, display),
        np.concatenate(shown) if len(shown) == len(parts) else None,
        tuple(dict.fromkeys(note for part in parts for note in part.notes)),
    )


def _together(parts: list[tuple[PixelRange | None, Tensor]]) -> PixelRange | None:
    """Return one range for all samples, or one per sample if they differ, as padding depends on the image's size."""
    ranges = [(pixels, tensor) for pixels, tensor in parts if pixels is not None]
    if not ranges or len(ranges) < len(parts):
        return None
    first = replace(ranges[0][0], assumed=any(pixels.assumed for pixels, _ in ranges))
    if all(torch.equal(r.black, first.black) and torch.equal(r.white, first.white) for r, _ in ranges):
        return first
    return PixelRange(
        torch.cat([pixels.black.to(x).expand_as(x) for pixels, x in ranges]),
        torch.cat([pixels.white.to(x).expand_as(x) for pixels, x in ranges]),
        first.assumed,
    )
