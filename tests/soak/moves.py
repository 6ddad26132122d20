"""Moves by protocol, with faulty acknowledgements and malformed messages; each settled map is that of a fresh start."""

from __future__ import annotations

import gc
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import ipywidgets as w
import numpy as np
import pandas as pd
import torch
from ipywidgets.widgets.widget import _instances, _remove_buffers
from toys import conv_net, mlp

import saliency_widgets as sw
from saliency_widgets.attribution import Attribution
from saliency_widgets.engine import Cache, Subject, frame_of
from saliency_widgets.engine.cache import SHARED
from saliency_widgets.widgets.comparing.maps import Maps
from saliency_widgets.widgets.lessons import Lesson
from saliency_widgets.widgets.tables import TableExplorer
from soak.figures import Figures
from soak.pages import Page, traced, whole
from soak.threads import running, traces

HANG, OTHER, UNDONE, TEST, UNFORESEEN = "hang", "another map", "state is not done", "another test result", "unforeseen"
LEFT = "left after closing"

PATIENCE = 120.0  # seconds after which something hangs
STEPS = 40  # of a round
NAMES = ["ant", "bee", "cow", "dog"]
GIVEN = ("model", "inputs", "transform", "class_names")
# What any model and input can be asked.
RECOVERY = {"method": "gradient", "target": 0, "score": "logit"}


def attack(seed: int, seconds: float) -> Figures:
    """Rounds of moves: round k is what seed + k begins with."""
    figures = Figures()
    figures.expect_none_of(HANG, OTHER, UNDONE, TEST, UNFORESEEN, LEFT)
    until = time.monotonic() + seconds
    with Page(figures, seed) as page:
        make_one_of_each()
        while time.monotonic() < until:
            page.begin(seed)
            Round(page, seed).play()
            seed += 1
    return figures


def make_one_of_each() -> None:
    """What is made once and stays, such as ipycanvas' manager, is there before anything is counted."""
    sw.explore(conv_net(), image(0), method="gradient", class_names=NAMES).close()


def image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)


