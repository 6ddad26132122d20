"""The kinds of input that their own options or shapes reveal; images, tables and plain numbers are all others."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn

from saliency_widgets.inputs.options import Options
from saliency_widgets.inputs.prepared import Prepared
from saliency_widgets.inputs.signal import SignalKind
from saliency_widgets.inputs.table import read_row_as_table
from saliency_widgets.inputs.text import TextKind
from saliency_widgets.inputs.volume import VolumeKind


class SpecialKind(Protocol):
    """A kind that reads its inputs itself."""

    @staticmethod
    def accepts(inputs: Any, options: Options) -> bool:
        """Return whether the inputs are of this kind."""
        ...

    @staticmethod
    def prepare(
        model: nn.Module, inputs: Any, options: Options, *, device: torch.device, dtype: torch.dtype | None
    ) -> Prepared:
        """Convert the inputs to the form that the model takes."""
        ...


KINDS: tuple[type[SpecialKind], ...] = (SignalKind, TextKind, VolumeKind)


def special_kind(inputs: Any, options: Options) -> type[SpecialKind] | None:
    """Return the kind that reads these inputs itself; None if they are images, tables or plain numbers."""
    return next((kind for kind in KINDS if kind.accepts(inputs, options)), None)


def as_explored(inputs: Any, options: Options) -> Any:
    """Read inputs as an explorer does: a row of numbers is a table, even without names.

    Args:
        inputs: The caller's inputs.
        options: The options for the model and the inputs.
    """
    return inputs if special_kind(inputs, options) else read_row_as_table(inputs, options)
