"""Checks of a widget that has settled after arbitrary operations."""

from __future__ import annotations

import gc
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import ipywidgets as w
import numpy as np
import torch
from ipywidgets.widgets.widget import _instances

import saliency_widgets as sw
from saliency_widgets.attribution import Attribution
from saliency_widgets.session import Cache, Problem, frame_of
from saliency_widgets.session.cache import SHARED
from saliency_widgets.widgets.lesson import Lesson
from soak.pages import Page, whole
from soak.threads import running, traces

HANG, DEATH, OTHER, UNDONE, TEST = "hang", "dead worker", "wrong map", "state is not done", "wrong test result"
UNFORESEEN, LEFT = "unexpected error", "left after closing"
FAULTS = (HANG, DEATH, OTHER, UNDONE, TEST, UNFORESEEN, LEFT)

_COMPARED = (
    "values", "score", "delta", "standard_error", "agreement", "map_error", "evaluations", "layer", "notes", "done",
)  # fmt: skip

PATIENCE = 120.0  # seconds after which a wait counts as hanging
LEAVING = 20.0  # seconds in which idle threads end
PASSED = ("model", "inputs", "transform", "class_names")


class StuckError(Exception):
    """A hang, which has been counted: the widget can't be used any more."""


def stuck(page: Page, what: object) -> NoReturn:
    """Count a hang, with the stack traces of all threads, and give up."""
    alive = any(one.name == "saliency-worker" for one in running())
    page.fault(HANG if alive else DEATH, f"{what} {' '.join(traces(running()))}")
    raise StuckError


def settled(page: Page, wait: Callable[[float], Any]) -> Any:
    """Wait for a result; return None if it was refused with a message, or stopped.

    Raises:
        StuckError: If there is no result in time.
    """
    try:
        return wait(PATIENCE)
    except TimeoutError as error:
        stuck(page, error)
    except (TypeError, ValueError):
        page.figures.counts["refused with a message"] += 1
    except RuntimeError as error:
        if "stopped" not in str(error):
            raise
        page.figures.counts["stopped"] += 1
    return None


def compare(page: Page, done: Attribution, settings: dict[str, Any]) -> None:
    """Check that a map equals a fresh computation, bit for bit, or to rounding if a note says that memory ran out."""
    fresh = sw.attribute(**settings)
    page.figures.counts["maps compared"] += 1
    if any("Memory ran out" in note for note in done.notes):
        same = torch.allclose(done.values, fresh.values, rtol=1e-6, atol=1e-9)
    else:
        same = all(_equal(getattr(done, name), getattr(fresh, name)) for name in _COMPARED)
    if not same:
        page.fault(OTHER, f"{done.settings}")


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    return one == other


def compare_frame(page: Page, view: Any, done: Attribution, reduction: Any) -> None:
    """Check that the frame on the page is the map that was computed, reduced as requested."""
    frame, codes = page.frame(view)
    expected = frame_of(done, reduction)
    about = (expected.low, expected.high, expected.signed)
    if codes != expected.codes.astype("<u2").tobytes() or about != (frame["low"], frame["high"], frame["signed"]):
        page.fault(OTHER, f"on the page: {done.settings} {reduction}")


def compare_test(page: Page, explorer: Any) -> None:
    """Check that a trust test shows the result of a fresh computation: showing that one changes nothing.

    If memory has run out, it may change by rounding, because passes have fewer rows from then on.
    """
    trust = explorer.trust
    if not trust.opened:
        return
    for fold in (None, 0):
        page.send(trust._fold, {"method": "update", "state": {"selected_index": fold}})
    if not trust.wait(PATIENCE):
        stuck(page, "a trust test")
    section, case = trust._visible, trust._shown
    check = section.check(case)
    if check is None or trust._message.value:
        return
    page.figures.counts["tests compared"] += 1
    shown = _state_of(section.widget)
    settings = explorer.settings
    about = {name: settings[name] for name in (*PASSED, "background", "feature_names") if name in settings}
    fresh = replace(case, problem=Problem(**about), cache=Cache(), owner=object())
    check = section.check(fresh)
    with torch.no_grad():
        *_, last = check.begin(lambda: None)
        section.show(last, fresh)
    if not _same(shown, _state_of(section.widget), 0.0 if case.problem.memory.limit is None else 1e-6):
        page.fault(TEST, f"{section.test.name} of {case.request}")


def compare_comparison(page: Page, comparison: Any) -> None:
    """Check that each cell has the map of a fresh computation, and that the page shows it reduced as requested."""
    maps, axes = comparison._maps, comparison._comparison.axes
    for spot in comparison._shown:
        done = maps.attribution(spot)
        if done is None:
            page.fault(UNDONE, f"{spot}: {maps.error(spot)}")
            continue
        model, inputs = axes["models"].values[spot.models], axes["inputs"].values[spot.inputs]
        compare(page, done, {"model": model, "inputs": inputs, **done.settings})
        entry = maps._entries[spot]
        compare_frame(page, entry.cell, done, maps._reduction_of(entry.wanted))


def compare_lesson(page: Page, lesson: Any, model: Any, image: Any, about: dict[str, Any]) -> None:
    """Check that each step equals that of an undisturbed lesson."""
    fresh = Lesson(model, image, executor="inline", **about)
    page.figures.counts["lessons compared"] += 1
    for name in lesson.steps:
        if lesson.view.content(name) != fresh.view.content(name):
            page.fault(OTHER, f"in the step {name}")
    fresh.close()


@dataclass
class Resources:
    """The widgets, threads and cached bytes that exist at one time."""

    widgets: dict[str, w.Widget]
    threads: set[threading.Thread]
    cached: int

    @classmethod
    def now(cls) -> Resources:
        return cls(dict(_instances), running(), SHARED.bytes)

    def beyond(self, before: Resources) -> str:
        """Describe what did not exist before."""
        kinds = Counter(type(self.widgets[name]).__name__ for name in self.widgets.keys() - before.widgets.keys())
        lines = [f"{count} {kind}" for kind, count in kinds.items()]
        lines += traces(self.threads - before.threads)
        if self.cached > before.cached:
            lines.append(f"{self.cached - before.cached} bytes cached")
        return ", ".join(lines)


def check_released(page: Page, before: Resources) -> None:
    """Check that closing has released widgets, threads and cached maps; idle threads end a little later."""
    until = time.monotonic() + LEAVING
    while (left := Resources.now().beyond(before)) and time.monotonic() < until:
        gc.collect()
        time.sleep(0.05)
    if left:
        page.fault(LEFT, left)


def _same(one: Any, other: Any, tolerance: float) -> bool:
    """Whether two widgets' states are equal, numbers within a relative tolerance."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name], tolerance) for name in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(_same(*pair, tolerance) for pair in zip(one, other, strict=True))
    if isinstance(one, (float, np.ndarray)) and isinstance(other, (float, np.ndarray)):
        close = np.isclose(one, other, rtol=tolerance, atol=1e-3 * tolerance, equal_nan=True)
        return np.shape(one) == np.shape(other) and bool(np.all(close))
    return bool(one == other)


def _state_of(widget: w.Widget) -> list[Any]:
    """A widget's whole state, without `num_ticks`, which only changes to make bqplot compute an axis's ticks again."""
    return [_plain({**one.get_state(), "num_ticks": None}) for one in whole(widget)]


def _plain(value: Any) -> Any:
    """Convert the values of a state to comparable ones; bqplot sends an array as its bytes, type and shape."""
    if isinstance(value, dict) and isinstance(value.get("value"), memoryview):
        return np.frombuffer(value["value"], value["dtype"])
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
