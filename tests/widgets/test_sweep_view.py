"""The view of a sweep: text, chart and maps match the numbers, and "Use these" applies the recommendation."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from typing import Any

import ipywidgets as w
import numpy as np
import pytest
import torch
from PIL import Image
from toys import conv_net, images

import saliency_widgets as sw
from saliency_widgets.api.sweep.cells import CellResult
from saliency_widgets.session.frames import coded
from saliency_widgets.widgets.base.parts import parts_of
from saliency_widgets.widgets.compare.grid import GridView

sweeps = sys.modules["saliency_widgets.widgets.sweep"]  # the package has a function of that name

GRID = {"noise_level": [0.1, 0.4], "n_samples": [2, 8, 32]}


@pytest.fixture(scope="module")
def outcome() -> sw.Sweep:
    return sw.sweep(conv_net(), images(), "smoothgrad", GRID, ["similarity", "standard_error", "time"], progress=False)


def test_a_notebook_shows_a_sweep_as_a_widget(outcome: sw.Sweep) -> None:
    shown = outcome._repr_mimebundle_()
    assert shown["application/vnd.jupyter.widget-view+json"]["model_id"] == outcome.widget.model_id
    assert outcome.widget._words.value.count(outcome.words.replace("'", "&#x27;")) == 1


def test_the_lines_show_the_numbers_and_the_ring_marks_the_choice(outcome: sw.Sweep) -> None:
    view = outcome.widget
    table = outcome.summary
    for line, noise in zip(view._lines, GRID["noise_level"], strict=True):
        local = table[table.noise_level == noise]
        assert np.array_equal(line.x, local.evaluations)
        assert np.array_equal(line.y, local.similarity)
    assert outcome.choice is not None
    assert (view._ring.x, view._ring.y) == (table.evaluations[outcome.choice], table.similarity[outcome.choice])
    assert outcome.bend is None or view._knee.x == table.evaluations[outcome.bend]


def test_another_metric_gives_another_choice_from_the_same_numbers(outcome: sw.Sweep) -> None:
    view = outcome.widget
    view._quality.value = "standard_error"
    assert view.result.quality == "standard_error"
    assert view.result.words in view._words.value
    assert "sampling error" in view.result.words
    best = outcome.summary.standard_error.idxmin()
    assert view.result.recommended == {name: outcome.summary[name][best] for name in GRID}
    view._cost.value = "time"
    assert view._figure.axes[0].label == "Time (s)"
    view._quality.value, view._cost.value = "similarity", "evaluations"
    assert view.result.words == outcome.words


def maps_of(view: Any) -> GridView:
    """Return the grid of maps in a view."""
    (grid,) = [part for part in parts_of(view, []) if isinstance(part, GridView)]
    return grid


def test_each_setting_has_its_map_and_a_ring_marks_the_chosen_one(outcome: sw.Sweep) -> None:
    view = outcome.widget
    grid = maps_of(view)
    assert grid.rows == ["noise level 0.1", "noise level 0.4"]
    assert grid.columns == ["2 samples", "8 samples", "32 samples"]
    for position in (1, 0):
        view._input.value = position
        for k, cell in enumerate(grid.cells):
            setting = {"noise_level": GRID["noise_level"][k // 3], "n_samples": GRID["n_samples"][k % 3]}
            expected = coded(torch.from_numpy(outcome.map_of(position, **setting)), signed=False)
            assert np.array_equal(np.frombuffer(cell.frame["codes"], "<u2"), expected.codes.ravel())
            assert (cell.frame["low"], cell.frame["high"]) == (expected.low, expected.high)
            assert np.array_equal(np.array(Image.open(io.BytesIO(cell.image))), outcome.images[position])
            assert cell.name == outcome.describe(k)
            assert cell.status["title"].endswith(f"{outcome.number_of(position, k, 'similarity'):.2f}")
    ringed = [k for k, cell in enumerate(grid.cells) if cell.status["title"].startswith("○ ")]
    assert ringed == [outcome.choice]
    frames = [cell.frame for cell in grid.cells]
    view._quality.value = "standard_error"
    assert all(cell.frame is frame for cell, frame in zip(grid.cells, frames, strict=True)), "no map is sent again"
    assert [cell.status["title"].startswith("○ ") for cell in grid.cells].index(True) == view.result.choice
    view._quality.value = "similarity"


def test_a_failed_cell_shows_its_error_and_no_other_map(outcome: sw.Sweep) -> None:
    cells = {**outcome.cells, (1, 2): CellResult({}, error="out of luck", failure="RuntimeError")}
    broken = np.full_like(outcome.map_of(1, noise_level=0.4, n_samples=2), np.inf)
    view = replace(outcome, cells={**cells, (1, 3): replace(outcome.cells[1, 3], values=broken)}).widget
    grid = maps_of(view)
    assert all(cell.frame for cell in grid.cells)
    view._input.value = 1
    assert grid.cells[2].status["message"] == "out of luck"
    assert "no color scale" in grid.cells[3].status["message"]
    assert [k for k, cell in enumerate(grid.cells) if not cell.frame] == [2, 3]
    view._input.value = 0
    assert all(cell.frame and cell.status["state"] == "done" for cell in grid.cells)


def test_a_signed_map_keeps_its_sign_and_one_parameter_is_one_row() -> None:
    outcome = sw.sweep(
        conv_net(), images()[:1], "integrated_gradients", {"baseline": ["zero", "blur"]}, ["insertion"],
        sign="signed", n_steps=4, progress=False,
    )  # fmt: skip
    grid = maps_of(outcome.widget)
    assert (grid.rows, grid.columns) == ([""], ["baseline zero", "baseline blur"])
    assert all(cell.frame["signed"] for cell in grid.cells)


def test_a_text_says_how_many_of_the_maps_are_shown(outcome: sw.Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeps, "_MOST", 4)
    view = sweeps.SweepView(outcome)
    grid = maps_of(view)
    assert (len(grid.cells), len(grid.rows), len(grid.columns)) == (4, 2, 3)
    words = [part.value for part in parts_of(view, []) if isinstance(part, w.HTML)]
    assert any("These are 4 of 6; map_of(...) returns any of them." in text for text in words)


def test_a_click_on_a_map_applies_its_settings_to_the_explorer(outcome: sw.Sweep) -> None:
    explorer = sw.explore(conv_net(), images()[:1], method="gradient", executor="inline")
    grid = maps_of(outcome.widget_for(explorer))
    grid._on_message(grid, {"type": "open", "cell": 4}, [])
    assert explorer.settings["method"] == "smoothgrad"
    assert {name: explorer.settings[name] for name in GRID} == {"noise_level": 0.4, "n_samples": 8}
    assert grid.opened["words"] == "The explorer shows noise level 0.4, 8 samples."
    explorer.close()
    grid._on_message(grid, {"type": "open", "cell": 0}, [])
    assert "The explorer is closed" in grid.opened["words"]
    alone = maps_of(outcome.widget)
    alone._on_message(alone, {"type": "open", "cell": 4}, [])
    message = "explorer.update(method='smoothgrad', noise_level=0.4, n_samples=8) shows it."
    assert alone.opened["words"] == message


def test_use_these_applies_the_recommendation_to_the_explorer(outcome: sw.Sweep) -> None:
    explorer = sw.explore(conv_net(), images()[:1], method="gradient", executor="inline")
    view = outcome.widget_for(explorer)
    view._use.click()
    assert explorer.settings["method"] == "smoothgrad"
    assert {name: explorer.settings[name] for name in GRID} == outcome.recommended
    explorer.close()
    assert not any(child is view._use for child in outcome.widget.children)


def test_a_sweep_of_rows_has_a_chart_but_no_maps() -> None:
    outcome = sw.sweep(
        conv_net()[-1], images(0, 1, 1, 4, 5).reshape(1, 20), "smoothgrad", {"n_samples": [2, 8]}, ["similarity"],
        progress=False,
    )  # fmt: skip
    assert not any(isinstance(part, GridView) for part in parts_of(outcome.widget, []))
    assert len(outcome.widget._lines) == 1


def test_choosing_by_a_metric_that_was_not_measured_is_an_error(outcome: sw.Sweep) -> None:
    with pytest.raises(ValueError, match="quality: 'insertion' is not known"):
        outcome.by("insertion")
    with pytest.raises(ValueError, match="cost: 'similarity' is not known"):
        outcome.by(cost="similarity")
    with pytest.raises(ValueError, match="within"):
        outcome.by(within=3)
    assert outcome.by(within=1.0).choice == 0  # any quality is accepted, so the cheapest setting is chosen
