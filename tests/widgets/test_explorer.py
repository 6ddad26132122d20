"""The image explorer without a browser: controls, requests, frames, settings and messages."""

from __future__ import annotations

import gc
import io
import re
import threading
import weakref

import ipywidgets
import numpy as np
import pytest
import torch
from ipywidgets.widgets import widget as registry
from PIL import Image
from torch import nn
from toys import Tally, tallied

import saliency_widgets as sw
from saliency_widgets import render
from saliency_widgets.attribution import Reduction
from saliency_widgets.attribution.registry import methods
from saliency_widgets.params import spelling
from saliency_widgets.widgets import DisplaySettings, Explorer
from saliency_widgets.widgets.base import frame_stream
from saliency_widgets.widgets.base.controls import Control
from saliency_widgets.widgets.base.heatmap import HeatmapView

NAMES = ["ant", "bee", "wood ant", "cat", "dog", "eel"]


class Net(nn.Module):
    passes = tallied("passes")

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.relu = nn.ReLU()
        self.head = nn.Linear(4 * 256, 6)
        self.tally = Tally()
        self.broken = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        if self.broken:
            raise RuntimeError("out of order")
        return self.head(self.relu(self.conv(x)).flatten(1))


@pytest.fixture
def model() -> Net:
    return Net().eval()


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def page(request, monkeypatch):
    """Acknowledge each frame at once, as a fast page does, so that every offered frame is sent."""
    if request.cls in (TestFrameStream, TestWaiter):
        return
    publish = HeatmapView._publish

    def painted_at_once(view, frame, status):
        publish(view, frame, status)
        if frame is not None:
            view._painted((frame["generation"], frame["index"]))

    monkeypatch.setattr(HeatmapView, "_publish", painted_at_once)


@pytest.fixture
def explorer(model, image):
    made = Explorer(model, image, class_names=NAMES, executor="inline", method="gradient")
    yield made
    made.close()


def shown(explorer: Explorer) -> set[str]:
    return {p.name for p, c in explorer.panel._params.items() if c.widget.layout.display != "none"}


def control(explorer: Explorer, name: str) -> Control:
    return next(c for p, c in explorer.panel._params.items() if p.name == name)


@pytest.mark.parametrize("name", sorted(methods()))
def test_each_method_shows_its_own_parameters_and_no_others(explorer, name):
    explorer.panel._method.value = name
    assert shown(explorer) == {p.name for p in methods()[name].params}
    assert explorer.attribution.method == name
    assert explorer.attribution.complete


@pytest.mark.parametrize("name", sorted(methods()))
def test_attribute_with_the_settings_gives_the_map_bit_for_bit(explorer, name):
    explorer.update(method=name, target="dog")
    again = sw.attribute(**explorer.settings)
    assert torch.equal(again.values, explorer.attribution.values)
    assert again.settings["target"] == NAMES.index("dog")


def test_every_parameter_of_every_method_has_a_control_that_starts_at_its_default(explorer):
    for entry in methods().values():
        for param in entry.params:
            result = explorer.panel._params[param]
            if param.default is not None:
                assert result.value == param.default
            assert result.widget.tooltip == param.help
            assert f">{param.title}<" in result.widget.description


def test_sliders_start_at_the_parameters_passed(model, image):
    made = Explorer(model, image, executor="inline", method="smoothgrad", n_samples=7, noise_level=0.3, target=2)
    assert control(made, "n_samples").value == 7
    assert made.attribution.settings["noise_level"] == 0.3
    assert made.attribution.settings["target"] == 2
    made.close()


def test_moving_a_slider_computes_a_map_and_moving_it_back_uses_the_cache(explorer, model):
    explorer.update(method="smoothgrad", n_samples=4)
    first = explorer.attribution
    control(explorer, "n_samples").widget.value = 6
    assert explorer.attribution.done == 6
    model.passes = 0
    control(explorer, "n_samples").widget.value = 4
    assert explorer.attribution is first
    assert model.passes == 0


@pytest.mark.parametrize("by", ["button", "method"])
def test_recompute_replaces_the_cached_result(explorer, model, by):
    before, passes, entries = explorer.attribution, model.passes, explorer.cache_info().entries
    explorer.panel._again.click() if by == "button" else explorer.recompute()
    assert model.passes > passes
    assert explorer.attribution is not before
    assert torch.equal(explorer.attribution.values, before.values)
    assert not explorer.session.last.cached
    assert explorer.cache_info().entries == entries


def test_sign_and_channels_take_no_pass(explorer, model):
    model.passes = 0
    for sign in ("positive", "signed", "squared", "negative", "absolute"):
        explorer.panel._sign.widget.value = sign
        assert explorer.view.frame["signed"] == (sign == "signed")
    for channels in ("mean", "sum", "L2"):
        explorer.panel._channels.widget.value = channels
    assert model.passes == 0


def test_the_sign_is_the_methods_default_until_the_user_chooses_one(explorer):
    explorer.panel._method.value = "grad_cam"
    assert explorer.panel._sign.value == "positive"
    explorer.panel._method.value = "gradient"
    assert explorer.panel._sign.value == "absolute"
    explorer.panel._sign.widget.value = "signed"
    explorer.panel._method.value = "grad_cam"
    assert explorer.panel._sign.value == "signed"


