"""A client that drops messages of worker threads: after wait(), it has the complete state of the kernel."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import comm
import ipywidgets as w
import numpy as np
import pandas as pd
import pytest
from comm.base_comm import BaseComm
from ipywidgets.widgets.widget import _remove_buffers
from toys import conv_net, images, mlp

import saliency_widgets as sw
from saliency_widgets.widgets.base.parts import parts_of
from saliency_widgets.widgets.base.resending import WorkerWrites

IMAGE = images()[:1]


class Client:
    """Holds the state of each widget as published by the main thread, like nbclient while a cell runs."""

    def __init__(self) -> None:
        self.states: dict[str, dict[str, Any]] = {}
        self.buffers: dict[str, dict[tuple, bytes]] = {}
        self.dropped = self.taken = 0

    def take(self, comm_id: str, data: dict[str, Any], buffers: Any) -> None:
        if "state" not in data:
            return
        if threading.current_thread() is not threading.main_thread():
            self.dropped += 1
            return
        self.taken += 1
        self.states.setdefault(comm_id, {}).update(json.loads(json.dumps(data["state"])))
        named = zip(map(tuple, data.get("buffer_paths", [])), map(bytes, buffers or []), strict=True)
        self.buffers.setdefault(comm_id, {}).update(named)

    def assert_holds(self, root: w.Widget) -> None:
        """Assert that the client holds the state of the widget and of all its parts, bit for bit."""
        for widget in (root, *parts_of(root, [])):
            state: Any
            state, paths, buffers = _remove_buffers(widget.get_state())
            held = self.states[widget.model_id]
            differing = {name for name, value in state.items() if json.loads(json.dumps(value)) != held.get(name)}
            assert not differing, widget
            for path, buffer in zip(map(tuple, paths), map(bytes, buffers), strict=True):
                assert self.buffers[widget.model_id][path] == buffer, (widget, path)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    result = Client()

    class Comm(BaseComm):
        def publish_msg(
            self, msg_type: str, data: Any = None, metadata: Any = None, buffers: Any = None, **_: Any
        ) -> None:
            result.take(self.comm_id, data or {}, buffers)

    monkeypatch.setattr(comm, "create_comm", Comm)
    return result


@pytest.fixture
def explorer(client: Client) -> Iterator[Any]:
    made = sw.explore(conv_net(), IMAGE, method="smoothgrad", n_samples=6, class_names=["ant", "bee", "cow", "dog"])
    yield made
    made.close()


def table_explorer() -> Any:
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32), columns=list("abcd"))
    return sw.explore(mlp(), rows.iloc[[0]], background=rows, class_names=["yes", "no", "perhaps"])


WIDGETS: dict[str, Callable[[], Any]] = {
    "image": lambda: sw.explore(conv_net(), IMAGE, method="smoothgrad", n_samples=6),
    "table": table_explorer,
    "comparison": lambda: sw.compare(conv_net(), images(), methods=["gradient", "smoothgrad"], n_samples=4),
    "lesson": lambda: sw.lesson(conv_net(), IMAGE, n_samples=4),
}


def wait_for_worker(made: Any) -> None:
    """Wait until the worker writes nothing more; the check-up comes after the maps."""
    made.wait(timeout=300)
    if isinstance(made, sw.Comparison):
        made._maps._jobs._executor.close()
    elif not isinstance(made, sw.Lesson):
        made.session._jobs._executor.close()


@pytest.mark.parametrize("name", WIDGETS)
def test_after_wait_the_client_holds_what_the_kernel_holds(client: Client, name: str) -> None:
    made = WIDGETS[name]()
    wait_for_worker(made)
    made.wait(timeout=300)
    assert client.dropped > 0
    client.assert_holds(made)
    made.close()


def test_the_client_also_holds_pinned_maps_and_open_trust_tests(client: Client, explorer: Any) -> None:
    explorer.pin()
    explorer.update(method="gradient")
    explorer.trust._fold.selected_index = 0
    explorer.pin()
    explorer.wait(timeout=60)
    explorer.trust.wait(timeout=60)
    wait_for_worker(explorer)
    explorer.wait(timeout=60)
    assert [cell.status["state"] for cell in explorer.kind_view.pins._maps.view.cells] == ["done", "done"]
    client.assert_holds(explorer)


def test_the_client_holds_a_complete_sweep_without_wait(client: Client) -> None:
    result = sw.sweep(conv_net(), images(), "smoothgrad", {"n_samples": [2, 4]}, progress=False)
    client.assert_holds(result.widget)


def test_state_is_sent_again_only_once(client: Client, explorer: Any) -> None:
    wait_for_worker(explorer)
    explorer.wait(timeout=60)
    taken = client.taken
    explorer.wait(timeout=60)
    assert client.taken == taken


def test_values_set_by_the_page_are_not_sent_again(client: Client) -> None:
    slider = w.IntSlider()
    writes = WorkerWrites(slider)
    for work in (
        lambda: setattr(slider, "max", 50),
        lambda: setattr(slider, "value", 5),
        lambda: slider.set_state({"value": 7}),
    ):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    writes.send()
    held = client.states[slider.model_id]
    assert (held["max"], held["value"]) == (50, 0)
    slider.close()


def test_a_part_that_is_added_later_is_sent_again_too(client: Client) -> None:
    box, label = w.VBox(), w.Label()
    writes = WorkerWrites(box)
    box.children = [w.HBox([label])]
    thread = threading.Thread(target=lambda: setattr(label, "value", "later"))
    thread.start()
    thread.join()
    writes.send()
    assert client.states[label.model_id]["value"] == "later"
    box.children[0].close()
    for one in (label, box):
        one.close()


def test_a_value_written_while_state_is_sent_again_is_sent_last(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    label = w.Label()
    writes = WorkerWrites(label)
    words = iter(["second", "third"])

    def write(value: str) -> None:
        thread = threading.Thread(target=lambda: setattr(label, "value", value))
        thread.start()
        thread.join()

    write("first")
    get_state = label.get_state

    def get_outdated_state(key: Any = None, drop_defaults: bool = False) -> dict[str, Any]:
        """Return a state that a worker changes before it is sent."""
        state = get_state(key, drop_defaults)
        if threading.current_thread() is threading.main_thread() and (value := next(words, None)):
            write(value)
        return state

    monkeypatch.setattr(label, "get_state", get_outdated_state)
    writes.send()
    assert client.states[label.model_id]["value"] == "third"
    label.close()


class Fleeting(w.Label):
    """A part that is replaced and closed just while it is sent."""

    replace: Callable[[], None] | None = None

    @property
    def model_id(self) -> str:
        if self.replace is not None:
            replace, self.replace = self.replace, None
            replace()
        return super().model_id


@pytest.mark.parametrize("replaced", [True, False])
def test_a_part_that_another_thread_closes_while_it_is_sent_is_no_error(client: Client, replaced: bool) -> None:
    part, other = Fleeting(), w.Label()
    box = w.VBox()
    writes = WorkerWrites(box)
    writer = threading.Thread(target=lambda: setattr(box, "children", (part,)))
    writer.start()
    writer.join()

    def replace() -> None:
        if replaced:
            box.children = (other,)
        part.close()

    part.replace = replace
    writes.send()
    if replaced:
        client.assert_holds(box)
    other.close()
    box.close()
