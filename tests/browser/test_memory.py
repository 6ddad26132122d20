"""DOM nodes that a page keeps when a cell runs again: none of our widgets, all of plain widgets."""

from __future__ import annotations

import pytest
from lab import Lab
from memory import PLAIN, PageMemory

pytestmark = pytest.mark.browser

SETUP = """
import torch
import saliency_widgets as sw

torch.manual_seed(0)
net = torch.nn.Sequential(
    torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 3)
).eval()
image, rows, background = torch.rand(3, 32, 32), torch.nn.Linear(4, 3).eval(), torch.randn(20, 4)
"""
SHOWN = """
shown = [
    sw.explore(net, image, method="gradient"),
    sw.explore(rows, background[0], background=background, method="gradient"),
    sw.compare(net, image, methods=["gradient", "grad_cam"]),
    sw.lesson(net, image, steps=["input", "gradient"]),
]
display(*shown)
"""
WAIT = "for one in shown: one.wait(120)"
MARGIN = 40  # nodes per run that JupyterLab itself and bqplot's tooltips leave


def nodes_kept_per_run(
    lab: Lab, memory: PageMemory, index: int, margin: int = MARGIN, runs: int = 2, warm: int = 2
) -> float:
    """Return how many nodes per run a page keeps when a cell runs again; wait while there are more than the margin."""

    def run() -> None:
        lab.run_cell(index, seconds=120)
        lab.output(index).locator(".jupyter-widgets").first.wait_for()
        lab.execute(WAIT, seconds=150)

    for _ in range(warm):
        run()
    before = memory.usage()
    for _ in range(runs):
        run()
    return memory.growth(before, margin * runs).nodes / runs


@pytest.mark.soak
def test_rerunning_a_cell_leaves_no_nodes(lab: Lab) -> None:
    lab.open(lab.write_notebook([SETUP + PLAIN, SHOWN, "display(*plain(shown))"]))
    lab.run_cell(0, seconds=120)
    memory = PageMemory(lab)
    assert nodes_kept_per_run(lab, memory, 1) <= MARGIN
    # JupyterLab does keep nodes of the same plain widgets, so the measurement detects leaks. See tests/README.md.
    assert nodes_kept_per_run(lab, memory, 2, margin=10**6, runs=1, warm=1) > 10 * MARGIN
    assert lab.errors == []
