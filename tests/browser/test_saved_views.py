"""Saved lessons and comparisons, opened without a network: they show the kernel's maps, and keys and sliders work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from playwright.sync_api import Page, expect
from torch import nn

import saliency_widgets as sw

pytestmark = pytest.mark.browser

NAMES = ["cat", "</script><b>dog</b>", "boat"]

# The codes in a trait of a model on the page, at a path that starts with the trait's name.
_CODES = """([index, path]) => {
  let value = saliency.models[index].get(path[0]);
  for (const name of path.slice(1)) value = value[name];
  const view = value.codes;
  return Array.from(new Uint8Array(view.buffer, view.byteOffset, view.byteLength));
}"""


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 3),
    ).eval()  # fmt: skip


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (28, 32, 3), dtype=np.uint8)


class Opened:
    """A page opened from disk in an offline browser, with all its requests and errors."""

    def __init__(self, page: Page, path: Path) -> None:
        self.page, self.requests, self.errors, self.url = page, [], [], path.as_uri()
        page.context.set_offline(True)
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(self.url)
        page.wait_for_selector("html[data-opened=true]")

    def codes(self, position: int, *path: str) -> np.ndarray:
        return np.array(self.page.evaluate(_CODES, [position, list(path)]), np.uint8).view("<u2")

    def models_with(self, kind: str) -> list[int]:
        """The indices of the models on the page that have a trait."""
        return self.page.evaluate(
            "name => saliency.models.map((m, k) => [m, k]).filter(([m]) => m.get(name) !== undefined).map(p => p[1])",
            kind,
        )

    def drawn(self, selector: str) -> list[str]:
        """The contents of the visible canvases, as data URLs."""
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return self.page.locator(f"{selector}:visible").evaluate_all("all => all.map(one => one.toDataURL())")

    def assert_harmless(self) -> None:
        assert self.requests == [self.url]
        assert self.errors == []


@pytest.fixture
def lesson() -> Iterator[Any]:
    made = sw.lesson(net(), image(), class_names=NAMES, n_samples=8)
    yield made
    made.close()


@pytest.mark.soak
def test_a_saved_lesson_shows_the_kernels_maps_and_changes_steps_by_key(lesson, tmp_path, page):
    size = lesson.wait(300).page_size()
    saved = lesson.save_html(tmp_path / "lesson.html")
    assert saved.bytes == saved.path.stat().st_size
    assert abs(saved.bytes - size) <= 200  # the step that is shown and the time of saving may differ
    result = Opened(page, saved.path)
    (root,) = result.models_with("steps")
    maps = 0
    for name in lesson.steps:
        for key, raw in lesson.view.content(name).get("maps", {}).items():
            kernel = np.frombuffer(raw["codes"], "<u2")
            np.testing.assert_array_equal(result.codes(root, f"content_{name}", "maps", key), kernel)
            maps += 1
    assert maps == saved.maps > 20

    moved = set()
    for k, name in enumerate(lesson.steps):
        page.wait_for_selector(f".sw-lesson[data-painted^='{k} ']")  # until then the controls are the previous step's
        assert page.evaluate("saliency.root.get('step')") == k
        slider = page.locator(".sw-lesson input[type=range]:visible")
        if slider.count():
            before = result.drawn(".sw-lesson canvas")
            slider.first.evaluate(
                "one => { one.value = one.value === one.min ? one.max : one.min;"
                " one.dispatchEvent(new Event('input', {bubbles: true})); }"
            )
            if result.drawn(".sw-lesson canvas") != before:
                moved.add(name)
        page.keyboard.press("PageDown")
    assert {"normalized", "overlay", "noise", "smoothing", "path"} <= moved
    page.keyboard.press("Home")
    page.wait_for_function("saliency.root.get('step') === 0")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("saliency.root.get('step') === 1")
    expect(page.get_by_text("Try it")).not_to_be_visible()
    result.assert_harmless()


class Bag(nn.Module):
    """The mean of curved embeddings and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head = nn.Embedding(5, 8), nn.Linear(8, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.embedding(ids).tanh().mean(1))


def test_a_saved_lesson_on_a_text_shows_tokens_charts_and_colors(tmp_path, page):
    words = {word: index for index, word in enumerate(["<b>the</b>", "cat", "sat", "on", "mat"])}
    made = sw.lesson(Bag().eval(), "<b>the</b> cat sat on mat", tokenizer=words, n_samples=4).wait(120)
    result = Opened(page, made.save_html(tmp_path / "lesson.html").path)
    expect(page.locator(".sw-lesson-tokens li")).to_have_text(["<b>the</b>0", "cat1", "sat2", "on3", "mat4"])
    page.keyboard.press("PageDown")
    for k, panels in ((2, 2), (3, 2), (4, 3)):
        page.keyboard.press("PageDown")
        page.wait_for_selector(f".sw-lesson[data-painted^='{k} ']")
        expect(page.locator(".sw-lesson-panel:visible")).to_have_count(panels)
    page.keyboard.press("PageDown")
    page.wait_for_selector(".sw-lesson[data-painted^='5 ']")
    colors = "all => all.map(one => getComputedStyle(one).backgroundColor)"
    tokens = page.locator(".sw-token")
    expect(tokens).to_have_text([*words])
    assert len(set(tokens.evaluate_all(colors))) > 1
    tokens.nth(1).hover()
    expect(page.locator(".sw-lesson-readout")).to_contain_text("cat · id 1 · attribution")
    result.assert_harmless()
    made.close()


def test_a_page_over_its_limit_is_not_written(lesson, tmp_path):
    path = tmp_path / "lesson.html"
    with pytest.raises(ValueError, match=r"max_bytes: the page size is .* maps\), over the limit of 10 kB"):
        lesson.save_html(path, max_bytes=10_000)
    assert not path.exists()


def test_a_saved_comparison_is_shown_read_and_subtracted(tmp_path, page):
    compared = sw.compare(net(), {"one": image(1), "two": image(2)}, methods=["gradient", "guided_backprop"],
                          class_names=NAMES)  # fmt: skip
    saved = compared.save_html(tmp_path / "grid.html", progress=False)
    frames = [compared._maps.frame(position).codes for position in compared._shown]
    compared.close()
    assert saved.maps == 4
    result = Opened(page, saved.path)
    cells = result.models_with("group")
    assert len(cells) == 4
    for position, codes in zip(cells, frames, strict=True):
        np.testing.assert_array_equal(result.codes(position, "frame"), codes.ravel())
    before = result.drawn(".sw-cell canvas")
    assert len(set(before)) == 4
    slider = page.locator("[data-name=opacity] input")
    slider.focus()
    slider.press("Home")
    for _ in range(50):  # cells may be painted in several animation frames
        after = result.drawn(".sw-cell canvas")
        if all(old != new for old, new in zip(before, after, strict=True)):
            break
    assert all(old != new for old, new in zip(before, after, strict=True))
    page.get_by_text("Same clip for all").click()
    page.locator(".sw-cell canvas").first.hover()
    expect(page.locator(".sw-cell .sw-cursor:visible")).to_have_count(4)
    page.locator(".sw-pair-summary").click()
    for k in (0, 1):
        page.locator(".sw-pair-select").nth(k).select_option(str(k))
    expect(page.locator(".sw-pair .sw-cell-canvas")).to_be_visible()
    expect(page.get_by_text("Stop")).not_to_be_visible()
    page.locator(".sw-cell canvas").first.click()  # without a kernel this opens no explorer
    result.assert_harmless()
