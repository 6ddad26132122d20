"""Saved pages without a browser: their content, the maps computed for them, and errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from toys import Tally, read_page, tallied

import saliency_widgets as sw
from saliency_widgets.attribution import Reduction
from saliency_widgets.session import compute, frame_of, session
from saliency_widgets.widgets import DisplaySettings, Explorer, HeatmapView
from saliency_widgets.widgets.compare.comparison import Comparison
from saliency_widgets.widgets.export.page import Axis, Recording, write_page
from saliency_widgets.widgets.lesson.lesson import Lesson

NAMES = ["ant", "bee", "wood ant", "cat"]


class Net(nn.Module):
    passes = tallied("passes")

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 256, 4)
        self.tally = Tally()

    def forward(self, x):
        self.passes += 1
        return self.head(self.conv(x).relu().flatten(1))


@pytest.fixture
def model():
    return Net().eval()


@pytest.fixture
def explorer(model):
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    settings = {"method": "smoothgrad", "n_samples": 4, "chunk_size": 1, "fold": False}
    made = Explorer(model, image, class_names=NAMES, executor="inline", **settings)
    yield made
    made.close()


def codes(message, blocks, key):
    (traits,) = message["states"][key].values()
    frame = traits["frame"]
    result = np.frombuffer(blocks[frame["codes"]["$bytes"]], "<u2").reshape(frame["height"], frame["width"])
    return result, frame, traits["status"]


def test_the_maps_of_a_page_equal_those_of_attribute(explorer, tmp_path):
    record = {"target": [0, "cat"], "n_samples": [2, 4], "sign": ["absolute", "signed"]}
    saved = explorer.save_html(tmp_path / "a.html", record=record, progress=False)
    outcome, blocks = read_page(saved.path)
    assert [axis["name"] for axis in outcome["axes"]] == ["target", "n_samples", "sign"]
    assert len(outcome["states"]) == saved.maps == 8
    assert outcome["targets"] == [0, 3]
    for t, target in enumerate((0, 3)):
        for n, samples in enumerate((2, 4)):
            fresh = sw.attribute(**(explorer.settings | {"target": target, "n_samples": samples}))
            for s, sign in enumerate(("absolute", "signed")):
                expected = frame_of(fresh, Reduction(sign))
                result, frame, status = codes(outcome, blocks, f"{t} {n} {s}")
                assert np.array_equal(result, expected.codes)
                assert (frame["low"], frame["high"], frame["signed"]) == (expected.low, expected.high, expected.signed)
                assert status["title"] == f"SmoothGrad · {NAMES[target]}"
                assert f"sign={sign!r}" in status["code"]
                assert f"n_samples={samples}," in status["code"]


def test_a_page_opens_with_the_map_shown_and_without_the_controls(explorer, tmp_path):
    saved = explorer.save_html(tmp_path / "a.html", record={"n_samples": [2, 4]}, progress=False)
    result, blocks = read_page(saved.path)
    root = result["models"][result["root"]]
    expected = frame_of(explorer.attribution, Reduction("absolute"))
    assert blocks[root["frame"]["codes"]["$bytes"]] == expected.codes.astype("<u2").tobytes()
    assert [axis["begin"] for axis in result["axes"]] == [1]
    assert (root["kind"], root["controls"], root["marking"]) == ("heatmap", [], False)
    assert root["display"] == f"IPY_MODEL_{result['displays'][0]}"
    assert [f"IPY_MODEL_{image['model']}" for image in result["images"]] == root["layers"]
    assert len(result["models"]) == 3
    assert blocks[root["image"]["$bytes"]][:4] == b"\x89PNG"


def test_nothing_is_computed_twice(explorer, model, tmp_path):
    before = model.passes
    explorer.save_html(tmp_path / "a.html", progress=False)
    explorer.save_html(tmp_path / "a.html", record={"n_samples": [1, 2, 4], "sign": True}, progress=False)
    assert model.passes == before, "the samples of the map shown are all cached"
    size = explorer.page_size({"n_samples": [4, 8]})
    assert (size.maps, size.new) == (2, 1)
    explorer.save_html(tmp_path / "a.html", record={"n_samples": [4, 8]}, progress=False)
    assert model.passes == before + 4
    assert explorer.page_size({"n_samples": [4, 8]}).new == 0


def test_maps_are_not_repeated_for_parameters_that_a_method_lacks(explorer):
    record = {"method": ["gradient", "smoothgrad", "grad_cam"], "n_samples": [2, 4], "noise_level": [0.1, 0.2, 0.3]}
    assert explorer.page_size(record).maps == 1 + 6 + 1


def test_each_method_has_its_default_sign_unless_the_user_chose_one(explorer, tmp_path):
    record = {"method": ["smoothgrad", "grad_cam"], "n_samples": [2, 4]}
    result, blocks = read_page(explorer.save_html(tmp_path / "a.html", record=record, progress=False).path)
    shared = {name: explorer.settings[name] for name in ("model", "inputs", "target", "fold")}
    cam = sw.attribute(**shared, method="grad_cam")
    assert np.array_equal(codes(result, blocks, "1 -")[0], frame_of(cam, Reduction("positive")).codes)
    explorer.update(sign="signed")
    result, blocks = read_page(explorer.save_html(tmp_path / "a.html", record=record, progress=False).path)
    assert np.array_equal(codes(result, blocks, "1 -")[0], frame_of(cam, Reduction("signed")).codes)


def test_true_records_a_few_values_including_the_current_one(explorer, tmp_path):
    record = {"n_samples": True, "noise_level": True, "channels": True}
    result, _ = read_page(explorer.save_html(tmp_path / "a.html", record=record, progress=False).path)
    axes = {axis["name"]: axis for axis in result["axes"]}
    assert axes["n_samples"]["labels"] == ["1", "2", "4"]
    assert axes["n_samples"]["begin"] == 2
    assert axes["channels"]["labels"] == ["max", "mean", "sum", "L2"]
    noise = axes["noise_level"]
    assert noise["labels"][noise["begin"]] == f"{explorer.settings['noise_level']:g}"
    assert noise["ordered"]


def test_an_interrupted_save_writes_nothing_and_keeps_computed_maps(explorer, model, tmp_path, monkeypatch):
    path = tmp_path / "a.html"
    path.write_text("the page of yesterday")
    record = {"n_samples": [4], "noise_level": [0.1, 0.2, 0.3], "target": [explorer.settings["target"]]}
    requested = []

    def interrupted(problem, request, *rest, **value):
        requested.append(request)
        for result in compute(problem, request, *rest, **value):
            if len(requested) == 2 and result.done == 2:
                raise KeyboardInterrupt
            yield result

    monkeypatch.setattr(session, "compute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        explorer.save_html(path, record=record, progress=False)
    assert path.read_text() == "the page of yesterday"
    assert [p.name for p in tmp_path.iterdir()] == ["a.html"]
    monkeypatch.setattr(session, "compute", compute)
    assert explorer.page_size(record).new == 2
    explorer.update(method="gradient")
    assert explorer.attribution.method == "gradient"
    explorer.update(method="smoothgrad")
    before = model.passes
    assert explorer.save_html(path, record=record, progress=False).maps == 3
    assert model.passes == before + 6, "one map and two of the four samples of another were cached"
    assert path.read_text().startswith("<!DOCTYPE html>")


def test_an_error_for_one_value_names_its_request(explorer, tmp_path):
    with pytest.raises(ValueError, match=r"record: .*The request was: method='grad_cam'.*layer='nowhere'"):
        explorer.save_html(
            tmp_path / "a.html", record={"method": ["grad_cam"], "layer": [None, "nowhere"]}, progress=False
        )
    assert list(tmp_path.iterdir()) == []
    assert explorer.attribution is not None


@pytest.mark.parametrize(
    ("record", "error", "message"),
    [
        ([("n_samples", True)], TypeError, "record: expected a mapping from names to values"),
        ({"n_sampels": [1]}, TypeError, "Did you mean 'n_samples'"),
        ({"n_steps": [1]}, TypeError, "It is a parameter of .*Integrated Gradients"),
        ({"n_samples": []}, ValueError, "record: n_samples: it is empty"),
        ({"n_samples": {4}}, TypeError, "record: n_samples: expected a list"),
        ({"n_samples": ["many"]}, TypeError, "record: n_samples: expected an integer"),
        ({"noise_level": [0.1, -7.0]}, ValueError, "record: noise_level: expected a number of at least 0"),
        ({"method": ["gradint"]}, ValueError, "Did you mean 'gradient'"),
        ({"target": ["dragon"]}, ValueError, "dragon"),
        ({"seed": range(300)}, ValueError, "300 maps, about .* over the limit of 200 maps.*pass limit=300"),
    ],
)
def test_an_invalid_record_is_an_error_before_anything_is_computed(explorer, model, tmp_path, record, error, message):
    before = model.passes
    with pytest.raises(error, match=message):
        explorer.save_html(tmp_path / "a.html", record=record, progress=False)
    assert model.passes == before
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_is_too_large_is_an_error_with_a_remedy(explorer, tmp_path):
    with pytest.raises(ValueError, match=r"over the limit of 1 kB for one page.*pass max_bytes=\d+"):
        explorer.save_html(tmp_path / "a.html", max_bytes=1000, progress=False)


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("nowhere/a.html", FileNotFoundError, r"there is no folder .*nowhere.* Create it first"),
        (".", IsADirectoryError, r"is a folder\. Add the name of the file"),
        ("/dev/null", ValueError, "is a device"),
        (None, TypeError, "expected a path such as 'maps/cat', got a NoneType"),
        ("", ValueError, "expected a path"),
    ],
)
def test_the_path_is_checked_before_anything_is_computed(explorer, model, tmp_path, monkeypatch, path, error, message):
    monkeypatch.chdir(tmp_path)
    before = model.passes
    with pytest.raises(error, match=f"^path: .*{message}"):
        explorer.save_html(path, record={"n_samples": [8, 16]}, progress=False)
    assert model.passes == before
    for kind in (Comparison, Lesson):
        monkeypatch.setattr(kind, "wait", lambda *_arguments, **_keywords: pytest.fail("it waited"))
        with pytest.raises(error, match=f"^path: .*{message}"):
            kind.save_html(kind.__new__(kind), path)
    assert list(tmp_path.iterdir()) == []


def test_saving_to_a_link_replaces_its_target_and_keeps_the_mode(explorer, tmp_path):
    (tmp_path / "real.html").write_text("old")
    (tmp_path / "real.html").chmod(0o600)
    (tmp_path / "link.html").symlink_to("real.html")
    saved = explorer.save_html(tmp_path / "link.html", progress=False)
    assert saved.path == tmp_path / "link.html"
    assert saved.path.is_symlink()
    assert saved.bytes == (tmp_path / "real.html").stat().st_size > 1000
    assert (tmp_path / "real.html").stat().st_mode & 0o777 == 0o600


def test_a_model_that_is_trained_while_saving_is_an_error(explorer, model, tmp_path, monkeypatch):
    run = explorer.session.run

    def run_and_train(request, check=lambda: None):
        result = run(request, check)
        with torch.no_grad():
            model.head.bias += 1
        return result

    monkeypatch.setattr(explorer.session, "run", run_and_train)
    with pytest.raises(RuntimeError, match="changed while the maps were computed: save again"):
        explorer.save_html(tmp_path / "a.html", record={"n_samples": [1, 2, 4]}, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_any_view_can_be_written_with_the_widget_models_it_refers_to(tmp_path):
    display = DisplaySettings(opacity=0.5)
    view = HeatmapView(b"", display)
    states = {(0,): {display: {"opacity": 0.1}}, (1,): {display: {"opacity": 0.9}, view: {"status": {"title": "b"}}}}
    recording = Recording((Axis("which", "Which", "One of two.", ("a", "b")),), states)
    write_page(tmp_path / "a.html", view, title="A & B", provenance="<here>", recording=recording)
    result, _ = read_page(tmp_path / "a.html")
    assert result["models"][1]["opacity"] == 0.5
    assert result["states"] == {
        "0": {"1": {"opacity": 0.1}},
        "1": {"1": {"opacity": 0.9}, "0": {"status": {"title": "b"}}},
    }
    text = (tmp_path / "a.html").read_text()
    assert "<h1>A &amp; B</h1>" in text
    assert "&lt;here&gt;" in text


def test_names_with_unpaired_surrogates_can_be_saved(model, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    about = {"class_names": ["caf\udce9", *NAMES[1:]], "target": 0, "executor": "inline"}
    made = Explorer(model, image, method="gradient", **about)
    made.save_html(tmp_path / "explorer.html", progress=False)
    lesson = Lesson(model, image, steps=["input"], **about)
    lesson.save_html(tmp_path / "lesson.html")
    assert "caf\ufffd</h1>" in (tmp_path / "lesson.html").read_text()
    assert len(list(tmp_path.iterdir())) == 2
    lesson.close()
    made.close()


def test_a_page_of_a_comparison_holds_the_signal_of_each_cell(tmp_path):
    net = nn.Sequential(nn.Conv1d(2, 4, 5), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten()).eval()
    signal = torch.arange(40.0).reshape(2, 20)
    compared = sw.compare(net, signal, sampling_rate=10, methods=["gradient", "input_x_gradient"])
    state, blocks = read_page(compared.save_html(tmp_path / "signals.html", progress=False).path)
    compared.close()
    scenes = [traits["scene"] for traits in state["models"] if traits.get("scene")]
    assert [scene["kind"] for scene in scenes] == ["signal", "signal"]
    assert all(blocks[scene["values"]["$bytes"]] == signal.numpy().tobytes() for scene in scenes)
