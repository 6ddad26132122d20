"""Static outputs for readers without a kernel: hidden while the widget is shown, and shown in its place afterwards."""

from __future__ import annotations

import base64
import io

import nbformat
import numpy as np
import pytest
from lab import PLAIN, Lab
from nbconvert import HTMLExporter
from PIL import Image
from playwright.sync_api import Locator, expect
from seen import PIXELS

pytestmark = pytest.mark.browser

SETUP = """
import numpy as np, pandas as pd, torch
import saliency_widgets as sw
from torch import nn

torch.manual_seed(0)
net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 3)).eval()
image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
mlp = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
table = pd.DataFrame(np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32), columns=list("abcd"))
"""
EXPLORER = 'explorer = sw.explore(net, image, class_names=["ant", "<i>bee</i>", "cow"], method="gradient")\nexplorer'
CELLS = {
    EXPLORER: "method='gradient', target=",
    "rows = sw.explore(mlp, table.iloc[[0]], background=table)\nrows": "method='integrated_gradients'",
    'grid = sw.compare(net, [image, image[::-1].copy()], methods=["gradient", "smoothgrad"])\ngrid': "2 methods x 2",
    'lesson = sw.lesson(net, image, steps=["gradient"])\nlesson': "Step 1 of 1.",
    'sw.sweep(net, image, "smoothgrad", {"n_samples": [2, 4]}, progress=False)': "samples",
}
STATE = "@jupyter-widgets/jupyterlab-manager:saveWidgetState"


def pixels(image: Locator) -> np.ndarray:
    """The colors of the map in a static output, one for each pixel of the image: uint8 (16, 16, 3)."""
    source = image.get_attribute("src") or ""
    drawn = Image.open(io.BytesIO(base64.b64decode(source.partition("base64,")[2]))).convert("RGB")
    centers = 12 + 30 * np.arange(16) + 15  # a margin of 12, then 30 for each pixel of the image
    return np.asarray(drawn)[np.ix_(centers, centers)]


def expect_static(output: Locator, caption: str) -> None:
    """Expect one visible image and the caption, and nothing of the widget."""
    expect(output.locator("img:visible")).to_have_count(1)
    expect(output.locator(".sw-static")).to_be_visible()
    expect(output.locator(".sw-static")).to_contain_text(caption)
    expect(output.get_by_text("model not found")).not_to_be_visible()
    expect(output.locator("canvas:visible, .widget-box:visible")).to_have_count(0)
    assert output.locator("img:visible").evaluate("image => image.decode().then(() => image.naturalWidth)") > 100


def expect_widget(output: Locator) -> None:
    """Expect the widget to be visible, and its static output to be present but hidden."""
    expect(output.locator(".widget-box").first).to_be_visible()
    expect(output.locator("img")).not_to_have_count(0)
    expect(output.locator("img:visible")).to_have_count(0)
    expect(output.locator(".sw-static")).to_be_attached()
    expect(output.locator(".sw-static")).not_to_be_visible()


@pytest.mark.soak
def test_reopened_and_exported_notebooks_show_the_static_outputs(lab: Lab) -> None:
    path = lab.write_notebook([SETUP, *CELLS], kernel=PLAIN)
    lab.open(path)
    lab.run_all()
    lab.execute("explorer.update(target=2, colormap='viridis')")  # no cell runs, so a thread updates the static output
    view = lab.output(1).locator(".sw-heatmap")
    view.locator("xpath=self::*[@data-state='done']").wait_for()
    expect(lab.output(1).locator(".sw-static")).to_contain_text("target=2")
    expect(lab.output(1).locator(".sw-static")).to_contain_text("colormap='viridis'")
    lab.execute("rows.wait(), grid.wait(progress=False), lesson.wait()")
    for theme in ("light", "dark"):
        lab.theme(theme)
        for k in range(len(CELLS)):
            expect_widget(lab.output(k + 1))
            lab.screenshot(f"live-{theme}-{k}", lab.cell(k + 1))
    canvas = np.frombuffer(base64.b64decode(view.locator(".sw-canvas").evaluate(PIXELS, [16, 16])), np.uint8)

    lab.save()
    lab.end_kernels()
    lab.reload()
    stored = nbformat.read(lab.root / path, as_version=4)
    assert "widgets" not in stored.metadata
    for theme in ("light", "dark"):
        lab.theme(theme)
        for k, caption in enumerate(CELLS.values()):
            expect_static(lab.output(k + 1), caption)
            lab.screenshot(f"reopened-{theme}-{k}", lab.cell(k + 1))
    np.testing.assert_array_equal(pixels(lab.output(1).locator("img")), canvas.reshape(16, 16, 3))

    exported, _ = HTMLExporter().from_notebook_node(stored)
    file = lab.folder / "exported.html"
    file.write_text(exported)
    context = lab.page.context.browser.new_context(offline=True)
    try:
        page = context.new_page()
        page.goto(file.as_uri(), wait_until="domcontentloaded")
        for k, caption in enumerate(CELLS.values()):
            expect_static(page.locator(".jp-Cell").nth(k + 1).locator(".jp-Cell-outputArea"), caption)
        page.screenshot(path=lab.artifacts / "exported.png", full_page=True)
        np.testing.assert_array_equal(pixels(page.locator("img").first), canvas.reshape(16, 16, 3))
    finally:
        context.close()


@pytest.mark.soak
def test_stored_widgets_are_shown_and_closed_ones_are_replaced_by_static_outputs(lab: Lab) -> None:
    path = lab.write_notebook([SETUP, EXPLORER, "explorer.wait()\nNone"], kernel=PLAIN)
    lab.open(path)
    lab.js("await app.commands.execute(arg);", STATE)
    try:
        lab.run_all()
        lab.save()
        assert "widgets" in nbformat.read(lab.root / path, as_version=4).metadata
        lab.end_kernels()
        lab.reload()
        expect(lab.output(1).locator(".sw-heatmap .sw-title")).to_contain_text("Gradient")
        expect_widget(lab.output(1))
        lab.run_all()
        expect_widget(lab.output(1))
        lab.execute("explorer.close()")
        expect_static(lab.output(1), "method='gradient'")
    finally:
        lab.js("await app.commands.execute(arg);", STATE)