def test_a_click_on_a_bar_and_a_search_choose_the_class(explorer):
    bars = explorer.panel._bars
    index = bars.indices[2]
    bars._rows._handle_custom_msg({"event": "element_click", "data": {"index": 2}}, [])
    assert explorer.attribution.settings["target"] == index
    for text, expected in (("eel (5)", 5), ("bee", 1), ("3", 3), ("dog", 4)):
        explorer.panel._search.widget.value = text
        assert explorer.attribution.settings["target"] == expected
        assert explorer.panel._search.widget.value == f"{NAMES[expected]} ({expected})"
    assert bars._bars.colors.count("#f37726") == 1


@pytest.mark.parametrize(("text", "message"), [("zebra", "zebra"), ("77", "out of range"), ("an", "ant")])
def test_a_search_without_a_match_is_an_error_and_the_next_search_works(explorer, text, message):
    before = explorer.attribution
    explorer.panel._search.widget.value = text
    assert explorer.view.status["state"] == "error"
    assert message in explorer.view.status["message"]
    assert explorer.attribution is before
    explorer.panel._search.widget.value = "bee"
    assert explorer.view.status["state"] == "done"
    assert explorer.view.status["message"] == ""


def test_update_applies_all_settings_or_none(explorer):
    explorer.update(method="smoothgrad", n_samples=3)
    before = explorer.settings
    for wrong in (
        {"n_samples": 5, "noise_level": -7},
        {"n_samples": 5, "color": "red"},
        {"n_samples": 5, "target": "zebra"},
        {"method": "magic"},
        {"n_samples": 5, "opacity": "half"},
        {"sign": "up"},
    ):
        with pytest.raises((TypeError, ValueError)):
            explorer.update(**wrong)
        assert explorer.settings == before
    explorer.update(n_samples=5, opacity=0.3, clip=(5, 95), colormap="viridis")
    assert explorer.settings["n_samples"] == 5
    assert explorer.kind_view.display.settings["opacity"] == 0.3


def test_display_settings_can_be_passed_to_explore(model, image):
    shown = {"opacity": 0.3, "clip": (5, 95), "colormap": "viridis"}
    explorer = sw.explore(model, image, class_names=NAMES, sign="signed", channels="sum", n_steps=8, **shown)
    assert explorer.panel.reduction == Reduction("signed", "sum")
    assert explorer.settings["n_steps"] == 8
    assert {name: explorer.kind_view.display.settings[name] for name in shown} == shown
    assert explorer.panel._display["opacity"].value == 0.3
    explorer.close()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"method": "magic"}, ValueError, "method"),
        ({"opacity": 3}, ValueError, "opacity"),
        ({"sign": "up"}, ValueError, "sign"),
        ({"n_sampels": 3, "method": "smoothgrad"}, TypeError, "n_samples"),
        ({"opacty": 0.5}, TypeError, "'opacty' is not known. Did you mean 'opacity'"),
        ({"method": "grad_cam", "layer": "__class__"}, ValueError, "layer: '__class__' is not known"),
        ({"target": 6}, ValueError, "out of range"),
        ({"target": "zebra"}, ValueError, "target"),
        ({"score": "odds"}, ValueError, "score"),
        ({"class_names": ["a", "b"]}, ValueError, "class_names"),
        ({"inputs": np.full((3, 16, 16), np.nan)}, ValueError, "NaN"),
        ({"inputs": torch.rand(2, 3, 16, 16)}, ValueError, "batch"),
        ({"inputs": torch.rand(7)}, ValueError, "layer 'conv' .* shape \\(1, 7\\)"),
        ({"inputs": torch.rand(3, 9, 9)}, ValueError, "head"),
        ({"model": lambda x: x}, TypeError, "model"),
        ({"executor": "threads"}, ValueError, "executor: 'threads' is not known. Did you mean 'thread'"),
    ],
)
def test_an_invalid_argument_is_an_error_and_leaves_no_thread_or_widget(model, image, change, error, message):
    threads, widgets = set(threading.enumerate()), set(registry._instances)
    arguments = {"model": model, "inputs": image, "class_names": NAMES} | change
    with pytest.raises(error, match=message):
        sw.explore(**arguments)
    assert set(threading.enumerate()) <= threads
    assert set(registry._instances) <= widgets


def test_the_error_of_a_failing_model_is_shown_and_the_next_request_works(explorer, model):
    model.broken = True
    explorer.update(method="smoothgrad", n_samples=3)
    assert explorer.view.status["state"] == "error"
    assert "out of order" in explorer.view.status["message"]
    assert explorer.view.status["remedy"]
    assert explorer.attribution is None
    with pytest.raises(ValueError, match="out of order"):
        explorer.wait()
    model.broken = False
    explorer.update(n_samples=4)
    assert explorer.view.status["state"] == "done"
    assert explorer.attribution.done == 4


