"""A widget and its model are released once nothing refers to the widget and no page shows it, and not before."""

from __future__ import annotations

import contextlib
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import ipywidgets as w
import numpy as np
import pandas as pd
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from ipywidgets.widgets import widget as registry
from torch import nn
from toys import alive, settled

import saliency_widgets as sw
from saliency_widgets.api import checkup as engine_checkup
from saliency_widgets.diagnostics.report import Checkup, Finding
from saliency_widgets.widgets.base import frame_stream, lifetime
from saliency_widgets.widgets.base.parts import close_whole, parts_of

IMAGE = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
TABLE = pd.DataFrame(np.random.default_rng(0).normal(size=(20, 4)), columns=list("abcd"))


def image_model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)).eval()


def explorer(model: nn.Module) -> Any:
    made = sw.explore(model, IMAGE, method="smoothgrad", n_samples=2)
    made.wait(60)
    return made


def used_explorer(model: nn.Module) -> Any:
    """Return an explorer whose lazily created parts exist: trust tests, pins and the save panel."""
    made = explorer(model)
    made.trust._fold.selected_index = 0
    made.trust.wait(60)
    made.kind_view.saving._fold.selected_index = 0
    made.pin()
    made.wait(60)
    return made


def comparison(model: nn.Module) -> Any:
    made = sw.compare(model, IMAGE, methods=["gradient", "grad_cam"])
    made.wait(60, progress=False)
    return made


def lesson(model: nn.Module) -> Any:
    return sw.lesson(model, IMAGE, steps=["input", "gradient"], n_samples=2).wait(60)


KINDS = {"explorer": explorer, "used": used_explorer, "comparison": comparison, "lesson": lesson}


@pytest.fixture(autouse=True)
def no_widget_left() -> Iterator[None]:
    gc.collect()
    gc.freeze()  # a million objects of earlier tests would make each collection take seconds
    before = set(registry._instances)
    yield
    settled(lambda: gc.collect() >= 0 and set(registry._instances) <= before)
    gc.unfreeze()
    left = [type(registry._instances[one]).__name__ for one in set(registry._instances) - before]
    assert left == []
    assert not lifetime._SHOWN


@pytest.mark.parametrize("kind", KINDS)
def test_an_unreferenced_widget_is_released_with_its_model(kind: str) -> None:
    model = image_model()
    made, held = KINDS[kind](model), weakref.ref(model)
    widget = weakref.ref(made)
    del model
    assert alive(held)
    del made
    assert settled(lambda: not alive(widget) and not alive(held))
    assert settled(lambda: not any(thread.name.startswith("saliency") for thread in threading.enumerate()))


def test_an_unreferenced_row_explorer_is_released_with_its_model() -> None:
    model = nn.Linear(4, 3)
    made, held = sw.explore(model, TABLE.iloc[[0]], background=TABLE), weakref.ref(model)
    made.wait(60)
    made.trust._fold.selected_index = 0
    made.trust.wait(60)
    del model, made
    assert settled(lambda: not alive(held))


def test_the_view_of_an_unreferenced_sweep_is_released() -> None:
    sweep = sw.sweep(image_model(), IMAGE, "smoothgrad", {"n_samples": [1, 2]}, progress=False)
    view = weakref.ref(sweep.widget)
    del sweep
    assert settled(lambda: not alive(view))


def test_a_finished_sweep_does_not_refer_to_its_model() -> None:
    model = image_model()
    held = weakref.ref(model)
    sweep = sw.sweep(model, IMAGE, "smoothgrad", {"n_samples": [1, 2]}, progress=False)
    del model
    assert settled(lambda: not alive(held))
    assert len(sweep.table) == 2


def test_ten_runs_of_a_cell_hold_at_most_two_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifetime, "_OPEN", weakref.WeakSet())  # without widgets that other tests left open
    monkeypatch.setattr(lifetime, "_survivors", 0)
    made, held = None, []

    def collected() -> bool:
        """Collect as at the end of a cell, and return whether at most two are left; a worker may hold one longer."""
        monkeypatch.setattr(lifetime, "_survivors", 0)
        lifetime.collect_unshown()
        return sum(reference() is not None for reference in held) <= 2

    for _ in range(10):
        model = image_model()
        held.append(weakref.ref(model))
        made = explorer(model)
        del model
        assert settled(collected)
    assert made is not None
    del made
    assert settled(lambda: not any(alive(reference) for reference in held))


