"""A model on the device that is asked for."""

from __future__ import annotations

import copy

import torch
from torch import nn

from saliency_widgets.attribution.isolation import device_of


def on_device(model: nn.Module, device: torch.device | str) -> nn.Module:
    """The model itself where it is there already, or else a private copy."""
    try:
        wanted = torch.device(device)
        if _same_device(wanted, device_of(model)):
            return model
        return copy.deepcopy(model).to(wanted)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ValueError(
            f"device: {str(device)!r} can't be used here: {error}. Leave it out to stay where the model is."
        ) from error


def _same_device(wanted: torch.device, present: torch.device) -> bool:
    """Whether ``wanted``, which may leave out the number ("cuda"), is where the model already is."""
    return wanted.type == present.type and wanted.index in (None, present.index)
