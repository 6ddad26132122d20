"""Saves an explorer's state in two files and loads it: the controls, the attribution, the inputs."""

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

_ABOUT = ("explain", "fold", "precision")  # arguments besides the request


def save_state(explorer: BaseExplorer, path: str | os.PathLike[str]) -> Path:
    """See :meth:`BaseExplorer.save_state`."""
    check_target(path)
    attribution = explorer.wait()
    writer, problem = Writer(), explorer._problem
    pixels = problem.kind.pixels
    state = {
        "saliency_widgets": version("saliency-widgets"),
        "saved": datetime.now().astimezone().isoformat(timespec="seconds"),
        "kind": explorer.kind,
        "model": {"class": type(explorer._arguments["model"]).__name__, "fingerprint": fingerprint(problem.model)},
        "class": problem.name_of(attribution.settings["target"])
        if isinstance(attribution.settings["target"], int)
        else None,
        "class_names": problem.class_names,
        "controls": {name: writer.plain(name, value) for name, value in explorer.controls.items()},
        "attribution": stored(attribution, writer),
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
        raise ValueError(f"path: expected the state of an explorer of kind {explorer.kind!r}, got {state['kind']!r}.")
    undo = _edit(explorer, state["row"]) if state["kind"] == "row" else {}
    try:
        explorer.update(**state["controls"])
    except (TypeError, ValueError):
        if undo:
            cast("TableExplorer", explorer).edit(**undo)
        raise
    _compare(explorer, state)


def load(
    path: str | os.PathLike[str], model: nn.Module | None = None, inputs: Any = None, **arguments: Any
) -> Attribution | Explorer | TableExplorer:
    """Load a saved state: the attribution or, with a model, an explorer with the same settings.

    The files need not be trusted: nothing in them is executed, at most a GiB is read, and files that were changed are
    rejected.

    Args:
        path: The path passed to ``explorer.save_state``, with or without ".json" or ".npz".
        model: The model, for an explorer. Without one, the attribution is returned, bit for bit.
        inputs: The inputs to explain. Default: the saved model inputs.
        **arguments: Further arguments of :func:`explore`, above all ``transform=``: functions are never stored.

    Returns:
        The frozen attribution, on the CPU; or the explorer.

    Raises:
        FileNotFoundError: One of the two files is missing.
        TypeError: Arguments for an explorer were passed without a model.
        ValueError: The files are not a saved state, don't belong together, or were changed; or the controls don't apply
            to this model.

    Warns:
        UserWarning: The model or the inputs differ from the saved ones.
    """
    state = read_state(path)
    if model is None:
        if inputs is not None or arguments:
            raise TypeError("model: inputs and further arguments need an explorer: pass the model too.")
        return state["attribution"]
    from saliency_widgets.widgets.image.explorer import explore  # it imports this module

    inputs, arguments = _merge_arguments(state, inputs, arguments)
    explorer = explore(model, inputs, **arguments)
    try:
        _compare(explorer, state)
    except BaseException:  # also a warning that is turned into an error
        explorer.close()
        raise
    return explorer


def _merge_arguments(state: Mapping[str, Any], inputs: Any, further: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the inputs and the arguments that restore an explorer."""
    attribution, controls = state["attribution"], dict(state["controls"])
    settings = attribution.settings
    about = {name: settings[name] for name in _ABOUT if name in settings}
    if state["kind"] == "row":
        if attribution.transformed and "transform" not in further:
            raise ValueError("transform: the row was transformed, and functions are not stored. Pass it as transform=.")
        inputs = state["row"] if inputs is None else inputs
        about |= {name: settings[name] for name in ("feature_names", "background") if name in settings}
    elif inputs is None:
        inputs = state["inputs"]
        if attribution.transformed:
            pixels = state["pixels"] or {}
            # Without the transform, only the state holds the values of black and white.
            baseline = controls.get("baseline")
            if isinstance(baseline, str) and baseline in pixels:
                controls["baseline"] = pixels[baseline]
            warnings.warn(
                "load: the image was transformed, and only the result is stored: black and white are unknown to other "
                "settings. Pass the original inputs= and transform=.",
                UserWarning,
                stacklevel=3,
            )
    if state["class_names"] is not None:
        about["class_names"] = state["class_names"]
    return inputs, {**about, **controls, **further}


def fingerprint(model: nn.Module) -> str | None:
    """Return a digest of a model's weights and code that is stable across processes; None if there is none."""
    try:
        return signature(model)
    except TypeError:
        return None


def _compare(explorer: BaseExplorer, state: Mapping[str, Any]) -> None:
    """Warn if the model or the inputs differ from the saved ones."""
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
            differ.append("the map differs")
    elif now != then:
        name = type(explorer._arguments["model"]).__name__
        differ.append(f"the model differs: {name} with other weights or code than the saved {state['model']['class']}")
    seen = problem.tensor.cpu()
    if seen.shape != inputs.shape:
        differ.append(f"the inputs have shape {tuple(seen.shape)} instead of {tuple(inputs.shape)}")
    elif seen.dtype != inputs.dtype or not torch.equal(seen, inputs):
        differ.append("the model inputs have other values")
    if differ:
        warnings.warn(
            f"The controls are restored, but {'; and '.join(differ)}. sw.load(path) without a model returns the saved "
            "attribution.",
            UserWarning,
            stacklevel=3,
        )


def _edit(explorer: Any, row: Any) -> dict[str, Any]:
    """Set the row of a state; returns the edits that undo it."""
    now = explorer.row
    if list(map(str, row.columns)) != list(map(str, now.columns)):
        raise ValueError(f"path: the saved row has the columns {list(row.columns)}, not {list(now.columns)}.")
    then, now = row.iloc[0], now.iloc[0]
    names = [str(name) for name in row.columns]
    changed = {name: (then.iloc[k], now.iloc[k]) for k, name in enumerate(names) if then.iloc[k] != now.iloc[k]}
    if changed:
        explorer.edit(**{name: value for name, (value, _) in changed.items()})
    return {name: value for name, (_, value) in changed.items()}
