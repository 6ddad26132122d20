"""Models are freed with the last view of them, in JupyterLab."""

from __future__ import annotations

import pytest
from lab import Lab
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

SETUP = """
import gc, weakref
import numpy as np
import torch
import saliency_widgets as sw
from torch import nn

torch.set_num_threads(1)
image = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
models = []

class Large(nn.Module):
    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(10_000_000))
        self.inner = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 22 * 22, 3))

    def forward(self, x):
        return self.inner(x)

def make():
    model = Large().eval()
    models.append(weakref.ref(model))
    return model

def alive():
    return sum(model() is not None for model in models)
"""
UNNAMED = "sw.explore(make(), image, method='gradient')"
NAMED = "made = sw.explore(make(), image, method='gradient')\nmade"


@pytest.mark.soak
@pytest.mark.parametrize("cell", [UNNAMED, NAMED], ids=["unnamed", "named"])
def test_rerunning_a_cell_keeps_at_most_two_models_alive(lab: Lab, cell: str) -> None:
    lab.open(lab.write_notebook([SETUP, cell]))
    lab.run_cell(0)
    for k in range(5):
        lab.run_cell(1)
        expect(lab.output(1).locator(".sw-explorer")).to_have_count(1)
        expect(lab.output(1).locator("canvas").first).to_be_visible()
        lab.wait_for_value(f"len(models) == {k + 1} and alive() <= 2", True)
    lab.execute("made = None")
    lab.js("await app.commands.execute('notebook:clear-all-cell-outputs');")
    lab.wait_for_value("alive()", 0)
    assert lab.errors == []


def test_two_outputs_of_an_explorer_keep_it_alive_until_both_are_gone(lab: Lab) -> None:
    lab.open(lab.write_notebook([SETUP, UNNAMED, "shown = weakref.ref(Out[2])\nshown()"]))
    lab.run_all()
    expect(lab.output(2).locator(".sw-explorer")).to_have_count(1)
    lab.wait_for_value("shown()._view_count", 2)
    lab.js("panel.content.model.cells.get(1).outputs.clear();")
    lab.wait_for_value("shown()._view_count", 1)
    assert lab.value("alive()") == 1
    assert lab.value("shown().wait(60).settings['method']") == "gradient"
    lab.js("panel.content.model.cells.get(2).outputs.clear();")
    lab.wait_for_value("alive()", 0)
    assert lab.errors == []
