"""Messages of a page, some faulty or malformed: each settled map equals a fresh computation."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from toys import conv_net, mlp

import saliency_widgets as sw
from saliency_widgets.widgets.compare.maps import Maps
from soak.checks import (
    FAULTS,
    PASSED,
    UNDONE,
    UNFORESEEN,
    Resources,
    StuckError,
    check_released,
    compare,
    compare_comparison,
    compare_frame,
    compare_lesson,
    compare_test,
    settled,
)
from soak.figures import Figures
from soak.pages import Page, traced, whole

STEPS = 40  # per round
NAMES = ["ant", "bee", "cow", "dog"]
# Valid for every model and input.
RECOVERY = {"method": "gradient", "target": 0, "score": "logit"}


def attack(seed: int, seconds: float) -> Figures:
    """Play rounds until the time is over; round k has the seed ``seed + k``."""
    figures = Figures()
    figures.expect_none_of(*FAULTS)
    until = time.monotonic() + seconds
    with Page(figures, seed) as page:
        make_permanent_widgets()
        while time.monotonic() < until:
            page.begin(seed)
            Round(page, seed).play()
            seed += 1
    return figures


def make_permanent_widgets() -> None:
    """Make the widgets that are made once and stay, such as ipycanvas' manager, before anything is counted."""
    sw.explore(conv_net(), image(0), method="gradient", class_names=NAMES).close()


def image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def table(seed: int) -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(seed).normal(size=(30, 4)).round(2), columns=list("abcd"))


Made = tuple[Any, Callable[[], None]]
"""A widget, and a function that waits until it has settled and checks it."""


class Round:
    """One widget that is operated and then closed, whether it has settled or not."""

    def __init__(self, page: Page, seed: int) -> None:
        self.page, self.seed = page, seed
        self.draw = random.Random(seed)
        self.counts = page.figures.counts
        self.model = conv_net(seed % 5)

    def play(self) -> None:
        before = Resources.now()
        kind = self.draw.choice([self.explorer, self.explorer, self.table, self.comparison, self.lesson])
        name = kind.__name__
        self.page.step = f"seed {self.seed}, {name}"
        self.counts[f"{name}s"] += 1
        widget, settle = kind()
        try:
            for step in range(STEPS):
                self.page.step = f"seed {self.seed}, {name}, step {step}"
                self._step(widget, settle)
        except StuckError:
            pass
        except Exception as error:
            self.page.fault(UNFORESEEN, traced(error))
        finally:
            widget.close()
        check_released(self.page, before)

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

    # ---- widgets

    def explorer(self) -> Made:
        methods = ["gradient", "smoothgrad", "integrated_gradients", "grad_cam"]
        made = sw.explore(self.model, image(self.seed), class_names=NAMES, method=self.draw.choice(methods))
        return made, lambda: self._settle_explorer(made)

    def table(self) -> Made:
        rows = table(self.seed)
        made = sw.explore(mlp(self.seed % 5), rows.iloc[[0]], background=rows, class_names=NAMES[:3])
        return made, lambda: self._settle_explorer(made)

    def comparison(self) -> Made:
        inputs = {"first": image(self.seed), "second": image(self.seed + 1)}
        methods = self.draw.sample(["gradient", "smoothgrad", "grad_cam", "guided_backprop", "input_x_gradient"], 3)
        params = {"n_samples": 4} if "smoothgrad" in methods else {}
        made = sw.compare(self.model, inputs, methods=methods, classes=[0, 1], **params)
        return made, lambda: self._settle_comparison(made)

    def lesson(self) -> Made:
        about = {"target": 1, "n_samples": 4, "class_names": NAMES}
        made = sw.lesson(self.model, image(self.seed), **about)
        return made, lambda: self._settle_lesson(made, about)

    # ---- checks of settled widgets

    def _settle_explorer(self, explorer: Any) -> None:
        page = self.page
        done = settled(page, explorer.wait)
        if done is None or "Nothing was changed" in explorer.view.status["remedy"]:
            explorer.update(**RECOVERY)
            done = settled(page, explorer.wait)
        if done is None:
            page.fault(UNDONE, "there is no map after a valid request")
            return
        compare(page, done, explorer.settings)
        if explorer.kind != "table":
            compare_frame(page, explorer.view, done, explorer.panel.reduction)
            self._compare_pins(explorer)
        for status in (explorer.view.status, page.status(explorer.view)):
            if status.get("state") != "done":
                page.fault(UNDONE, f"{status.get('state')}: {status.get('message')}")
        compare_test(page, explorer)

    def _compare_pins(self, explorer: Any) -> None:
        maps: Maps | None = explorer.kind_view.pins._maps
        if maps is None or not maps._shown:
            return
        key = self.draw.choice(maps._shown)
        pinned, settings = maps.attribution(key), explorer.settings
        if pinned is not None:
            compare(self.page, pinned, {**{name: settings[name] for name in PASSED}, **pinned.settings})
            entry = maps._entries[key]
            compare_frame(self.page, entry.cell, pinned, entry.wanted.reduction)

    def _settle_comparison(self, comparison: Any) -> None:
        comparison.go()
        settled(self.page, lambda patience: comparison.wait(patience, progress=False))
        compare_comparison(self.page, comparison)
        opened = comparison._detail_pane._explorer
        if opened is not None:
            self._settle_explorer(opened)

    def _settle_lesson(self, lesson: Any, about: dict[str, Any]) -> None:
        if settled(self.page, lesson.wait) is None:
            return
        compare_lesson(self.page, lesson, self.model, image(self.seed), about)
        if lesson.explorer is not None:
            self._settle_explorer(lesson.explorer)