def test_sliders_are_extended_to_values_set_from_python(model, image, tmp_path):
    made = Explorer(model, image, executor="inline", method="smoothgrad", n_samples=700)
    try:
        assert (control(made, "n_samples").widget.max, control(made, "n_samples").value) == (700, 700)
        made.update(n_samples=2000, noise_level=2.5)
        assert made.attribution.evaluations == 2000
        assert (made.attribution.settings["noise_level"], control(made, "noise_level").widget.max) == (2.5, 2.5)
        again = sw.attribute(model, image, **made.attribution.settings)
        assert torch.equal(again.values, made.attribution.values)
        made.save_state(tmp_path / "many")
        made.update(n_samples=3, noise_level=0.1)
        made.load_state(tmp_path / "many")
        assert made.attribution.evaluations == 2000
        made.update(method="integrated_gradients", n_steps=2001, tolerance=0)
        assert made.attribution.evaluations == 2002
        with pytest.raises(ValueError, match="n_steps: expected a number from 1 to 100000, got 200000"):
            made.update(n_steps=200_000)
        assert control(made, "n_steps").value == 2001
    finally:
        made.close()


def options(made, name):
    return [value for _, value in control(made, name).widget.options]


@pytest.mark.parametrize("is_image", [True, False])
def test_menus_offer_the_meaningful_baselines_with_the_default_first(model, image, is_image):
    x = image if is_image else torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    made = Explorer(model, x, executor="inline", method="integrated_gradients", n_steps=8)
    try:
        names = options(made, "baseline")
        assert names[0] == control(made, "baseline").value == made.attribution.settings["baseline"]
        assert names[0] == ("black" if is_image else "zero")
        assert ({"black", "white"} <= set(names)) == is_image
        assert ({"black", "white"} <= set(options(made, "baselines"))) == is_image
        by_hand = sw.attribute(model, x, n_steps=8, target=made.attribution.settings["target"])
        assert torch.equal(by_hand.values, made.attribution.values)
        assert f"baseline={names[0]!r}" in made.to_code()
        made.trust._fold.selected_index = 0
        sections = {section.test.name: section for section in made.trust._sections}
        for menu in (
            sections["ablation"].controls["fill"],
            sections["curves"].controls["fill"],
            sections["saturation"].controls["baseline"],
        ):
            assert ({"black", "white"} <= {value for _, value in menu.widget.options}) == is_image
        made.update(baseline="white")
        assert made.view.status["state"] == ("done" if is_image else "error")
        assert is_image or "pass the image and transform=" in made.view.status["message"]
    finally:
        made.close()


