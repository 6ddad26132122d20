"""The static output: pixels and caption of the map, kept up to date, limited in size, created only if displayed."""

from __future__ import annotations

import base64
import gc
import html
import io
import re
import threading
import weakref
from types import SimpleNamespace
from typing import Any

import ipywidgets as w
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from PIL import Image
from torch import nn
from toys import conv_net, each, mlp

import saliency_widgets as sw
from saliency_widgets import render
from saliency_widgets.widgets import Explorer
from saliency_widgets.widgets.compare.comparison import Comparison
from saliency_widgets.widgets.export import static_output
from saliency_widgets.widgets.export.static_output import LARGEST, Snapshot, StaticOutput, WithStaticOutput, bundles

NAMES = ["ant", "<b>bee</b>", "cow", "dog"]
IMAGE = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
ORANGE, BLUE = (0xF3, 0x77, 0x26), (0x6B, 0x9B, 0xC8)


def stored(left: dict[str, dict[str, str]]) -> int:
    """Return the bytes of outputs in a notebook file, in addition to those of empty outputs."""
    outputs = [nbformat.v4.new_output("display_data", data) for data in left.values()]
    empty = [nbformat.v4.new_output("display_data", dict.fromkeys(data, "")) for data in left.values()]
    full, bare = (
        nbformat.writes(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=some, id="a")]))
        for some in (outputs, empty)
    )
    return len(full.encode()) - len(bare.encode())


