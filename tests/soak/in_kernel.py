"""The checks that the browser attack runs in the kernel."""

from __future__ import annotations

from typing import Any

import torch

import saliency_widgets as sw
from saliency_widgets.attribution import Attribution
from saliency_widgets.session import frame_of
from saliency_widgets.widgets.compare.comparison import Comparison

PATIENCE = 120.0
RECOVERY = {"method": "gradient", "target": 0, "score": "logit"}  # valid for every explorer


def problems(shown: Any) -> list[str]:
    """Describe what is wrong with a settled widget."""
    return list(_of_comparison(shown) if isinstance(shown, Comparison) else _of_explorer(shown))


def _of_explorer(shown: Any) -> list[str]:
    try:
        shown.wait(PATIENCE)
    except (RuntimeError, TypeError, ValueError):  # stopped, or refused with a message
        shown.update(**RECOVERY)
    if shown.view.status["state"] != "done":  # what was typed is invalid, which is reported
        shown.update(**RECOVERY)
    done = shown.wait(PATIENCE)
    result = _different(done, shown.settings)
    if hasattr(shown.panel, "reduction"):
        result += _otherwise_shown(shown.view.frame, done, shown.panel.reduction)
    return result


def _of_comparison(shown: Any) -> list[str]:
    shown.go()
    shown.wait(PATIENCE, progress=False)
    maps, axes, result = shown._maps, shown._comparison.axes, []
    for spot in shown._shown:
        done = maps.attribution(spot)
        if done is None:
            result.append(f"{spot}: {maps.error(spot)}")
            continue
        model, inputs = axes["models"].values[spot.models], axes["inputs"].values[spot.inputs]
        result += _different(done, {"model": model, "inputs": inputs, **done.settings})
    return result


def _different(done: Attribution, settings: dict[str, Any]) -> list[str]:
    fresh = sw.attribute(**settings)
    return [] if torch.equal(done.values, fresh.values) else [f"values of {done.settings}"]


def _otherwise_shown(frame: dict[str, Any], done: Attribution, reduction: Any) -> list[str]:
    expected = frame_of(done, reduction)
    about = (expected.low, expected.high, expected.signed)
    same = bytes(frame["codes"]) == expected.codes.astype("<u2").tobytes()
    same = same and about == (frame["low"], frame["high"], frame["signed"])
    return [] if same else [f"codes of {done.settings}"]