def test_a_note_says_if_the_sign_leaves_an_empty_map(image):
    """With weights of -1 after a ReLU, all evidence is against the class, so that the positive part is zero."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    nn.init.constant_(model[4].weight, -1.0)
    made = Explorer(model, image, executor="inline", method="grad_cam", target=1)

    def empty_map_notes():
        return [note for note in made.view.status["notes"] if "shows nothing" in note]

    try:
        assert len(empty_map_notes()) == 1
        assert "sign='positive'" in empty_map_notes()[0]
        for sign in ("signed", "negative", "absolute", "squared"):
            made.update(sign=sign)
            assert empty_map_notes() == []
        made.update(sign="positive")
        assert len(empty_map_notes()) == 1
        made.update(method="gradient", sign="positive")
        assert empty_map_notes() == []
    finally:
        made.close()


def test_a_method_that_does_not_apply_is_an_error_that_suggests_another(image):
    smooth_model = nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.GELU(), nn.Linear(8, 3)).eval()
    made = Explorer(smooth_model, image, executor="inline", method="gradient")
    for name in ("grad_cam", "guided_backprop", "guided_grad_cam"):
        made.update(method=name)
        assert made.view.status["state"] == "error"
        assert "Use " in made.view.status["message"]
    made.update(method="gradient")
    assert made.view.status["state"] == "done"
    made.close()


def test_status_and_frame_describe_the_map_completely(explorer):
    explorer.update(method="integrated_gradients", n_steps=8, baseline="white")
    status, frame = explorer.view.status, explorer.view.frame
    assert status["done"] == status["total"] == 9
    labels = [line["label"] for line in status["readings"]]
    assert "Completeness delta" in labels
    assert status["title"].startswith("Integrated Gradients · ")
    assert frame["final"]
    assert len(frame["codes"]) == 2 * frame["height"] * frame["width"]
    codes = np.frombuffer(frame["codes"], "<u2").reshape(16, 16)
    values = explorer.attribution.values[0].abs().amax(0).numpy()
    decoded = frame["low"] + codes / 65534 * (frame["high"] - frame["low"])
    np.testing.assert_allclose(decoded, values, atol=frame["high"] / 65534)


def test_the_image_is_what_the_model_sees(explorer, image):
    with Image.open(io.BytesIO(explorer.view.image)) as decoded:
        assert np.array_equal(np.asarray(decoded), image)


def test_save_png_contains_the_overlay_that_render_computes(explorer, image):
    file = io.BytesIO()
    explorer.save_png(file, scale=4)
    frame = explorer.view.frame
    codes = np.frombuffer(frame["codes"], "<u2").reshape(16, 16)
    shown = explorer.kind_view.display.settings
    colors = render.lut(shown.pop("colormap"))
    shown.pop("diverging")
    quantized = render.Quantized(codes, frame["low"], frame["high"], False)
    expected = render.blend(image, quantized, lut=colors, **shown)
    saved = np.asarray(Image.open(file).convert("RGB"))
    big = expected.repeat(4, 0).repeat(4, 1)
    matches = [
        (y, x)
        for y in range(saved.shape[0] - 63)
        for x in range(saved.shape[1] - 63)
        if np.array_equal(saved[y : y + 64, x : x + 64], big)
    ]
    assert len(matches) == 1


def test_a_function_as_target(model, image):
    made = sw.explore(model, image, target=lambda out: out[:, 1] - out[:, 2], method="gradient")
    result = made.wait(30)
    both = [sw.attribute(model, image, target=k, method="gradient").values for k in (1, 2)]
    torch.testing.assert_close(result.values, both[0] - both[1])
    made.close()


def test_models_of_one_logit_and_without_names(image):
    one = nn.Sequential(nn.Flatten(), nn.Linear(768, 1)).eval()
    made = Explorer(one, image, executor="inline", method="gradient", score="probability")
    assert made.attribution.settings["target"] == 0
    made.close()
    many = Explorer(Net().eval(), image, executor="inline", method="gradient")
    many.panel._search.widget.value = "5"
    assert many.attribution.settings["target"] == 5
    assert "class 5" in many.view.status["title"]
    many.close()


def test_close_closes_every_widget_and_twice_is_fine(model, image):
    before = set(registry._instances)
    made = Explorer(model, image, executor="inline", class_names=NAMES, method="gradient")
    assert len(set(registry._instances)) > len(before) + 20
    made.close()
    made.close()
    left = [type(registry._instances[k]).__name__ for k in set(registry._instances) - before]
    assert not left


def test_the_default_executor_is_a_thread_and_wait_returns_the_result(model, image):
    made = sw.explore(model, image, method="smoothgrad", n_samples=30)
    assert made.wait(30).done == 30
    assert made.attribution is not None
    made.close()


def test_a_method_in_a_new_file_is_in_the_menu_with_its_slider(tmp_path, monkeypatch, model, image):
    from saliency_widgets.attribution import methods as package

    (tmp_path / "toy_scaled_gradient.py").write_text(
        '''
from saliency_widgets.attribution.registry import Estimate, method
from saliency_widgets.params import Param

@method(title="Toy", params=(Param("toy_gain", 2.0, 0.0, 10.0, help="How many times."),))
def toy_scaled_gradient(call, toy_gain):
    """The gradient times a number."""
    values, score = call.gradient(call.inputs)
    yield Estimate(values * toy_gain, score=score)
'''
    )
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    made = Explorer(model, image, executor="inline", method="gradient")
    plain = made.attribution.values
    assert "Toy" in dict(made.panel._method.widget.options)
    made.panel._method.value = "toy_scaled_gradient"
    slider = control(made, "toy_gain")
    assert isinstance(slider.widget, ipywidgets.FloatSlider)
    assert (slider.widget.min, slider.widget.max, slider.value) == (0.0, 10.0, 2.0)
    assert shown(made) == {"toy_gain"}
    slider.widget.value = 3.0
    torch.testing.assert_close(made.attribution.values, 3 * plain)
    made.close()


class TestWaiter:
    """One thread serves all views whose page doesn't acknowledge a frame, and runs only while a view waits."""

    @pytest.fixture
    def waiter(self, monkeypatch):
        made = frame_stream._Waiter()
        monkeypatch.setattr(frame_stream, "WAITER", made)
        yield made
        assert not made._due

    def offered(self, count: int) -> list[HeatmapView]:
        """Return views with one frame in flight and another one queued."""
        made = [HeatmapView(b"", None) for _ in range(count)]
        for view in made:
            view.offer(TestFrameStream.frame(1), {})
            view.offer(TestFrameStream.frame(2), {})
        return made

    def test_one_thread_serves_all_views_and_frames_and_is_gone_at_close(self, waiter, monkeypatch):
        monkeypatch.setattr(frame_stream, "_ACKNOWLEDGEMENT_TIMEOUT", 3600.0)
        views = self.offered(20)
        thread = waiter._thread
        for index in range(1, 100):
            for view in views:
                view._handle_custom_msg({"type": "painted", "generation": 1, "index": index}, [])
                view.offer(TestFrameStream.frame(index + 2), {})
        assert [view.frame["index"] for view in views] == [100] * 20
        assert waiter._thread is thread
        for view in views:
            assert thread.is_alive()
            view.retire()
        assert not thread.is_alive()
        for view in views:
            view.close()

    def test_it_sends_overdue_frames_and_ends(self, waiter, monkeypatch):
        monkeypatch.setattr(frame_stream, "_ACKNOWLEDGEMENT_TIMEOUT", 0.05)
        views = self.offered(3)
        while (thread := waiter._thread) is not None:
            thread.join(timeout=60)
            assert not thread.is_alive()
        assert [view.frame["index"] for view in views] == [2, 2, 2]
        for view in views:
            view.close()

    def test_a_view_that_is_due_first_does_not_wait_for_a_later_one(self, waiter, monkeypatch):
        monkeypatch.setattr(frame_stream, "_ACKNOWLEDGEMENT_TIMEOUT", 3600.0)
        (late,) = self.offered(1)
        monkeypatch.setattr(frame_stream, "_ACKNOWLEDGEMENT_TIMEOUT", 0.05)
        first = HeatmapView(b"", None)
        sent = threading.Event()
        first.observe(lambda change: change["new"]["index"] == 2 and sent.set(), names="frame")
        first.offer(TestFrameStream.frame(1), {})
        first.offer(TestFrameStream.frame(2), {})
        assert sent.wait(60)
        assert late.frame["index"] == 1
        for view in (first, late):
            view.retire()
            view.close()

    def test_a_failing_view_does_not_block_the_others(self, waiter, monkeypatch):
        failed = []
        monkeypatch.setattr(threading, "excepthook", failed.append)
        monkeypatch.setattr(frame_stream, "_ACKNOWLEDGEMENT_TIMEOUT", 0.05)
        broken, view = HeatmapView(b"", None), HeatmapView(b"", None)
        sent = threading.Event()
        view.observe(lambda change: change["new"]["index"] == 2 and sent.set(), names="frame")
        with monkeypatch.context() as patched:
            patched.setattr(broken, "overdue", lambda: 1 / 0)
            waiter.expect(broken, 0.0)
            view.offer(TestFrameStream.frame(1), {})
            view.offer(TestFrameStream.frame(2), {})
            assert sent.wait(60)
        view.retire()
        assert [one.exc_type for one in failed] == [ZeroDivisionError]
        for one in (broken, view):
            one.close()