class Page:
    """Collects what a kernel publishes, and the outputs that its notebook then holds."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.outputs: dict[str, dict[str, str]] = {}
        self.updated = threading.Event()

    def publish(self, data: dict, metadata: dict, *, transient: dict | None = None, update: bool = False) -> None:
        self.messages.append({"data": data, "update": update, "thread": threading.current_thread()})
        if transient is not None:
            self.outputs[transient["display_id"].rpartition("-")[2]] = data
        if update and "text/html" in data:
            self.updated.set()

    @property
    def updates(self) -> int:
        """The number of updates of the text."""
        return sum(message["update"] and "text/html" in message["data"] for message in self.messages)

    @property
    def text(self) -> str:
        return self.outputs["text"]["text/plain"]

    @property
    def html(self) -> str:
        return self.outputs["text"]["text/html"]

    @property
    def image(self) -> np.ndarray:
        file = io.BytesIO(base64.b64decode(self.outputs["image"]["image/png"]))
        return np.asarray(Image.open(file).convert("RGB"))


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Page:
    """The display of a kernel; only ``wait`` sends changes, unless a test shortens the delay."""
    made = Page()
    shell = SimpleNamespace(kernel=None, display_pub=made)
    monkeypatch.setattr(static_output, "get_ipython", lambda: shell)
    monkeypatch.setattr(static_output, "_QUIET", 3600.0)
    return made


def net() -> nn.Module:
    return conv_net().float()


def explorer(**settings: Any) -> Explorer:
    return Explorer(net(), IMAGE, executor="inline", **{"class_names": NAMES, "method": "gradient", **settings})


def enlarged(cells: np.ndarray, times: int) -> np.ndarray:
    return cells.repeat(times, 0).repeat(times, 1)


def reduced(cell: np.ndarray) -> np.ndarray:
    """Return the color in the middle of each of the 8 x 8 pixels."""
    middles = ((np.arange(8) + 0.5) * len(cell) / 8).astype(int)
    return cell[np.ix_(middles, middles)]


def overlay(made: Explorer) -> np.ndarray:
    """Compute the overlay on the page from the attribution."""
    values = made.panel.reduction(made.attribution.values, (8, 8))[0].double().numpy()
    quantized = render.quantize(values, signed=made.panel.reduction.signed)
    settings = made.kind_view.display.settings
    name = settings.pop("diverging"), settings.pop("colormap")
    return render.blend(IMAGE, quantized, lut=render.lut(name[not quantized.signed]), **settings)


# ---- content


def test_the_widget_comes_first_then_the_pixels_and_the_caption(page: Page) -> None:
    made = explorer(target=1, clip=(10, 90), opacity=0.5)
    made._ipython_display_()
    assert [message["update"] for message in page.messages] == [False] * 3
    assert page.messages[0]["data"] == {**made._repr_mimebundle_(), "text/plain": ""}
    np.testing.assert_array_equal(page.image[12 : 12 + 480, 12 : 12 + 480], enlarged(overlay(made), 60))
    assert page.text.startswith("Gradient · <b>bee</b>\n")
    score = float(made.attribution.score[0])
    for part in (f"Logit {score:.2f}", "method='gradient'", "target=1", "score='logit'", "sign='absolute'",
                 "clip=(10.0, 90.0)", "opacity=0.5"):  # fmt: skip
        assert part in page.text
    tags = re.sub(r"<style>.*</style>", "", page.html)
    assert html.unescape(re.sub(r"<br>", "\n", re.sub(r"</?(div|b)\b[^>]*>", "", tags))) == page.text
    assert tags.count("<b>") == 1  # that of the title; the <b> in the class name is text
    made.close()


def test_a_new_sign_and_new_colors_update_the_output(page: Page) -> None:
    made = explorer()
    made._ipython_display_()
    before = page.image
    made.update(sign="signed", diverging="bwr", threshold=0.2)
    made.wait()
    assert page.updates == 1
    np.testing.assert_array_equal(page.image[12 : 12 + 480, 12 : 12 + 480], enlarged(overlay(made), 60))
    assert not np.array_equal(before, page.image)
    assert "sign='signed'" in page.text
    made.close()


def test_bars_have_the_direction_and_length_of_the_attributions(page: Page) -> None:
    background = pd.DataFrame(np.random.default_rng(0).normal(size=(20, 4)), columns=["a", "b", "<i>c</i>", "d"])
    made = Explorer(mlp(), background.iloc[[3]], background=background, executor="inline")
    made._ipython_display_()
    sizes = made.by_feature()
    for k, size in enumerate(sizes):
        row = page.image[24 * k + 12]
        orange, blue = ((row == color).all(1).sum() for color in (ORANGE, BLUE))
        assert (orange > blue) == (size > 0)
        assert max(orange, blue) == pytest.approx(abs(size) / abs(sizes).max() * max_width(page), abs=2)
        assert min(orange, blue) == 0
    made.kind_view.bars.top.value = 2
    made.wait()
    assert page.image.shape[0] == 24 * 3  # two features, and the sum of the others
    assert "method='integrated_gradients'" in page.text
    made.close()


def max_width(page: Page) -> int:
    return max(int((row == color).all(1).sum()) for row in page.image for color in (ORANGE, BLUE))


@pytest.mark.parametrize("scale", ["shared", "separate"])
def test_a_grid_has_every_map_on_its_scale(page: Page, scale: str) -> None:
    images = [IMAGE, (IMAGE // 4)[::-1].copy()]
    made = Comparison(
        net(), images, methods=["gradient", "input_x_gradient"], settings=None, classes=[0, 2], rows="methods",
        columns="inputs", score="logit", contrast=None, limit=100, scale=scale, executor="inline",
        params={"threshold": 0.1}, class_names=NAMES,
    )  # fmt: skip
    made._ipython_display_()
    maps = [made._maps.frame(key) for key in made._shown]
    look = made._display.settings
    left = 8 + 120 + 8
    for k, one in enumerate(maps):
        row, column = divmod(k, 2)
        group = maps[2 * row : 2 * row + 2]
        limits = render.limits_of(one, render.shared_ends(group, look["clip"])) if scale == "shared" else None
        expected = render.blend(images[column], one, **look, limits=limits)
        top, start = page.image.shape[0] - (2 - row) * 268, left + column * 268
        np.testing.assert_array_equal(reduced(page.image[top : top + 260, start : start + 260]), expected)
    assert page.text.startswith("Comparison(2 methods x 2 classes x 2 inputs)\n")
    for name in ("Gradient", "Input x Gradient", "ant", "cow"):
        assert name.lower().replace("x", "×") in page.text.lower().replace("x", "×")
    made.close()


def test_the_output_of_a_lesson_is_its_current_step(page: Page) -> None:
    steps = ["input", "prediction", "gradient", "overlay", "path"]
    made = sw.lesson(net(), IMAGE, class_names=NAMES, n_samples=2, steps=steps)
    made.wait(300)
    made._ipython_display_()
    assert page.messages[0]["data"] == {**made._repr_mimebundle_(), "text/plain": ""}
    images = []
    for name, step in zip(steps, made.view.steps, strict=True):
        made.step = name
        made.wait()
        assert step["title"] in page.text
        assert step["text"][0] in page.text
        images.append(page.image)
    assert page.updates == len(steps) - 1  # the first step was displayed at once
    assert not any(np.array_equal(a, b) for k, a in enumerate(images) for b in images[:k])
    np.testing.assert_array_equal(reduced(images[0][-308:-8, 8:308]), IMAGE)
    made.close()


def test_the_output_of_a_sweep_is_its_recommendation_maps_and_table(page: Page) -> None:
    grid = {"noise_level": [0.1, 0.4], "n_samples": [2, 8]}
    result = sw.sweep(net(), IMAGE, "smoothgrad", grid, ["similarity", "standard_error"], progress=False)
    result._ipython_display_()
    assert page.messages[0]["data"] == {**result.widget._repr_mimebundle_(), "text/plain": ""}
    assert page.text.startswith(result.words)
    assert "method='smoothgrad'" in page.text
    for value in result.summary.similarity:
        assert f"{value:.4f}"[:5] in page.text
    assert page.html.count("<tr") == 5
    assert page.image.shape[1] == 8 + 120 + 8 + 2 * 268
    result.widget._quality.value = "standard_error"
    result.widget._update_static()
    assert page.updates == 1
    assert page.text.startswith(result.by("standard_error").words)
    result.widget.close()


def test_before_the_first_map_the_text_says_that_it_is_being_computed(page: Page) -> None:
    hold = threading.Event()

    class Slow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(192, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert threading.current_thread() is threading.main_thread() or hold.wait(60)
            return self.head(x.flatten(1))

    made = sw.explore(Slow().eval(), IMAGE, class_names=NAMES, method="gradient")
    made._ipython_display_()
    assert "Still being computed." in page.text
    assert page.outputs["image"] == {"text/plain": ""}
    hold.set()
    made.wait(60)
    assert "Still being computed" not in page.text
    assert page.image.size
    made.close()


def test_the_text_reports_an_error_and_a_stop(page: Page) -> None:
    made = explorer()
    made._ipython_display_()
    saved = page.image
    made.update(target=lambda output: output.nowhere)
    with pytest.raises(ValueError, match="nowhere"):
        made.wait()
    assert "nowhere" in page.text
    assert "the previous map is still displayed" in page.text
    np.testing.assert_array_equal(page.image, saved)
    made.view.offer(None, {**made.view.status, "state": "stopped", "done": 3, "total": 8, "unit": "samples"})
    made.view.flush()
    made._update_static()
    assert "Stopped: 3 of 8 samples." in page.text
    made.close()


def test_a_failed_snapshot_is_reported_and_the_widget_is_displayed(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    made = explorer()
    monkeypatch.setattr(Explorer, "_snapshot", lambda self: 1 / 0)
    made._ipython_display_()
    assert page.messages[0]["data"] == {**made._repr_mimebundle_(), "text/plain": ""}
    assert "ZeroDivisionError" in page.text
    made.close()


def test_a_table_that_can_not_be_rendered_is_reported_and_the_widget_works(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OddError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    class Broken(pd.DataFrame):
        def to_html(self, *_arguments: Any, **_about: Any) -> str:
            raise OddError("no words")

    made = explorer()
    made._ipython_display_()
    monkeypatch.setattr(Explorer, "_snapshot", lambda self: Snapshot(["title"], table=Broken({"a": [1]})))
    made.update(target=2)
    made.wait()
    assert "The image could not be created" in page.text
    assert "OddError" in page.text
    made.close()


def test_names_with_unpaired_surrogates_are_shown(page: Page) -> None:
    names = ["caf\udce9", "te\ud800"]
    made = explorer(class_names=names + NAMES[2:], target=0)
    made._ipython_display_()
    made.update(target=1)
    made.wait()
    assert page.text.startswith("Gradient · te\ufffd\n")
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(20, 2)), columns=names)
    table = Explorer(
        mlp(features=2, classes=2), rows.iloc[[3]], background=rows, class_names=names, executor="inline", target=0
    )
    table._ipython_display_()
    for data in [*page.outputs.values(), *bundles(Snapshot(names, table=rows)).values()]:
        assert all(part.encode() for part in data.values() if part)
    table.close()
    made.close()


# ---- size


def test_an_image_of_a_million_noisy_pixels_fits_within_the_limit() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
    model = nn.Sequential(nn.Conv2d(3, 2, 3, stride=8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3)).eval()
    made = Explorer(model, noise, executor="inline", method="gradient")
    left = bundles(made._snapshot())
    assert stored(left) <= LARGEST
    image = Image.open(io.BytesIO(base64.b64decode(left["image"]["image/png"])))
    assert min(image.size) >= 200
    made.close()


@each("letter", ["&", "é", "\U0001f600", "\n", "\x01", "\x0b", "\\", '"'])
def test_very_long_texts_are_truncated(letter: str) -> None:
    table = pd.DataFrame({letter * 5000: [letter * 5000] * 1000})
    noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8)
    snapshot = Snapshot([letter * 10**6] * 100, lambda share: Image.fromarray(noise[: int(600 * share)]), table)
    left = bundles(snapshot)
    assert stored(left) <= LARGEST
    # Each \x0b takes 18 bytes in the file, which leaves no room for an image.
    assert left["image"] == {"text/plain": ""} if letter == "\x0b" else left["image"]["image/png"]


def test_names_of_any_length_and_script_are_drawn() -> None:
    cells = [Image.new("RGB", (60, 40), "red")] * 4
    names = ["猫" * 10**5, "x" * 10**6]
    image = render.draw_grid(names, names, cells, 60)
    assert (np.asarray(image) == (255, 0, 0)).all(2).sum() == 4 * 60 * 40
    assert image.height < 400
    bars = render.draw_bars([(name, 1.0, "1", "#ff0000") for name in names], 640)
    assert bars.size == (640, 48)


# ---- updates


def test_a_burst_of_changes_is_one_update_and_no_change_is_no_update(page: Page) -> None:
    made = explorer()
    made._ipython_display_()
    for k in range(10):
        made.update(target=k % 4)
    assert page.updates == 0
    for _ in range(3):
        made.wait()
    assert page.updates == 1
    assert "target=1" in page.text
    made.close()


def test_running_estimates_cause_no_update(page: Page) -> None:
    made = explorer(method="smoothgrad", n_samples=4)
    made._ipython_display_()
    frame = {**made.view.frame, "index": 100, "final": False}
    made.view.offer(frame, {**made.view.status, "state": "running", "done": 2})
    made.view.flush()
    assert made.view.status["state"] == "running"
    made._update_static()
    assert page.updates == 0
    made.close()


def test_an_update_is_sent_in_the_background_after_a_period_without_changes(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(static_output, "_QUIET", 0.01)
    made = explorer()
    made._ipython_display_()
    made.update(target=3)
    assert page.updated.wait(60)
    assert "target=3" in page.text
    assert page.messages[-1]["thread"] is not threading.main_thread()
    sent = page.updates
    made.wait()  # sends it again in this cell, as a message between two cells may have been lost
    assert page.updates == sent + 1
    assert page.messages[-1]["thread"] is threading.main_thread()
    made.close()


def test_close_leaves_the_last_map_in_the_output(page: Page) -> None:
    made = explorer()
    made._ipython_display_()
    made.update(target=2)
    made.close()
    assert "target=2" in page.text
    assert page.updates == 1
    with pytest.raises(NotImplementedError):
        made._ipython_display_()


def test_the_output_keeps_no_widget_alive(page: Page) -> None:
    class Shown(WithStaticOutput, w.Box):
        def _snapshot(self) -> Snapshot:
            return Snapshot(["shown"])

        def _snapshot_sources(self) -> dict:
            return {source: ("value",)}

    source = w.IntSlider()
    made = Shown()
    made._ipython_display_()
    output: StaticOutput = made._static
    source.value = 3
    made.close()
    gone = weakref.ref(made)
    del made
    gc.collect()
    assert gone() is None
    output.send()
    assert page.updates == 0
    source.close()


# ---- without static output


def test_a_widget_that_is_not_displayed_takes_no_snapshot(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Explorer, "_snapshot", lambda self: pytest.fail("a snapshot was taken"))
    made = explorer()
    box = w.VBox([made])
    box._repr_mimebundle_()
    made._repr_mimebundle_()
    made.update(target=2)
    made.wait()
    made.close()
    assert page.messages == []


def test_without_static_output_the_widget_is_displayed_like_any_other(page: Page) -> None:
    made = explorer()
    formatter = DisplayFormatter()
    sw.static_output(False)
    try:
        data, _ = formatter.format(made)
        assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == made.model_id
        assert page.messages == []
    finally:
        sw.static_output(True)
    assert formatter.format(made) == ({}, {})
    assert len(page.messages) == 3
    made.close()
    with pytest.raises(TypeError, match="on: expected True or False, got 0"):
        sw.static_output(0)  # type: ignore[arg-type]


def test_without_a_kernel_ipython_prints_the_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    made = explorer()
    for shell in (None, SimpleNamespace(display_pub=None)):  # python, and ipython in a terminal
        monkeypatch.setattr(static_output, "get_ipython", lambda shell=shell: shell)
        data, _ = DisplayFormatter().format(made)
        assert data["text/plain"] == repr(made)
    made.close()


# ---- in a notebook

_CELLS = """
import numpy as np, torch, saliency_widgets as sw, ipywidgets as w
from torch import nn
model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)).eval()
image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
explorer = sw.explore(model, image, class_names=list("abcd"), method="smoothgrad", n_samples=8)
---
explorer
---
explorer.update(method="gradient", target="c")
---
w.VBox([explorer])
---
explorer.wait()
None
"""


@pytest.mark.soak
def test_a_notebook_that_waits_in_a_later_cell_is_stored_with_the_newest_map() -> None:
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in _CELLS.split("---\n")])
    NotebookClient(book, timeout=300, kernel_name="python3").execute()
    nbformat.validate(book)
    widget, image, text = book.cells[1].outputs
    assert "application/vnd.jupyter.widget-view+json" in widget.data
    assert list(image.data) == ["image/png", "text/plain"]
    assert "method='gradient', target=2" in text.data["text/plain"]
    assert len(book.cells[3].outputs) == 1  # inside a box, only the box is displayed
    assert book.cells[4].outputs == []
    book.metadata.pop("widgets")
    exported, _ = HTMLExporter().from_notebook_node(book)
    assert image.data["image/png"].strip() in exported.replace("\n", "")
    assert "Gradient · c" in exported