class Round:
    """One widget, moved, and closed: settled or in the middle of it."""

    def __init__(self, page: Page, seed: int) -> None:
        self.page, self.seed = page, seed
        self.draw = random.Random(seed)
        self.counts = page.figures.counts
        self.model = conv_net(seed % 5)

    def play(self) -> None:
        before = Rest.now()
        kind = self.draw.choice([self.explorer, self.explorer, self.table, self.comparison, self.lesson])
        self.page.step = f"seed {self.seed}, {kind.__name__}"
        widget, settle = kind()
        self.counts[f"{kind.__name__}s"] += 1
        try:
            for step in range(STEPS):
                self.page.step = f"seed {self.seed}, {kind.__name__}, step {step}"
                self._step(widget, settle)
        except Exception as error:
            self.page.fault(UNFORESEEN, traced(error))
        finally:
            widget.close()
        self._look_for_rest(before)

    def _step(self, widget: Any, settle: Callable[[], None]) -> None:
        what = self.draw.choices(
            ["move", "burst", "nonsense", "wait", "reload", "settle"], [40, 12, 14, 12, 2, 8]
        )[0]  # fmt: skip
        if what == "move":
            self.page.move(self.draw, widget)
        elif what == "burst":
            for _ in range(self.draw.randrange(3, 12)):
                self.page.move(self.draw, widget)
        elif what == "nonsense":
            self.page.nonsense(self.draw, widget)
        elif what == "wait":
            time.sleep(self.draw.uniform(0, 0.05))
        elif what == "reload":
            for part in whole(widget):
                self.page.send(part, {"method": "request_state"})
        else:
            self.counts["settled"] += 1
            settle()
        self.page.answer()

    def _look_for_rest(self, before: Rest) -> None:
        """Widgets, threads and cached maps are gone when their explorer is; idle threads a little later."""
        until = time.monotonic() + 20
        while (left := Rest.now().beyond(before)) and time.monotonic() < until:
            gc.collect()
            time.sleep(0.05)
        if left:
            self.page.fault(LEFT, left)

    # ---- what is moved

    def explorer(self) -> tuple[Any, Callable[[], None]]:
        methods = ["gradient", "smoothgrad", "integrated_gradients", "grad_cam"]
        made = sw.explore(self.model, image(self.seed), class_names=NAMES, method=self.draw.choice(methods))
        return made, lambda: self.settle_explorer(made)

    def table(self) -> tuple[Any, Callable[[], None]]:
        rows = pd.DataFrame(np.random.default_rng(self.seed).normal(size=(30, 4)).round(2), columns=list("abcd"))
        self.model = mlp(self.seed % 5)
        made = sw.explore(self.model, rows.iloc[[0]], background=rows, class_names=NAMES[:3])
        return made, lambda: self.settle_explorer(made)

    def comparison(self) -> tuple[Any, Callable[[], None]]:
        inputs = {"first": image(self.seed), "second": image(self.seed + 1)}
        methods = self.draw.sample(["gradient", "smoothgrad", "grad_cam", "guided_backprop", "blur_ig"], 3)
        params = {
            name: 4 for method, name in (("smoothgrad", "n_samples"), ("blur_ig", "n_steps")) if method in methods
        }
        made = sw.compare(self.model, inputs, methods=methods, classes=[0, 1], **params)
        return made, lambda: self.settle_comparison(made)

    def lesson(self) -> tuple[Any, Callable[[], None]]:
        about = {"target": 1, "n_samples": 4, "class_names": NAMES}
        made = sw.lesson(self.model, image(self.seed), **about)
        return made, lambda: self.settle_lesson(made, about)

    # ---- what must be true once it has settled

    def settle_explorer(self, explorer: Any) -> None:
        done = self._wait(explorer.wait)
        if done is None or "Nothing has moved" in explorer.view.status["remedy"]:
            explorer.update(**RECOVERY)
            done = self._wait(explorer.wait)
        if done is None:
            self.page.fault(UNDONE, "there is no map after a move that is right")
            return
        self._compare(done, explorer.settings)
        if not isinstance(explorer, TableExplorer):
            self._compare_frame(explorer.view, done, explorer.panel.reduction)
            self._compare_pins(explorer)
        for status in (explorer.view.status, self.page.status(explorer.view)):
            if status.get("state") != "done":
                self.page.fault(UNDONE, f"{status.get('state')}: {status.get('message')}")
        self._compare_test(explorer)

    def _wait(self, wait: Callable[[float], Any]) -> Any:
        """What settles; None where it was refused in words, or stopped."""
        try:
            return wait(PATIENCE)
        except TimeoutError as error:
            self.page.fault(HANG, str(error))
        except (TypeError, ValueError):
            self.counts["moves refused in words"] += 1
        except RuntimeError as error:
            if "stopped" not in str(error):
                raise
            self.counts["stopped"] += 1
        return None

    def _compare(self, done: Attribution, settings: dict[str, Any]) -> None:
        fresh = sw.attribute(**settings)
        self.counts["maps compared"] += 1
        same = (fresh.done, fresh.evaluations, fresh.layer, fresh.notes) == (
            done.done, done.evaluations, done.layer, done.notes,
        )  # fmt: skip
        for name in ("values", "score", "delta", "standard_error", "agreement", "map_error"):
            one, other = getattr(done, name), getattr(fresh, name)
            same = same and (one is other is None or (one is not None and other is not None and one.equal(other)))
        if not same:
            self.page.fault(OTHER, f"{done.settings}")

    def _compare_frame(self, view: Any, done: Attribution, reduction: Any) -> None:
        """What has arrived on the page is the map that was computed, as it is to be shown."""
        frame, codes = self.page.frame(view)
        expected = frame_of(done, reduction)
        about = (expected.low, expected.high, expected.signed)
        if codes != expected.codes.astype("<u2").tobytes() or about != (frame["low"], frame["high"], frame["signed"]):
            self.page.fault(OTHER, f"on the page: {done.settings} {reduction}")

    def _compare_pins(self, explorer: Any) -> None:
        maps: Maps | None = explorer.pins._maps
        if maps is None or not maps._shown:
            return
        key = self.draw.choice(maps._shown)
        pinned = maps.attribution(key)
        if pinned is not None:
            about = {name: explorer.settings[name] for name in GIVEN}
            self._compare(pinned, {**about, **pinned.settings})
            self._compare_frame(maps._entries[key].cell, pinned, maps._entries[key].wanted.reduction)

    def _compare_test(self, explorer: Any) -> None:
        """A trust test shows what it shows of a fresh start: shown again from there, nothing changes."""
        trust = explorer.trust
        if not trust.opened:
            return
        for fold in (None, 0):
            self.page.send(trust._fold, {"method": "update", "state": {"selected_index": fold}})
        if not trust.wait(PATIENCE):
            self.page.fault(HANG, "a trust test")
            return
        section, case = trust._visible, trust._case
        check = section.check(case)
        if check is None or trust._told.value:
            return
        self.counts["tests compared"] += 1
        shown = _state_of(section.widget)
        settings = explorer.settings
        about = {name: settings[name] for name in GIVEN}
        about |= {name: settings[name] for name in ("background", "feature_names") if name in settings}
        fresh = replace(case, subject=Subject(**about), cache=Cache(), owner=object())
        check = section.check(fresh)
        with torch.no_grad():
            *_, last = check.begin(lambda: None)
            section.show(last, fresh)
        if _state_of(section.widget) != shown:
            self.page.fault(TEST, f"{section.name} of {case.request}")

    def settle_comparison(self, comparison: Any) -> None:
        comparison.go()
        self._wait(lambda patience: comparison.wait(patience, progress=False))
        maps = comparison._maps
        for spot in comparison._shown:
            done, axes = maps.attribution(spot), comparison._asked
            if done is None:
                self.page.fault(UNDONE, f"{axes.name(spot)}: {maps.error(spot)}")
                continue
            inputs = axes.axes["inputs"].values[spot.inputs]
            self._compare(done, {"model": self.model, "inputs": inputs, **done.settings})
            entry = maps._entries[spot]
            self._compare_frame(entry.cell, done, maps._reduction_of(entry.wanted))
        opened = comparison._beneath._explorer
        if opened is not None:
            self.settle_explorer(opened)

    def settle_lesson(self, lesson: Any, about: dict[str, Any]) -> None:
        if self._wait(lesson.wait) is None:
            return
        fresh = Lesson(self.model, image(self.seed), executor="inline", **about)
        self.counts["lessons compared"] += 1
        for name in lesson.steps:
            if lesson.view.content(name) != fresh.view.content(name):
                self.page.fault(OTHER, f"in the step {name}")
        fresh.close()
        if lesson.explorer is not None:
            self.settle_explorer(lesson.explorer)


@dataclass
class Rest:
    """What there is besides what is being attacked."""

    widgets: dict[str, w.Widget]
    threads: set[threading.Thread]
    cached: int

    @classmethod
    def now(cls) -> Rest:
        return cls(dict(_instances), running(), SHARED.bytes)

    def beyond(self, before: Rest) -> str:
        """What there was not before, in words."""
        kinds = Counter(type(self.widgets[name]).__name__ for name in self.widgets.keys() - before.widgets.keys())
        lines = [f"{count} {kind}" for kind, count in kinds.items()]
        lines += traces(self.threads - before.threads)
        if self.cached > before.cached:
            lines.append(f"{self.cached - before.cached} bytes cached")
        return ", ".join(lines)


def _state_of(widget: w.Widget) -> list[Any]:
    """What a widget shows; bqplot's axes are told to plan their ticks anew by a count that means nothing."""
    states = [_remove_buffers(one.get_state()) for one in whole(widget)]
    return [
        ({**state, "num_ticks": None}, paths, [bytes(buffer) for buffer in buffers]) for state, paths, buffers in states
    ]