class TestFrameStream:
    """Frames are sent no faster than the page acknowledges them."""

    @pytest.fixture
    def view(self, monkeypatch):
        self.now, self.expected = 100.0, {}

        class Waiter:
            expect = staticmethod(self.expected.__setitem__)
            forget = dismiss = staticmethod(lambda view: self.expected.pop(view, None))

        monkeypatch.setattr(frame_stream, "WAITER", Waiter)
        monkeypatch.setattr(frame_stream.time, "monotonic", lambda: self.now)
        made = HeatmapView(b"", DisplaySettings())
        yield made
        made.close()
        assert not self.expected

    @staticmethod
    def frame(index: int) -> dict:
        return {"generation": 1, "index": index, "codes": b""}

    def painted(self, view: HeatmapView, index: int) -> None:
        view._handle_custom_msg({"type": "painted", "generation": 1, "index": index}, [])

    def test_one_frame_is_in_flight_and_the_newest_follows(self, view):
        for index in range(1, 6):
            view.offer(self.frame(index), {"index": index})
        assert view.frame["index"] == 1
        self.painted(view, 1)
        assert view.frame["index"] == 5
        assert view.status == {"index": 5}
        self.painted(view, 5)
        view.offer(self.frame(6), {})
        assert view.frame["index"] == 6

    def test_a_final_frame_is_sent_at_once_if_no_page_has_ever_answered(self, view):
        view.offer(self.frame(1), {})
        view.offer(self.frame(2), {})
        view.offer(self.frame(3) | {"final": True}, {"state": "done"})
        assert view.frame["index"] == 3
        self.painted(view, 3)
        view.offer(self.frame(4), {})
        view.offer(self.frame(5) | {"final": True}, {})
        assert view.frame["index"] == 4  # a page has answered, so its acknowledgement is awaited

    def test_an_old_acknowledgement_is_ignored(self, view):
        view.offer(self.frame(1), {})
        self.painted(view, 1)
        view.offer(self.frame(2), {})
        self.painted(view, 1)
        view.offer(self.frame(3), {})
        assert view.frame["index"] == 2

    def test_a_resent_frame_does_not_arrive_after_a_newer_one(self, view, monkeypatch):
        view.offer(self.frame(1), {})
        self.painted(view, 1)
        sent, get_state, threads = [], view.get_state, []

        def read(*args, **kwargs):
            state = get_state(*args, **kwargs)
            if not threads:  # the worker offers the next frame between reading and sending
                threads.append(threading.Thread(target=view.offer, args=(self.frame(2), {})))
                threads[0].start()
                threads[0].join(0.5)
            return state

        def send(data, _buffers):
            if "frame" in data["state"]:
                sent.append(data["state"]["frame"]["index"])

        monkeypatch.setattr(view, "get_state", read)
        monkeypatch.setattr(view, "_send", lambda data, buffers=None: send(data, buffers))
        view.send_state(["frame"])
        threads[0].join()
        assert sent == [1, 2]

    def test_a_status_without_a_frame_keeps_the_queued_frame(self, view):
        view.offer(self.frame(1), {"state": "running"})
        view.offer(self.frame(2), {"state": "running"})
        view.offer(None, {"state": "stopped"})
        self.painted(view, 1)
        assert view.frame["index"] == 2
        assert view.status == {"state": "stopped"}

    def test_a_page_that_never_answers_delays_frames_only_until_the_timeout(self, view):
        view.offer(self.frame(1), {})
        assert not self.expected  # no frame is queued
        view.offer(self.frame(2), {})
        assert self.expected == {view: 102.0}
        self.now = 101.9
        view.overdue()
        assert view.frame["index"] == 1
        self.now = 102.0
        view.overdue()
        assert view.frame["index"] == 2
        self.now = 103.9
        view.offer(self.frame(3), {})
        assert (view.frame["index"], self.expected[view]) == (2, 104.0)
        self.now = 104.0
        view.offer(self.frame(4), {})  # before the waiter's thread sends it
        assert view.frame["index"] == 4

    @pytest.mark.parametrize("end", ["painted", "flushed", "finished", "retired", "closed"])
    def test_the_waiter_forgets_frames_that_were_sent_or_dropped(self, view, end):
        view.offer(self.frame(1), {})
        view.offer(self.frame(2), {})
        assert view in self.expected
        {
            "painted": lambda: self.painted(view, 1),
            "flushed": view.flush,
            "finished": lambda: view.offer(self.frame(3) | {"final": True}, {}),
            "retired": view.retire,
            "closed": view.close,
        }[end]()
        assert not self.expected

    def test_the_stop_button_calls_back(self):
        pressed = []
        made = HeatmapView(b"", DisplaySettings(), on_stop=lambda: pressed.append(1))
        made._handle_custom_msg({"type": "stop"}, [])
        made._handle_custom_msg({"type": "unknown"}, [])
        assert pressed == [1]
        made.close()

    def test_the_bytes_are_not_in_the_repr(self):
        made = HeatmapView(b"x" * 1000, DisplaySettings())
        assert len(repr(made)) < 100
        assert len(repr(DisplaySettings())) < 300
        made.close()


