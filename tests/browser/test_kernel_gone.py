"""Views in JupyterLab after a kernel restart: results stay, and using a control reports that the kernel is gone."""

from __future__ import annotations

import pytest
from lab import Lab
from playwright.sync_api import Locator, expect

pytestmark = pytest.mark.browser

GONE = "The kernel is gone: run the cell again."
IMAGE = f"{GONE} Opacity, colors and all other display settings still work."
GRID = f"{GONE} Opacity, colors, scales and all other display settings still work."
PLAIN = f"{GONE} The displayed results remain unchanged."

MODEL = """import numpy as np
import pandas as pd
import torch
import saliency_widgets as sw
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 3)).eval()
image = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
names = {"class_names": ["cat", "dog", "boat"]}
"""
EXPLORER = MODEL + "made = sw.explore(net, image, method='smoothgrad', n_samples=2, **names)\nmade"
TABLE = (
    MODEL
    + """table = pd.DataFrame(np.random.default_rng(0).normal(size=(50, 4)).astype("float32"), columns=list("abcd"))
made = sw.explore(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval(), table.iloc[[0]], background=table)
made"""
)
COMPARISON = MODEL + "made = sw.compare(net, image, methods=['gradient', 'grad_cam'], classes=[0, 1], **names)\nmade"
SWEEP = MODEL + "sw.sweep(net, image, 'smoothgrad', {'n_samples': [2, 4]}, progress=False, **names)"
LESSON = (
    MODEL
    + """import threading

class Held(nn.Module):
    def forward(self, x):
        if threading.current_thread() is not threading.main_thread():
            threading.Event().wait()
        return net(x)

made = sw.lesson(Held(), image, n_samples=500, **names)
made"""
)


def shown_results(lab: Lab, *codes: str) -> list[Locator]:
    """Run cells that each show a view, and return their outputs once all results are shown."""
    lab.open(lab.write_notebook([*codes]))
    outputs = []
    for index in range(len(codes)):
        lab.run_cell(index)
        lab.execute("made.wait(120) and None", seconds=150)
        output = lab.output(index)
        output.locator(".sw-view").first.wait_for(timeout=90_000)
        output.locator(":is(.sw-heatmap, .sw-grid, .sw-lesson)[data-state=done]").first.wait_for(timeout=90_000)
        outputs.append(output)
    return outputs


def step(handle: Locator) -> None:
    handle.focus()
    handle.press("ArrowRight")


def test_an_explorer_reports_what_still_works_once_a_menu_is_used(lab: Lab) -> None:
    lab.theme("dark")
    (output,) = shown_results(lab, EXPLORER)
    view = output.locator(".sw-heatmap").first
    lab.restart_kernel()
    line = view.locator(".sw-message")
    step(output.locator(".sw-control-opacity .noUi-handle").first)
    expect(line).to_be_hidden()
    seen = view.locator("canvas.sw-canvas")
    before = seen.evaluate("one => one.toDataURL()")
    output.locator(".sw-control-method select").select_option("Gradient")
    expect(line).to_have_text(IMAGE)
    expect(line).to_be_visible()
    expect(view.locator(".sw-remedy")).to_be_hidden()
    expect(view.locator(".sw-notes")).not_to_contain_text("gone")
    assert seen.evaluate("one => one.toDataURL()") == before  # the map stays
    step(output.locator(".sw-control-threshold .noUi-handle").first)
    lab.page.wait_for_function("([one, old]) => one.toDataURL() !== old", arg=[seen.element_handle(), before])
    lab.screenshot("explorer-dark", output)


@pytest.mark.soak
def test_each_control_that_needs_the_kernel_shows_the_message(lab: Lab) -> None:
    requests = {
        "slider": lambda output: step(output.locator(".sw-control-n_samples .noUi-handle").first),
        "pin": lambda output: output.get_by_role("button", name="Pin this map").click(),
        "predictions": lambda output: output.locator(".sw-predictions .svg-figure").click(),
        "trust": lambda output: output.get_by_text("Can I trust this map?").click(),
    }
    outputs = shown_results(lab, *[EXPLORER] * len(requests))
    lab.restart_kernel()
    for output, request in zip(outputs, requests.values(), strict=True):
        line = output.locator(".sw-heatmap .sw-message").first
        expect(line).to_be_hidden()
        request(output)
        expect(line).to_have_text(IMAGE)


@pytest.mark.soak
def test_a_table_explorer_shows_the_message(lab: Lab) -> None:
    (output,) = shown_results(lab, TABLE)
    lab.restart_kernel()
    line = output.locator(".sw-heatmap .sw-message").first
    expect(line).to_be_hidden()
    step(output.locator(".sw-control-what-if-value .noUi-handle").first)
    expect(line).to_have_text(PLAIN)
    lab.screenshot("table", output)


@pytest.mark.soak
def test_a_comparison_shows_the_message(lab: Lab) -> None:
    requests = {
        "menu": lambda output: output.locator(".sw-control-channels select").select_option(index=1),
        "cell": lambda output: output.locator(".sw-cell canvas").first.click(),
    }
    outputs = shown_results(lab, *[COMPARISON] * len(requests))
    lab.restart_kernel()
    for output, (name, request) in zip(outputs, requests.items(), strict=True):
        line = output.locator(".sw-grid .sw-opened")
        expect(line).to_have_text("")
        output.get_by_text("Same clip for all").click()
        expect(line).to_have_text("")
        request(output)
        expect(line).to_have_text(GRID)
        lab.screenshot(f"comparison-{name}", output)


@pytest.mark.soak
def test_a_sweep_shows_the_message(lab: Lab) -> None:
    lab.open(lab.write_notebook([SWEEP]))
    lab.run_all()
    output = lab.output(0)
    expect(output.locator(".sw-cell[data-generation]")).to_have_count(2)
    lab.restart_kernel()
    output.locator("select").first.select_option(index=1)
    expect(output.locator(".sw-grid .sw-opened")).to_have_text(GRID)


@pytest.mark.soak
def test_a_lesson_still_changes_steps_and_reports_missing_ones(lab: Lab) -> None:
    lab.open(lab.write_notebook([LESSON]))
    lab.run_all()
    lesson = lab.output(0).locator(".sw-lesson")
    lesson.wait_for()
    lab.restart_kernel()
    lesson.focus()
    lab.page.keyboard.press("End")
    expect(lesson.locator(".sw-lesson-empty")).to_contain_text(f"{GONE}")
    expect(lesson.get_by_text("Try it")).not_to_be_visible()
