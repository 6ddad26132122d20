"""A model on the device that is asked for."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from saliency_widgets.params import brief
from saliency_widgets.runtime.model.isolation import device_of

_LONGEST = 500  # characters of what torch says, which quotes the device


def check_device(device: Any) -> None:
    """Look whether it could be a device; whether there is such a one is seen where it is used.

    Raises:
        TypeError: It is of no known kind.
        ValueError: The number of no device.
    """
    if isinstance(device, bool) or not isinstance(device, (torch.device, str, int, type(None))):
        raise TypeError(
            f"device: expected a torch.device or a name such as 'cpu' or 'cuda:0', got {brief(device)} "
            f"({type(device).__name__}). Leave it out to stay where the model is."
        )
    if isinstance(device, int) and not 0 <= device < 1000:
        raise ValueError(f"device: expected the number of a device, got {brief(device)}. Leave it out to stay here.")


def on_device(model: nn.Module, device: torch.device | str) -> nn.Module:
    """The model itself where it is there already, or else a private copy."""
    try:
        wanted = torch.device(device)
        if _same_device(wanted, device_of(model)):
            return model
        return copy.deepcopy(model).to(wanted)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ValueError(
            f"device: {brief(str(device))} can't be used here: {str(error)[:_LONGEST]}. "
            "Leave it out to stay where the model is."
        ) from error


def _same_device(wanted: torch.device, present: torch.device) -> bool:
    """Whether ``wanted``, which may leave out the number ("cuda"), is where the model already is."""
    return wanted.type == present.type and wanted.index in (None, present.index)
