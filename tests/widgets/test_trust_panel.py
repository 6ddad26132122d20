"""The trust panel: closed it computes nothing; open it tests the map shown, without delaying the explorer."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from ipywidgets.widgets import widget as registry
from torch import nn
from toys import Tally, conv_net, images, state_of, tallied

import saliency_widgets as sw
from saliency_widgets.evaluation.registry import trust_tests
from saliency_widgets.session.examiner import CheckEvent
from saliency_widgets.widgets import Explorer

TABS = [name for name, test in trust_tests().items() if "image" in (test.kinds or ("image",))]


class Counted(nn.Module):
    """Counts its passes, which block while the gate is closed."""

    passes = tallied("passes")

    def __init__(self) -> None:
        super().__init__()
        self.net, self.tally = conv_net(), Tally()
        self.tally.gate = threading.Event()
        self.tally.gate.set()

    def forward(self, x):
        self.passes += 1
        assert self.tally.gate.wait(20)
        return self.net(x)


@pytest.fixture
def model():
    return Counted().eval()


@pytest.fixture
def image():
    return (images(0, 1, 3, 16, 16)[0] * 255).to(torch.uint8).movedim(0, -1).numpy()


@pytest.fixture
def explorer(model, image):
    made = Explorer(model, image, class_names=["ant", "bee", "cat", "dog"], executor="inline", method="gradient")
    yield made
    made.close()


def unfold(explorer: Explorer, tab: str = "ablation") -> None:
    explorer.trust._choice.value = TABS.index(tab)
    explorer.trust._fold.selected_index = 0


def section(explorer: Explorer, name: str):
    return explorer.trust._sections[TABS.index(name)]


def region() -> np.ndarray:
    mask = np.zeros((16, 16), bool)
    mask[3:8, 4:9] = True
    return mask


def paint(explorer: Explorer, mask: np.ndarray) -> None:
    """Send the message of a page on which a region was painted."""
    height, width = mask.shape
    content = {"type": "region", "width": width, "height": height}
    explorer.view._handle_custom_msg(content, [memoryview(np.packbits(mask).tobytes())])


def test_a_closed_panel_takes_no_pass(explorer, model):
    passes = model.passes
    paint(explorer, region())
    explorer.trust._choice.value = 1
    assert model.passes == passes
    assert explorer.view.marking is False


@pytest.mark.parametrize("tab", TABS[1:])
def test_only_the_open_tab_is_computed(explorer, model, tab):
    before = state_of(model.net)
    unfold(explorer, tab)
    for name in TABS[1:]:
        result = section(explorer, name)
        assert ("as soon as" in result._said.value) == (name != tab)
    assert state_of(model.net) == before
    assert explorer.trust._message.value == ""


def test_a_painted_region_is_ablated(explorer, model, image):
    unfold(explorer)
    assert explorer.view.marking is True
    paint(explorer, region())
    text = section(explorer, "ablation")._said.value
    result = sw.ablate(model, image, region(), target=explorer.settings["target"])
    assert f"to {result.after:.3g} ({result.change:+.3g})" in text
    assert "9.8%" in text
    ablation = section(explorer, "ablation")
    assert np.allclose(ablation._random_marks.x, (result.elsewhere - result.before).numpy())
    assert set(ablation._classes.x) <= {"ant", "bee", "cat", "dog"}


def test_the_strongest_part_is_marked_on_the_image(explorer):
    unfold(explorer)
    ablation = section(explorer, "ablation")
    ablation._share.value = 25.0
    sent = explorer.view.region
    bits = np.unpackbits(np.frombuffer(sent["bits"], np.uint8))[: 16 * 16].reshape(16, 16)
    values = np.abs(explorer.attribution.values[0].numpy()).max(0)
    assert bits.sum() == 64
    assert values[bits > 0].min() >= values[bits == 0].max()
    assert "25.0%" in ablation._said.value


def test_an_empty_region_takes_no_pass_and_another_fill_is_recomputed(explorer, model):
    unfold(explorer)
    passes = model.passes
    paint(explorer, np.zeros((16, 16), bool))
    assert model.passes == passes
    paint(explorer, region())
    before = section(explorer, "ablation")._said.value
    section(explorer, "ablation").controls["fill"].value = "noise"
    assert section(explorer, "ablation")._said.value != before


def test_a_new_map_is_tested_automatically_and_compared_with_others(explorer):
    unfold(explorer, "stability")
    assert "Select other methods" in section(explorer, "stability")._table.value
    explorer.update(method="smoothgrad", n_samples=4)
    table = section(explorer, "stability")._table.value
    assert "Gradient" in table
    assert "other seeds" in section(explorer, "stability")._said.value
    explorer.update(target="bee" if explorer.settings["target"] != 1 else "cat")
    assert "Select other methods" in section(explorer, "stability")._table.value, "other classes aren't compared"


def test_curves_of_other_maps_are_shown_too(explorer):
    unfold(explorer, "curves")
    explorer.update(method="input_x_gradient")
    assert "Other maps: Gradient" in section(explorer, "curves")._said.value
    local, band, rest = section(explorer, "curves")._marks["deletion"]
    assert len(np.asarray(local.x)) == 33
    assert len(band.y) == 2
    assert np.atleast_2d(rest.y).shape == (1, 33)


def test_the_curve_of_another_map_is_that_of_its_latest_version(explorer):
    """A map that is recomputed with other settings has the same title but other values."""
    unfold(explorer, "curves")

    def neighbor(**settings):
        explorer.update(method="smoothgrad", noise_level=0.8, **settings)
        local = section(explorer, "curves")._marks["deletion"][0].y
        explorer.update(method="gradient")
        return np.array(local), np.array(section(explorer, "curves")._marks["deletion"][2].y)

    for settings in ({"n_samples": 1}, {"n_samples": 16}):
        local, rest = neighbor(**settings)
        assert np.array_equal(local, np.squeeze(rest))


def test_closing_an_open_panel_leaves_no_widget(model, image):
    before = set(registry._instances)
    made = Explorer(model, image, executor="inline", method="gradient")
    unfold(made, "saturation")
    made.trust._choice.value = TABS.index("curves")
    made.close()
    assert [type(registry._instances[k]).__name__ for k in set(registry._instances) - before] == []


def test_going_back_to_a_curve_takes_no_pass(explorer, model):
    unfold(explorer, "curves")
    passes = model.passes
    explorer.trust._choice.value = 0
    explorer.trust._choice.value = 1
    assert model.passes == passes


def test_curves_of_another_class_take_no_pass(explorer, model):
    unfold(explorer, "curves")
    panel = section(explorer, "curves")
    passes, finished_map = model.passes, explorer.trust._shown
    result, _ = panel._result
    explained = explorer.attribution.settings["target"]
    other = (explained + 1) % 4
    name = ["ant", "bee", "cat", "dog"][other]
    panel._class.value = name
    assert panel._said.value.count(f"For the score of {name}") == 1
    scores = result.main["deletion"].logits[:, other]
    whole, nothing = scores[0], scores[-1]
    heights = ((scores - nothing) / (whole - nothing)).nan_to_num() if whole > nothing else torch.zeros_like(scores)
    assert np.allclose(panel._marks["deletion"][0].y, heights)
    panel._class.value = "emu"
    assert "class: &#x27;emu&#x27; is not known" in panel._said.value
    panel._class.value = ""
    assert "For the score of" not in panel._said.value
    # A check of the same map for another class takes no pass either.
    requested = replace(finished_map, request=replace(finished_map.request, target=other))
    *_, again = requested.check(panel.test, {}).begin(lambda: None)
    assert torch.equal(again.main["deletion"].scores, scores)
    assert model.passes == passes


def test_a_result_for_a_previous_map_is_not_shown(explorer):
    unfold(explorer, "saturation")
    old = explorer.trust._checks["saturation"][0]
    *_, result = old.begin(lambda: None)
    explorer.update(target=(explorer.attribution.settings["target"] + 1) % 4)
    panel = section(explorer, "saturation")
    now = panel._lines.y.copy()
    explorer.trust._on_result(CheckEvent(old, replace(result, scores=result.scores * 2), "done"))
    assert np.array_equal(panel._lines.y, now)
    explorer.trust._on_result(CheckEvent(old, None, "error", ValueError("of the past")))
    assert explorer.trust._message.value == ""


def test_an_error_is_shown_and_the_next_check_recovers(explorer):
    unfold(explorer)
    explorer.trust._sections[0].region = torch.ones(3, 3, dtype=torch.bool)
    explorer.trust._ask(explorer.trust._sections[0])
    assert "(16, 16), got (3, 3)" in explorer.trust._message.value
    paint(explorer, region())
    assert explorer.trust._message.value == ""


def test_sliders_take_precedence_over_checks_and_closing_ends_them(model, image, monkeypatch):
    threads = set(threading.enumerate())
    explorer = Explorer(model, image, method="gradient")
    explorer.wait(20)
    explorer.trust._choice.value = TABS.index("randomization")
    model.tally.gate.clear()
    explorer.trust._fold.selected_index = 0
    explorer.update(method="smoothgrad", n_samples=3)
    model.tally.gate.set()
    assert explorer.wait(20).settings["n_samples"] == 3
    assert explorer.trust.wait(60)
    assert "SmoothGrad" in section(explorer, "randomization")._said.value
    explorer.trust._fold.selected_index = None
    assert explorer.view.marking is False
    requested = []
    monkeypatch.setattr(explorer.trust._examiner, "submit", requested.append)
    explorer.update(n_samples=4)
    assert explorer.wait(20).settings["n_samples"] == 4
    assert requested == []
    explorer.close()
    assert set(threading.enumerate()) <= threads


def test_stopping_the_explorer_ends_the_checks_and_opening_again_runs_them(model, image):
    explorer = Explorer(model, image, method="gradient")
    explorer.wait(20)
    model.tally.gate.clear()
    unfold(explorer, "randomization")
    explorer.stop()
    model.tally.gate.set()
    assert explorer.trust.wait(20)
    assert "Interrupted" in explorer.trust._message.value
    explorer.trust._fold.selected_index = None
    unfold(explorer, "randomization")
    assert explorer.trust.wait(60)
    assert explorer.trust._message.value == ""
    assert section(explorer, "randomization")._said.value
    explorer.close()
