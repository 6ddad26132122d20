"""The lesson: the maps of every step equal those of sw.attribute, and the view's traits hold all that is shown."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import ipywidgets as w
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from toys import conv_net, images, mlp, rows

import saliency_widgets as sw
from saliency_widgets import render
from saliency_widgets.attribution import Reduction
from saliency_widgets.evaluation.similarity import spearman
from saliency_widgets.session import Problem
from saliency_widgets.widgets.lesson import methods
from saliency_widgets.widgets.lesson.kinds import STEPS
from saliency_widgets.widgets.lesson.lesson import Lesson

NAMES = ["ant", "bee", "cow", "dog"]
IMAGE = images()[:1]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return conv_net()


@pytest.fixture(scope="module")
def lesson(model: nn.Module) -> Iterator[Lesson]:
    made = sw.lesson(model, IMAGE, class_names=NAMES, n_samples=8)
    yield made.wait(timeout=300)
    made.close()


def shots(lesson: Lesson, step: str) -> list[dict[str, Any]]:
    content = lesson.view.content(step)
    assert content["state"] == "ready", content
    return content["shots"]


def raw(lesson: Lesson, name: str) -> dict[str, Any]:
    """Return a map by its name, whichever step it belongs to."""
    (result,) = [maps[name] for step in lesson.steps if name in (maps := lesson.view.content(step).get("maps", {}))]
    return result


def values(lesson: Lesson, name: str) -> np.ndarray:
    result = raw(lesson, name)
    codes = np.frombuffer(result["codes"], "<u2").reshape(result["height"], result["width"])
    return render.dequantize(render.Quantized(codes, result["low"], result["high"], result["signed"]))


def panel(lesson: Lesson, step: str, shot: int, number: int) -> dict[str, Any]:
    return shots(lesson, step)[shot]["panels"][number]


def assert_shown(lesson: Lesson, name: str, expected: torch.Tensor) -> None:
    """Assert that a map equals the expected one, to half a level of its 16 bits."""
    result = raw(lesson, name)
    level = (result["high"] - result["low"]) / render.LEVELS
    assert np.abs(values(lesson, name) - expected.numpy()).max() <= 0.5001 * level + 1e-15


def strength(result: sw.Attribution) -> torch.Tensor:
    return Reduction()(result.values, IMAGE.shape[-2:])[0]


def test_it_has_its_steps_in_order_each_with_two_sentences_and_a_control(lesson: Lesson) -> None:
    assert lesson.steps == tuple(STEPS)
    assert [step["name"] for step in lesson.view.steps] == list(STEPS)
    for step in lesson.view.steps:
        assert len(step["text"]) == 2
        assert all(sentence.endswith((".", "?")) for sentence in step["text"])
        assert step["control"]
        assert step["control_class"].startswith("sw-")


def test_the_prediction_equals_the_models(lesson: Lesson, model: nn.Module) -> None:
    shares = model(IMAGE)[0].softmax(0)
    bars = panel(lesson, "prediction", 0, 1)
    order = shares.argsort(descending=True).tolist()
    assert [bar["label"] for bar in bars["bars"]] == [NAMES[k] for k in order]
    assert [bar["share"] for bar in bars["bars"]] == pytest.approx(shares[order].tolist(), rel=1e-9)
    assert bars["chosen"] == 0


def test_the_gradient_and_its_reductions_equal_those_of_attribute(lesson: Lesson, model: nn.Module) -> None:
    gradient = sw.attribute(model, IMAGE, method="gradient")
    for which in range(3):
        assert_shown(lesson, panel(lesson, "gradient", which, 1)["map"], gradient.values[0, which])
    strongest = int(gradient.values[0].abs().sum((1, 2)).argmax())
    local = replace(gradient, values=gradient.values[:, strongest : strongest + 1]).values
    for number, shot in enumerate(shots(lesson, "absolute")):
        expected = Reduction(shot["label"])(local, IMAGE.shape[-2:])[0]
        assert_shown(lesson, panel(lesson, "absolute", number, 1)["map"], expected)
    for number, shot in enumerate(shots(lesson, "channels")):
        expected = Reduction(channels=shot["label"])(gradient.values, IMAGE.shape[-2:])[0]
        assert_shown(lesson, panel(lesson, "channels", number, 3)["map"], expected)


def test_the_noise_step_shows_single_smoothgrad_samples_and_their_images(lesson: Lesson, model: nn.Module) -> None:
    clean = strength(sw.attribute(model, IMAGE, method="gradient"))
    for number, level in enumerate(methods.NOISES):
        result = sw.attribute(model, IMAGE, method="smoothgrad", noise_level=level, n_samples=1)
        assert_shown(lesson, panel(lesson, "noise", number, 1)["map"], strength(result))
        assert f"correlation of {spearman(clean, strength(result)):.2f}" in shots(lesson, "noise")[number]["text"]
    assert "changes by 0.0 of 255" in shots(lesson, "noise")[0]["text"]
    seen = Problem(model, IMAGE).prepared.images
    assert seen is not None
    png = lesson.view.content("noise")["images"][panel(lesson, "noise", 0, 0)["image"]]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png))), seen[0])


def test_smoothing_shows_the_means_of_the_first_samples(lesson: Lesson, model: nn.Module) -> None:
    assert [shot["label"] for shot in shots(lesson, "smoothing")] == ["1", "2", "4", "8"]
    for number, shot in enumerate(shots(lesson, "smoothing")):
        result = sw.attribute(model, IMAGE, method="smoothgrad", n_samples=int(shot["label"]), chunk_size=1)
        assert_shown(lesson, panel(lesson, "smoothing", number, 1)["map"], strength(result))
    assert "correlation with the map of all 8: 1.00" in shots(lesson, "smoothing")[-1]["text"]


def test_the_scores_curve_goes_from_the_baselines_score_to_the_images(lesson: Lesson, model: nn.Module) -> None:
    target = int(model(IMAGE).argmax())
    curve = panel(lesson, "saturation", 0, 1)["curve"]
    black = torch.zeros_like(IMAGE)
    assert (curve["x"][0], curve["x"][-1]) == (0, 1)
    assert curve["y"][0] == pytest.approx(float(model(black)[0, target]), rel=1e-9)
    assert curve["y"][-1] == pytest.approx(float(model(IMAGE)[0, target]), rel=1e-9)
    for at in range(methods.SEGMENTS + 1):
        assert panel(lesson, "saturation", at, 1)["curve"]["at"] == pytest.approx(at / methods.SEGMENTS)


def test_the_sums_along_the_path_are_integrated_gradients(lesson: Lesson, model: nn.Module) -> None:
    target = int(model(IMAGE).argmax())
    black = torch.zeros_like(IMAGE)
    assert np.all(values(lesson, "path 0") == 0)
    for at in (3, methods.SEGMENTS):  # of the interpolated image, from the same baseline
        interpolated = IMAGE * at / methods.SEGMENTS
        exact = sw.attribute(
            model, interpolated, method="integrated_gradients", target=target, baseline=black, n_steps=1024, tolerance=0
        )
        expected = strength(exact).numpy()
        assert np.abs(values(lesson, f"path {at}") - expected).sum() < 0.03 * expected.sum()
    high = {raw(lesson, f"path {at}")["high"] for at in range(methods.SEGMENTS + 1)}
    assert len(high) == 1, "all maps need one scale, so that the map grows visibly"
    assert {panel(lesson, "path", at, 1)["scale"] for at in range(methods.SEGMENTS + 1)} == {f"path {methods.SEGMENTS}"}


def test_on_a_linear_model_the_path_is_exact_and_nothing_saturates() -> None:
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2)).double().eval()
    with sw_lesson(linear, IMAGE, target=1, steps=["saturation", "path"]) as made:
        weights = linear[1].weight[1].detach().view_as(IMAGE)
        for at in range(methods.SEGMENTS + 1):
            expected = strength_of(weights * IMAGE * at / methods.SEGMENTS)
            assert np.abs(values(made, f"path {at}") - expected).max() < 1e-4 * float(expected.max() or 1.0)
        curve = panel(made, "saturation", 0, 1)["curve"]
        straight = np.linspace(curve["y"][0], curve["y"][-1], len(curve["y"]))
        assert np.allclose(curve["y"], straight, atol=1e-9)
        assert np.allclose(panel(made, "saturation", 0, 2)["curve"]["y"], 1.0)


class sw_lesson:  # noqa: N801 - a context around sw.lesson
    """A finished lesson, which is closed on exit."""

    def __init__(self, *value: Any, **requested: Any) -> None:
        self._made = sw.lesson(*value, **requested)

    def __enter__(self) -> Lesson:
        return self._made.wait(timeout=300)

    def __exit__(self, *_: object) -> None:
        self._made.close()


def strength_of(tensor: torch.Tensor) -> np.ndarray:
    return Reduction()(tensor, IMAGE.shape[-2:])[0].numpy()


def test_the_guided_backprop_step_states_the_similarity_of_the_maps_shown(lesson: Lesson, model: nn.Module) -> None:
    order = model(IMAGE)[0].argsort(descending=True).tolist()
    first, last = shots(lesson, "guided_backprop")[:2]
    assert [first["label"], last["label"]] == [NAMES[order[1]], NAMES[order[-1]]]
    rho = {}
    for number, method in enumerate(("guided_backprop", "gradient")):
        maps = [strength(sw.attribute(model, IMAGE, method=method, target=k)) for k in (order[0], order[1])]
        for side, expected in enumerate(maps):
            assert_shown(lesson, first["panels"][2 * number + side]["map"], expected)
        rho[method] = spearman(*maps)
    assert f"Guided Backprop {rho['guided_backprop']:.3f}, gradient {rho['gradient']:.3f}" in first["text"]


def test_grad_cam_keeps_the_resolution_of_its_layers(lesson: Lesson, model: nn.Module) -> None:
    result = {shot["label"]: shot for shot in shots(lesson, "grad_cam")}
    assert len(result) > 1
    for layer, shot in result.items():
        cam = sw.attribute(model, IMAGE, method="grad_cam", layer=layer)
        assert_shown(lesson, shot["panels"][1]["map"], cam.values[0, 0].clamp(min=0))
    start = lesson.view.content("grad_cam")["start"]
    assert shots(lesson, "grad_cam")[start]["label"] == sw.attribute(model, IMAGE, method="grad_cam").layer


def test_the_image_map_and_scale_of_every_panel_exist(lesson: Lesson) -> None:
    contents = [lesson.view.content(step) for step in lesson.steps]
    available_images = {name for content in contents for name in content["images"]}
    available_maps = {name for content in contents for name in content["maps"]}
    for content in contents:
        assert 0 <= content["start"] < len(content["shots"])
        for shot in content["shots"]:
            for one in shot["panels"]:
                assert {one["image"]} <= available_images if "image" in one else True
                assert {one["map"], one["scale"]} <= available_maps if "map" in one else True


def test_chosen_steps_include_all_images_and_maps_that_they_need(model: nn.Module) -> None:
    with sw_lesson(model, IMAGE, steps=["overlay", "gradient"]) as made:
        assert made.steps == ("gradient", "overlay")
        names = {one["map"] for shot in shots(made, "overlay") for one in shot["panels"] if "map" in one}
        assert all(raw(made, name) for name in names)
        assert "input" in made.view.content("gradient")["images"]


def test_the_step_can_be_set_by_name_and_by_the_page(lesson: Lesson) -> None:
    lesson.step = "noise"
    assert lesson.view.step == lesson.steps.index("noise")
    lesson.view.set_state({"step": 2})
    assert lesson.step == "gradient"
    with pytest.raises(ValueError, match="Did you mean 'noise'"):
        lesson.step = "nois"


def test_a_step_that_does_not_apply_shows_why_and_the_others_are_computed() -> None:
    smooth = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.GELU(), nn.Linear(8, 3)).double().eval()
    with sw_lesson(smooth, IMAGE, n_samples=2) as made:
        refused = {name for name in made.steps if made.view.content(name)["state"] == "refused"}
        assert refused == {"guided_backprop", "grad_cam"}
        guided = made.view.content("guided_backprop")
        assert "No ReLU ran" in guided["message"]
        assert "gradient" in guided["remedy"]
        assert "No layer has a spatial output" in made.view.content("grad_cam")["message"]
        assert "shots" not in guided


def test_a_lesson_works_for_a_function_as_target_and_for_one_logit(model: nn.Module) -> None:
    with sw_lesson(model, IMAGE, target=lambda out: out[:, 0] - out[:, 1], n_samples=2) as made:
        assert [shot["label"] for shot in shots(made, "guided_backprop")] == ["upper layers random"]
        difference = model(IMAGE)[0]
        assert panel(made, "saturation", 0, 1)["curve"]["y"][-1] == pytest.approx(float(difference[0] - difference[1]))
    with sw_lesson(conv_net(classes=1), IMAGE, n_samples=2) as made:
        assert len(panel(made, "prediction", 0, 1)["bars"]) == 1


def test_a_change_of_the_model_during_a_lesson_is_an_error() -> None:
    model = conv_net()
    made = Lesson(model, IMAGE, steps=["gradient", "noise"], executor="inline")
    board, step = made._board, STEPS["noise"]
    with torch.no_grad():
        model[0].weight.mul_(0.5)
    with pytest.raises(ValueError, match="has changed since the lesson began"):
        next(board.page(step.build, step.method, lambda: None))
    made.close()


def test_stop_keeps_finished_steps_and_marks_the_others_as_stopped(model: nn.Module) -> None:
    made = sw.lesson(model, IMAGE, n_samples=500)
    made.view._on_message(made.view, {"type": "stop"}, [])
    states = [made.view.content(name).get("state") for name in made.steps]
    assert "stopped" in states
    assert made.view.status["state"] == "stopped"
    with pytest.raises(RuntimeError, match="stopped"):
        made.wait(timeout=60)
    made.close()


def test_try_it_creates_an_explorer_once_and_updates_it(model: nn.Module) -> None:
    with sw_lesson(model, IMAGE, class_names=NAMES, steps=["channels", "noise"]) as made:
        sent: list[dict] = []
        made.view.send = lambda content, buffers=None: sent.append(content)  # type: ignore[method-assign]
        assert made.explorer is None
        made.view._on_message(made.view, {"type": "try", "step": "channels", "shot": 2}, [])
        explorer = made.explorer
        assert explorer is not None
        assert made.children == (made.view, explorer)
        assert explorer.settings["method"] == "gradient"
        assert explorer.panel.reduction.channels == "sum"
        assert sent[-1]["control"] == "sw-control-channels"
        made.view._on_message(made.view, {"type": "try", "step": "noise", "shot": 3}, [])
        assert made.explorer is explorer
        assert explorer.settings["noise_level"] == methods.NOISES[3]
        assert explorer.settings["n_samples"] == 1


def test_an_explorer_that_was_passed_is_used_and_left_open(model: nn.Module) -> None:
    explorer = sw.explore(model, IMAGE, method="gradient")
    with sw_lesson(model, IMAGE, steps=["channels"], explorer=explorer) as made:
        made.view._on_message(made.view, {"type": "try", "step": "channels", "shot": 3}, [])
        assert made.children == (made.view,)
        assert explorer.panel.reduction.channels == "L2"
    assert explorer.wait(timeout=60).method == "gradient"
    explorer.close()


def test_close_leaves_no_thread_and_no_widget(model: nn.Module) -> None:
    before, threads = set(w.Widget.widgets), set(threading.enumerate())
    made = sw.lesson(model, IMAGE, n_samples=500)
    made.view._on_message(made.view, {"type": "try", "step": "input", "shot": 0}, [])
    made.close()
    made.close()
    assert set(w.Widget.widgets) == before
    assert set(threading.enumerate()) <= threads


@pytest.mark.parametrize(
    ("requested", "error", "message"),
    [
        ({"steps": ["gradiant"]}, ValueError, "Did you mean 'gradient'"),
        ({"steps": "gradient"}, TypeError, r"expected a list such as \['input', 'gradient'\]"),
        ({"steps": []}, ValueError, "at least one"),
        ({"noise_level": -2}, ValueError, "noise_level"),
        ({"n_samples": 0}, ValueError, "n_samples"),
        ({"score": "logits"}, ValueError, "score"),
        ({"baseline": "gray"}, ValueError, "baseline"),
        ({"baseline": torch.zeros(5)}, ValueError, "broadcast"),
        ({"target": "ant"}, ValueError, "class_names"),
        ({"target": 9}, ValueError, "out of range"),
        ({"explorer": 3}, TypeError, "explorer"),
    ],
)
def test_an_invalid_argument_is_an_error_and_leaves_no_widget(
    model: nn.Module, requested: dict[str, Any], error: type[Exception], message: str
) -> None:
    before = set(w.Widget.widgets)
    with pytest.raises(error, match=message):
        sw.lesson(model, IMAGE, **requested)
    assert set(w.Widget.widgets) == before


def test_rows_and_batches_are_refused(model: nn.Module) -> None:
    with pytest.raises(ValueError, match="a lesson requires an image"):
        sw.lesson(mlp(), rows(0, 1, 4))
    with pytest.raises(ValueError, match="batch of 2"):
        sw.lesson(model, images())


def test_a_lesson_of_a_value_mentions_no_class():
    torch.manual_seed(0)
    model = nn.Sequential(conv_net(), nn.Linear(4, 1).double()).eval()
    made = sw.lesson(model, IMAGE, score="value", steps=["prediction"]).wait(timeout=60)
    text = shots(made, "prediction")[0]["text"]
    assert text.startswith("The value is ")
    assert "class" not in text
    made.close()


def test_a_lesson_of_the_negative_class_of_one_logit():
    torch.manual_seed(0)
    model = nn.Sequential(conv_net(), nn.Linear(4, 1).double()).eval()
    made = sw.lesson(model, IMAGE, class_names=["neg", "pos"], target="neg", steps=["prediction"]).wait(timeout=60)
    with torch.no_grad():
        logit = model(IMAGE)[0, 0]
    text = shots(made, "prediction")[0]["text"]
    assert text.startswith("The logit of neg is ")
    share = float(1 - logit.sigmoid())
    assert f"Its probability is {share:.0%}." in text
    made.close()
