"""What a page keeps of a cell that runs again: of ours nothing, of plain widgets all that they are made of."""

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
SHOWN = {
    "explorer": "sw.explore(net, image, method='gradient')",
    "table": "sw.explore(rows, background[0], background=background, method='gradient')",
    "comparison": "sw.compare(net, image, methods=['gradient', 'grad_cam'])",
    "lesson": "sw.lesson(net, image)",
}
RUNS = 3
MARGIN = 40  # nodes: of JupyterLab's own, and bqplot's tooltips


def left_by_a_run(lab: Lab, memory: PageMemory, index: int) -> float:
    """Nodes that the page keeps of one run of a cell after the next."""

    def run() -> None:
        lab.run_cell(index, seconds=120)
        lab.output(index).locator(".jupyter-widgets").first.wait_for()
        lab.execute("shown.wait(120)", seconds=150)

    for _ in range(2):
        run()
    before = memory.held()
    for _ in range(RUNS):
        run()
    return memory.growth(before, MARGIN * RUNS).nodes / RUNS


def test_a_cell_that_runs_again_leaves_no_elements(lab: Lab) -> None:
    cells = [f"shown = {code}\nshown" for code in SHOWN.values()]
    lab.open(lab.write_notebook([SETUP + PLAIN, *cells, f"shown = {SHOWN['explorer']}", "plain(shown)"]))
    lab.run_cell(0, seconds=120)
    memory = PageMemory(lab)
    left = {name: left_by_a_run(lab, memory, index) for index, name in enumerate(SHOWN, 1)}
    assert {name: nodes for name, nodes in left.items() if nodes > MARGIN} == {}
    # The explorer's widgets without us, which JupyterLab keeps: this can be measured, and is not ours. See README.md.
    lab.run_cell(-2)
    assert left_by_a_run(lab, memory, lab.cell_count() - 1) > 10 * MARGIN
    assert lab.errors == []
