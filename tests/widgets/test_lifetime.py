"""Models are let go once nobody refers to the widget and no page shows it; before that, never."""

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
from saliency_widgets.widgets.base import frame_stream as paced
from saliency_widgets.widgets.base import lifetime
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
    """With everything made that is made late: tests, pins, the section that saves."""
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
def none_left() -> Iterator[None]:
    gc.collect()
    gc.freeze()  # what the tests before have left, a million objects, makes each collection take seconds
    before = set(registry._instances)
    yield
    settled(lambda: gc.collect() >= 0 and set(registry._instances) <= before)
    gc.unfreeze()
    left = [type(registry._instances[one]).__name__ for one in set(registry._instances) - before]
    assert left == []
    assert not lifetime._SHOWN


@pytest.mark.parametrize("kind", KINDS)
def test_a_widget_that_nobody_refers_to_is_gone_with_its_model(kind: str) -> None:
    model = image_model()
    made, held = KINDS[kind](model), weakref.ref(model)
    widget = weakref.ref(made)
    del model
    assert alive(held)
    del made
    assert settled(lambda: not alive(widget) and not alive(held))
    assert settled(lambda: not any(thread.name.startswith("saliency") for thread in threading.enumerate()))


def test_a_row_explorer_is_gone_with_its_model() -> None:
    model = nn.Linear(4, 3)
    made, held = sw.explore(model, TABLE.iloc[[0]], background=TABLE), weakref.ref(model)
    made.wait(60)
    made.trust._fold.selected_index = 0
    made.trust.wait(60)
    del model, made
    assert settled(lambda: not alive(held))


def test_a_sweep_that_is_shown_no_more_is_gone() -> None:
    sweep = sw.sweep(image_model(), IMAGE, "smoothgrad", {"n_samples": [1, 2]}, progress=False)
    view = weakref.ref(sweep.widget)
    del sweep
    assert settled(lambda: not alive(view))


def test_a_sweep_that_is_finished_refers_to_no_model() -> None:
    model = image_model()
    held = weakref.ref(model)
    sweep = sw.sweep(model, IMAGE, "smoothgrad", {"n_samples": [1, 2]}, progress=False)
    del model
    assert settled(lambda: not alive(held))
    assert len(sweep.table) == 2


def test_of_ten_runs_of_a_cell_two_models_are_held_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifetime, "_OPEN", weakref.WeakSet())  # without what other tests have left open
    monkeypatch.setattr(lifetime, "_survivors", 0)
    made, held = None, []

    def collected() -> bool:
        """Whether two are left when a cell ends, which is when the package collects: a worker was in a pass before."""
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
def test_one_whose_model_is_being_checked_is_gone(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert not alive(widget)  # while its worker is in the middle of the check-up
    go_on.set()
    assert settled(lambda: held() is None)  # without another collection


def test_one_whose_map_is_being_computed_ends_and_is_gone() -> None:
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
    assert settled(lambda: not alive(widget))  # while its worker is in the middle of a pass
    go_on.set()
    assert settled(lambda: held() is None)  # without another collection
    assert Slow.passes < 50


def test_what_is_displayed_is_held_until_its_last_view_is_closed() -> None:
    made = explorer(image_model())
    held = weakref.ref(made)
    made._repr_mimebundle_()
    del made
    assert alive(held)
    shown = held()
    assert shown is not None
    for count in (1, 2, 1):  # two outputs show it, then one
        shown._handle_msg(update(_view_count=count))
    del shown
    assert alive(held)
    held()._handle_msg(update(_view_count=0))  # type: ignore[union-attr]
    assert settled(lambda: not alive(held))


def test_its_image_alone_on_a_page_holds_it_too() -> None:
    made = explorer(image_model())
    held, view = weakref.ref(made), made.view
    view._handle_msg(update(_view_count=1))
    del made, view
    assert alive(held)
    held().view._handle_msg(update(_view_count=0))  # type: ignore[union-attr]
    assert settled(lambda: not alive(held))


def test_a_closed_view_leaves_what_has_a_name_as_it_was() -> None:
    made = explorer(image_model())
    made._repr_mimebundle_()
    made._handle_msg(update(_view_count=1))
    made._handle_msg(update(_view_count=0))
    gc.collect()
    made.update(n_samples=3)
    assert made.wait(60).settings["n_samples"] == 3
    assert registry._instances[made.model_id] == made
    made.close()


def test_what_a_cell_has_shown_is_not_kept_by_ipython() -> None:
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


def test_what_is_collected_waits_for_no_lock() -> None:
    made = [explorer(image_model())]
    locks = [paced.WAITER._state, made[0].view._pace, made[0].session._jobs.changed, made[0].session.cache._lock]

    def collect() -> None:
        made.clear()
        gc.collect()

    thread = threading.Thread(target=collect, daemon=True)
    with contextlib.ExitStack() as held:  # as by a thread that is waiting for this one to begin
        for lock in locks:
            held.enter_context(lock)
        thread.start()
        thread.join(60)
        assert not thread.is_alive()


def test_all_widgets_closed_at_once_leave_no_explorer_and_the_next_one_works() -> None:
    old = [explorer(image_model()), comparison(image_model())]
    w.Widget.close_all()
    assert not any(getattr(one, "is_open", False) or getattr(one, "_open", False) for one in old)
    for _ in range(2):
        made = explorer(image_model())
        assert made.annotations._canvas_manager.comm is not None
        made.close()


def test_all_widgets_closed_at_once_leave_no_lesson_either() -> None:
    lesson = sw.lesson(image_model(), IMAGE, steps=["input", "noise"], target=0)
    lesson.wait(60)
    lesson._on_try("noise", 0)
    assert lesson.explorer is not None
    w.Widget.close_all()
    assert not lesson._open
    assert lesson.comm is None
    explorer(image_model()).close()  # ipycanvas' manager is there again


def test_the_references_of_ipywidgets_are_enough_for_saving_and_for_a_reload() -> None:
    made = explorer(image_model())
    state = w.Widget.get_manager_state()["state"]
    assert {made.model_id, made.view.model_id} <= set(state)
    made.close()


def test_what_a_page_names_is_held_by_the_trait_it_is_named_for() -> None:
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
def test_what_is_collected_while_all_widgets_are_read_does_no_harm(
    reading: str, monkeypatch: pytest.MonkeyPatch
) -> None:
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
