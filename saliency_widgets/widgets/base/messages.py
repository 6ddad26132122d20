"""Conversion of a session's events to messages for the heatmap view."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from saliency_widgets import render
from saliency_widgets.attribution import Attribution
from saliency_widgets.attribution.arrays import on_host
from saliency_widgets.attribution.errors import LESS_MEMORY, NO_MEMORY, out_of_memory
from saliency_widgets.attribution.numerics.stopping import percent
from saliency_widgets.attribution.reduction import emptiness
from saliency_widgets.diagnostics.report import Finding
from saliency_widgets.evaluation.metrics import error_share, missing_share
from saliency_widgets.session import Event

_LONGEST = 2000  # characters of an error message shown on a page


def frame_of(event: Event) -> dict[str, Any] | None:
    """Convert an event's frame for the front end, see ``js/src/core/frame.ts``; None if the event has no frame."""
    if event.frame is None:
        return None
    stamp = {"generation": event.generation, "index": event.index, "final": event.state != "running"}
    return raw_frame(event.frame, **stamp)


def raw_frame(frame: render.Quantized, *, generation: int = 0, index: int = 0, final: bool = True) -> dict[str, Any]:
    """Convert a map for the front end, see ``js/src/core/frame.ts``."""
    height, width = frame.codes.shape
    return {
        "generation": generation,
        "index": index,
        "final": final,
        "height": height,
        "width": width,
        "low": frame.low,
        "high": frame.high,
        "signed": frame.signed,
        "codes": frame.codes.astype("<u2").tobytes(),
    }


def status_of(
    event: Event,
    title: str,
    requested: str,
    *,
    method: str = "",
    code: str = "",
    remark: str = "",
    notes: Sequence[str] = (),
    sign: str | None = None,
) -> dict[str, Any]:
    """Collect the progress, readings and errors of an event.

    Args:
        event: The worker's event.
        title: Title of the displayed map.
        requested: Title of the newest request.
        method: Title of the displayed map's method, which selects the findings about that method.
        code: Python code that reproduces the displayed map; empty until the map is finished.
        remark: A short text next to the progress, such as "4 rows per pass (8 did not fit in memory)".
        notes: Notes to show before those of the map.
        sign: The displayed sign of the map. Default: the method's default sign.
    """
    attribution = event.attribution
    return status(
        generation=event.generation,
        state=event.state,
        title=title,
        method=method,
        code=code,
        remark=remark,
        done=0 if attribution is None else attribution.done,
        total=0 if attribution is None else attribution.total,
        unit="" if attribution is None else _unit_name(attribution.unit, attribution.total),
        elapsed=event.elapsed,
        remaining=event.remaining,
        readings=[] if attribution is None else readings(attribution),
        notes=[*notes, *(() if attribution is None else _notes(attribution, sign))],
        cached=event.cached,
        dim=event.error is not None and attribution is not None,
        **({} if event.error is None else describe_error(event.error, requested)),
    )


def _notes(attribution: Attribution, sign: str | None) -> list[str]:
    """Return the map's notes, with the note about empty maps computed for the displayed sign, not the default one."""
    if sign in (None, attribution.default_sign) or not attribution.complete:
        return list(attribution.notes)
    _, (usual, now) = emptiness(attribution.values[:1], attribution.default_sign, sign or "")
    return [*(note for note in attribution.notes if note != usual), *([now] if now else [])]


def status(**fields: Any) -> dict[str, Any]:
    """Return a status with defaults for the missing fields."""
    empty: dict[str, Any] = {
        "generation": 0,
        "state": "idle",
        "title": "",
        "method": "",
        "code": "",
        "remark": "",
        "done": 0,
        "total": 0,
        "unit": "",
        "elapsed": None,
        "remaining": None,
        "readings": [],
        "notes": [],
        "cached": False,
        "dim": False,
        "message": "",
        "remedy": "",
    }
    return empty | fields


def findings_of(findings: Iterable[Finding], title_of: Mapping[str, str]) -> list[dict[str, Any]]:
    """Convert the check-up's findings for the view, in the same order.

    Args:
        findings: The findings.
        title_of: Method name -> title. A method without a title is shown by its name.
    """
    return [
        {
            "what": finding.what,
            "where": list(finding.where),
            "methods": [title_of.get(name, name) for name in finding.methods],
            "remedy": finding.remedy,
            "severity": finding.severity,
        }
        for finding in findings
    ]


