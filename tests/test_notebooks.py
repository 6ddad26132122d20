"""The notebooks run without errors, and are stored with the results that their widgets show."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from nbformat import NotebookNode

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
# What a notebook prints if its result is right, where it is not the line in ``test_notebook_runs``.
EXPECTED_OUTPUT = {"tune": "equal to the first time: True"}
STATE = "application/vnd.jupyter.widget-state+json"

VIEWS = 24
MODELS = """
import hashlib, json
import numpy as np
import pandas as pd
import torch
import saliency_widgets as sw
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 3)).eval()
image = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
mlp = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
table = pd.DataFrame(np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32), columns=list("abcd"))
images, tables = [], []
"""
IMAGE = "images.append(sw.explore(net, image, method='smoothgrad', n_samples={}))\nimages[-1]"
TABLE = "tables.append(sw.explore(mlp, table.iloc[[{}]], background=table))\ntables[-1]"
WAIT = "for made in [*images, *tables]:\n    made.wait()"
TRUTH = """
digest = lambda one: hashlib.sha256(one).hexdigest()
bars = [one.kind_view.bars._bars for one in tables]
print(json.dumps({
    "views": [one.view.model_id for one in [*images, *tables]],
    "maps": {one.view.model_id: digest(one.view.frame["codes"]) for one in images},
    "bars": {one.model_id: digest(np.ascontiguousarray(one.y)) for one in bars},
}))
"""


def run(book: NotebookNode, folder: Path) -> dict[str, Any]:
    """Run a notebook and return the stored state of its widgets."""
    NotebookClient(book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    return book.metadata.widgets[STATE]["state"]


def stored(widget: dict[str, Any], *path: str) -> bytes:
    """Return the bytes of a stored trait."""
    (result,) = [one["data"] for one in widget["buffers"] if one["path"] == list(path)]
    return base64.b64decode(result)


def is_finished(widget: dict[str, Any]) -> bool:
    """Return whether a stored view of this package is done; other widgets always are."""
    state = widget["state"]
    ours = state.get("_anywidget_id", "").startswith("saliency_widgets.") and "status" in state
    return not ours or state["status"].get("state") == "done"


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.soak
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path):
    book = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in book.cells), "notebooks are committed without outputs"
    widgets = run(book, path.parent)
    printed = "".join(o.get("text", "") for cell in book.cells for o in cell.get("outputs", []))
    assert EXPECTED_OUTPUT.get(path.stem, "equal to the screen: True") in printed
    assert [key for key, widget in widgets.items() if not is_finished(widget)] == []


@pytest.mark.soak
def test_wait_some_cells_later_stores_every_finished_result(tmp_path):
    made = [code for k in range(VIEWS // 2) for code in (IMAGE.format(4 + 3 * k), TABLE.format(k), "1 + 1")]
    book = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(code) for code in (MODELS, *made, WAIT, "1 + 1", TRUTH)]
    )
    widgets = run(book, tmp_path)
    truth = json.loads(book.cells[-1].outputs[0]["text"])
    assert len(truth["views"]) == VIEWS
    assert [key for key in truth["views"] if not is_finished(widgets[key])] == []
    for key, digest in truth["maps"].items():
        assert hashlib.sha256(stored(widgets[key], "frame", "codes")).hexdigest() == digest
    for key, digest in truth["bars"].items():
        assert hashlib.sha256(stored(widgets[key], "y", "value")).hexdigest() == digest
    page, _ = HTMLExporter().from_notebook_node(book)
    (inside,) = re.findall(f'<script type="{re.escape(STATE)}">(.*?)</script>', page, re.DOTALL)
    assert json.loads(inside)["state"] == widgets