def test_invalid_display_settings_are_errors():
    with pytest.raises(TypeError, match="unknown"):
        DisplaySettings(brightness=1)
    with pytest.raises(ValueError, match="opacity"):
        DisplaySettings(opacity=2)
    result = DisplaySettings(colormap="viridis", clip=(1, 98), blend="uniform")
    assert result.settings["colormap"] == "viridis"
    assert result.settings["clip"] == (1, 98)
    assert len(result.colormap_luts) % 768 == 0
    assert {p.name for p in render.DISPLAY} == set(result.settings)


BASELINES = {
    "tensor": torch.full((3, 16, 16), 0.25),
    "array": np.full((3, 1, 1), 0.5, dtype=np.float32),
    "function": lambda x: x * 0.5,
    "name": "blur",
    "none": None,
}


@pytest.mark.parametrize("first", BASELINES)
@pytest.mark.parametrize("second", BASELINES)
def test_custom_baselines_can_be_chosen_repeatedly(model, image, first, second):
    start = {"method": "integrated_gradients", "n_steps": 4, "baseline": BASELINES[first]}
    made = Explorer(model, image, executor="inline", **start)
    for name in (first, second, first):
        made.update(baseline=BASELINES[name])
        expected = sw.attribute(model, image, **{**start, "baseline": BASELINES[name]})
        assert torch.equal(made.attribution.values, expected.values)
    labels = [label for label, _ in control(made, "baseline").widget.options]
    assert len(labels) == len(set(labels))
    made.close()


def test_close_releases_the_model_and_its_cached_results(image):
    made = Explorer(Net().eval(), image, class_names=NAMES, executor="inline", method="smoothgrad", n_samples=3)
    model, cache = weakref.ref(made.problem.model), made.session.cache
    stored = cache.bytes
    made.update(n_samples=4)
    assert cache.bytes > stored
    made.close()
    del made
    gc.collect()
    assert model() is None
    assert cache.bytes < stored


def test_the_title_is_that_of_the_map_shown(explorer, model):
    explorer.update(target="dog")
    assert explorer.view.status["title"] == "Gradient · dog"
    model.broken = True
    explorer.update(method="smoothgrad", n_samples=3)
    status = explorer.view.status
    assert (status["state"], status["title"], status["dim"]) == ("error", "Gradient · dog", True)
    assert "SmoothGrad · dog" in status["remedy"]
    explorer.panel._sign.widget.value = "signed"  # the values of the previous map are still available
    assert explorer.view.frame["signed"]
    assert explorer.view.status["title"] == "Gradient · dog"
    assert "out of order" in explorer.view.status["message"]
    assert explorer.attribution is None
    file = io.BytesIO()
    explorer.save_png(file)
    assert file.getvalue()
    model.broken = False
    explorer.update()
    assert explorer.view.status["title"] == "SmoothGrad · dog"
    assert not explorer.view.status["dim"]


def test_the_status_says_if_a_map_is_cached(explorer):
    explorer.update(target="dog")
    assert not explorer.view.status["cached"]
    explorer.update(target="cat")
    explorer.update(target="dog")
    assert explorer.view.status["cached"]


def test_update_refreshes_the_predictions_after_training(explorer, model):
    before = list(explorer.panel._bars._bars.y)
    with torch.no_grad():
        model.head.bias[5] += 100
    explorer.update()
    assert explorer.panel._bars.indices[0] == 5
    assert explorer.panel._bars._bars.y[0] > 0.99
    assert list(explorer.panel._bars._bars.y) != before


def test_a_note_says_if_the_predictions_are_outdated(explorer, model):
    def noted() -> bool:
        return any("the predictions are not" in note for note in explorer.view.status["notes"])

    with torch.no_grad():
        model.head.bias[5] += 100
    assert not noted()
    explorer.panel._method.widget.value = "smoothgrad"
    assert noted()
    explorer.update()
    assert not noted()


