"""The explorer of a volume: its planes, one color scale, what travels, its trust tests, and what it refuses."""

from contextlib import closing

import numpy as np
import pytest
import torch
from torch import nn
from toys import read_page

import saliency_widgets as sw
from saliency_widgets import render
from saliency_widgets.evaluation.registry import trust_tests

TABS = [name for name, test in trust_tests().items() if "volume" in (test.kinds or ("volume",))]
SIZE = D, H, W = 5, 6, 8
PIXELS = H * W + D * W + D * H


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 3)
    ).double().eval()  # fmt: skip


@pytest.fixture
def volume():
    return torch.randn(1, *SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture
def explorer(model, volume):
    made = sw.explore(model, volume, slices="depth", target=1, method="input_x_gradient", executor="inline")
    yield made
    made.close()


def planes_of(array, at):
    d, h, w = at
    return [array[d], array[:, h], array[:, :, w]]


def codes_on_page(explorer):
    return np.frombuffer(explorer.view.frame["codes"], np.uint16)


def values_of_planes(explorer):
    frame = explorer.view.frame
    codes = codes_on_page(explorer)[:PIXELS].astype(float)
    return frame["low"] + codes / 65535 * (frame["high"] - frame["low"])


def move(explorer, *at):
    explorer.kind_view._on_scene({"at": list(at)})


@pytest.mark.parametrize("at", [(2, 3, 4), (0, 0, 0), (4, 5, 7)])
def test_the_shown_planes_have_the_values_of_the_map(explorer, at):
    move(explorer, *at)
    assert explorer.kind == "volume"
    assert explorer.view.frame["ground"]["at"] == list(at)
    values = explorer.attribution.values[0, 0].abs().numpy()
    expected = np.concatenate([plane.ravel() for plane in planes_of(values, at)])
    shown = np.abs(values_of_planes(explorer))
    assert np.abs(shown - expected).max() <= values.max() / 65534


def test_a_moved_plane_runs_no_pass_of_the_model(explorer):
    passes, frame = explorer.problem.memory.passes, explorer.view.frame
    move(explorer, 1, 2, 3)
    assert explorer.view.frame is not frame
    assert explorer.kind_view.at == (1, 2, 3)
    assert explorer.problem.memory.passes == passes


@pytest.mark.parametrize("at", [[9, 0, 0], [-1, 0, 0], [0, 0], [0.5, 0, 0], None, "123", [True, 0, 0]])
def test_a_message_that_names_no_voxel_changes_nothing(explorer, at):
    frame = explorer.view.frame
    explorer.kind_view._on_scene({"at": at})
    assert explorer.view.frame is frame
    assert explorer.kind_view.at == (2, 3, 4)


def test_only_the_shown_planes_travel(explorer):
    # Two bytes per pixel of the planes and per level of the color scale; one byte of gray per pixel.
    assert len(explorer.view.frame["codes"]) == 2 * (PIXELS + 1001)
    assert len(explorer.view.frame["ground"]["pixels"]) == len(explorer.view.scene["pixels"]) == PIXELS


@pytest.mark.parametrize("sign", ["absolute", "signed"])
def test_all_planes_share_the_color_scale_of_the_volume(explorer, sign):
    explorer.update(sign=sign)
    values = explorer.attribution.values[0, 0].numpy()
    whole = render.quantize(np.abs(values).reshape(-1, W) if sign == "absolute" else values.reshape(-1, W),
                            signed=sign == "signed")  # fmt: skip
    scales = []
    for at in ((0, 0, 0), (2, 3, 4), (4, 5, 7)):
        move(explorer, *at)
        frame = explorer.view.frame
        scales.append((frame["low"], frame["high"], codes_on_page(explorer)[PIXELS:].tobytes()))
    assert len({*scales}) == 1
    low, high, table = scales[0]
    assert abs(high - whole.high) <= 1e-12 * whole.high
    assert abs(low - whole.low) <= 1e-12 * whole.high
    levels = np.frombuffer(table, np.uint16).astype(int)
    magnitudes = np.sort(np.abs(whole.codes.astype(int).ravel() - render.ZERO) if sign == "signed"
                         else whole.codes.astype(int).ravel())  # fmt: skip
    ranks = np.maximum(1, np.ceil(np.arange(1001) * len(magnitudes) / 1000 - 1e-9).astype(int))
    shown = levels - render.ZERO if sign == "signed" else levels
    assert np.abs(shown - magnitudes[ranks - 1]).max() <= 1  # the values are quantized twice


def test_the_pixels_are_those_of_the_planes(explorer, volume):
    move(explorer, 1, 2, 3)
    low, high = np.percentile(volume.numpy(), (0.5, 99.5))
    gray = np.clip((volume[0].numpy() - low) / (high - low), 0, 1) * 255
    expected = np.concatenate([plane.ravel() for plane in planes_of(gray, (1, 2, 3))])
    shown = np.frombuffer(explorer.view.frame["ground"]["pixels"], np.uint8)
    assert np.abs(shown - expected).max() <= 0.5 + 1e-9


def test_a_video_shows_one_frame_in_its_colors():
    video = torch.rand(3, 4, 6, 8, generator=torch.Generator().manual_seed(0))
    net = nn.Sequential(nn.Conv3d(3, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten())
    with closing(sw.explore(net.eval(), video, slices="time", method="gradient", executor="inline")) as explorer:
        scene = explorer.view.scene
        assert (scene["planes"], scene["axes"], scene["channels"]) == (["Frame"], ["time", "height", "width"], 3)
        move(explorer, 3, 0, 0)
        shown = np.frombuffer(explorer.view.frame["ground"]["pixels"], np.uint8).reshape(6, 8, 3)
        assert np.abs(shown - 255 * video[:, 3].movedim(0, -1).numpy()).max() <= 0.501
        assert len(explorer.view.frame["codes"]) == 2 * (6 * 8 + 1001)


def test_layers_and_methods_are_those_of_a_volume(explorer):
    assert list(explorer.panel._layers())[1] == "1 · 4 × 5 × 6 × 8"
    assert not {"blur_ig", "guided_grad_cam"} & {*explorer.panel.menu}
    explorer.update(method="grad_cam")
    assert explorer.attribution.layer == "1"
    assert len(explorer.view.frame["codes"]) == 2 * (PIXELS + 1001)


def test_the_code_repeats_the_map(explorer, model, volume):
    scope = {"model": model, "inputs": volume}
    exec(explorer.to_code(), scope)
    assert torch.equal(scope["attribution"].values, explorer.attribution.values)


@pytest.mark.parametrize("name", TABS)
def test_the_trust_tests_of_volumes_run(explorer, name):
    explorer.trust._fold.selected_index = 0
    tests = [test.name for test in explorer.trust.tests]
    assert tests == TABS
    assert {"ablation", "curves", "randomization", "saturation", "stability"} <= {*tests}
    explorer.trust._choice.value = tests.index(name)
    section = explorer.trust._sections[tests.index(name)]
    if name == "ablation":
        box = np.zeros(SIZE, bool)
        box[1:3, 2:4, 3:6] = True
        section.marked(box.reshape(-1, W))
    assert section.waiting not in section._said.value
    assert not explorer.trust._message.value


def test_a_moved_plane_is_not_tested_again(explorer):
    explorer.trust._fold.selected_index = 0
    shown = explorer.trust._shown
    passes = explorer.problem.memory.passes
    move(explorer, 0, 1, 2)
    assert explorer.trust._shown is shown
    assert explorer.problem.memory.passes == passes


def test_a_saved_state_restores_the_explorer_and_the_map(explorer, model, tmp_path):
    explorer.save_state(tmp_path / "state")
    assert torch.equal(sw.load(tmp_path / "state").values, explorer.attribution.values)
    with closing(sw.load(tmp_path / "state", model, executor="inline")) as again:
        assert again.kind == "volume"
        assert again.view.frame["codes"] == explorer.view.frame["codes"]
        assert again.view.scene["pixels"] == explorer.view.scene["pixels"]


def page_of(explorer, path, **record):
    """Save a page; return its traits, its blocks of bytes, and the traits of each recorded map."""
    saved = explorer.save_html(path, record=record, progress=False)
    result, blocks = read_page(saved.path)
    states = {key: next(iter(state.values())) for key, state in result["states"].items()}
    return result["models"][result["root"]], blocks, states, saved


def whole_on_page(traits, blocks, count):
    """The codes of all voxels in a frame of a page, and its table of levels."""
    codes = np.frombuffer(blocks[traits["frame"]["codes"]["$bytes"]], "<u2")
    return codes[:count], codes[count:]


@pytest.mark.parametrize("sign", ["absolute", "signed"])
def test_planes_of_a_page_are_the_codes_that_the_explorer_shows(explorer, tmp_path, sign):
    explorer.update(sign=sign)
    move(explorer, 1, 2, 3)
    traits, blocks, _, _ = page_of(explorer, tmp_path / "page.html")
    assert traits["scene"]["at"] == [1, 2, 3]  # the page opens where the explorer is
    voxels, table = whole_on_page(traits, blocks, D * H * W)
    pixels = np.frombuffer(blocks[traits["scene"]["pixels"]["$bytes"]], np.uint8)
    assert len(pixels) == D * H * W
    for at in ((1, 2, 3), (0, 0, 0), (4, 5, 7)):
        move(explorer, *at)
        frame = explorer.view.frame
        assert {name: traits["frame"][name] for name in ("low", "high", "signed")} == {
            name: frame[name] for name in ("low", "high", "signed")
        }
        planes = np.concatenate([plane.ravel() for plane in planes_of(voxels.reshape(SIZE), at)])
        assert np.array_equal(np.concatenate([planes, table]), codes_on_page(explorer))
        cut = b"".join(plane.tobytes() for plane in planes_of(pixels.reshape(SIZE), at))
        assert cut == frame["ground"]["pixels"]


def test_a_page_of_a_video_has_all_frames(tmp_path):
    video = torch.rand(3, 4, 6, 8, generator=torch.Generator().manual_seed(0))
    net = nn.Sequential(nn.Conv3d(3, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten())
    with closing(sw.explore(net.eval(), video, slices="time", method="gradient", executor="inline")) as explorer:
        traits, blocks, _, _ = page_of(explorer, tmp_path / "page.html")
        voxels, table = whole_on_page(traits, blocks, 4 * 6 * 8)
        pixels = blocks[traits["scene"]["pixels"]["$bytes"]]
        for time in range(4):
            move(explorer, time, 0, 0)
            shown = np.concatenate([voxels.reshape(4, -1)[time], table])
            assert np.array_equal(shown, codes_on_page(explorer))
            assert pixels[time * 144 : (time + 1) * 144] == explorer.view.frame["ground"]["pixels"]


def test_a_page_records_settings_and_holds_the_volume_once(explorer, tmp_path):
    record = {"method": ["input_x_gradient", "grad_cam"], "target": [0, 1], "sign": ["absolute", "signed"]}
    passes = explorer.problem.memory.passes
    size = explorer.page_size(record)
    assert explorer.problem.memory.passes == passes
    traits, blocks, states, saved = page_of(explorer, tmp_path / "page.html", **record)
    assert saved.maps == size.maps == len(states) == 8
    assert all("scene" not in state for state in states.values())
    assert sum(len(block) == D * H * W for block in blocks) == 1
    assert traits["controls"] == []
    assert traits["marking"] is False
    for method, name in enumerate(record["method"]):
        for target in record["target"]:
            for k, sign in enumerate(record["sign"]):
                explorer.update(method=name, target=target, sign=sign)
                voxels, table = whole_on_page(states[f"{method} {target} {k}"], blocks, D * H * W)
                planes = np.concatenate([plane.ravel() for plane in planes_of(voxels.reshape(SIZE), (2, 3, 4))])
                assert np.array_equal(np.concatenate([planes, table]), codes_on_page(explorer))


def test_the_size_of_a_page_is_estimated_and_limited(model, tmp_path):
    volume = torch.randn(1, 24, 32, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with closing(sw.explore(model, volume, slices="depth", method="input_x_gradient", executor="inline")) as explorer:
        for record in ({}, {"target": [0, 1, 2]}):
            size = explorer.page_size(record)
            saved = explorer.save_html(tmp_path / "page.html", record=record, progress=False)
            assert abs(size.bytes / saved.bytes - 1) < 0.05
        assert saved.bytes > 3 * 24 * 32 * 40  # of incompressible codes
        with pytest.raises(ValueError, match=r"3 maps, about .* over the limit of 0\.[12] MB for one page"):
            explorer.save_html(tmp_path / "b.html", record=record, max_bytes=150_000, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_a_page_shows_a_volume_that_was_changed_in_place(model, tmp_path):
    volume = torch.randn(1, *SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with closing(sw.explore(model, volume, slices="depth", method="gradient", executor="inline")) as explorer:
        first, blocks, _, _ = page_of(explorer, tmp_path / "a.html")
        before = blocks[first["scene"]["pixels"]["$bytes"]]
        volume.neg_()
        explorer.update(method="input_x_gradient")
        second, blocks, _, _ = page_of(explorer, tmp_path / "b.html")
        after = blocks[second["scene"]["pixels"]["$bytes"]]
        assert after != before
        at = explorer.view.frame["ground"]["at"]
        planes = planes_of(np.frombuffer(after, np.uint8).reshape(SIZE), at)
        assert b"".join(plane.tobytes() for plane in planes) == explorer.view.frame["ground"]["pixels"]


def test_without_a_kernel_there_is_an_image_of_the_planes(explorer):
    snapshot = explorer._snapshot()
    assert "Input × Gradient" in "".join(snapshot.lines)
    assert snapshot.draw(1.0).width > 3 * 96


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda explorer, path: explorer.save_png(path), "this explorer shows a volume"),
        (lambda explorer, _path: explorer.pin(), "only maps of images"),
        (lambda explorer, _path: explorer.edit(a=1), "only rows of a table"),
    ],
    ids=["image", "pin", "edit"],
)
def test_what_volumes_do_not_support_is_one_clear_error(explorer, tmp_path, call, message):
    with pytest.raises(NotImplementedError, match=message):
        call(explorer, tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_several_volumes_are_refused(model):
    with pytest.raises(ValueError, match="the explorer shows one volume, got a batch of 3"):
        sw.explore(model, torch.zeros(3, 1, *SIZE), slices="depth")


NEEDED = {"gradients": 1}


class Large(nn.Module):
    """A classifier whose gradients need as many numbers as ``NEEDED`` says."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv3d(1, 2, 3)

    def forward(self, x):
        if x.requires_grad:
            torch.empty(NEEDED["gradients"])
        return self.conv(x).mean((2, 3, 4))


def test_a_pass_that_does_not_fit_in_memory_leaves_the_map_and_the_explorer(volume, monkeypatch):
    with closing(sw.explore(Large(), volume, slices="depth", method="gradient")) as explorer:
        explorer.wait(60)
        before = explorer.attribution
        monkeypatch.setitem(NEEDED, "gradients", 2**46)
        explorer.update(method="input_x_gradient")
        with pytest.raises(RuntimeError, match="can't allocate memory"):
            explorer.wait(60)
        status = explorer.view.status
        assert status["state"] == "error"
        assert status["message"] == "Memory ran out, even for a pass of a single row."
        assert "a part of a volume" in status["remedy"]
        assert "report it" not in status["remedy"]
        assert explorer.session.shown.attribution is before
        assert "previous map is still displayed" in status["remedy"]
        monkeypatch.undo()
        explorer.update(method="smoothgrad")
        assert explorer.wait(60).method == "smoothgrad"
        assert explorer.view.status["state"] == "done"


def test_memory_errors_say_what_to_do(volume, monkeypatch):
    model = Large()
    with pytest.raises(MemoryError, match=r"inputs: memory ran out while they were read\. Explain a smaller input"):
        sw.explore(model, np.broadcast_to(np.float32(1), (2**15,) * 3), slices="depth")
    monkeypatch.setitem(NEEDED, "gradients", 2**46)
    with pytest.raises(RuntimeError, match="can't allocate memory") as caught:
        sw.attribute(model, volume, slices="depth")
    (note,) = caught.value.__notes__
    assert note.startswith("Memory ran out, even for a pass of a single row. Explain a smaller input")
