"""The explorer of a signal: its lanes, its frames, its controls, its trust tests, and what it refuses."""

from contextlib import closing

import numpy as np
import pytest
import torch
from torch import nn
from toys import values_on_page

import saliency_widgets as sw
from saliency_widgets import render
from saliency_widgets.evaluation.registry import trust_tests

TABS = [name for name, test in trust_tests().items() if "signal" in (test.kinds or ("signal",))]
NAMES = ["left", "right"]


def conv_net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(2, 4, 5, padding=2, stride=2), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 3)
    ).double().eval()  # fmt: skip


@pytest.fixture
def model():
    return conv_net()


@pytest.fixture
def signal():
    return torch.randn(2, 30, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture
def explorer(model, signal):
    made = sw.explore(
        model, signal, sampling_rate=10, channel_names=NAMES, target=1, method="input_x_gradient", executor="inline",
        class_names=["a", "b", "c"],
    )  # fmt: skip
    yield made
    made.close()


def lanes_on_page(explorer):
    scene = explorer.view.scene
    return np.frombuffer(scene["values"], "<f4").reshape(scene["channels"], scene["samples"])


def test_the_lanes_and_their_values_are_on_the_page(explorer, signal):
    assert explorer.kind == "signal"
    scene = explorer.view.scene
    assert (scene["names"], scene["rate"]) == (NAMES, 10)
    assert np.array_equal(lanes_on_page(explorer), signal.float().numpy())
    expected = explorer.attribution.values[0].numpy()
    assert explorer.view.frame["signed"]
    assert np.abs(values_on_page(explorer) - expected).max() <= np.abs(expected).max() / 65534


def test_time_may_come_first(signal):
    class Transposing(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = conv_net()

        def forward(self, x):
            return self.body(x.mT)

    with closing(
        sw.explore(Transposing().eval(), signal.T, sampling_rate=10, method="gradient", executor="inline")
    ) as explorer:
        assert np.array_equal(lanes_on_page(explorer), signal.float().numpy())
        expected = explorer.attribution.values[0].abs().numpy().T
        assert np.abs(values_on_page(explorer) - expected).max() <= expected.max() / 65534


def test_a_map_of_a_layer_is_one_row_for_all_lanes(explorer):
    explorer.update(method="grad_cam")
    frame = explorer.view.frame
    assert (frame["height"], frame["width"]) == (1, 30)
    assert explorer.attribution.layer == "1"
    assert list(explorer.panel._layers())[:2] == ["auto · the last layer over time", "1 · 4 × 15"]


def test_another_sign_needs_no_pass(explorer):
    passes, frame = explorer.problem.memory.passes, explorer.view.frame
    explorer.update(sign="absolute")
    assert explorer.problem.memory.passes == passes
    assert explorer.view.frame is not frame
    assert not explorer.view.frame["signed"]


def test_methods_for_images_are_not_offered(explorer):
    assert not {"blur_ig", "guided_grad_cam"} & {*explorer.panel.menu}
    with pytest.raises(ValueError, match="Blur-IG needs an image"):
        sw.explore(conv_net(), torch.zeros(2, 30), sampling_rate=10, method="blur_ig")


def test_the_baselines_are_those_of_a_signal(explorer):
    assert explorer.problem.baselines == ("zero", "mean", "first", "noise")


def test_the_background_is_offered_for_expected_gradients(model, signal):
    others = torch.randn(5, 2, 30, generator=torch.Generator().manual_seed(2))
    settings = {"sampling_rate": 10, "background": others, "executor": "inline", "n_samples": 4}
    with closing(sw.explore(model, signal, method="expected_gradients", **settings)) as explorer:
        assert explorer.attribution.settings["baselines"] == "background"
        (control,) = [control for param, control in explorer.panel._params.items() if param.name == "baselines"]
        assert "background" in dict(control.leaves[0].options).values()


def test_the_code_repeats_the_map(explorer, model, signal):
    scope = {"model": model, "inputs": signal}
    exec(explorer.to_code(), scope)
    assert torch.equal(scope["attribution"].values, explorer.attribution.values)
    assert scope["shown"].shape == (2, 30)


def test_a_signal_changed_in_place_is_shown_with_its_map(explorer, signal):
    signal.mul_(2)
    explorer.update()
    assert np.array_equal(lanes_on_page(explorer), signal.float().numpy())


@pytest.mark.parametrize("name", TABS)
def test_the_trust_tests_of_signals_run(explorer, name):
    explorer.trust._fold.selected_index = 0
    tests = [test.name for test in explorer.trust.tests]
    assert tests == TABS
    assert {"ablation", "curves", "randomization", "saturation", "stability"} <= {*tests}
    explorer.trust._choice.value = tests.index(name)
    section = explorer.trust._sections[tests.index(name)]
    if name == "ablation":
        section.marked(np.tile(np.arange(30) < 6, (2, 1)))
    assert section.waiting not in section._said.value
    assert not explorer.trust._message.value


def test_the_strongest_samples_are_marked_on_the_page(explorer):
    explorer.trust._fold.selected_index = 0
    assert explorer.view.marking
    section = explorer.trust._sections[0]
    assert section.controls["fill"].value == "neighbors"
    section._share.value = 10.0
    region = explorer.view.region
    assert (region["width"], region["height"]) == (30, 2)
    marked = np.unpackbits(np.frombuffer(region["bits"], np.uint8))[:60].reshape(2, 30).astype(bool)
    values = explorer.attribution.values[0].numpy()
    assert marked.sum() == 6
    assert values[marked].min() >= np.sort(values.ravel())[-6]


def test_without_a_kernel_there_is_an_image(explorer):
    snapshot = explorer._snapshot()
    assert "Input × Gradient" in "".join(snapshot.lines)
    drawn = np.asarray(snapshot.draw(1.0))
    frame = explorer.session.shown.frame
    lanes = lanes_on_page(explorer)
    assert np.array_equal(
        drawn, np.asarray(render.lanes_image(lanes, frame, NAMES, **explorer.kind_view.display.settings))
    )


@pytest.mark.parametrize("time_axis", ["last", "first"])
def test_a_saved_state_restores_the_explorer_and_the_map(model, signal, tmp_path, time_axis):
    class Transposing(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = model

        def forward(self, x):
            return self.body(x.mT)

    first = time_axis == "first"
    net, inputs = (Transposing().eval(), signal.T) if first else (model, signal)
    settings = {"sampling_rate": 10, "channel_names": NAMES, "executor": "inline"}
    with closing(sw.explore(net, inputs, target=1, method="gradient", **settings)) as explorer:
        explorer.save_state(tmp_path / "state")
        shown, attribution, lanes = values_on_page(explorer), explorer.attribution, lanes_on_page(explorer)
    assert attribution.settings["time_axis"] == time_axis
    loaded = sw.load(tmp_path / "state")
    assert torch.equal(loaded.values, attribution.values)
    assert np.array_equal(loaded.saliency_map(), attribution.saliency_map())
    with closing(sw.load(tmp_path / "state", net, executor="inline")) as again:
        assert np.array_equal(values_on_page(again), shown)
        assert np.array_equal(lanes_on_page(again), lanes)
        assert again.view.scene["names"] == NAMES
        assert again.view.scene["rate"] == 10


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda explorer, path: explorer.save_png(path), "this explorer shows a signal"),
        (lambda explorer, _path: explorer.pin(), "only maps of images"),
        (lambda explorer, _path: explorer.edit(a=1), "only rows of a table"),
    ],
    ids=["image", "pin", "edit"],
)
def test_what_signals_do_not_support_is_one_clear_error(explorer, tmp_path, call, message):
    with pytest.raises(NotImplementedError, match=message):
        call(explorer, tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_several_signals_are_refused(model):
    with pytest.raises(ValueError, match="the explorer shows one signal, got a batch of 3"):
        sw.explore(model, torch.zeros(3, 2, 30), sampling_rate=10)
