"""From what the engine tells to what the heatmap view shows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from saliency_widgets import render
from saliency_widgets.attribution import Attribution
from saliency_widgets.attribution.arrays import on_host
from saliency_widgets.attribution.numerics.stopping import percent
from saliency_widgets.attribution.reduction import emptiness
from saliency_widgets.diagnostics.report import Finding
from saliency_widgets.evaluation.metrics import error_share, missing_share
from saliency_widgets.session import Event, Frame

_LONGEST = 2000  # characters of an error's message on a page


def frame_of(event: Event) -> dict[str, Any] | None:
    """The frame of an event, as the front end takes it: see ``js/src/heatmap.ts``."""
    if event.frame is None:
        return None
    stamp = {"generation": event.generation, "index": event.index, "final": event.state != "running"}
    return raw_frame(event.frame, **stamp)


def raw_frame(frame: Frame, *, generation: int = 0, index: int = 0, final: bool = True) -> dict[str, Any]:
    """A map as the front end takes it: see ``js/src/core/frame.ts``."""
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
    asked: str,
    *,
    method: str = "",
    code: str = "",
    aside: str = "",
    notes: Sequence[str] = (),
    sign: str | None = None,
) -> dict[str, Any]:
    """Progress, readings and errors of an event.

    Args:
        event: What the worker told.
        title: What the map on the screen is of.
        asked: What the controls ask for.
        method: Title of the method of the map on the screen: which findings concern it.
        code: Python that repeats the map on the screen; empty while that map is not finished.
        aside: A short text beside the progress, such as "4 rows a pass: memory ran out at 8".
        notes: What is to be known besides the map's own notes.
        sign: How the map is shown; the method's own choice unless given.
    """
    found = event.attribution
    return status(
        generation=event.generation,
        state=event.state,
        title=title,
        method=method,
        code=code,
        aside=aside,
        done=0 if found is None else found.done,
        total=0 if found is None else found.total,
        unit="" if found is None else _counted(found.unit, found.total),
        elapsed=event.elapsed,
        remaining=event.remaining,
        readings=[] if found is None else readings(found),
        notes=[*notes, *(() if found is None else _notes(found, sign))],
        cached=event.cached,
        dim=event.error is not None and found is not None,
        **({} if event.error is None else told(event.error, asked)),
    )


def _notes(found: Attribution, sign: str | None) -> list[str]:
    """The map's notes; that it is empty as it is shown, and not that it would be, shown otherwise."""
    if sign in (None, found.default_sign) or not found.complete:
        return list(found.notes)
    _, (usual, now) = emptiness(found.values[:1], found.default_sign, sign or "")
    return [*(note for note in found.notes if note != usual), *([now] if now else [])]


def status(**given: Any) -> dict[str, Any]:
    """A whole status from the parts that matter."""
    empty: dict[str, Any] = {
        "generation": 0,
        "state": "idle",
        "title": "",
        "method": "",
        "code": "",
        "aside": "",
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
    return empty | given


def findings_of(findings: Iterable[Finding], title_of: Mapping[str, str]) -> list[dict[str, Any]]:
    """What the check-up found, as the view takes it, in the same order.

    Args:
        findings: The findings.
        title_of: The titles of the methods by name; a method without one keeps its name.
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


def words_of(error: Exception) -> str:
    """An error's message as a page shows it: a tensor in an f-string may have made it millions of characters long."""
    text = str(error)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… (cut, it has {len(text)} characters)"


def told(error: Exception, asked: str) -> dict[str, str]:
    """What went wrong with what was asked, and what to do, for the error area."""
    stays = f"No map of {asked}; the last one stays. Change a setting to go on."
    if isinstance(error, torch.OutOfMemoryError):
        return {
            "message": "The device ran out of memory for a single row.",
            "remedy": "Explain a smaller image, free the device's memory, or pass device='cpu'; passes of several "
            "rows are split by themselves.",
        }
    if isinstance(error, (TypeError, ValueError)):
        return {"message": words_of(error), "remedy": stays}
    return {
        "message": f"{type(error).__name__}: {words_of(error)}",
        "remedy": f"This was not foreseen: please report it. {stays}",
    }


def readings(found: Attribution) -> list[dict[str, str]]:
    """The numbers to read beside the map."""
    lines, numbers = [], _numbers(found)
    if found.score is not None:
        scale = found.settings["score"].replace("_", " ")
        lines.append(_line(scale.capitalize(), number(numbers["score"]), "The score that is explained."))
    if found.delta is not None:
        part = missing_share(numbers["total"], numbers["delta"])
        share = "" if math.isnan(part) else f" ({percent(part)} of the change)"
        lines.append(
            _line(
                "Completeness delta",
                number(numbers["delta"]) + share,
                "Sum of all values minus the change of the score from the baseline to the input. "
                "It should be small; more steps bring it down, unless the score jumps on the way or a part of it has "
                "no gradient. It is never forced to zero.",
            )
        )
    if found.standard_error is not None:
        error = error_share(numbers["error"], numbers["size"])
        lines.append(
            _line(
                "Sampling error",
                percent(error) if numbers["varies"] else "0%",
                "Mean standard error over the mean size of the values: how much another seed would change the map. "
                "Four times the samples halve it.",
            )
        )
    if found.agreement is not None:
        lines.append(
            _line(
                "Halves agree",
                f"{numbers['agreement']:.2f}",
                "Rank correlation of two maps, each of every other sample: 1 is the same order of all places, 0 is "
                "none. Two maps of all samples would agree better than these.",
            )
        )
    if found.map_error is not None:
        lines.append(
            _line(
                "Map error",
                f"≈ {percent(numbers['map_error'])}",
                "Estimated from what the last refinements changed, relative to the whole map. The tolerance is "
                "compared with it; the completeness delta says less of the map.",
            )
        )
    lines.append(_line("Gradients", str(found.evaluations), "How many gradients of the model this took."))
    if found.layer is not None:
        size = " × ".join(str(n) for n in found.values.shape[-2:])
        lines.append(
            _line(
                "Layer",
                f"{found.layer} ({size})",
                "The map has this layer's resolution; it is enlarged here.",
            )
        )
    return lines


def _numbers(found: Attribution) -> dict[str, float]:
    """The numbers that are shown, in one copy from where they are."""
    told = {name: getattr(found, name) for name in ("score", "delta", "agreement", "map_error")}
    numbers = {name: value[0] for name, value in told.items() if value is not None}
    if found.delta is not None:
        numbers["total"] = found.values.sum()
    if found.standard_error is not None:
        error = found.standard_error
        numbers |= {"error": error.mean(), "varies": error.any(), "size": found.values.abs().mean()}
    return dict(zip(numbers, map(float, on_host(*numbers.values())), strict=True))


def _counted(unit: str, total: int) -> str:
    """The unit's name for that many: "1 of 1 pass", "17 of 50 samples"."""
    if total != 1:
        return unit
    return unit.removesuffix("es" if unit.endswith("sses") else "s")


def _line(label: str, value: str, hint: str) -> dict[str, str]:
    return {"label": label, "value": value, "help": hint}


def number(value: float | torch.Tensor) -> str:
    """A score or a delta for people."""
    number = float(value)
    return f"{number:.2f}" if 0.01 <= abs(number) < 10000 else render.format_number(number)
