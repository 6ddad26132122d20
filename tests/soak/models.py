"""Models that raise errors, return nonsense or are changed meanwhile; the next request gives the right map."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from toys import conv_net, mlp, state_of

import saliency_widgets as sw
from soak.checks import (
    FAULTS,
    PATIENCE,
    UNDONE,
    UNFORESEEN,
    Resources,
    StuckError,
    check_released,
    compare,
    compare_comparison,
    compare_lesson,
    compare_test,
    settled,
    stuck,
)
from soak.figures import Figures
from soak.moves import NAMES, image, make_permanent_widgets, table
from soak.pages import Page, traced
from soak.troubles import ERRORS, RETURNS, SPOTS, Trouble, Troubled, raising

CHANGED, HALF = "changed model", "partial file"
STEPS = 6  # per round


def attack(seed: int, seconds: float) -> Figures:
    """Play rounds until the time is over; round k has the seed ``seed + k``."""
    figures = Figures()
    figures.expect_none_of(*FAULTS, CHANGED, HALF)
    until = time.monotonic() + seconds
    with Page(figures, seed) as page:
        make_permanent_widgets()
        while time.monotonic() < until:
            page.begin(seed)
            Round(page, seed).play()
            seed += 1
    return figures


class Round:
    """One model that fails again and again, in one use of it."""

    def __init__(self, page: Page, seed: int) -> None:
        self.page, self.seed = page, seed
        self.draw = random.Random(seed)
        self.counts = page.figures.counts
        self.trouble = Trouble()
        self.model = Troubled(conv_net(seed % 5), self.trouble)

    def play(self) -> None:
        before = Resources.now()
        use = self.draw.choice(
            [self.explorer, self.explorer, self.table, self.comparison, self.lesson, self.test, self.call, self.save]
        )  # fmt: skip
        self.counts[f"{use.__name__} rounds"] += 1
        self.page.step = self._where = f"seed {self.seed}, {use.__name__}"
        try:
            use()
        except StuckError:
            pass
        except Exception as error:
            self.page.fault(UNFORESEEN, traced(error))
        check_released(self.page, before)

    # ---- failures and changes

    def _arm(self, *spots: str) -> None:
        """Make the model fail soon."""
        spot = self.draw.choice(spots or SPOTS[:3])
        passes = self.draw.choice([0, 0, 1, 2, 3, 5, 9])
        raises = spot == "target" or self.draw.random() < 0.7
        k = self.draw.randrange(len(ERRORS if raises else RETURNS))
        self.returns = not raises
        if raises:
            self.trouble.arm(spot, passes, lambda _value: raising(ERRORS[k]()))
        else:
            self.trouble.arm(spot, passes, RETURNS[k])
        what = repr(type(ERRORS[k]())) if raises else f"return {k}"
        self.page.step = f"{self._where}: {what} at {spot} after {passes} passes"

    def _recover(self) -> None:
        """End the failure. Wrong outputs can't be detected, so their results are invalidated by training the model."""
        happened = self.trouble.disarm()
        self.counts["troubles"] += happened
        if happened and self.returns:
            self._train()

    def _train(self) -> None:
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.mul_(0.97)

    def _change(self) -> None:
        """Change the model as users do while it is explained."""
        self.counts["changes"] += 1
        model, body = self.model, self.model.body
        state = {name: value * 0.9 for name, value in copy.deepcopy(model.state_dict()).items()}
        changes: dict[str, Callable[[], Any]] = {
            "trained": self._train,
            "state loaded": lambda: model.load_state_dict(state),
            "mode": lambda: model.train(not model.training),
            "type converted": lambda: model.to(self.draw.choice([torch.float32, torch.float64])),
            "memory format": lambda: model.to(memory_format=torch.channels_last),
            "patched": lambda: setattr(body[0], "forward", lambda x: type(body[0]).forward(body[0], x) * 2),
            "module replaced": lambda: setattr(body, "1", nn.ReLU()),
            "hook added": lambda: body[2].register_forward_hook(lambda _m, _i, out: out * 1.5),
            "data": lambda: setattr(body[0].weight, "data", body[0].weight.data * 1.1),
            "grad": lambda: model.requires_grad_(self.draw.random() < 0.5),
        }
        name = self.draw.choice(list(changes))
        self.page.step = f"{self._where}: {name}"
        changes[name]()

    # ---- uses of the model

    def explorer(self) -> None:
        aim = self.draw.choice([None, 1, lambda out: self.trouble.at("target", out[:, 1] - out[:, 2])])
        spots = SPOTS if callable(aim) else SPOTS[:3]
        made = sw.explore(self.model, image(self.seed), target=aim, class_names=NAMES, method="gradient")
        self._disturb(made, spots)

    def table(self) -> None:
        rows = table(self.seed)
        self.model = Troubled(mlp(self.seed % 5), self.trouble)
        made = sw.explore(self.model, rows.iloc[[0]], background=rows, class_names=NAMES[:3], method="gradient")
        self._disturb(made, SPOTS[:3], methods=("gradient", "smoothgrad", "integrated_gradients"))

    def _disturb(self, explorer: Any, spots: tuple[str, ...], methods: tuple[str, ...] = ()) -> None:
        try:
            settled(self.page, explorer.wait)
            for step in range(STEPS):
                self._where = f"{self._where.partition(' step')[0]} step {step}"
                before = state_of(self.model)
                trouble = self.draw.random() < 0.6
                if trouble:
                    self._arm(*spots)
                self._move(explorer, methods)
                if not trouble:
                    time.sleep(self.draw.uniform(0, 0.02))
                    self._change()
                    before = state_of(self.model)
                settled(self.page, self._caught(explorer.wait))
                self._look_at(explorer, before)
                self._recover()
                self._repeat(explorer)
        finally:
            explorer.close()

    def _move(self, explorer: Any, methods: tuple[str, ...]) -> None:
        """Change settings by messages of the page, or from Python, where the model's errors reach the caller."""
        names = methods or ("gradient", "smoothgrad", "integrated_gradients", "grad_cam", "guided_backprop", "blur_ig")
        name = self.draw.choice(names)
        menu = explorer.panel._method.widget
        noise = next(control for param, control in explorer.panel._params.items() if param.name == "noise_level")
        if self.draw.random() < 0.7:
            index = [value for _, value in menu.options].index(name)
            self.page.send(noise._holder, {"method": "update", "state": {"value": self.draw.uniform(0.01, 0.4)}})
            self.page.send(menu, {"method": "update", "state": {"index": index}})
            return
        more = {"noise_level": self.draw.uniform(0.01, 0.4)} if name == "smoothgrad" else {}
        self._caught(explorer.update)(method=name, **more)

    def _caught(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a call in which the model may raise any error."""

        def calling(*args: Any, **settings: Any) -> Any:
            try:
                return call(*args, **settings)
            except TimeoutError:
                raise
            except BaseException as error:
                self.counts[f"raised {type(error).__name__}"] += 1
                return None

        return calling

    def _look_at(self, explorer: Any, before: dict[str, Any]) -> None:
        state = explorer.view.status["state"]
        if state == "running":
            self.page.fault(UNDONE, "the status is running, but nothing runs")
        self._look_at_model(before)

    def _look_at_model(self, before: dict[str, Any]) -> None:
        after = state_of(self.model)
        if after != before:
            self.page.fault(CHANGED, ", ".join(name for name in before if before[name] != after[name]))

    def _repeat(self, explorer: Any) -> None:
        """Repeat the request with a working model: it gives what a fresh computation gives, a map or an error."""
        explorer.update()
        done = settled(self.page, explorer.wait)
        settings = explorer.settings
        if done is not None:
            compare(self.page, done, settings)
            if explorer.view.status["state"] != "done":
                self.page.fault(UNDONE, str(explorer.view.status["message"]))
            return
        try:
            sw.attribute(**settings)
        except (TypeError, ValueError):
            self.counts["refused by a fresh computation too"] += 1
        else:
            self.page.fault(UNDONE, f"a fresh computation gives a map: {explorer.view.status['message']}")

    def comparison(self) -> None:
        methods = ["gradient", "smoothgrad", "grad_cam"]
        made = sw.compare(self.model, image(self.seed), methods=methods, classes=[0, 1], n_samples=4)
        try:
            for _ in range(STEPS):
                settled(self.page, self._waiting(made))
                self._train()
                before = state_of(self.model)
                self._arm()
                self._caught(made.update)()
                settled(self.page, self._caught(self._waiting(made)))
                self._look_at_model(before)
                self._recover()
                made.update()
                settled(self.page, self._waiting(made))
                compare_comparison(self.page, made)
        finally:
            made.close()

    def _waiting(self, comparison: Any) -> Callable[[float], Any]:
        return lambda patience: comparison.wait(patience, progress=False)

    def lesson(self) -> None:
        about = {"target": 1, "n_samples": 4, "class_names": NAMES}
        before = state_of(self.model)
        self._arm()
        made = self._caught(sw.lesson)(self.model, image(self.seed), **about)
        if made is not None:
            settled(self.page, self._caught(made.wait))
            made.close()
        self._look_at_model(before)
        self._recover()
        healthy = sw.lesson(self.model, image(self.seed), **about)
        if settled(self.page, healthy.wait) is not None:
            compare_lesson(self.page, healthy, self.model, image(self.seed), about)
        healthy.close()

    def test(self) -> None:
        made = sw.explore(self.model, image(self.seed), target=1, class_names=NAMES, method="gradient")
        try:
            settled(self.page, made.wait)
            trust = made.trust
            self.page.send(trust._fold, {"method": "update", "state": {"selected_index": 0}})
            for _ in range(STEPS):
                before = state_of(self.model)
                self._arm()
                self.page.send(trust._choice, {"method": "update", "state": {"index": self.draw.randrange(5)}})
                if not trust.wait(PATIENCE):
                    stuck(self.page, "a trust test")
                self._look_at_model(before)
                self._recover()
                self._repeat(made)
                compare_test(self.page, made)
        finally:
            made.close()

    def call(self) -> None:
        """In the caller's thread: the model's errors reach the caller, and have no effect on later calls."""
        for _ in range(STEPS):
            settings = {"method": "smoothgrad", "target": 1, "noise_level": self.draw.uniform(0.1, 0.4), "n_samples": 6}
            before = state_of(self.model)
            self._arm()
            self._caught(sw.attribute)(self.model, image(self.seed), **settings)
            self._look_at_model(before)
            self._recover()
            once = sw.attribute(self.model, image(self.seed), **settings)
            compare(self.page, once, {"model": self.model, "inputs": image(self.seed), **settings})

    def save(self) -> None:
        """A page that is being written when the model fails is written completely, or not at all."""
        made = sw.explore(self.model, image(self.seed), target=1, class_names=NAMES, method="smoothgrad", n_samples=4)
        path = Path(f"page-{self.seed}.html")
        try:
            settled(self.page, made.wait)
            for _ in range(STEPS):
                path.write_text("what was there before")
                before = state_of(self.model)
                self._arm()
                record = {"noise_level": [self.draw.uniform(0.1, 0.4) for _ in range(3)]}
                saved = self._caught(made.save_html)(path, record=record, progress=False)
                text = path.read_text()
                if (saved is None and text != "what was there before") or (saved and "</html>" not in text[-100:]):
                    self.page.fault(HALF, f"{len(text)} characters, {saved}")
                self._look_at_model(before)
                self._recover()
                self._repeat(made)
                made.save_html(path, record=record, progress=False)
        finally:
            made.close()
            path.unlink(missing_ok=True)
