"""``sw.evaluate``: checks that fail or do not apply, maps of the caller, and several inputs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn
from toys import conv_net, each, images, linear, mlp, rows

import saliency_widgets as sw

QUICK = {"steps": 4, "stages": 2, "turns": 2, "progress": False}
CURVES = ["deletion", "deletion_chance", "insertion", "insertion_chance"]
RECOMPUTED = ["randomized_half", "randomized", "seeds", "noises", "max_sensitivity"]
QUARTET = torch.tensor([[[[0.4, 0.3], [0.2, 0.1]]]])


class Sums(nn.Module):
    """A model without weights that returns the sum of the input, and 1 minus it."""

    def forward(self, x):
        total = x.flatten(1).sum(1)
        return torch.stack((total, 1 - total), 1)


class WithoutGradient(nn.Module):
    """A model through which no gradient flows."""

    def __init__(self):
        super().__init__()
        self.net = conv_net()

    def forward(self, x):
        with torch.no_grad():
            return self.net(x)


class InRange(nn.Module):
    """Raises for numbers outside [0, 1]."""

    def __init__(self):
        super().__init__()
        self.net = conv_net()

    def forward(self, x):
        if x.min() < 0 or x.max() > 1:
            raise RuntimeError("out of range")
        return self.net(x)


def assert_reasons_are_complete(table):
    """Assert that each NaN has a reason, and no other cell has one."""
    missing = {(row, column) for row in table.index for column in table if np.isnan(table.loc[row, column])}
    assert {(row, column) for row, some in table.reasons.items() for column in some} == missing
    assert all(reason.strip() for some in table.reasons.values() for reason in some.values())


def test_a_model_without_weights_lacks_only_randomization_and_seeds():
    """Of .4, .3, .2, .1 the two largest come first: deletion 1, .3, 0 has the area .4; insertion 0, .7, 1 has .6."""
    table = sw.evaluate(Sums(), QUARTET, ["input_x_gradient"], target=0, fill="zero", steps=2, progress=False)
    row = table.loc["input_x_gradient"]
    assert row["deletion"] == pytest.approx(0.4)
    assert row["insertion"] == pytest.approx(0.6)
    assert row[["settled", "slope_left"]].tolist() == pytest.approx([1.0, 1.0])
    assert row[["randomized_half", "randomized", "seeds"]].isna().all()
    assert "no weights" in table.reasons["input_x_gradient"]["randomized"]
    assert "no random numbers" in table.reasons["input_x_gradient"]["seeds"]
    assert_reasons_are_complete(table)


def test_a_method_that_does_not_apply_is_a_row_of_nan():
    model, x = mlp(), rows(0, 1, 4)
    table = sw.evaluate(model, x, ["gradient", "grad_cam"], **QUICK)
    alone = sw.evaluate(model, x, ["gradient"], **QUICK)
    pd.testing.assert_frame_equal(pd.DataFrame(table.loc[["gradient"], list(alone)]), pd.DataFrame(alone))
    assert table.loc["grad_cam", [*CURVES, *RECOMPUTED, "like gradient", "like grad_cam"]].isna().all()
    assert table.loc["grad_cam", "settled"] == table.loc["gradient", "settled"]
    assert "no layer of this model has a spatial output" in table.reasons["grad_cam"]["deletion"]
    assert table.reasons["gradient"]["like grad_cam"] == "grad_cam has no map."
    assert_reasons_are_complete(table)


def test_a_model_without_gradient():
    model, x = WithoutGradient(), images(0, 1, 3, 8, 8)
    table = sw.evaluate(model, x, {"gradient": "gradient", "mine": x[0, 0]}, target=0, fill="zero", **QUICK)
    assert table.loc["gradient", CURVES].isna().all()
    assert "no gradient" in table.reasons["gradient"]["deletion"]
    expected = sw.evaluate(conv_net(), x, {"mine": x[0, 0]}, target=0, fill="zero", **QUICK)
    assert table.loc["mine", [*CURVES, "settled"]].tolist() == expected.loc["mine", [*CURVES, "settled"]].tolist()
    assert np.isnan(table.loc["mine", "slope_left"])
    assert "no gradient" in table.reasons["mine"]["slope_left"]
    assert_reasons_are_complete(table)


def test_a_check_that_fails_does_not_affect_the_others():
    x = images(0, 1, 3, 8, 8)
    x[0, 0, 0, :2] = torch.tensor([0.0, 1.0])  # any noise leaves the range
    table = sw.evaluate(InRange(), x, ["expected_gradients"], fill="zero", target=0, **QUICK)
    assert table.loc["expected_gradients", ["noises", "max_sensitivity"]].isna().all()
    assert "out of range" in table.reasons["expected_gradients"]["noises"]
    assert table.loc["expected_gradients", [*CURVES, "seeds"]].notna().all()
    assert_reasons_are_complete(table)


@each(
    ("model", "x", "options"),
    [
        (conv_net(), images(0, 1, 3, 8, 8), {"target": lambda out: out[:, 0] - out[:, 1]}),
        (conv_net(), images(0, 1, 3, 8, 8), {"draws": 0}),
        (nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten()).double(), images(0, 1, 3, 1, 1), {}),  # one pixel
        (linear(torch.tensor([3.0, 2.0, 1.0])), torch.ones(3), {"score": "value"}),
        (nn.Sequential(nn.Conv1d(2, 3, 3), nn.Flatten(), nn.Linear(24, 2)).double(), rows(0, 1, 2, 10), {}),
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 2), nn.Threshold(1e6, 0)).double(), images(0, 1, 3, 8, 8), {}),
    ],
    ids=["function", "no draws", "one pixel", "row", "signal", "constant"],
)
def test_each_nan_has_its_reason(model, x, options):
    table = sw.evaluate(model, x, ["gradient", "smoothgrad", "grad_cam"], **QUICK, **options)
    assert list(table.index) == ["gradient", "smoothgrad", "grad_cam"]
    assert_reasons_are_complete(table)


def test_a_row_of_a_table_is_filled_with_the_mean_of_the_background():
    """w (x - mean) = 4, 2, 1: deletion leaves 7, 3, 1, 0 of a total of 7, in steps of a third."""
    background = pd.DataFrame({"a": [0.0, 2.0], "b": [1.0, 3.0], "c": [4.0, 4.0]})
    row = pd.Series({"a": 3.0, "b": 3.0, "c": 5.0})
    model = linear(torch.tensor([2.0, 2.0, 1.0], dtype=torch.float64))
    table = sw.evaluate(
        model, row, {"mine": [4, 2, 1] @ np.eye(3)}, background=background, score="value", progress=False
    )
    assert table.loc["mine", "deletion"] == pytest.approx((7 / 2 + 3 + 1) / 7 / 3)
    assert table.loc["mine", "insertion"] == pytest.approx((4 + 6 + 7 / 2) / 7 / 3)


def test_a_model_or_target_that_fails_raises_an_error():
    class Broken(nn.Module):
        def forward(self, x):
            raise RuntimeError("no")

    with pytest.raises(ValueError, match=r"^model: it raised RuntimeError"):
        sw.evaluate(Broken(), images(0, 1, 3, 8, 8), ["gradient"], progress=False)
    with pytest.raises(ValueError, match=r"^target: the function raised"):
        sw.evaluate(conv_net(), images(0, 1, 3, 8, 8), target=lambda out: 1 / 0, progress=False)


def test_the_reasons_are_printed_below_the_table():
    table = sw.evaluate(mlp(), rows(0, 1, 4), ["gradient", "grad_cam"], **QUICK)
    for shown in (repr(table), table._repr_html_()):
        assert "grad_cam: no map: layer: no layer of this model has a spatial output" in shown
        assert "gradient: no seeds: the method draws no random numbers." in shown
    one = table.round(2)[["seeds"]]
    assert "no seeds: the method draws" in repr(one)
    assert "like grad_cam" not in repr(one)
    assert "no random numbers" not in repr(table[["settled"]])
    assert isinstance(table, pd.DataFrame)


# ---- maps of the caller


@each("form", ["array", "tensor", "list of one", "mapping", "input's shape", "batch of one"])
def test_a_map_may_come_in_any_form(form):
    values = QUARTET[0, 0]
    methods = {
        "array": values.numpy(),
        "tensor": values,
        "list of one": [values],
        "mapping": {"map": values.numpy()},
        "input's shape": QUARTET[0],
        "batch of one": QUARTET.numpy(),
    }[form]
    table = sw.evaluate(Sums(), QUARTET, methods, target=0, fill="zero", steps=4, progress=False)
    assert list(table.index) == ["map"]
    assert table.loc["map", "deletion"] == pytest.approx((0.5 + 0.6 + 0.3 + 0.1) / 4)
    assert table.loc["map", RECOMPUTED].isna().all()
    assert "the map is an array" in table.reasons["map"]["seeds"]
    assert_reasons_are_complete(table)


def test_the_exact_ranking_of_a_linear_scorer_has_the_extreme_areas():
    maps = {"perfect": QUARTET[0, 0], "worst": -QUARTET[0, 0], "half": torch.tensor([[0.4, 0.1], [0.2, 0.3]])}
    table = sw.evaluate(Sums(), QUARTET, maps, target=0, fill="zero", steps=4, progress=False)
    assert table["deletion"].idxmin() == table["insertion"].idxmax() == "perfect"
    assert table["deletion"].idxmax() == table["insertion"].idxmin() == "worst"
    assert table.loc["perfect", "like worst"] == -1
    assert table.loc["perfect", "like half"] == pytest.approx(0.2)  # ranks 1234 and 1432: 1 - 6 * 8 / 60
    backwards = sw.evaluate(Sums(), QUARTET, maps, target=0, fill="zero", steps=4, sign="negative", progress=False)
    assert backwards.loc["worst", "deletion"] == table.loc["perfect", "deletion"]


@pytest.mark.parametrize("loaded", [False, True])
def test_an_attribution_is_the_row_of_its_method(loaded, tmp_path):
    model, x = conv_net(), images(0, 1, 3, 8, 8)
    attribution = sw.attribute(model, x, method="smoothgrad", n_samples=4, target=2)
    if loaded:
        explorer = sw.explore(model, x, method="smoothgrad", n_samples=4, target=2)
        explorer.wait()
        explorer.save_state(tmp_path / "map")
        explorer.close()
        attribution = sw.load(tmp_path / "map")
    table = sw.evaluate(model, x, attribution, fill="zero", **QUICK)
    expected = sw.evaluate(model, x, "smoothgrad", params={"n_samples": 4}, target=2, fill="zero", **QUICK)
    pd.testing.assert_frame_equal(table, expected)
    twice = sw.evaluate(model, x, ["smoothgrad", attribution], target=2, fill="zero", **QUICK)
    assert list(twice.index) == ["smoothgrad", "smoothgrad #2"]
    assert twice.loc["smoothgrad #2", "like smoothgrad #2"] == 1


def test_invalid_arguments_are_refused():
    model, x = conv_net(), images(0, 1, 3, 8, 8)
    attribution = sw.attribute(model, x, target=2)
    broken = np.ones((8, 8))
    broken[0, 0] = np.nan
    for methods, options, error, message in [
        (np.ones((9, 8)), {}, ValueError, r"'map' has shape \(9, 8\).*\(3, 8, 8\) or \(8, 8\)"),
        ({"mine": broken}, {}, ValueError, "'mine' holds 1 NaN"),
        (attribution, {"target": 1}, ValueError, "explains target=2, but target=1 is evaluated"),
        (attribution, {"score": "probability", "target": 2}, ValueError, "score='logit', but score='probability'"),
        (attribution, {"inputs": images(0, 1, 3, 9, 9)}, ValueError, r"inputs of shape \(1, 3, 8, 8\)"),
        (attribution, {"inputs": images(0, 2, 3, 8, 8)}, ValueError, r"but \(2, 3, 8, 8\) is evaluated"),
        (np.ones((8, 8)), {"inputs": images(0, 2, 3, 8, 8)}, ValueError, r"\(2, 3, 8, 8\) or \(2, 8, 8\)"),
        (3, {}, TypeError, r"expected a list such as .*, got 3 \(int\)"),
        ([None], {}, TypeError, "got a NoneType"),
        ([[[0.1, 0.2]]], {}, TypeError, "numpy.asarray"),
        (np.array(["a"]), {}, TypeError, "expected numbers"),
        ({}, {}, ValueError, "methods: it is empty"),
        (attribution, {"params": {"n_samples": 3}}, TypeError, "n_samples"),
        ("gradient", {"fill": torch.ones(5)}, ValueError, "broadcast"),
        ("gradient", {"fill": "neighborhood"}, ValueError, "neighbors"),
        ("gradient", {"draws": -1}, ValueError, "draws"),
        ("gradient", {"inputs": []}, ValueError, "the list is empty"),
    ]:
        with pytest.raises(error, match=message):
            sw.evaluate(**{"model": model, "inputs": x, "methods": methods, "progress": False} | options)


# ---- several inputs


@pytest.mark.parametrize("form", ["batch", "list", "array"])
def test_each_of_several_inputs_has_its_row(form):
    model = conv_net().float()
    each = [Image.fromarray(np.random.default_rng(k).integers(0, 256, (8, 8, 3), np.uint8)) for k in range(3)]
    tensor = torch.stack([torch.from_numpy(np.array(one)).movedim(-1, 0).float() / 255 for one in each])
    inputs = {"batch": tensor, "list": each, "array": np.stack([np.asarray(one) for one in each])}[form]
    maps = np.random.default_rng(0).random((3, 8, 8))
    table = sw.evaluate(model, inputs, {"gradient": "gradient", "mine": maps}, target=[0, 1, 2], **QUICK)
    assert table.index.names == ["method", "input"]
    assert list(table.index) == [(name, k) for name in ("gradient", "mine") for k in range(3)]
    for k in range(3):
        alone = sw.evaluate(model, each[k], {"gradient": "gradient", "mine": maps[k]}, target=k, **QUICK)
        np.testing.assert_allclose(table.xs(k, level="input"), alone, rtol=1e-5, atol=1e-6)
    assert_reasons_are_complete(table)
    mean = table.groupby("method").mean()
    assert mean.loc["mine", "like gradient"] == pytest.approx(table.loc["mine", "like gradient"].mean())


def test_an_attribution_of_a_batch_is_one_map_for_each_input():
    model, x = conv_net(), images(0, 2, 3, 8, 8)
    attribution = sw.attribute(model, x, method="gradient", target=[1, 3])
    table = sw.evaluate(model, x, attribution, **QUICK)
    expected = sw.evaluate(model, x, "gradient", target=[1, 3], **QUICK)
    np.testing.assert_allclose(table, expected)


def test_rows_of_a_table_and_images_of_different_sizes():
    model = linear(torch.tensor([3.0, 2.0, 1.0]))
    frame = pd.DataFrame(np.random.default_rng(0).random((3, 3)), columns=list("abc"))
    table = sw.evaluate(model, frame, "integrated_gradients", background=frame, score="value", **QUICK)
    assert list(table.index) == [("integrated_gradients", k) for k in range(3)]
    sizes = [images(0, 1, 3, 8, 8), images(1, 1, 3, 10, 8)]
    assert len(sw.evaluate(conv_net(), sizes, "gradient", **QUICK)) == 2
