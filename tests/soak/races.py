"""Six threads call all public members of the same widgets, while the interpreter switches threads constantly."""

from __future__ import annotations

import gc
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

import saliency_widgets as sw
from soak.figures import Figures

THREADS = 6
_HANG = 120.0  # seconds after which a round hangs; a busy machine takes a few
_ENDED = (TimeoutError, RuntimeError)  # stopped or closed by another thread
_IMAGE = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
_TABLE = pd.DataFrame(np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32), columns=list("abcd"))


def attack(seed: int, seconds: float) -> Figures:
    """Make rounds of random calls; after each, the shown maps are compared with fresh ones."""
    figures = Figures()
    figures.expect_none_of("raw error", "hang", "wrong map", "worker error")
    until = time.monotonic() + seconds
    step = 0
    while step == 0 or time.monotonic() < until:
        with _watched(figures, f"seed {seed}, round {step}"), _switching():
            _round(seed, step, figures)
        step += 1
        figures.counts["rounds"] += 1
    return figures


def _round(seed: int, step: int, figures: Figures) -> None:
    torch.manual_seed(seed)
    image_model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 3)).eval()
    row_model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).eval()
    explorer = sw.explore(image_model, _IMAGE, target=0, method="smoothgrad", n_samples=4)
    table = sw.explore(row_model, _TABLE.iloc[[0]], background=_TABLE, target=0)
    comparison = sw.compare(image_model, _IMAGE, methods=["gradient", "smoothgrad"], classes=[0], n_samples=4)
    lesson = sw.lesson(image_model, _IMAGE, steps=["input", "gradient"], target=0)
    with tempfile.TemporaryDirectory() as folder:
        calls = _calls(image_model, explorer, table, comparison, lesson, Path(folder))
        where = f"seed {seed}, round {step}"
        draws = [random.Random(f"{where} {k}") for k in range(THREADS)]
        threads = [threading.Thread(target=_call, args=(rng, calls, figures, where), daemon=True) for rng in draws]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(_HANG)
        if any(thread.is_alive() for thread in threads):
            figures.fault("hang", f"{where}: {_stacks(threads)}")
            return
        for one in (explorer, table):
            _compare(one, figures, where)
    for one in (explorer, table, comparison, lesson):
        one.close()


def _calls(
    model: nn.Module, explorer: Any, table: Any, comparison: Any, lesson: Any, folder: Path
) -> list[Callable[[random.Random], Any]]:
    """All public calls, some with random arguments."""
    methods, pins = ["gradient", "smoothgrad", "integrated_gradients"], explorer.kind_view.pins
    plain: list[Callable[[], Any]] = [
        lambda: explorer.wait(30), explorer.stop, explorer.update, explorer.pin, explorer.to_code, explorer.cache_info,
        lambda: explorer.settings, lambda: explorer.controls, lambda: explorer.attribution, lambda: repr(explorer),
        pins.unpin, pins.clear, lambda: pins.wait(30), explorer.page_size,
        lambda: explorer.save_png(folder / "map.png"), lambda: explorer.save_state(folder / "state"),
        lambda: sw.load(folder / "state"), lambda: explorer.load_state(folder / "state"),
        lambda: explorer.save_html(folder / "page.html", progress=False),
        lambda: explorer.annotations.fill_rect(0, 0, 2, 2),
        lambda: explorer.trust.wait(30), explorer.trust.stop, lambda: explorer.kind_view.saving.wait(30),
        lambda: table.wait(30), table.stop, table.update, table.to_code, lambda: table.trust.wait(30),
        lambda: comparison.wait(30, progress=False), comparison.stop, comparison.go, comparison.update,
        lambda: comparison.attributions, lambda: comparison.errors,
        lesson.stop, lambda: lesson.step, lambda: repr(lesson),
        lambda: sw.attribute(model, _IMAGE, target=0, n_steps=3), lambda: sw.checkup(model, _IMAGE), gc.collect,
    ]  # fmt: skip
    chosen: list[Callable[[random.Random], Any]] = [
        lambda rng: explorer.update(method=rng.choice(methods), target=rng.randrange(3)),
        lambda rng: explorer.update(sign=rng.choice(["signed", "absolute", "positive"])),
        lambda rng: explorer.update(opacity=rng.random(), clip=(0.0, rng.uniform(50, 100))),
        lambda rng: table.update(target=rng.randrange(3), method=rng.choice(methods)),
        lambda rng: table.edit(a=rng.uniform(-1, 1)),
        lambda rng: setattr(explorer.trust._fold, "selected_index", rng.choice([None, 0])),
        lambda rng: setattr(explorer.trust._choice, "value", rng.randrange(5)),
        lambda rng: setattr(table.trust._fold, "selected_index", rng.choice([None, 0])),
        lambda rng: setattr(explorer.kind_view.saving._fold, "selected_index", rng.choice([None, 0])),
        lambda rng: setattr(lesson, "step", rng.choice(["input", "gradient"])),
    ]
    return [*(partial(_plain, call) for call in plain), *chosen]


def _plain(call: Callable[[], Any], _rng: random.Random) -> Any:
    return call()


def _call(rng: random.Random, calls: list[Callable[[random.Random], Any]], figures: Figures, where: str) -> None:
    for _ in range(12):
        call = rng.choice(calls)
        try:
            call(rng)
        except _ENDED:
            figures.counts["stopped or closed"] += 1
        except (FileNotFoundError, ValueError) as error:
            if not _clear(error):
                figures.fault("raw error", f"{where}: {error!r}")
        except Exception as error:
            figures.fault("raw error", f"{where}: {error!r} at {_where(error)}")
        figures.counts["calls"] += 1


def _clear(error: Exception) -> bool:
    """Whether a message begins with the name of an argument, such as the path of a state that doesn't exist yet."""
    return str(error).partition(":")[0].isidentifier()


def _where(error: BaseException) -> str:
    trace = error.__traceback__
    names = []
    while trace is not None:
        names.append(f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return " < ".join(reversed(names[-8:]))


def _compare(explorer: Any, figures: Figures, where: str) -> None:
    """Compare the shown map with a fresh one of the same settings."""
    try:
        explorer.update()
        shown = explorer.wait(_HANG)
    except TimeoutError:
        figures.fault("hang", f"{where}: wait() of {explorer!r}")
        return
    fresh = sw.attribute(**explorer.settings)
    figures.counts["maps compared"] += 1
    if not torch.equal(fresh.values, shown.values):
        figures.fault("wrong map", f"{where}: {explorer!r}, {explorer.controls}")


@contextmanager
def _watched(figures: Figures, where: str) -> Any:
    before = threading.excepthook

    def count(args: threading.ExceptHookArgs) -> None:
        assert args.exc_value is not None
        figures.fault("worker error", f"{where}: {args.exc_value!r} at {_where(args.exc_value)}")

    threading.excepthook = count
    try:
        yield
    finally:
        threading.excepthook = before


@contextmanager
def _switching() -> Any:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _stacks(threads: list[threading.Thread]) -> str:
    frames = sys._current_frames()
    lines = []
    for thread in threads:
        frame = frames.get(thread.ident or 0)
        while thread.is_alive() and frame is not None and len(lines) < 12 * len(threads):
            lines.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}")
            frame = frame.f_back
        lines.append("|")
    return " ".join(lines)