@pytest.mark.parametrize("kind", ["explorer", "comparison"])
def test_a_widget_is_released_while_its_check_up_runs(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def examine(call: Any) -> Checkup:
        entered.set()
        go_on.wait(60)
        return Checkup([Finding(str(type(call)))])

    monkeypatch.setattr(engine_checkup, "examine", examine)
    model = image_model()
    made, held = KINDS[kind](model), weakref.ref(model)
    widget = weakref.ref(made)
    assert entered.wait(60)
    del model, made
    assert not alive(widget)  # while its worker runs the check-up
    go_on.set()
    assert settled(lambda: held() is None)  # without another garbage collection


def test_a_widget_is_released_while_its_map_is_computed_and_the_computation_ends() -> None:
    entered, go_on = threading.Event(), threading.Event()

    class Slow(nn.Module):
        passes = 0

        def __init__(self) -> None:
            super().__init__()
            self.inner = image_model()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if threading.current_thread() is not threading.main_thread():
                Slow.passes += 1
                entered.set()
                go_on.wait(60)
            return self.inner(x)

    model = Slow()
    made, held = sw.explore(model, IMAGE, method="smoothgrad", n_samples=50, chunk_size=1), weakref.ref(model)
    assert entered.wait(60)
    del model
    widget = weakref.ref(made)
    del made
    assert settled(lambda: not alive(widget))  # while its worker is in a pass
    go_on.set()
    assert settled(lambda: held() is None)  # without another garbage collection
    assert Slow.passes < 50


def test_a_displayed_widget_is_held_until_its_last_view_is_closed() -> None:
    made = explorer(image_model())
    held = weakref.ref(made)
    made._repr_mimebundle_()
    del made
    assert alive(held)
    shown = held()
    assert shown is not None
    for count in (1, 2, 1):  # two outputs show it, then one is closed
        shown._handle_msg(update(_view_count=count))
    del shown
    assert alive(held)
    held()._handle_msg(update(_view_count=0))  # type: ignore[union-attr]
    assert settled(lambda: not alive(held))


def test_a_displayed_heatmap_view_holds_its_explorer() -> None:
    made = explorer(image_model())
    held, view = weakref.ref(made), made.view
    view._handle_msg(update(_view_count=1))
    del made, view
    assert alive(held)
    held().view._handle_msg(update(_view_count=0))  # type: ignore[union-attr]
    assert settled(lambda: not alive(held))


def test_a_referenced_widget_still_works_after_its_view_is_closed() -> None:
    made = explorer(image_model())
    made._repr_mimebundle_()
    made._handle_msg(update(_view_count=1))
    made._handle_msg(update(_view_count=0))
    gc.collect()
    made.update(n_samples=3)
    assert made.wait(60).settings["n_samples"] == 3
    assert registry._instances[made.model_id] == made
    made.close()


def test_the_output_history_of_ipython_does_not_hold_a_widget() -> None:
    shell = InteractiveShell.instance()
    try:
        shell.user_ns["make"] = lambda: explorer(image_model())
        shell.run_cell("make()", store_history=True)
        (number,) = [number for number, value in shell.user_ns["Out"].items() if isinstance(value, sw.widgets.Explorer)]
        held = weakref.ref(shell.user_ns["Out"][number])
        held()._handle_msg(update(_view_count=1))  # type: ignore[union-attr]
        assert alive(held)
        held()._handle_msg(update(_view_count=0))  # type: ignore[union-attr]
        assert settled(lambda: not alive(held))
    finally:
        InteractiveShell.clear_instance()


def test_collecting_a_widget_waits_for_no_lock() -> None:
    made = [explorer(image_model())]
    locks = [frame_stream.WAITER._state, made[0].view._pace, made[0].session._jobs.changed, made[0].session.cache._lock]

    def collect() -> None:
        made.clear()
        gc.collect()

    thread = threading.Thread(target=collect, daemon=True)
    with contextlib.ExitStack() as held:  # as if by a thread that waits for this one to start
        for lock in locks:
            held.enter_context(lock)
        thread.start()
        thread.join(60)
        assert not thread.is_alive()


def test_close_all_closes_explorers_and_comparisons_and_new_ones_work() -> None:
    old = [explorer(image_model()), comparison(image_model())]
    w.Widget.close_all()
    assert not any(getattr(one, "is_open", False) or getattr(one, "_open", False) for one in old)
    for _ in range(2):
        made = explorer(image_model())
        assert made.annotations._canvas_manager.comm is not None
        made.close()


def test_close_all_closes_lessons() -> None:
    lesson = sw.lesson(image_model(), IMAGE, steps=["input", "noise"], target=0)
    lesson.wait(60)
    lesson._on_try("noise", 0)
    assert lesson.explorer is not None
    w.Widget.close_all()
    assert not lesson._open
    assert lesson.comm is None
    explorer(image_model()).close()  # recreates the manager of ipycanvas


def test_the_widget_manager_state_includes_an_open_explorer_and_its_view() -> None:
    made = explorer(image_model())
    state = w.Widget.get_manager_state()["state"]
    assert {made.model_id, made.view.model_id} <= set(state)
    made.close()


def test_widgets_that_a_page_refers_to_are_held_by_their_traits() -> None:
    made = explorer(image_model())
    view = made.view
    parts = {name: getattr(view, name).model_id for name in ("display", "layout")}
    view._handle_msg(update(**{name: f"IPY_MODEL_{one}" for name, one in parts.items()}))
    made._handle_msg(update(children=[f"IPY_MODEL_{child.model_id}" for child in made.children]))
    gc.collect()
    assert {name: getattr(view, name).model_id for name in parts} == parts
    assert view is made.children[0]
    assert all(part.comm is not None for part in parts_of(made, []))
    made.close()


@pytest.mark.parametrize("reading", ["save", "reload", "close"])
def test_a_collection_while_all_widgets_are_read_is_harmless(reading: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = w.HTML("shown")
    made = explorer(image_model())
    others = set(registry._instances) - {shown.model_id}
    del made
    sent: list[Any] = []

    def collect(read: Callable[..., Any]) -> Callable[..., Any]:
        def collected(*args: Any, **kwargs: Any) -> Any:
            gc.collect()
            return read(*args, **kwargs)

        return collected

    for name in ("_get_embed_state", "get_state", "close"):
        monkeypatch.setattr(w.HTML, name, collect(getattr(w.HTML, name)))
    page = SimpleNamespace(send=lambda data, **_: sent.append(data))
    monkeypatch.setattr(w.Widget, "_control_comm", page)
    assert registry._instances.keys() & others
    if reading == "save":
        assert set(w.Widget.get_manager_state()["state"]) >= {shown.model_id}
    elif reading == "reload":
        w.Widget._handle_control_comm_msg({"content": {"data": {"method": "request_states"}}})
        assert shown.model_id in sent[0]["states"]
    else:
        w.Widget.close_all()
    close_whole(shown)


def update(**state: Any) -> dict[str, Any]:
    return {"content": {"data": {"method": "update", "state": state, "buffer_paths": []}}, "buffers": []}
