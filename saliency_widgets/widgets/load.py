"""The function that loads the saved state of an explorer."""

from __future__ import annotations

import os
from typing import Any

from torch import nn

from saliency_widgets.api.io import read_state
from saliency_widgets.attribution import Attribution
from saliency_widgets.widgets.base.kind_view import view_of
from saliency_widgets.widgets.explore import explore
from saliency_widgets.widgets.explorer import Explorer
from saliency_widgets.widgets.export.state import compare_with, merge_arguments


def load(
    path: str | os.PathLike[str], model: nn.Module | None = None, inputs: Any = None, **arguments: Any
) -> Attribution | Explorer:
    """Load a saved state: the attribution or, with a model, an explorer with the same settings.

    Loading untrusted files is safe: nothing in them is executed, at most 1 GiB is read, and modified files are
    rejected.

    Args:
        path: The path passed to ``explorer.save_state``, with or without ".json" or ".npz".
        model: The model for the explorer. Without a model, the saved attribution is returned, bit for bit.
        inputs: The input to explain. Default: the saved input.
        **arguments: Other arguments of :func:`explore`, in particular ``transform=``, as functions are never stored.

    Returns:
        The frozen attribution on the CPU, or the explorer.

    Raises:
        FileNotFoundError: One of the two files is missing.
        TypeError: Arguments for an explorer were passed without a model.
        ValueError: The files are not a saved state, do not belong together or were modified, or the controls do not
            apply to this model.

    Warns:
        UserWarning: The model or the inputs differ from the saved ones.
    """
    state = read_state(path)
    if model is None:
        if inputs is not None or arguments:
            raise TypeError("model: inputs and other arguments require a model: pass the model too, or omit them.")
        return state["attribution"]
    inputs, arguments = merge_arguments(view_of(state["kind"]), state, inputs, arguments)
    explorer = explore(model, inputs, **arguments)
    try:
        compare_with(explorer, state)
    except BaseException:  # including a warning turned into an error
        explorer.close()
        raise
    return explorer
