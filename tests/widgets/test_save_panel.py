"""The save panel of an explorer, without a browser."""

from __future__ import annotations

import os
import re
import threading

import numpy as np
import pytest
from ipywidgets.widgets import widget as registry
from toys import conv_net

from saliency_widgets.session import compute, session
from saliency_widgets.widgets import Explorer
from saliency_widgets.widgets.base.heatmap import HeatmapView


def made(executor="inline", **value):
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    settings = {"method": "smoothgrad", "n_samples": 4, **value}
    return Explorer(conv_net().float(), image, executor=executor, **settings)


@pytest.fixture(autouse=True)
def page(monkeypatch):
    """Acknowledge each frame at once, as a fast page does, so that every offered frame is sent."""
    publish = HeatmapView._publish

    def painted_at_once(view, frame, status):
        publish(view, frame, status)
        if frame is not None:
            view._painted((frame["generation"], frame["index"]))

    monkeypatch.setattr(HeatmapView, "_publish", painted_at_once)


@pytest.fixture
def explorer():
    result = made()
    result.kind_view.saving._fold.selected_index = 0
    yield result
    result.close()


def text(widget):
    return re.sub(r"<[^>]*>", "", widget.value)


def offered(explorer):
    return {name for name, row in explorer.kind_view.saving._rows.items() if row.layout.display != "none"}


def button(explorer, name):
    (result,) = (w for w in explorer.kind_view.saving._inside.children[-3].children if w.description == name)
    return result


def test_a_closed_panel_creates_no_controls():
    result = made()
    assert result.kind_view.saving._inside.children == ()
    result.update(n_samples=2)
    assert result.kind_view.saving._inside.children == ()
    result.close()


@pytest.mark.parametrize("opened", [False, True])
def test_close_leaves_no_widget_of_the_panel(opened):
    before = set(registry._instances)
    result = made()
    if opened:
        result.kind_view.saving._fold.selected_index = 0
    result.close()
    assert set(registry._instances) <= before


def test_the_methods_parameters_are_offered_and_the_size_is_updated(explorer):
    assert offered(explorer) == {"target", "noise_level", "n_samples", "statistic", "base", "sign", "channels"}
    assert text(explorer.kind_view.saving._size).startswith("1 map, about ")
    explorer.kind_view.saving._boxes["n_samples"].value = True
    explorer.kind_view.saving._boxes["sign"].value = True
    assert text(explorer.kind_view.saving._size) == f"{explorer.page_size({'n_samples': True, 'sign': True})}."
    assert text(explorer.kind_view.saving._counts["n_samples"]) == "3 values"
    explorer.update(method="gradient")
    assert offered(explorer) == {"target", "sign", "channels"}
    assert explorer.kind_view.saving.record == {"sign": True}
    assert text(explorer.kind_view.saving._size) == f"{explorer.page_size({'sign': True})}."


@pytest.mark.soak
def test_exceeding_the_limit_is_shown_before_saving_is_tried(explorer, tmp_path):
    for name in ("noise_level", "n_samples", "base", "sign", "channels", "target"):
        explorer.kind_view.saving._boxes[name].value = True
    assert "Over the limit of 200" in text(explorer.kind_view.saving._size)
    explorer.kind_view.saving._name.value = str(tmp_path / "a")
    button(explorer, "Save").click()
    assert "over the limit of 200 maps" in text(explorer.kind_view.saving._message)
    assert list(tmp_path.iterdir()) == []


def test_save_writes_the_same_page_as_from_python(explorer, tmp_path):
    explorer.kind_view.saving._boxes["n_samples"].value = True
    explorer.kind_view.saving._name.value = str(tmp_path / "lesson")
    button(explorer, "Save").click()
    path = tmp_path / "lesson.html"
    assert text(explorer.kind_view.saving._message) == f"Saved: {path}"
    assert explorer.kind_view.saving._bar.value == explorer.kind_view.saving._bar.max
    again = explorer.save_html(tmp_path / "b.html", record={"n_samples": True}, progress=False)
    stamp = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d")
    assert stamp.sub("", path.read_text()) == stamp.sub("", again.path.read_text())
    assert text(explorer.kind_view.saving._size).endswith("already computed.")
    button(explorer, "Save").click()
    assert "replacing the existing file" in text(explorer.kind_view.saving._message)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere/a.html", "there is no folder"),
        ("~nobody-of-this-name/a.html", "there is no user"),
        ("a" * 300, "too long"),
        ("a\0b.html", "expected a path"),
        ("pipe.html", "is a pipe"),
    ],
)
def test_an_invalid_path_is_shown_as_an_error_and_the_next_save_works(explorer, tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.html")
    explorer.kind_view.saving._name.value = name
    button(explorer, "Save").click()
    assert message in text(explorer.kind_view.saving._message)
    assert 'role="alert"' in explorer.kind_view.saving._message.value
    explorer.kind_view.saving._name.value = str(tmp_path / "a.html")
    button(explorer, "Save").click()
    assert (tmp_path / "a.html").exists()


def test_stop_writes_nothing_and_leaves_everything_usable(tmp_path, monkeypatch):
    result = made(executor="thread")
    result.wait(60)
    reached, go_on = threading.Event(), threading.Event()

    def slow(problem, request, *rest, **value):
        reached.set()
        assert go_on.wait(60)
        yield from compute(problem, request, *rest, **value)

    monkeypatch.setattr(session, "compute", slow)
    result.kind_view.saving._fold.selected_index = 0
    result.kind_view.saving._boxes["target"].value = True
    result.kind_view.saving._name.value = str(tmp_path / "a.html")
    button(result, "Save").click()
    assert reached.wait(60)
    button(result, "Stop").click()
    go_on.set()
    assert result.kind_view.saving.wait(60)
    assert text(result.kind_view.saving._message) == "Stopped: nothing was written. Computed maps stay in the cache."
    assert list(tmp_path.iterdir()) == []
    result.update(n_samples=2)
    assert result.wait(60).complete
    button(result, "Save").click()
    assert result.kind_view.saving.wait(60)
    assert (tmp_path / "a.html").exists()
    result.close()
