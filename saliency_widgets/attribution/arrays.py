"""Conversion of the arrays and tensors that callers pass; those that don't hold plain numbers are rejected."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saliency_widgets.params import check_length


def check_dense(tensor: Tensor, argument: str, *, returned: bool = False) -> None:
    """Check that a tensor is dense and holds numbers. Only metadata is read, so this is cheap enough for every pass.

    Args:
        tensor: The tensor to check.
        argument: The argument's name, for the error.
        returned: Whether the tensor was returned by the argument (a model or a function).

    Raises:
        TypeError: It is not a dense tensor of numbers.
    """
    # torch has no arithmetic for 8-bit floats.
    narrow = tensor.dtype.is_floating_point and tensor.dtype.itemsize == 1
    if tensor.layout == torch.strided and not (narrow or tensor.is_quantized or tensor.is_meta or tensor.is_nested):
        return
    change = "End it with " if returned else f"Pass {argument}"
    kinds = {
        "nested": (tensor.is_nested, f"{'Return' if returned else 'Pass'} one of its parts, or a padded tensor."),
        "quantized": (
            tensor.is_quantized,
            f"{change}.dequantize()" + (", or with a DeQuantStub." if argument == "model" else "."),
        ),
        "on the meta device, which holds no values": (
            tensor.is_meta,
            "Compute it on another device." if returned else "Load it first.",
        ),
        "sparse": (tensor.layout != torch.strided, f"{change}.to_dense()."),
        f"of {tensor.dtype}, which torch can't compute with": (narrow, f"{change}.float()."),
    }
    what, remedy = next((what, remedy) for what, (it_is, remedy) in kinds.items() if it_is)
    source = " from it" if returned else ""
    raise TypeError(f"{argument}: expected a dense tensor of numbers{source}, got one that is {what}. {remedy}")


def check_unmasked(value: Any, argument: str) -> None:
    """Check that no values of an array are masked, as the numbers under the mask would enter the computation.

    Raises:
        TypeError: Some values are masked.
    """
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise TypeError(
            f"{argument}: expected an array without missing values, got a masked one. Pass {argument}.filled(value), "
            f"with the value that the model was trained on for missing entries."
        )


def on_host(*tensors: Tensor) -> list[Tensor]:
    """Return small tensors on the host, each in its shape and type, with a single copy per device.

    Each copy, and each number read from a device, waits for all work queued on that device.

    Args:
        tensors: Tensors of floating-point numbers or truth values; their promoted type holds all values exactly.
    """
    copies = [tensor.detach() for tensor in tensors]
    for device in {tensor.device for tensor in copies if tensor.device.type != "cpu"}:
        which = [index for index, tensor in enumerate(copies) if tensor.device == device]
        wide = functools.reduce(torch.promote_types, [copies[index].dtype for index in which])
        moved = torch.cat([copies[index].flatten().to(wide) for index in which]).cpu()
        for index, piece in zip(which, moved.split([copies[index].numel() for index in which]), strict=True):
            copies[index] = piece.view(copies[index].shape).to(copies[index].dtype)
    return copies


def as_array(value: Any, argument: str) -> np.ndarray:
    """Return a tensor, a list or anything else that NumPy accepts as an array, of any type.

    Raises:
        TypeError: The value can't be read.
        ValueError: Its rows differ in length.
    """
    if isinstance(value, Tensor):
        check_dense(value, argument)
        value = value.detach().cpu()
        value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    if isinstance(value, range):  # takes no memory until it becomes an array
        check_length(argument, value)
    check_unmasked(value, argument)
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{argument}: expected rows of equal length, but they differ: {error}.") from error
    except Exception as error:
        raise TypeError(
            f"{argument}: expected an array, got a {type(value).__name__} that can't be converted to one: {error}."
        ) from error


def as_numbers(value: Any, argument: str) -> Tensor:
    """Return a tensor, an array or a list as a tensor of real numbers.

    Raises:
        TypeError: The value holds no numbers, or complex ones.
        ValueError: Its rows differ in length.
    """
    if isinstance(value, Tensor):
        check_dense(value, argument)
    else:
        array = as_array(value, argument)
        if array.dtype.kind not in "buifc":
            raise TypeError(f"{argument}: expected numbers, got an array of {array.dtype}.")
        array = array.astype(np.float64) if array.dtype == np.longdouble else array
        # torch accepts neither negative strides nor non-native byte order.
        value = torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
    if value.is_complex():
        raise TypeError(f"{argument}: expected real numbers, got {value.dtype}. Pass .real or .abs().")
    return value
