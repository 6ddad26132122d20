"""Check a device argument, and put a model on that device."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from saliency_widgets.params import brief
from saliency_widgets.runtime.model.isolation import device_of

_LONGEST = 500  # characters of torch's error message, which quotes the device


def check_device(device: Any) -> None:
    """Check that a value has the form of a device; whether that device exists is only checked when it is used.

    Raises:
        TypeError: It is not a device, a string, an integer or None.
        ValueError: It is an integer below 0 or above 999.
    """
    if isinstance(device, bool) or not isinstance(device, (torch.device, str, int, type(None))):
        raise TypeError(
            f"device: expected a torch.device or a name such as 'cpu' or 'cuda:0', got {brief(device)} "
            f"({type(device).__name__}). Omit it to use the model's device."
        )
    if isinstance(device, int) and not 0 <= device < 1000:
        raise ValueError(
            f"device: expected a device index from 0 to 999, got {brief(device)}. Omit it to use the model's device."
        )


def on_device(model: nn.Module, device: torch.device | str) -> nn.Module:
    """Return the model itself if it is on the device already, otherwise a private copy there."""
    try:
        wanted = torch.device(device)
        if _same_device(wanted, device_of(model)):
            return model
        return copy.deepcopy(model).to(wanted)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ValueError(
            f"device: {brief(str(device))} can't be used here: {str(error)[:_LONGEST]}. "
            "Omit it to use the model's device."
        ) from error


def _same_device(wanted: torch.device, present: torch.device) -> bool:
    """Return whether the model is on ``wanted`` already, whose index may be left out ("cuda")."""
    return wanted.type == present.type and wanted.index in (None, present.index)
