"""Comparisons: every cell equals sw.attribute, whatever the rows and columns, and invalid arguments are errors."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from ipywidgets.widgets.widget import _instances
from torch import nn

import saliency_widgets as sw
from saliency_widgets import render
from saliency_widgets.api import checkup as engine_checkup
from saliency_widgets.api.compare import Cell
from saliency_widgets.attribution import Reduction
from saliency_widgets.session import frame_of
from saliency_widgets.widgets.compare.grid import MapCell

NAMES = ["cat", "dog", "boat"]


def net(seed: int = 0, classes: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, classes),
    ).eval()  # fmt: skip


def images(count: int, size: tuple[int, int] = (16, 20)) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.rand(3, *size, generator=generator) for _ in range(count)]


@pytest.fixture
def compare():
    """A function that creates comparisons which compute inline; they are closed after the test."""
    opened = []

    def make(*args, **kwargs):
        settings = {"methods": "gradient", "settings": None, "classes": None, "rows": None, "columns": None,
                 "score": "logit", "contrast": None, "limit": 400, "executor": "inline", "params": {}}  # fmt: skip
        names = {*settings, "sign", "channels", "scale"}
        about = {"class_names": NAMES, "transform": None, "device": None, "fold": True, "precision": None}
        params = {name: kwargs.pop(name) for name in list(kwargs) if name not in {*names, *about, "explain"}}
        result = sw.Comparison(*args, **{**settings, **about, **kwargs, "params": params})
        opened.append(result)
        return result

    yield make
    for one in opened:
        one.close()


def assert_cells(compared, count: int) -> None:
    """Assert that each cell holds and shows, bit for bit, what sw.attribute returns for its settings."""
    result = compared.wait(timeout=60, progress=False)
    assert len(result) == len(compared._shown) == count
    for position in compared._shown:
        attribution = compared._maps.attribution(position)
        requested = compared._comparison
        again = sw.attribute(
            requested.axes["models"].values[position.models], requested.axes["inputs"].values[position.inputs],
            class_names=NAMES, **attribution.settings,
        )  # fmt: skip
        assert torch.equal(again.values, attribution.values)
        reduction = Reduction(requested.method(position).sign)
        np.testing.assert_array_equal(compared._maps.frame(position).codes, frame_of(again, reduction).codes)


def test_methods_by_images(compare):
    compared = compare(net(), images(3), methods=["gradient", "smoothgrad", "grad_cam"], n_samples=4)
    assert_cells(compared, 9)
    assert compared.view.columns == ["input 1", "input 2", "input 3"]
    assert compared.view.rows == ["Gradient", "SmoothGrad", "Grad-CAM"]
    assert {cell.group for cell in compared.view.cells} == set(compared.view.rows)
    settings = compared.attributions["SmoothGrad", "input 2"].settings
    assert settings["n_samples"] == 4


@pytest.mark.parametrize(
    ("value", "rows", "columns"),
    [
        ({"settings": {"noise_level": [0.1, 0.2], "n_samples": [2, 4]}, "methods": "smoothgrad"}, 1, 4),
        ({"settings": [{"n_samples": 2}, {"n_samples": 4}], "methods": ["smoothgrad", "gradient"]}, 2, 2),
        ({"settings": {"few": {"n_samples": 2}, "many": {"n_samples": 8}}, "methods": "smoothgrad"}, 1, 2),
        ({"classes": ["cat", 2], "methods": ["gradient", "input_x_gradient"]}, 2, 2),
        ({"classes": ["cat", "dog"], "rows": "classes"}, 2, 1),
        ({"methods": {"mine": "gradient", "theirs": "guided_backprop"}, "rows": "methods", "columns": "inputs"}, 2, 1),
    ],
)
def test_any_two_axes_can_be_rows_and_columns(compare, value, rows, columns):
    compared = compare(net(), images(1), **value)
    assert (len(compared.view.rows), len(compared.view.columns)) == (rows, columns)
    assert_cells(compared, rows * columns)


def test_an_axis_that_is_neither_rows_nor_columns_has_a_menu(compare):
    models = {"old": net(0), "new": net(1)}
    compared = compare(models, images(2), methods=["gradient", "guided_backprop"], rows="methods", columns="inputs")
    assert_cells(compared, 4)
    old = {position: compared._maps.frame(position).codes for position in compared._shown}
    compared.show(models="new")
    assert_cells(compared, 4)
    assert all(position.models == 1 for position in compared._shown)
    for position in compared._shown:
        assert (compared._maps.frame(position).codes != old[position._replace(models=0)]).any()
    with pytest.raises(ValueError, match="models: 'newest' is not known"):
        compared.show(models="newest")
    with pytest.raises(ValueError, match="menu"):
        compared.show(methods="gradient")
    evaluations = compared._comparison.problems[0].memory.passes
    compared.show(models="old")  # cached: nothing is recomputed
    compared.wait(progress=False)
    assert compared._comparison.problems[0].memory.passes == evaluations
    compared._pivot.turning[0].value = "models"
    assert (compared._pivot.rows, compared._pivot.columns) == ("models", "inputs")
    assert_cells(compared, 4)
    compared._pivot.turning[1].value = "models"  # rows and columns are swapped
    assert (compared._pivot.rows, compared._pivot.columns) == ("inputs", "models")
    assert_cells(compared, 4)


def test_each_model_has_its_own_predictions_layers_and_check_up(compare):
    broken = nn.Sequential(*net(1), nn.Softmax(1))
    compared = compare({"plain": net(0), "softmax": broken}, images(1), methods=["gradient", "grad_cam"])
    compared.wait(progress=False)
    assert {line["name"] for line in compared.view.checkups} == {"plain", "softmax"}
    result = {line["name"]: str(line["findings"]) for line in compared.view.checkups}
    assert "oftmax" in result["softmax"]
    assert "oftmax" not in result["plain"]
    for name in ("plain", "softmax"):
        assert name in compared.panel.predictions.value
    assert [menu.description for menu in compared.panel.layers.values()] == ["plain", "softmax"]
    before = compared.attributions["Grad-CAM", "softmax"]
    compared.panel.layers[0].value = "0"
    compared.wait(progress=False)
    assert compared.attributions["Grad-CAM", "plain"].layer == "0"
    assert torch.equal(compared.attributions["Grad-CAM", "softmax"].values, before.values)


@pytest.mark.parametrize(("error", "count"), [(ZeroDivisionError("no"), 1), (ValueError("no"), 0)])
def test_a_failed_check_up_is_reported_unless_the_cells_report_the_error(compare, monkeypatch, error, count):
    def fail(*_args):
        raise error

    monkeypatch.setattr(engine_checkup, "check_up", fail)
    compared = compare(net(), images(1), methods=["gradient"])
    compared.wait(progress=False)
    assert len(compared.view.checkups) == count
    assert all("ZeroDivisionError: no" in str(line["findings"]) for line in compared.view.checkups)


def test_a_difference_is_of_values_in_one_method_and_of_scaled_maps_between_methods(compare):
    compared = compare(net(), images(2), methods=["gradient", "guided_backprop"])
    compared.wait(progress=False)
    a, b = ("Gradient", "input 1"), ("Gradient", "input 2")
    maps = {
        name: render.dequantize(compared._maps.frame(compared._find_cell("a", name))) for name in compared.attributions
    }
    result = compared.difference(a, b)
    np.testing.assert_allclose(result, maps[a] - maps[b], atol=np.abs(result).max() / 65534)
    c = ("Guided Backprop", "input 1")
    clipped = [np.sort(maps[name].ravel())[int(np.ceil(0.99 * maps[name].size)) - 1] for name in (a, c)]
    expected = maps[a] / clipped[0] - maps[c] / clipped[1]
    result = compared.difference(a, c)
    np.testing.assert_allclose(result, expected, atol=1.01 * np.abs(expected).max() / 65534)
    with pytest.raises(ValueError, match="no cell"):
        compared.difference(a, ("Gradient", "input 9"))


def test_maps_of_different_sizes_are_shown_and_can_not_be_subtracted(compare):
    compared = compare(net(), {"wide": images(1)[0], "tall": images(1, (20, 12))[0]})
    assert_cells(compared, 2)
    names = list(compared.attributions)
    with pytest.raises(ValueError, match="16 x 20 and the other 20 x 12"):
        compared.difference(*names)


def test_a_failed_map_shows_its_error_and_the_others_are_computed(compare):
    class FailsIfBright(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net()

        def forward(self, x):
            if float(x.mean()) > 0.9:
                raise RuntimeError("too bright for me")
            return self.net(x)

    compared = compare(FailsIfBright().eval(), {"dark": images(1)[0], "bright": torch.ones(3, 16, 20)})
    result = compared.wait(progress=False)
    assert list(result) == [("Gradient", "dark")] or len(result) == 1
    (error,) = compared.errors.values()
    assert "too bright" in str(error)
    states = [cell.status["state"] for cell in compared.view.cells]
    assert states == ["done", "error"]
    assert compared.view.progress["state"] == "done"


def test_the_sign_of_all_maps_changes_without_a_pass(compare):
    compared = compare(net(), images(1), methods=["gradient", "guided_backprop"])
    compared.wait(progress=False)
    passes = compared._comparison.problems[0].memory.passes
    compared.panel.sign.value = "signed"
    assert all(cell.frame["signed"] for cell in compared.view.cells)
    assert compared._comparison.problems[0].memory.passes == passes
    compared.panel.sign.value = "method default"
    assert not any(cell.frame["signed"] for cell in compared.view.cells)


def test_stop_keeps_finished_maps_and_go_computes_the_rest():
    begun, go = threading.Event(), threading.Event()

    class Slow(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net()

        def forward(self, x):
            if torch.is_grad_enabled() and not go.is_set():  # the first gradient waits
                begun.set()
                go.wait(30)
            return self.net(x)

    compared = sw.compare(Slow().eval(), images(4), methods="smoothgrad", n_samples=4, class_names=NAMES)
    try:
        assert begun.wait(30)
        assert compared.view.progress["state"] == "running"
        compared.stop()
        assert compared.view.progress["state"] == "stopped"
        go.set()
        assert len(compared.wait(30, progress=False)) < 4
        compared.go()
        assert len(compared.wait(60, progress=False)) == 4
        assert compared.view.progress["state"] == "done"
        assert all(cell.status["state"] == "done" for cell in compared.view.cells)
    finally:
        go.set()
        compared.close()


def test_visible_cells_are_computed_first(compare, monkeypatch):
    compared = compare(net(), images(4))
    preferred = []
    monkeypatch.setattr(compared._maps._jobs, "prefer", lambda keys: preferred.extend(keys))
    compared.view._handle_custom_msg({"type": "visible", "cells": [2, 3]}, [])
    assert [position.inputs for position in preferred] == [2, 3, 0, 1]


def test_a_click_opens_that_map_in_an_explorer(compare):
    compared = compare(net(), images(2), methods=["gradient", "smoothgrad"], n_samples=4, opacity=0.3)
    compared.wait(progress=False)
    compared.view._handle_custom_msg({"type": "open", "cell": 3}, [])
    explorer = compared._detail_pane._explorer
    result = explorer.wait(60)
    assert torch.equal(result.values, compared.attributions["SmoothGrad", "input 2"].values)
    assert explorer.kind_view.display.settings["opacity"] == 0.3
    compared.view._handle_custom_msg({"type": "open", "cell": 0}, [])
    assert compared._detail_pane._explorer is not explorer
    assert explorer.comm is None or explorer.session._closed
    compared._detail_pane.shut()
    assert compared._detail_pane.widget.children == ()


def test_close_leaves_no_widget_and_no_thread():
    widgets, threads = set(_instances), set(threading.enumerate())
    compared = sw.compare(net(), images(2), methods=["gradient", "grad_cam"], class_names=NAMES)
    compared.wait(60, progress=False)
    compared.view._handle_custom_msg({"type": "open", "cell": 1}, [])
    compared.close()
    compared.close()
    left = [thread for thread in set(threading.enumerate()) - threads if "tqdm" not in type(thread).__module__]
    for thread in left:
        thread.join(30)
        assert not thread.is_alive(), thread.name
    assert set(_instances) - widgets == set()


def test_a_finished_map_is_counted_once(compare):
    compared = compare(net(), images(2))
    assert compared.view.progress == {"state": "done", "done": 2, "total": 2, "remaining": None}
    assert repr(compared) == "Comparison(2 inputs)"


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ({"methods": []}, ValueError, "methods: it is empty"),
        ({"methods": ["gradient", "grdient"]}, ValueError, "gradient"),
        ({"settings": {}}, ValueError, "settings"),
        ({"settings": []}, ValueError, "settings: it is empty"),
        ({"settings": {"n_samples": []}, "methods": "smoothgrad"}, ValueError, "n_samples"),
        ({"settings": {"n_samples": 4}, "methods": "smoothgrad"}, TypeError, r"expected a list such as \[8, 32\]"),
        ({"settings": {"n_sample": [4]}, "methods": "smoothgrad"}, TypeError, "n_samples"),
        ({"settings": [3]}, TypeError, "settings: expected a mapping"),
        ({"settings": {"n_samples": [4, 4]}, "methods": "smoothgrad"}, ValueError, "a value is repeated"),
        ({"settings": 3}, TypeError, r"settings: expected a list such as \[\{'n_steps': 16\}"),
        ({"n_steps": 3}, TypeError, "parameter of these methods: 'n_steps' is not known. No name is accepted"),
        ({"n_step": 3, "methods": "integrated_gradients"}, TypeError, "parameter of these methods.*n_steps"),
        ({"limit": "x"}, TypeError, "limit: expected an integer of at least 1"),
        ({"limit": 0}, ValueError, "limit: expected a number of at least 1"),
        ({"methods": "smoothgrad", "n_samples": -1}, ValueError, "n_samples"),
        ({"settings": [{"n_samples": 2}], "n_samples": 3, "methods": "smoothgrad"}, ValueError, "Pass it only once"),
        ({"classes": ["cat", "horse"]}, ValueError, "horse"),
        ({"classes": [0, 7]}, ValueError, "out of range"),
        ({"classes": []}, ValueError, "classes: it is empty"),
        ({"classes": [1.5]}, TypeError, "class names or indices"),
        ({"rows": "method"}, ValueError, "methods"),
        ({"rows": "methods", "columns": "methods"}, ValueError, "already used for the columns"),
        ({"score": "odds"}, ValueError, "score"),
        ({"sign": "both"}, ValueError, "sign"),
        ({"scale": "all"}, ValueError, "scale"),
    ],
)
def test_invalid_arguments_are_errors(compare, value, error, message):
    with pytest.raises(error, match=message):
        compare(net(), images(2), **value)


def test_an_outdated_result_is_not_taken_for_the_newest(compare):
    """An old result is neither shown for the newest request nor keeps that from being computed."""
    compared = sw.compare(net(), images(1), methods="grad_cam", class_names=NAMES)
    try:
        compared.wait(60, progress=False)
        (position,) = compared._shown
        (entry,) = compared._maps._entries.values()
        frame_of, slow = entry.session._frame_of, threading.Event()

        def slowly(*args):
            slow.wait(0.3)
            return frame_of(*args)

        entry.session._frame_of = slowly
        compared.panel.layers[0].value = "3"
        compared.panel.layers[0].value = "0"
        compared.stop()
        slow.wait(0.6)
        compared.go()
        compared.wait(60, progress=False)
        assert compared._maps.attribution(position).layer == "0"
    finally:
        compared.close()


def test_a_failed_map_is_recomputed_by_go_and_is_not_subtracted(compare):
    class FailsOnDemand(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.fails = net(), False

        def forward(self, x):
            if self.fails:
                raise RuntimeError("not now")
            return self.net(x)

    model = FailsOnDemand().eval()
    compared = compare(model, images(2))
    compared.wait(progress=False)
    names = list(compared.attributions)
    model.fails = True
    with torch.no_grad():
        model.net[-1].weight.mul_(2)
    compared.update()
    with pytest.raises(ValueError, match="not now"):
        compared.wait(progress=False)
    with pytest.raises(RuntimeError, match="is not finished"):
        compared.difference(*names)
    model.fails = False
    compared.go()
    assert_cells(compared, 2)


def test_scales_stay_finite_if_a_map_is_infinite(compare):
    class Huge(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net()

        def forward(self, x):
            bright = (x.mean() > 0.9).float()
            return self.net(x) + bright * 3e38 * x.mean() * torch.ones(3)

    compared = compare(
        Huge().eval(), {"normal": images(1)[0], "huge": torch.ones(3, 16, 20)}, methods="input_x_gradient"
    )
    compared.wait(progress=False)
    for cell in compared.view.cells:
        assert all(np.isfinite(cell.frame.get(name, 0.0)) for name in ("low", "high"))


def test_hidden_maps_are_not_updated(compare):
    compared = compare(net(), images(2), classes=[0, 1, 2], methods=["gradient", "guided_backprop"],
                    rows="methods", columns="inputs")  # fmt: skip
    sent = []
    compared.show(classes=1)
    hidden = [entry for position, entry in compared._maps._entries.items() if position.classes == 0]
    for entry in hidden:
        entry.cell.observe(lambda change: sent.append(change["name"]), names="frame")
    compared.panel.sign.value = "signed"
    assert sent == []
    compared.show(classes=0)  # maps that are shown again have the new settings
    assert len(sent) >= len(hidden)
    assert all(cell.frame["signed"] for cell in compared.view.cells)


def test_rows_and_columns_can_be_swapped_if_an_axis_has_one_value(compare):
    compared = compare(net(), images(2), methods=["gradient", "guided_backprop"], rows="settings")
    rows_menu, columns_menu = compared._pivot.turning
    rows_menu.value = str(columns_menu.value)
    assert {compared._pivot.rows, compared._pivot.columns} == {rows_menu.value, columns_menu.value}
    compared.wait(progress=False)


def test_opening_a_difference_of_classes_is_refused_with_a_reason(compare):
    compared = compare(net(), images(1), classes=[0], contrast=1)
    compared.wait(progress=False)
    compared.view._handle_custom_msg({"type": "open", "cell": 0}, [])
    assert "contrast" in compared.view.opened["words"]
    assert compared._detail_pane._explorer is None


def test_a_page_without_maps_is_not_written(compare, tmp_path):
    compared = compare(net(), images(1))
    compared._maps._entries[compared._shown[0]].state = "stopped"
    compared._maps._stopped = True
    with pytest.raises(ValueError, match="no finished map"):
        compared.save_html(tmp_path / "x.html", progress=False)
    compared.close()
    with pytest.raises(ValueError, match="closed"):
        compared.save_html(tmp_path / "x.html", progress=False)
    assert not list(tmp_path.iterdir())


def test_transforms_and_class_names_by_model_must_be_complete(compare):
    models = {"a": net(), "b": net(1)}
    with pytest.raises(ValueError, match=r"class_names: expected one for each model by name, got none for \['b'\]"):
        compare(models, images(1), class_names={"a": NAMES})
    compared = compare(models, images(1), transform={"a": lambda x: x, "b": lambda x: 1 - x}, columns="models")
    result = compared.wait(progress=False)
    assert len(result) == 2


def test_invalid_models_and_inputs_are_errors(compare):
    with pytest.raises(TypeError, match="model: expected a torch"):
        compare("resnet", images(1))
    with pytest.raises(TypeError, match="'b' is a str"):
        compare({"a": net(), "b": "x"}, images(1))
    with pytest.raises(ValueError, match="model: it is empty"):
        compare({}, images(1))
    with pytest.raises(ValueError, match="inputs: it is empty"):
        compare(net(), [])
    with pytest.raises(ValueError, match="batch"):
        compare(net(), {"two": torch.rand(2, 3, 16, 20)})
    with pytest.raises(ValueError, match="maps over images"):
        compare(nn.Linear(4, 3), [torch.rand(4)])
    with pytest.raises(ValueError, match=r"model 'b': .*class 2 is out of range"):
        compare({"a": net(), "b": net(1, classes=2)}, images(1), classes=[2], class_names=None)
    with pytest.raises(ValueError, match=r"model 'b': .*boat"):
        compare(
            {"a": net(), "b": net(1, classes=2)}, images(1), classes=["boat"],
            class_names={"a": NAMES, "b": NAMES[:2]},
        )  # fmt: skip


def test_a_million_maps_are_refused_with_an_estimate_of_the_time(compare):
    values = {"noise_level": np.linspace(0.01, 0.5, 1000).tolist(), "n_samples": list(range(1, 1001))}
    with pytest.raises(ValueError, match=r"1,000,000 maps .* About \d+ (seconds|minutes|hours|days).*limit=1000000"):
        compare(net(), images(1), settings=values, methods="smoothgrad")


def test_a_batch_is_split_and_a_mapping_names_its_inputs(compare):
    batch = torch.stack(images(3))
    assert_cells(compare(net(), batch), 3)
    compared = compare(net(), {"one": batch[0], "two": batch[1]})
    assert compared.view.columns == ["one", "two"]
    assert compared._comparison.name(Cell(inputs=1)) == "two"


def test_settings_are_described_as_in_sweeps_and_pins(compare):
    settings = [{"noise_level": np.float64(0.05), "n_samples": 4}, {"n_samples": 1}]
    compared = compare(net(), images(1), settings=settings, methods="smoothgrad")
    assert compared.view.columns == ["noise level 0.05, 4 samples", "1 sample"]
    with pytest.raises(TypeError, match=r"settings: .*n_sample'.*n_samples"):
        compare(net(), images(1), settings=[{"n_sample": 4}], methods="smoothgrad")
    baselines = [{"baseline": torch.zeros(3, 16, 20)}, {"baseline": "black", "n_steps": 8}]
    compared = compare(net(), images(1), settings=baselines, methods="integrated_gradients")
    assert compared.view.columns == ["baseline custom tensor", "baseline black, 8 steps"]


def test_a_parameter_that_a_method_lacks_is_noted_at_its_map(compare):
    compared = compare(net(), images(1), settings=[{"n_samples": 2}, {"n_samples": 4}],
                    methods=["smoothgrad", "gradient"])  # fmt: skip
    compared.wait(progress=False)
    notes = {position: compared._maps._entries[position].cell.status["notes"] for position in compared._shown}
    for position, result in notes.items():
        assert any("has no n_samples" in note for note in result) == (
            compared._comparison.method(position).name == "gradient"
        )


def test_update_recomputes_after_training_and_changed_pixels(compare):
    model, (one, two) = net(), images(2)
    compared = compare(model, {"one": one, "two": two})
    before = compared.wait(progress=False)
    seen = [cell.image for cell in compared.view.cells]
    with torch.no_grad():
        model[-1].weight.mul_(2)
        two.mul_(0.5)
    compared.update()
    assert_cells(compared, 2)
    after = compared.attributions
    assert not any(torch.equal(before[name].values, after[name].values) for name in before)
    assert compared.view.cells[0].image == seen[0]
    assert compared.view.cells[1].image != seen[1]


def test_the_callers_model_is_unchanged(compare):
    model = net().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    compare(model, images(2), methods=["gradient", "guided_backprop", "grad_cam"]).wait(progress=False)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_map_counts_as_finished_only_after_it_was_sent(monkeypatch):
    created, counts = threading.Event(), []
    offer = MapCell.offer

    def offer_and_count(cell, frame, status):
        assert created.wait(60)
        offer(cell, frame, status)
        if status["state"] == "done":
            counts.append((compared._maps._counted(), compared.view.progress["done"]))

    monkeypatch.setattr(MapCell, "offer", offer_and_count)
    compared = sw.compare(net(), images(2), methods="gradient")
    created.set()
    assert len(compared.wait(60, progress=False)) == 2
    assert counts == [(0, 0), (1, 1)]
    assert compared.view.progress["done"] == 2
    compared.close()


def test_wait_raises_if_a_map_can_not_be_shown(monkeypatch):
    raised = []
    monkeypatch.setattr(threading, "excepthook", lambda args: raised.append(args.exc_type))

    def fail(*_event, **_words):
        raise ArithmeticError("no words for it")

    monkeypatch.setattr("saliency_widgets.widgets.base.messages.status_of", fail)
    compared = sw.compare(net(), images(2), methods="gradient")
    with pytest.raises(ArithmeticError, match="no words"):
        compared.wait(60, progress=False)
    compared.close()
    assert set(raised) == {ArithmeticError}


@pytest.mark.soak
def test_a_script_that_ends_during_a_computation_exits_cleanly():
    code = (
        "import time, torch, saliency_widgets as sw\n"
        "from torch import nn\n"
        "model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(),\n"
        "                      nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(256, 3)).eval()\n"
        "compared = sw.compare(model, [torch.rand(3, 160, 160)] * 3, methods='smoothgrad', n_samples=256)\n"
        "while not any(cell.frame for cell in compared.view.cells):\n"
        "    time.sleep(0.01)\n"
        "print(compared.view.progress['state'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "running"


def test_values_class_names_and_indices_are_labeled_as_such(compare):
    binary = net(classes=1)
    about = {"class_names": ["neg", "pos"], "classes": ["neg", 1]}
    compared = compare(binary, images(1), **about)
    first, second = compared.wait(progress=False).values()
    assert torch.equal(first.values, -second.values)
    assert compared._comparison.axes["classes"].labels == ["neg", "pos"]
    assert all(name in compared.panel.predictions.value for name in ("neg", "pos"))

    regression = compare(binary, images(1), class_names=None, score="value")
    regression.wait(progress=False)
    with torch.no_grad():
        value = binary(images(1)[0][None]).item()
    assert f"<span>{value:.4g}</span>" in regression.panel.predictions.value
    assert "%" not in regression.panel.predictions.value.partition("margin-bottom")[2]

    names = ["scratch, deep", "scratch, shallow", "tabby, tabby cat"]
    named = compare(net(), images(1), class_names=names, classes=[0, 1, 2])
    assert named._comparison.axes["classes"].labels == ["scratch, deep", "scratch, shallow", "tabby"]

    dense = nn.Conv2d(3, 2, 3, padding=1).eval()
    indexed = compare(dense, images(1), class_names=None, classes=[(1, 2, 3), (0, 2, 3)])
    assert indexed._comparison.axes["classes"].labels == ["output[1, 2, 3]", "output[0, 2, 3]"]
    result = list(indexed.wait(progress=False).values())
    assert torch.equal(result[0].values[0, :, 1:4, 2:5], dense.weight.detach()[1])
