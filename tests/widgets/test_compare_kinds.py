"""Comparisons of texts, signals and volumes: cells equal sw.attribute, and show the input in place of an image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from toys import each, rows

import saliency_widgets as sw
from saliency_widgets import render
from saliency_widgets.attribution import Reduction
from saliency_widgets.session import frame_of
from saliency_widgets.widgets.base import messages

WORDS = {word: index for index, word in enumerate(["<unk>", "the", "cat", "sat", "on", "mat", "good", "bad"])}
TEXT, OTHER = "the good cat sat", "the bad cat"
SIGNAL = rows(3, 1, 2, 40)[0].float()
VOLUME = rows(5, 1, 5, 6, 7)[0].float()
RATE = {"sampling_rate": 100, "channel_names": ["left", "right"]}


class Bag(nn.Module):
    """A bag of embeddings with a nonlinearity, over texts of any length."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embedding, self.head = nn.Embedding(8, 4), nn.Linear(4, 3)
        self.eval()

    def forward(self, ids):
        return self.head(self.embedding(ids).tanh().mean(1))


class Causal(nn.Module):
    """Scores of the next token at each position."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head = nn.Embedding(8, 6), nn.Linear(6, 8)
        self.eval()

    def forward(self, ids):
        steps = torch.arange(1, ids.shape[1] + 1)[None, :, None]
        return self.head(torch.tanh(self.embedding(ids).cumsum(1) / steps))


def convolutions() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(2, 6, 5, padding=2), nn.ReLU(), nn.Conv1d(6, 8, 3, padding=1, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 3),
    ).eval()  # fmt: skip


def voxels() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 3)
    ).eval()


@pytest.fixture
def compare():
    """A function like sw.compare; the comparisons are finished, and closed after the test."""
    opened = []

    def make(*args, **kwargs):
        opened.append(sw.compare(*args, **kwargs))
        opened[-1].wait(60, progress=False)
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def test_cells_of_texts_equal_attribute(compare):
    compared = compare(
        Bag(), [TEXT, OTHER], tokenizer=WORDS, methods=["gradient", "input_x_gradient"], classes=[0, 2],
        rows="methods", columns="inputs",
    )  # fmt: skip
    assert compared.view.columns == [TEXT, OTHER]
    for position, cell in zip(compared._shown, compared.view.cells, strict=True):
        text = (TEXT, OTHER)[position.inputs]
        method = ("gradient", "input_x_gradient")[position.methods]
        expected = sw.attribute(Bag(), text, tokenizer=WORDS, method=method, target=0)
        assert torch.equal(compared._maps.attribution(position).values, expected.values)
        assert cell.image == b""
        assert cell.scene["pieces"] == text.split()
        assert cell.scene["still"]
        assert cell.frame["signed"] == (method == "input_x_gradient")
        values = render.dequantize(compared._maps.frame(position))[0]
        by_token = expected.by_token()["attribution"]  # the signed sum, or the norm
        np.testing.assert_allclose(values, by_token, atol=1.01 * np.abs(by_token).max() / 32767)
    assert [cell.group for cell in compared.view.cells] == ["Gradient"] * 2 + ["Input × Gradient"] * 2
    compared.show(classes=1)
    compared.wait(60, progress=False)
    assert compared.attributions["Gradient", OTHER].settings["target"] == 2


def test_the_reduction_of_embeddings_follows_the_menus(compare):
    compared = compare(Bag(), TEXT, tokenizer=WORDS, methods=["gradient", "input_x_gradient"], classes=1)
    before = compared.attributions
    for sign, channels, expected in (
        ("signed", "method default", Reduction("signed", "sum")),
        ("absolute", "method default", Reduction("absolute", "L2")),
        ("method default", "max", Reduction("signed", "max")),
    ):
        compared.panel.sign.value, compared.panel.channels.value = sign, channels
        compared.wait(60, progress=False)
        for position in compared._shown[1:]:
            frame = frame_of(compared._maps.attribution(position), expected)
            np.testing.assert_array_equal(compared._maps.frame(position).codes, frame.codes)
    after = compared.attributions
    assert all(after[name] is before[name] for name in before)  # not computed again
    chosen = sw.compare(Bag(), TEXT, tokenizer=WORDS, sign="positive", channels="mean")
    assert (chosen.panel.sign.value, chosen.panel.channels.value) == ("positive", "mean")
    chosen.close()


def test_maps_of_one_axis_are_in_one_column(compare):
    compared = compare(Bag(), TEXT, tokenizer=WORDS, methods=["gradient", "input_x_gradient"])
    assert (compared.view.rows, compared.view.columns) == (["Gradient", "Input × Gradient"], [""])


def test_models_with_the_names_of_words_share_a_vocabulary(compare):
    compared = compare({"good": Bag(0), "bad": Bag(1)}, TEXT, tokenizer=WORDS, methods="gradient", classes=0)
    expected = sw.attribute(Bag(1), TEXT, tokenizer=WORDS, method="gradient", target=0)
    assert torch.equal(compared.attributions["bad", "Gradient"].values, expected.values)


@each("inputs", [torch.tensor([1, 6, 2]), [1, 6, 2], {"input_ids": torch.tensor([[1, 6, 2]])}])
def test_ids_are_one_text(inputs):
    compared = sw.compare(Bag(), inputs, tokenizer=WORDS, methods=["gradient"], classes=[0, 1])
    assert repr(compared) == "Comparison(2 classes)"
    assert compared.view.cells[0].scene["pieces"] == ["the", "good", "cat"]
    compared.close()


def test_a_long_text_has_a_short_label(compare):
    compared = compare(Bag(), [TEXT, "the cat " * 40], tokenizer=WORDS, methods="gradient")
    assert compared.view.rows[0] == TEXT
    assert len(compared.view.rows[1]) <= 60
    assert compared.view.rows[1].endswith("…")


def test_the_token_that_a_map_explains_is_marked(compare):
    compared = compare(Causal(), TEXT, tokenizer=WORDS, methods="gradient", classes=[(1, 2), (2, 3)], max_new_tokens=1)
    assert [cell.scene["explained"] for cell in compared.view.cells] == [2, 3]
    assert compared.view.cells[0].scene["scores"] == "next"


def test_a_click_opens_the_text_in_an_explorer(compare):
    compared = compare(
        Bag(), [TEXT, OTHER], tokenizer=WORDS, methods=["gradient", "input_x_gradient"], opacity=0.3, classes=1
    )
    compared.view._handle_custom_msg({"type": "open", "cell": 3}, [])
    explorer = compared._detail_pane._explorer
    assert torch.equal(explorer.wait(60).values, compared.attributions["Input × Gradient", OTHER].values)
    assert explorer.view.scene["pieces"] == OTHER.split()
    assert (explorer.controls["sign"], explorer.controls["channels"]) == ("signed", "sum")
    assert explorer.kind_view.display.settings["opacity"] == 0.3


def test_cells_of_signals_equal_attribute(compare):
    methods = ["gradient", "integrated_gradients", "grad_cam"]
    compared = compare(convolutions(), SIGNAL, methods=methods, n_steps=4, classes=1, **RATE)
    assert compared.view.rows == ["Gradient", "Integrated Gradients", "Grad-CAM"]
    for position, cell, signed, height in zip(
        compared._shown, compared.view.cells, (False, True, False), (2, 2, 1), strict=True
    ):
        settings = {"n_steps": 4} if position.methods == 1 else {}
        method = methods[position.methods]
        expected = sw.attribute(convolutions(), SIGNAL, method=method, target=1, **RATE, **settings)
        assert torch.equal(compared._maps.attribution(position).values, expected.values)
        shown = frame_of(expected, expected.features.reduction_for(compared._comparison.method(position)))
        np.testing.assert_array_equal(compared._maps.frame(position).codes, shown.codes)
        assert (cell.frame["signed"], cell.frame["height"], cell.frame["width"]) == (signed, height, 40)
        assert np.array_equal(np.frombuffer(cell.scene["values"], "<f4").reshape(2, 40), SIGNAL.numpy())
        assert (cell.scene["names"], cell.scene["rate"]) == (["left", "right"], 100)
    assert compared.panel.channels.widget.layout.display == "none"


@pytest.mark.parametrize(
    ("model", "inputs", "options", "layer"),
    [
        (convolutions(), torch.zeros(2, 40), {"sampling_rate": 10}, "the last layer over time"),
        (voxels(), torch.zeros(4, 5, 6), {"slices": "depth"}, "the last spatial layer"),
    ],
)
def test_the_default_layer_is_named_as_in_the_explorer(compare, model, inputs, options, layer):
    (menu,) = compare(model, inputs, methods=["grad_cam"], **options).panel.layers.values()
    assert menu.options[0][0] == f"auto · {layer}"


def test_a_signal_that_is_changed_in_place_is_shown(compare):
    signal = SIGNAL.clone()
    compared = compare(convolutions(), signal, methods="gradient", classes=1, **RATE)
    signal += 1
    compared.update()
    compared.wait(60, progress=False)
    (cell,) = compared.view.cells
    assert np.array_equal(np.frombuffer(cell.scene["values"], "<f4").reshape(2, 40), signal.numpy())


def test_a_click_opens_the_signal_in_an_explorer(compare):
    compared = compare(convolutions(), [SIGNAL, SIGNAL + 1], methods="gradient", classes=1, **RATE)
    compared.view._handle_custom_msg({"type": "open", "cell": 1}, [])
    explorer = compared._detail_pane._explorer
    assert torch.equal(explorer.wait(60).values, compared.attributions["input 2", "Gradient"].values)
    assert explorer.view.scene["rate"] == 100


def planes(volume: np.ndarray, d: int, h: int, w: int) -> np.ndarray:
    """The planes through a voxel, one after the other."""
    return np.concatenate([volume[d].ravel(), volume[:, h].ravel(), volume[:, :, w].ravel()])


def test_cells_of_volumes_show_the_planes_that_the_sliders_select(compare):
    compared = compare(voxels(), VOLUME, slices="axial", methods=["gradient", "grad_cam"], classes=1)
    assert [slider.description for slider in compared.panel.positions] == ["Depth", "Height", "Width"]
    low, high = np.percentile(VOLUME.double().numpy(), (0.5, 99.5))
    gray = np.round(255 * np.clip((VOLUME.double().numpy() - low) / (high - low), 0, 1))

    def assert_planes(*at: int) -> None:
        for method, cell in zip(("gradient", "grad_cam"), compared.view.cells, strict=True):
            expected = sw.attribute(voxels(), VOLUME, slices="axial", method=method, target=1)
            reduction = Reduction(expected.default_sign)
            whole = expected.features.reduce(expected.values, reduction, expected.input_shape)[0].numpy()
            codes = np.frombuffer(cell.frame["codes"], "<u2") / 65534 * cell.frame["high"]
            shown = planes(whole, *at)
            np.testing.assert_allclose(codes[: len(shown)], shown, atol=1.01 * np.abs(whole).max() / 65534)
            assert cell.frame["ground"]["at"] == list(at)
            pixels = np.frombuffer(cell.frame["ground"]["pixels"], np.uint8)
            np.testing.assert_array_equal(pixels, planes(gray, *at))
            assert (cell.scene["size"], cell.scene["planes"]) == ([5, 6, 7], ["Axial", "Coronal", "Sagittal"])

    assert_planes(2, 3, 3)
    before = compared.attributions
    for slider, index in zip(compared.panel.positions, (4, 0, 6), strict=True):
        slider.value = index
    compared.wait(60, progress=False)
    assert_planes(4, 0, 6)
    after = compared.attributions
    assert all(after[name] is before[name] for name in before)  # not computed again


def test_planes_of_volumes_of_other_sizes_are_in_proportion(compare):
    small = VOLUME[:3, :, :4].clone()
    compared = compare(voxels(), {"large": VOLUME, "small": small}, slices="depth", methods="gradient", classes=1)
    for slider, index in zip(compared.panel.positions, (4, 2, 3), strict=True):
        slider.value = index
    compared.wait(60, progress=False)
    assert [cell.frame["ground"]["at"] for cell in compared.view.cells] == [[4, 2, 3], [2, 2, 2]]


def test_video_has_one_slider(compare):
    compared = compare(voxels(), VOLUME[None], slices="time", methods="gradient", classes=1)
    assert [(slider.description, slider.max) for slider in compared.panel.positions] == [("Time", 4)]
    assert compared.view.cells[0].scene["planes"] == ["Frame"]
    assert compare(Bag(), TEXT, tokenizer=WORDS, methods="gradient").panel.positions == []


def test_the_difference_of_volumes_is_that_of_all_voxels(compare):
    compared = compare(voxels(), VOLUME, slices="depth", methods="input_x_gradient", classes=[0, 1], sign="signed")
    wholes = []
    for target in (0, 1):
        one = sw.attribute(voxels(), VOLUME, slices="depth", method="input_x_gradient", target=target)
        wholes.append(one.features.reduce(one.values, Reduction("signed"), one.input_shape)[0].numpy())
    result = compared.difference(*compared.attributions)
    assert result.shape == (5, 6, 7)
    exact = sum(np.abs(whole).max() for whole in wholes) / 32767
    np.testing.assert_allclose(result, wholes[0] - wholes[1], atol=2 * exact)
    assert compared._snapshot().draw is None
    turned = compare(voxels(), [VOLUME, VOLUME.transpose(0, 1)], slices="depth", methods="gradient")
    with pytest.raises(ValueError, match=r"shape \(5, 6, 7\) and the other \(6, 5, 7\)"):  # as many rows of 7
        turned.difference(*turned.attributions)


def test_a_click_opens_the_volume_in_an_explorer(compare):
    compared = compare(voxels(), VOLUME, slices="axial", methods=["gradient", "grad_cam"], classes=1)
    compared.view._handle_custom_msg({"type": "open", "cell": 1}, [])
    explorer = compared._detail_pane._explorer
    assert torch.equal(explorer.wait(60).values, compared._maps.attribution(compared._shown[1]).values)
    assert explorer.view.scene["planes"] == ["Axial", "Coronal", "Sagittal"]


def test_a_difference_has_the_shape_of_the_input(compare):
    text = compare(Bag(), TEXT, tokenizer=WORDS, methods="input_x_gradient", classes=[0, 1])
    signal = compare(convolutions(), SIGNAL, methods="gradient", classes=[0, 1], **RATE)
    for compared, shape in ((text, (1, 4)), (signal, (2, 40))):
        maps = [render.dequantize(compared._maps.frame(cell)) for cell in compared._shown]
        result = compared.difference(*compared.attributions)
        assert result.shape == shape
        np.testing.assert_allclose(result, maps[0] - maps[1], atol=np.abs(result).max() / 65534)
    lengths = compare(Bag(), [TEXT, OTHER], tokenizer=WORDS, methods="gradient")
    with pytest.raises(ValueError, match="1 x 4 and the other 1 x 3"):
        lengths.difference(*lengths.attributions)


def test_the_text_without_a_kernel_names_the_strongest_tokens(compare):
    compared = compare(Bag(), TEXT, tokenizer=WORDS, methods="input_x_gradient", classes=[0, 1])
    snapshot = compared._snapshot()
    assert snapshot.draw is None
    for label, line in zip(("class 0", "class 1"), snapshot.lines[-2:], strict=True):
        values = compared.attributions[label, "Input × Gradient"].by_token()
        strongest = values.reindex(values["attribution"].abs().sort_values(ascending=False).index)
        words = ", ".join(f"{token} {messages.number(value)}" for token, value in strongest.itertuples(index=False))
        assert line.endswith(f"; strongest tokens: {words}")


def test_the_image_without_a_kernel_shows_signals_on_one_scale(compare):
    compared = compare(convolutions(), [SIGNAL, SIGNAL / 3], methods="input_x_gradient", classes=1, **RATE)
    maps = [compared._maps.frame(cell) for cell in compared._shown]
    settings = compared._display.settings
    ends = render.shared_ends(maps, settings["clip"])
    image = np.asarray(compared._snapshot().draw(1.0))
    starts = []
    for signal, one in zip((SIGNAL, SIGNAL / 3), maps, strict=True):
        limits = render.limits_of(one, ends)
        lanes = render.lanes_image(signal.numpy(), one, ["left", "right"], width=490, limits=limits, **settings)
        left, height = image.shape[1] - lanes.width - 8, lanes.height
        column = image[:, left : left + lanes.width]
        starts += [k for k in range(len(image) - height + 1) if np.array_equal(column[k : k + height], lanes)]
    assert len(starts) == 2
    assert starts[0] < starts[1]


def test_a_comparison_has_one_kind_of_input():
    image = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    signal = nn.Sequential(nn.Conv1d(6, 2, 3), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    with pytest.raises(
        ValueError, match="one kind, but 'input 1' is of the kind 'signal', and another one of the kind 'image'"
    ):
        sw.compare({"a": image, "b": signal}, [torch.rand(1, 6, 20)], time_axis={"a": None, "b": "last"})


@each(
    ("model", "inputs", "options", "message"),
    [
        (nn.Linear(4, 3), torch.rand(4), {},
         r"shows maps over images, texts, signals and volumes, but the model's input has shape \(1, 4\)"),
        (convolutions(), [rows(3, 4, 2, 40)], RATE, "expected single signals, but 'input 1' is a batch of 4"),
        (Bag(), [], {"tokenizer": WORDS}, "inputs: it is empty"),
        (Bag(), [TEXT, ""], {"tokenizer": WORDS}, "inputs: the text has no tokens|empty"),
    ],
)  # fmt: skip
def test_other_inputs_are_errors(model, inputs, options, message):
    with pytest.raises(ValueError, match=message):
        sw.compare(model, inputs, methods="gradient", **options)


def fail_with_gradients(*_args) -> None:
    if torch.is_grad_enabled():
        raise RuntimeError("no gradients today")


def test_after_an_error_a_volume_is_shown_as_it_was_with_its_map(compare):
    volume, model = VOLUME.clone(), voxels()
    compared = compare(model, volume, slices="depth", methods="gradient", classes=1)
    (cell,) = compared.view.cells
    before = cell.frame["codes"], cell.frame["ground"], cell.scene
    volume += torch.arange(7)
    hook = model.register_forward_pre_hook(fail_with_gradients)
    compared.update()
    with pytest.raises(ValueError, match="no gradients today"):
        compared.wait(60, progress=False)
    assert (cell.frame["codes"], cell.frame["ground"], cell.scene) == before
    hook.remove()
    compared.update()
    compared.wait(60, progress=False)
    assert cell.frame["ground"]["pixels"] != before[1]["pixels"]
    assert cell.scene["pixels"] == cell.frame["ground"]["pixels"]