def test_an_edited_image_is_shown_only_together_with_its_own_map(explorer, model):
    x, before = explorer.arguments["inputs"], explorer.view.image
    x[:] = x[:, ::-1].copy()
    model.broken = True
    explorer.update(method="smoothgrad")
    assert explorer.view.status["state"] == "error"
    explorer.panel._sign.widget.value = "signed"
    assert explorer.view.image == before
    model.broken = False
    explorer.update()
    assert explorer.view.status["state"] == "done"
    assert explorer.view.image != before


def test_an_unknown_layer_changes_no_setting(explorer):
    before = explorer.settings["method"]
    with pytest.raises(ValueError, match=r"layer: 'cnv' is not known\. Did you mean 'conv'"):
        explorer.update(method="grad_cam", layer="cnv")
    assert explorer.settings["method"] == before
    explorer.update(method="grad_cam", layer="conv")
    assert explorer.view.status["state"] == "done"


@pytest.mark.parametrize("text", ["²", "5" * 5000, "-1", "  ", "ant bee", "💥"])
def test_any_invalid_text_in_the_search_is_an_error(explorer, text):
    explorer.panel._search.widget.value = text
    assert explorer.view.status["state"] == "error"
    assert explorer.view.status["message"].startswith("target")
    explorer.panel._search.widget.value = explorer.panel._search._label(explorer.settings["target"])
    assert explorer.view.status["state"] == "done"


def test_a_segmentation_model_with_a_function_as_target(image):
    torch.manual_seed(0)
    mask = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 1)).eval()
    made = Explorer(mask, image, executor="inline", target=lambda out: out[:, 3].mean((1, 2)), method="grad_cam")
    assert made.attribution is not None
    made.close()
    made = Explorer(mask, image, executor="inline", target=3, method="grad_cam")
    assert any("each position" in note for note in made.view.status["notes"])
    made.close()


def test_compiled_and_scripted_models(model, image):
    compiled = Explorer(torch.compile(model), image, executor="inline", target=1, method="grad_cam")
    expected = sw.attribute(model, image, target=1, method="grad_cam")
    assert torch.equal(compiled.attribution.values, expected.values)
    compiled.close()
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 196, 3)).eval()
    for made in (torch.jit.script(net), torch.jit.trace(net, torch.rand(1, 3, 16, 16))):
        scripted = Explorer(made, image, executor="inline", target=1, method="gradient")
        plain = sw.attribute(net, image, target=1, method="gradient")
        torch.testing.assert_close(scripted.attribution.values, plain.values)
        for name in ("grad_cam", "guided_backprop"):
            scripted.update(method=name)
            assert "scripted, traced or exported" in scripted.view.status["message"]
        scripted.close()


def test_a_tensor_as_target_is_an_index_or_an_error(model, image):
    made = Explorer(model, image, executor="inline", method="gradient", target=torch.tensor([4]))
    assert made.attribution.settings["target"] == 4
    made.close()
    with pytest.raises(TypeError):
        sw.explore(model, image, target=torch.tensor(0.7))  # must not be truncated to class 0


def test_class_names_by_index_and_invalid_class_names(model, image):
    made = Explorer(model, image, class_names={str(i): n for i, n in enumerate(NAMES)}, executor="inline", target="dog")
    assert made.settings["target"] == 4
    made.close()
    with pytest.raises(TypeError, match="one string"):
        sw.explore(model, image, class_names="ant")
    with pytest.raises(ValueError, match="each once"):
        sw.explore(model, image, class_names={1: "a", 2: "b"})


# ---- target names and predictions


def one_output(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1)).eval()


def open_explorer(model, image, **settings):
    return Explorer(model, image, executor="inline", **{"method": "gradient", **settings})


def test_both_names_of_one_logit_are_shown_and_can_be_chosen(image):
    model = one_output()
    made = open_explorer(model, image, class_names=["neg", "pos"], target="neg")
    with torch.no_grad():
        share = model(made.problem.tensor).sigmoid().item()
    shown = {name: probability for _, name, probability in made.panel.predictions}
    assert shown == {"neg": pytest.approx(1 - share, abs=1e-6), "pos": pytest.approx(share, abs=1e-6)}
    first = made.attribution
    assert first.settings["target"] == 0
    made.panel._search.widget.value = "pos"
    assert torch.equal(made.attribution.values, -first.values)
    assert made.panel.title == "Gradient · pos"
    names = {"model": model, "inputs": image}
    exec(made.to_code(), names)
    assert torch.equal(names["attribution"].values, made.attribution.values)
    assert torch.equal(sw.attribute(**made.settings).values, made.attribution.values)
    result = sw.ablate(model, image, np.arange(256).reshape(16, 16) < 99, class_names=["neg", "pos"], target="neg")
    assert sorted(result.predictions().index) == ["neg", "pos"]
    assert result.predictions()["after"].sum() == pytest.approx(1)
    assert result.predictions().loc["neg", "before"] == pytest.approx(1 - share, abs=1e-6)
    made.close()


