"""Arrays and tensors as people pass them: what holds no plain numbers is refused here."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saliency_widgets.params import check_length


def check_dense(tensor: Tensor, argument: str, *, returned: bool = False) -> None:
    """Look at what can be looked at before anything is computed; it takes no time, also once per pass.

    Args:
        tensor: It.
        argument: The argument's name, for the error.
        returned: Whether the argument returned it: a model, a function.

    Raises:
        TypeError: It is no dense tensor that holds numbers.
    """
    # Nothing computes in floats of 8 bits.
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
        "on the meta device, and holds no numbers": (
            tensor.is_meta,
            "Compute it on another." if returned else "Load it first.",
        ),
        "sparse": (tensor.layout != torch.strided, f"{change}.to_dense()."),
        f"of {tensor.dtype}, which nothing is computed in": (narrow, f"{change}.float()."),
    }
    what, remedy = next((what, remedy) for what, (it_is, remedy) in kinds.items() if it_is)
    source = " from it" if returned else ""
    raise TypeError(f"{argument}: expected a dense tensor of numbers{source}, got one that is {what}. {remedy}")


def check_unmasked(value: Any, argument: str) -> None:
    """Look whether values of a masked array are masked: what lies under the mask would be computed with.

    Raises:
        TypeError: Some are.
    """
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise TypeError(
            f"{argument}: expected an array without missing values, got a masked one. Pass {argument}.filled(value), "
            f"with what the model was trained to see there."
        )


def on_host(*tensors: Tensor) -> list[Tensor]:
    """Small tensors as the host has them, each in its shape and type: with one copy from a device for all of them.

    Every copy and every single number that is read waits until the device has done what it was asked before.

    Args:
        tensors: Of floating-point numbers or truth values: a type that holds those of both holds them exactly.
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
    """A tensor, a list or anything else that NumPy takes, as an array of whatever it holds.

    Raises:
        TypeError: It can't be read.
        ValueError: Its rows differ in length.
    """
    if isinstance(value, Tensor):
        check_dense(value, argument)
        value = value.detach().cpu()
        value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    if isinstance(value, range):  # the only list that takes no memory until it is an array
        check_length(argument, value)
    check_unmasked(value, argument)
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{argument}: expected rows of one length, and they differ: {error}.") from error
    except Exception as error:
        raise TypeError(
            f"{argument}: expected an array, got a {type(value).__name__} that is none: {error}."
        ) from error


def as_numbers(value: Any, argument: str) -> Tensor:
    """A tensor, an array or a list, as a tensor of real numbers.

    Raises:
        TypeError: It holds no numbers, or complex ones.
        ValueError: Its rows differ in length.
    """
    if isinstance(value, Tensor):
        check_dense(value, argument)
    else:
        array = as_array(value, argument)
        if array.dtype.kind not in "buifc":
            raise TypeError(f"{argument}: expected numbers, got an array of {array.dtype}.")
        array = array.astype(np.float64) if array.dtype == np.longdouble else array
        # torch takes neither negative strides nor another byte order.
        value = torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
    if value.is_complex():
        raise TypeError(f"{argument}: expected real numbers, got {value.dtype}. Pass .real or .abs().")
    return value
