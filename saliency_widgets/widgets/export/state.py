"""Save an explorer's state (controls, attribution and inputs) in two files, and restore it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from saliency_widgets.api.io import Writer, check_target, read_state, stored, write_files
from saliency_widgets.runtime.model.stable_hash import signature

if TYPE_CHECKING:
    from saliency_widgets.widgets.base.kind_view import Explored, KindView

_ABOUT = (  # options that aren't part of the request
    "explain", "fold", "precision", "feature_names", "background", "sampling_rate", "channel_names", "time_axis",
    "slices", "max_new_tokens",
)  # fmt: skip


def save_state(explorer: Explored, path: str | os.PathLike[str]) -> Path:
    """See :meth:`.Explorer.save_state`."""
    check_target(path)
    attribution = explorer.wait()
    writer, problem = Writer(), explorer.problem
    pixels = problem.kind.pixels
    state = {
        "saliency_widgets": version("saliency-widgets"),
        "saved": datetime.now().astimezone().isoformat(timespec="seconds"),
        "kind": explorer.problem.kind.name,
        "model": {"class": type(explorer.arguments["model"]).__name__, "fingerprint": fingerprint(problem.model)},
        "class": problem.name_of(attribution.settings["target"])
        if isinstance(attribution.settings["target"], int)
        else None,
        "class_names": problem.class_names,
        "controls": {name: writer.plain(name, value) for name, value in explorer.controls.items()},
        "attribution": stored(attribution, writer),
        "inputs": writer.plain("inputs", problem.tensor),
        "pixels": None if pixels is None else writer.plain("pixels", {"black": pixels.black, "white": pixels.white}),
        "row": None,
        **{name: writer.plain(name, value) for name, value in explorer.kind_view.stored.items()},
        "code": explorer.to_code(),
    }
    return write_files(path, state, writer.arrays)


def load_state(explorer: Explored, path: str | os.PathLike[str]) -> None:
    """See :meth:`.Explorer.load_state`."""
    state = read_state(path)
    if state["kind"] != explorer.problem.kind.name:
        raise ValueError(
            f"path: expected the state of an explorer of kind {explorer.problem.kind.name!r}, got {state['kind']!r}."
        )
    undo = explorer.kind_view.restore(state)
    try:
        explorer.update(**state["controls"])
    except (TypeError, ValueError):
        undo()
        raise
    compare_with(explorer, state)


def merge_arguments(
    kind: type[KindView], state: Mapping[str, Any], inputs: Any, further: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Return the inputs and the arguments with which to restore an explorer."""
    settings = state["attribution"].settings
    about = {name: settings[name] for name in _ABOUT if name in settings}
    if state["class_names"] is not None:
        about["class_names"] = state["class_names"]
    inputs, restored = kind.arguments(state, inputs, further)
    return inputs, {**about, **state["controls"], **restored, **further}


def fingerprint(model: nn.Module) -> str | None:
    """Return a digest of a model's weights and code, stable across processes; None if it can't be computed."""
    try:
        return signature(model)
    except TypeError:
        return None


def compare_with(explorer: Explored, state: Mapping[str, Any]) -> None:
    """Warn if the model or the inputs differ from the saved ones."""
    problem = explorer.problem
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
        name = type(explorer.arguments["model"]).__name__
        saved = state["model"]["class"]
        differ.append(f"the model differs: {name} with different weights or code than the saved {saved}")
    seen = problem.tensor.cpu()
    if seen.shape != inputs.shape:
        differ.append(f"the inputs have shape {tuple(seen.shape)} instead of {tuple(inputs.shape)}")
    elif seen.dtype != inputs.dtype or not torch.equal(seen, inputs):
        differ.append("the model inputs have different values")
    if differ:
        warnings.warn(
            f"The controls are restored, but {'; and '.join(differ)}. sw.load(path) without a model returns the saved "
            "attribution.",
            UserWarning,
            stacklevel=3,
        )
