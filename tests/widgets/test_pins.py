"""Pinned maps of an explorer: they equal the maps shown, take no pass, and a click restores their settings."""

from __future__ import annotations

import sys
import threading

import numpy as np
import pytest
import torch
from torch import nn
from toys import interrupt_once

from saliency_widgets.attribution import Reduction
from saliency_widgets.session import Session, frame_of
from saliency_widgets.widgets.explorer import Explorer


@pytest.fixture
def explorer():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(96, 3)
    ).eval()  # fmt: skip
    made = Explorer(model, torch.rand(3, 16, 20), class_names=["cat", "dog", "boat"], target="dog",
                    method="smoothgrad", n_samples=4, executor="inline")  # fmt: skip
    yield made
    made.close()


def test_a_pin_equals_the_map_shown_and_takes_no_pass(explorer):
    explorer.wait()
    passes = explorer.problem.memory.passes
    explorer.pin()
    (cell,) = explorer.kind_view.pins._maps.view.cells
    assert explorer.problem.memory.passes == passes
    for name in ("codes", "low", "high", "signed"):
        assert cell.frame[name] == explorer.view.frame[name]
    assert cell.status["state"] == "done"
    assert "dog" in cell.name
    assert "4 samples" in cell.name


def test_pins_do_not_change_when_the_explorer_does(explorer):
    explorer.pin()
    explorer.update(sign="signed", target="boat", n_samples=8)
    explorer.pin()
    explorer.update(method="gradient")
    explorer.pin()
    explorer.pin()  # the same map is not pinned twice
    maps = explorer.kind_view.pins._maps
    assert len(explorer.kind_view.pins) == len(maps.view.cells) == 3
    signs = [Reduction("absolute"), Reduction("signed"), Reduction(explorer.panel.reduction.sign)]
    for pin, cell, reduction in zip(explorer.kind_view.pins._pins.items(), maps.view.cells, signs, strict=True):
        result = maps.attribution(pin[0])
        assert dict(pin[1].request.params).get("n_samples") == result.settings.get("n_samples")
        frame = frame_of(result, reduction)
        np.testing.assert_array_equal(np.frombuffer(cell.frame["codes"], "<u2"), frame.codes.ravel())
    assert len({cell.group for cell in maps.view.cells}) == 2  # one of the SmoothGrad maps, one of the gradient


def test_a_click_on_a_pin_restores_its_settings(explorer):
    explorer.update(sign="signed", n_samples=8)
    explorer.pin()
    explorer.update(method="gradient", target="cat", sign="absolute")
    explorer.kind_view.pins._maps.view._handle_custom_msg({"type": "open", "cell": 0}, [])
    assert explorer.settings["method"] == "smoothgrad"
    assert explorer.settings["n_samples"] == 8
    assert explorer.settings["target"] == 1
    assert explorer.panel.reduction.sign == "signed"


def test_squared_values_other_scores_and_other_channels_have_separate_scales(explorer):
    explorer.pin()
    explorer.update(sign="squared")
    explorer.pin()
    explorer.update(sign="absolute", score="probability")
    explorer.pin()
    explorer.update(score="logit", channels="sum")
    explorer.pin()
    assert len({cell.group for cell in explorer.kind_view.pins._maps.view.cells}) == 4


def test_unpinned_maps_are_removed_and_the_explorer_still_works(explorer):
    explorer.pin()
    explorer.update(method="gradient")
    explorer.pin()
    cells = list(explorer.kind_view.pins._maps.view.cells)
    explorer.kind_view.pins.unpin()
    assert explorer.kind_view.pins._maps.view.cells == cells[:1]
    assert cells[1].comm is None or cells[1].status["state"] == "done"
    explorer.kind_view.pins.clear()
    assert len(explorer.kind_view.pins) == 0
    assert explorer.kind_view.pins._maps.view.layout.display == "none"
    explorer.kind_view.pins.unpin()
    explorer.pin()
    assert len(explorer.kind_view.pins._maps.view.cells) == 1
    assert explorer.wait() is explorer.attribution


def test_the_map_after_training_is_pinned_in_addition_to_the_old_one(explorer):
    explorer.pin()
    with torch.no_grad():
        explorer.arguments["model"][-1].weight.mul_(2)
    explorer.update()
    explorer.pin()
    first, second = explorer.kind_view.pins._maps.view.cells
    assert second.frame["high"] == pytest.approx(2 * first.frame["high"], rel=1e-4)


def test_several_threads_may_pin_and_unpin():
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(2 * 14 * 18, 3)).eval()
    made = Explorer(model, torch.rand(3, 16, 20), target=0, method="smoothgrad", n_samples=1)
    made.wait(60)
    failed: list[BaseException] = []

    def change(samples: int) -> None:
        try:
            for k in range(12):
                made.update(n_samples=samples + k)
                made.pin()
                made.kind_view.pins.unpin()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=change, args=(samples,)) for samples in (2, 20, 40)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert failed == []
    made.kind_view.pins.clear()
    assert made.kind_view.pins._maps._entries == {}
    made.close()


def test_an_interrupted_pin_is_complete_after_the_next_wait(explorer, monkeypatch):
    explorer.wait()
    interrupt_once(monkeypatch, Session, "submit")
    with pytest.raises(KeyboardInterrupt):
        explorer.pin()
    explorer.kind_view.pins.wait(60)
    (cell,) = explorer.kind_view.pins._maps.view.cells
    assert cell.status["state"] == "done"
    explorer.kind_view.pins.unpin()
    explorer.kind_view.pins.unpin()
    assert len(explorer.kind_view.pins) == 0