def error_text(error: Exception) -> str:
    """Return an error's message, truncated, because a tensor in an f-string can make it millions of characters long."""
    text = str(error)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… (truncated: {len(text)} characters)"


def describe_error(error: Exception, requested: str) -> dict[str, str]:
    """Return the message and the remedy to show for an error."""
    stays = (
        f"The map for {requested} could not be computed; the previous map is still displayed. Change a setting to "
        "continue."
    )
    if out_of_memory(error):
        return {"message": NO_MEMORY, "remedy": f"{LESS_MEMORY} {stays}"}
    if isinstance(error, (TypeError, ValueError)):
        return {"message": error_text(error), "remedy": stays}
    return {
        "message": f"{type(error).__name__}: {error_text(error)}",
        "remedy": f"Unexpected error: please report it. {stays}",
    }


def readings(attribution: Attribution) -> list[dict[str, str]]:
    """Format the numbers to show next to the map, each as label, value and help."""
    lines, numbers = [], _numbers(attribution)
    if attribution.score is not None:
        scale = attribution.settings["score"].replace("_", " ")
        lines.append(_line(scale.capitalize(), number(numbers["score"]), "The score that is explained."))
    if attribution.delta is not None:
        error = missing_share(numbers["total"], numbers["delta"])
        change = "" if math.isnan(error) else f" ({percent(error)} of the change)"
        lines.append(
            _line(
                "Completeness delta",
                number(numbers["delta"]) + change,
                "Sum of all values minus the change of the score from the baseline to the input. "
                "It should be small; more steps reduce it, unless the score jumps along the path or a part of it "
                "has no gradient. It is never forced to zero.",
            )
        )
    if attribution.standard_error is not None:
        error = error_share(numbers["error"], numbers["size"])
        lines.append(
            _line(
                "Sampling error",
                percent(error) if numbers["varies"] else "0%",
                "Mean standard error over the mean size of the values: how much another seed would change the map. "
                "Four times the samples halve it.",
            )
        )
    if attribution.agreement is not None:
        lines.append(
            _line(
                "Split-half correlation",
                f"{numbers['agreement']:.2f}",
                "Rank correlation of two maps, each computed from half of the samples: 1 means the same order of "
                "all values, 0 no correlation. Maps computed from all samples would agree better.",
            )
        )
    if attribution.map_error is not None:
        lines.append(
            _line(
                "Map error",
                f"≈ {percent(numbers['map_error'])}",
                "Estimated from the changes in the last refinements, relative to the whole map. The tolerance applies "
                "to this error, which describes the map better than the completeness delta does.",
            )
        )
    lines.append(_line("Gradients", str(attribution.evaluations), "The number of model gradients that were computed."))
    if attribution.layer is not None:
        size = " × ".join(str(n) for n in attribution.values.shape[2:])
        lines.append(
            _line(
                "Layer",
                f"{attribution.layer} ({size})",
                "The map has this layer's resolution and is enlarged here.",
            )
        )
    return lines


def _numbers(attribution: Attribution) -> dict[str, float]:
    """Return the displayed numbers, copied from the device in one transfer."""
    scalars = {name: getattr(attribution, name) for name in ("score", "delta", "agreement", "map_error")}
    numbers = {name: value[0] for name, value in scalars.items() if value is not None}
    if attribution.delta is not None:
        numbers["total"] = attribution.values.sum()
    if attribution.standard_error is not None:
        error = attribution.standard_error
        numbers |= {"error": error.mean(), "varies": error.any(), "size": attribution.values.abs().mean()}
    return dict(zip(numbers, map(float, on_host(*numbers.values())), strict=True))


def _unit_name(unit: str, total: int) -> str:
    """Return the unit in the singular or plural, as in "1 of 1 pass" and "17 of 50 samples"."""
    if total != 1:
        return unit
    return unit.removesuffix("es" if unit.endswith("sses") else "s")


def _line(label: str, value: str, hint: str) -> dict[str, str]:
    return {"label": label, "value": value, "help": hint}


def number(value: float | torch.Tensor) -> str:
    """Format a score or a delta."""
    number = float(value)
    return f"{number:.2f}" if 0.01 <= abs(number) < 10000 else render.format_number(number)