def test_deletion_can_be_shown_for_the_other_class_of_one_logit(image):
    made = open_explorer(one_output(), image, class_names=["neg", "pos"], target="pos")
    made.trust._choice.value = [test.name for test in made.trust.tests].index("curves")
    made.trust._fold.selected_index = 0
    section = next(section for section in made.trust._sections if section.test.name == "curves")
    result, finished_map = section._result
    name, other = section._for_class(result, finished_map)
    assert (name, other) == ("", result)
    section._class.value = "neg"
    name, other = section._for_class(result, finished_map)
    assert name == "neg"
    torch.testing.assert_close(other.main["deletion"].scores, -result.main["deletion"].scores)
    made.close()


def test_a_value_is_shown_as_it_is_and_not_as_a_probability(image):
    model = one_output()
    made = open_explorer(model, image, score="value")
    with torch.no_grad():
        value = model(made.problem.tensor).item()
    assert made.panel.predictions == []
    assert made.panel._bars.widget.layout.display == "none"
    assert f"value: <b>{value:.4g}</b>" in made.panel._values.value
    assert made.panel.title == "Gradient · value"
    made.trust._fold.selected_index = 0
    section = made.trust._sections[0]
    section.marked(np.arange(256).reshape(16, 16) < 99)
    assert "the score goes from" in section._said.value
    assert section._shares.layout.display == "none"
    made.update(score="logit")  # the same output, read as a class score
    assert section._shares.layout.display is None
    assert made.panel._bars.widget.layout.display is None
    assert made.panel._values.layout.display == "none"
    assert len(made.panel.predictions) == 1
    made.close()


def test_one_of_several_values_is_chosen_by_its_index(model, image):
    with pytest.raises(
        ValueError, match=r"target: the model returns 6 values; with score='value', pass the index of one"
    ):
        open_explorer(model, image, score="value")
    made = open_explorer(model, image, score="value", target=3)
    assert made.panel.title == "Gradient · output 3"
    assert made.panel._values.value.count("output") == 5
    assert "and 1 more" in made.panel._values.value
    made.close()


def test_names_with_commas_are_shortened_if_they_stay_unique(model, image):
    names = ["scratch, deep", "scratch, shallow", "tabby, tabby cat", "dent", ", odd", "eel"]
    made = open_explorer(model, image, class_names=names, target=1)
    assert made.panel.title == "Gradient · scratch, shallow"
    assert set(made.panel._bars._bars.x) <= {"scratch, deep", "scratch, shallow", "tabby", "dent", ", odd", "eel"}
    made.update(target=2)
    assert made.panel.title == "Gradient · tabby"
    made.close()


def test_an_index_into_the_output_is_a_target_like_a_class(image):
    torch.manual_seed(0)
    model = nn.Conv2d(3, 5, 3, padding=1).eval()
    made = open_explorer(model, image, target=(2, 3, 4))
    assert made.panel.title == "Gradient · output[2, 3, 4]"
    assert made.panel._search.widget.value == "2, 3, 4"
    reached = made.attribution.values[0].abs().sum(0).nonzero()
    assert reached.amin(0).tolist() == [2, 3]  # the receptive field of row 3, column 4
    assert reached.amax(0).tolist() == [4, 5]
    assert not any("each position" in note for note in made.attribution.notes)
    made.panel._search.widget.value = "(1, 8, 9)"
    assert made.attribution.settings["target"] == (1, 8, 9)
    made.panel._search.widget.value = "1, 8, 99"
    assert "out of range" in made.view.status["message"]
    made.update(target=1)
    assert made.attribution.settings["target"] == 1
    assert any("each position" in note for note in made.attribution.notes)
    made.close()


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("GradCAM", "grad_cam"), ("Grad-CAM++", "grad_cam_plus_plus"), ("ig", "integrated_gradients"),
        ("IntegratedGradients", "integrated_gradients"), ("saliency", "gradient"), ("SHAP", "expected_gradients"),
        ("grad*input", "input_x_gradient"),
        ("guided_backpropagation", "guided_backprop"), ("smooth_grad", "smoothgrad"), ("deconvolution", "deconvnet"),
    ],
)  # fmt: skip
def test_an_alias_of_a_method_is_an_error_that_suggests_its_name(explorer, value, name):
    message = f"method: {re.escape(repr(value))} is not known. Did you mean '{name}'?"
    for call in (
        lambda: sw.attribute(one_output(), torch.zeros(1, 3, 8, 8), method=value),
        lambda: explorer.update(method=value),
        lambda: explorer.page_size(record={"method": [value]}),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("value", ["occlusion", "DeepLift", "Captum.IntegratedGradients", "kernel_shap"])
def test_the_name_of_a_captum_method_is_an_error_that_suggests_the_prefix(value):
    with pytest.raises(
        ValueError, match=r"is not known\. Did you mean 'captum\.(Occlusion|DeepLift|Int\w+|KernelShap)'"
    ):
        sw.attribute(one_output(), torch.zeros(1, 3, 8, 8), method=value)


def test_no_alias_is_another_methods_name():
    expected = methods()
    aliases = [spelling(alias) for entry in expected.values() for alias in (entry.name, entry.title, *entry.aliases)]
    owners = {alias: {name for name, e in expected.items() if alias in map(spelling, (name, e.title, *e.aliases))}
              for alias in aliases}  # fmt: skip
    assert all(len(names) == 1 for names in owners.values())
