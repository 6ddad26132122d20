"""A planted irregular heartbeat: maps lie on it, and the prediction turns without it, also in a real recording."""

import pytest
import torch

import saliency_widgets as sw
from saliency_widgets.attribution import Reduction
from saliency_widgets.demos import heartbeats, real_ecg
from saliency_widgets.demos.signal import RATE, beat
from saliency_widgets.evaluation.ranking import top

NORMAL, IRREGULAR = 0, 1


@pytest.fixture(scope="module")
def beats():
    return heartbeats()


@pytest.fixture(scope="module")
def planted(beats):
    """Whether each sample belongs to the irregular beat."""
    mask = torch.zeros(beats.signal.shape, dtype=torch.bool)
    mask[:, slice(*beats.interval)] = True
    return mask


def share_inside(result, mask, sign="absolute"):
    values = result.reduced(Reduction(sign)).abs()
    return float(values[mask].sum() / values.sum())


def test_the_network_reads_the_recordings(beats):
    assert beats.signal.shape == (2, 1500)
    assert int(beats.model(beats.signal[None]).argmax()) == IRREGULAR
    assert int(beats.model(beats.without[None]).argmax()) == NORMAL
    assert beats.model(beats.background).argmax(1).tolist() == [NORMAL] * len(beats.background)


def test_both_recordings_are_the_same_outside_the_beat(beats, planted):
    start, end = beats.interval
    outside = torch.cat([beats.signal[:, : start - RATE // 2], beats.signal[:, end + RATE :]], 1)
    normal = torch.cat([beats.without[:, : start - RATE // 2], beats.without[:, end + RATE :]], 1)
    assert torch.equal(outside, normal)


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("gradient", {}),
        ("input_x_gradient", {}),
        ("integrated_gradients", {}),
        ("integrated_gradients", {"baseline": "mean"}),
        ("smoothgrad", {}),
        ("expected_gradients", {"baselines": "background"}),
        ("guided_backprop", {}),
        ("grad_cam", {}),
        ("grad_cam_plus_plus", {}),
        ("layer_cam", {}),
    ],
)
def test_maps_lie_on_the_beat(beats, planted, method, settings):
    options = {"sampling_rate": RATE, "background": beats.background}
    result = sw.attribute(beats.model, beats.signal, method=method, target=IRREGULAR, **options, **settings)
    # The beat is a ninth of the recording: a map that is spread evenly has a share of 0.11.
    assert float(planted.double().mean()) < 0.12
    assert share_inside(result, planted, "positive") > 0.5
    strongest = top(result.reduced(Reduction("positive")), 0.01)
    assert float(planted[strongest].double().mean()) > 0.9


@pytest.mark.parametrize("fill", ["neighbors", "zero", "mean", "noise"])
def test_the_prediction_turns_without_the_beat(beats, planted, fill):
    settings = {"sampling_rate": RATE, "target": IRREGULAR, "fill": fill}
    result = sw.ablate(beats.model, beats.signal, planted, draws=0, **settings)
    assert int(result.logits_before.argmax()) == IRREGULAR
    assert int(result.logits_after.argmax()) == NORMAL
    # Removing an interval of the same length elsewhere leaves the prediction.
    start, end = beats.interval
    for shift in (-2 * (end - start), 2 * (end - start)):
        elsewhere = sw.ablate(beats.model, beats.signal, planted.roll(shift, 1), draws=0, **settings)
        assert int(elsewhere.logits_after.argmax()) == IRREGULAR


def test_a_beat_planted_in_a_real_recording(beats):
    recording = real_ecg()
    assert int(beats.model(recording[None]).argmax()) == NORMAL
    times = torch.arange(recording.shape[1]) / RATE
    recording[0] += beat(times - 1.0, irregular=True)[0]  # between the first two beats
    assert int(beats.model(recording[None]).argmax()) == IRREGULAR
    mask = torch.zeros(recording.shape, dtype=torch.bool)
    mask[:, int(0.85 * RATE) : int(1.5 * RATE)] = True
    result = sw.attribute(beats.model, recording, sampling_rate=RATE, target=IRREGULAR)
    assert share_inside(result, mask, "positive") > 0.5
    without = sw.ablate(beats.model, recording, mask, sampling_rate=RATE, target=IRREGULAR, draws=0)
    assert int(without.logits_after.argmax()) == NORMAL


def test_the_demo_opens_an_explorer_on_the_irregular_beat():
    explorer = sw.demo("signal", executor="inline")
    assert explorer.kind == "signal"
    assert explorer.view.scene["rate"] == RATE
    assert explorer.view.scene["names"] == ["lead II", "lead V1"]
    assert explorer.controls["target"] == IRREGULAR
    explorer.close()
