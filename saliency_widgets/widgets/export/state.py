"""What an explorer shows as two files, and back: the controls, the attribution, what it was of."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from saliency_widgets.api.io import Writer, check_target, read_state, stored, write_files
from saliency_widgets.attribution import Attribution
from saliency_widgets.runtime.model.stable_hash import signature

if TYPE_CHECKING:
    from saliency_widgets.widgets.base.explorer import BaseExplorer
    from saliency_widgets.widgets.image.explorer import Explorer
    from saliency_widgets.widgets.table import TableExplorer

_ABOUT = ("explain", "fold", "precision")  # how the model was asked, besides the question


def save_state(explorer: BaseExplorer, path: str | os.PathLike[str]) -> Path:
    """See :meth:`BaseExplorer.save_state`."""
    check_target(path)
    found = explorer.wait()
    writer, problem = Writer(), explorer._problem
    pixels = problem.prepared.pixels
    state = {
        "saliency_widgets": version("saliency-widgets"),
        "saved": datetime.now().astimezone().isoformat(timespec="seconds"),
        "kind": explorer.kind,
        "model": {"class": type(explorer._arguments["model"]).__name__, "fingerprint": fingerprint(problem.model)},
        "class": problem.name_of(found.settings["target"]) if isinstance(found.settings["target"], int) else None,
        "class_names": problem.class_names,
        "controls": {name: writer.plain(name, value) for name, value in explorer.controls.items()},
        "attribution": stored(found, writer),
        "inputs": writer.plain("inputs", problem.tensor),
        "pixels": None if pixels is None else writer.plain("pixels", {"black": pixels.black, "white": pixels.white}),
        "row": writer.plain("row", explorer._arguments["inputs"]) if explorer.kind == "row" else None,
        "code": explorer.to_code(),
    }
    return write_files(path, state, writer.arrays)


def load_state(explorer: BaseExplorer, path: str | os.PathLike[str]) -> None:
    """See :meth:`BaseExplorer.load_state`."""
    state = read_state(path)
    if state["kind"] != explorer.kind:
        raise ValueError(f"path: it is the state of a {state['kind']}, and this explorer shows a {explorer.kind}.")
    undo = _edit(explorer, state["row"]) if state["kind"] == "row" else {}
    try:
        explorer.update(**state["controls"])
    except (TypeError, ValueError):
        if undo:
            cast("TableExplorer", explorer).edit(**undo)
        raise
    _compare(explorer, state)


def load(
    path: str | os.PathLike[str], model: nn.Module | None = None, inputs: Any = None, **given: Any
) -> Attribution | Explorer | TableExplorer:
    """What ``explorer.save_state(path)`` wrote: the attribution, or an explorer of a model with the same controls.

    The files may be anybody's: nothing in them runs, no more is read than they state, a GiB at most, and whatever is
    not as it was written is an error.

    Args:
        path: As it was given there, with or without ".json" or ".npz".
        model: The model, for an explorer; without one the attribution comes back, bit for bit.
        inputs: What is explained; what the model saw then unless given.
        **given: Further arguments of :func:`explore`, above all ``transform=``: functions are never stored.

    Returns:
        The frozen attribution, on the CPU; or the explorer.

    Raises:
        FileNotFoundError: One of the two files is missing.
        TypeError: Arguments for an explorer, and no model.
        ValueError: They are no such files, or don't belong together, or were changed; or the model can't be asked what
            their controls ask.

    Warns:
        UserWarning: The model or the inputs are others than those of the state.
    """
    state = read_state(path)
    if model is None:
        if inputs is not None or given:
            raise TypeError("model: inputs and further arguments are for an explorer: pass the model too.")
        return state["attribution"]
    from saliency_widgets.widgets.image.explorer import explore  # which saves its state through this module

    inputs, arguments = _arguments(state, inputs, given)
    explorer = explore(model, inputs, **arguments)
    try:
        _compare(explorer, state)
    except BaseException:  # a warning that is an error, too
        explorer.close()
        raise
    return explorer


def _arguments(state: Mapping[str, Any], inputs: Any, further: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The inputs and the other arguments with which an explorer is where it was."""
    attribution, controls = state["attribution"], dict(state["controls"])
    settings = attribution.settings
    about = {name: settings[name] for name in _ABOUT if name in settings}
    if state["kind"] == "row":
        if attribution.transformed and "transform" not in further:
            raise ValueError(
                "transform: the row went through one, and functions are not stored. Pass it as transform=."
            )
        inputs = state["row"] if inputs is None else inputs
        about |= {name: settings[name] for name in ("feature_names", "background") if name in settings}
    elif inputs is None:
        inputs = state["inputs"]
        if attribution.transformed:
            pixels = state["pixels"] or {}
            # Without the transform nothing else tells what black and white are.
            baseline = controls.get("baseline")
            if isinstance(baseline, str) and baseline in pixels:
                controls["baseline"] = pixels[baseline]
            warnings.warn(
                "load: the image went through a transform, and only what came out of it is stored: black and white "
                "are not known to other settings. Pass inputs= and transform= as you did then.",
                UserWarning,
                stacklevel=3,
            )
    if state["class_names"] is not None:
        about["class_names"] = state["class_names"]
    return inputs, {**about, **controls, **further}


def fingerprint(model: nn.Module) -> str | None:
    """A digest of a model's weights and code that is the same on another day; None where there is none."""
    try:
        return signature(model)
    except TypeError:
        return None


def _compare(explorer: BaseExplorer, state: Mapping[str, Any]) -> None:
    """Warn where the model or the inputs are others than those of the state."""
    problem = explorer._problem
    now, then = fingerprint(problem.model), state["model"]["fingerprint"]
    inputs: Tensor = state["inputs"]
    differ = []
    if now is None or then is None:
        try:
            same = torch.equal(explorer.wait().values.cpu(), state["attribution"].values)
        except (TypeError, ValueError, RuntimeError):
            same = False
        if not same:
            differ.append("its map is another")
    elif now != then:
        name = type(explorer._arguments["model"]).__name__
        differ.append(
            f"the model is another: {name} with other weights or code than the {state['model']['class']} of then"
        )
    seen = problem.tensor.cpu()
    if seen.shape != inputs.shape:
        differ.append(f"the inputs have shape {tuple(seen.shape)}, and had {tuple(inputs.shape)}")
    elif seen.dtype != inputs.dtype or not torch.equal(seen, inputs):
        differ.append("the inputs hold other numbers, as the model sees them")
    if differ:
        warnings.warn(
            f"The controls are as they were stored, but {'; and '.join(differ)}. sw.load(path) without a model gives "
            "the attribution of then.",
            UserWarning,
            stacklevel=3,
        )


def _edit(explorer: Any, row: Any) -> dict[str, Any]:
    """Ask about the row of a state; returns the edits that undo it."""
    now = explorer.row
    if list(map(str, row.columns)) != list(map(str, now.columns)):
        raise ValueError(f"path: it is about a row with the columns {list(row.columns)}, not {list(now.columns)}.")
    then, now = row.iloc[0], now.iloc[0]
    names = [str(name) for name in row.columns]
    changed = {name: (then.iloc[k], now.iloc[k]) for k, name in enumerate(names) if then.iloc[k] != now.iloc[k]}
    if changed:
        explorer.edit(**{name: value for name, (value, _) in changed.items()})
    return {name: value for name, (_, value) in changed.items()}
