"""Whatever is asked of a model on a device, the answer is the CPU's.

Bit for bit where both take the same passes, as their kernels are the same. Where passes have other sizes (devices take
more rows at once), products of matrices round otherwise: 1e-12, relative to the largest value, in float64.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from toys import conv_net, far, images, mlp, rows, state_of
from zoo import KINDS, explain, made, reason

import saliency_widgets as sw
from saliency_widgets.inputs import prepare
from saliency_widgets.widgets.compare.comparison import Comparison

METHODS = sw.methods()
ROUNDING = 1e-12
QUICK = {"steps": 4, "stages": 2, "turns": 2, "draws": 2, "progress": False}


def there(model: nn.Module, device: str) -> nn.Module:
    return copy.deepcopy(model).to(device)


def same(result: Any, expected: Any, rounding: float = 0.0) -> bool:
    """Whether numbers are alike, wherever they are; NaN equals NaN."""
    if expected is None or result is None:
        return result is expected
    if isinstance(expected, Tensor):
        result, expected = result.cpu(), expected.cpu()
        if rounding and not expected.isnan().any():
            return far(result, expected) <= rounding
        return torch.equal(result.nan_to_num(nan=7e77), expected.nan_to_num(nan=7e77))
    return result == expected


def assert_same(result: sw.Attribution, expected: sw.Attribution, rounding: float = 0.0) -> None:
    for name in ("values", "score", "delta", "standard_error", "map_error"):
        one, other = getattr(result, name), getattr(expected, name)
        # What is the rest of a subtraction is as exact as what it was subtracted from.
        if rounding and other is not None and name in ("delta", "map_error", "standard_error"):
            size = expected.values.cpu().abs().sum() if name == "delta" else 1.0
            assert float((one.cpu() - other.cpu()).abs().max()) <= rounding * max(1.0, float(size)), name
        else:
            assert same(one, other, rounding), name
    assert result.notes == expected.notes
    assert _said(result.settings) == _said(expected.settings)
    assert (result.done, result.total, result.layer) == (expected.done, expected.total, expected.layer)


def _said(settings: Any) -> dict[str, Any]:
    """Settings but for where it is computed, and how many rows a pass has for that."""
    return {k: v for k, v in settings.items() if isinstance(v, (int, float, str, list)) and k not in _OF_PLACE}


_OF_PLACE = ("device", "chunk_size")


# ---- maps


@pytest.mark.parametrize(
    ("kind", "method"),
    [(kind, method) for kind, case in KINDS.items() for method in METHODS if reason(case, method) is None],
)
def test_a_map(device: str, kind: str, method: str) -> None:
    case, model = KINDS[kind], made(kind)
    away = there(model, device)
    assert_same(explain(case, away, method), explain(case, model, method), ROUNDING)


@pytest.mark.parametrize("method", METHODS)
def test_passes_of_one_size_give_the_same_bits(device: str, method: str) -> None:
    model, x = conv_net(), images()
    size = {"chunk_size": 16} if any(param.name == "chunk_size" for param in METHODS[method].params) else {}
    result = sw.attribute(there(model, device), x, method=method, **size)
    assert result.values.device.type == device
    assert_same(result, sw.attribute(model, x, method=method, **size))


@pytest.mark.parametrize("method", METHODS)
def test_inputs_on_the_device_and_device_by_name(device: str, method: str) -> None:
    model, x = conv_net(), images(3, 1, 3, 8, 8)
    expected = sw.attribute(there(model, device), x, method=method, target=2)
    assert_same(sw.attribute(there(model, device), x.to(device), method=method, target=2), expected)
    assert_same(sw.attribute(model, x, method=method, target=2, device=device), expected)


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_is_its_samples_one_by_one(device: str, method: str) -> None:
    model, x = there(conv_net(), device), images(4, 5, 3, 8, 8)
    together = sw.attribute(model, x, method=method, target=[0, 1, 2, 3, 0])
    alone = sw.attribute(model, x[3:4], method=method, target=3)
    drawn = any(param.name == "seed" for param in METHODS[method].params)
    assert drawn or far(together.values[3:4].cpu(), alone.values.cpu()) <= 1e-10


@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_left_as_it_was(device: str, method: str) -> None:
    model = there(conv_net(), device)

    def state() -> dict[str, Any]:
        here = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
        return {name: (id(p), p._version, here[name].numpy().tobytes()) for name, p in model.named_parameters()}

    before, caller = state(), state_of(nn.Identity())
    sw.attribute(model, images(), method=method)
    assert state() == before
    assert state_of(nn.Identity())["random state"] == caller["random state"]


@pytest.mark.parametrize("score", ["probability", "log_probability"])
def test_scales_contrasts_and_functions(device: str, score: str) -> None:
    model, x = conv_net(), images()
    away = there(model, device)
    for settings in (
        {"score": score, "target": [1, 3], "contrast": [2, 0]},
        {"score": score, "target": "b", "class_names": ["a", "b", "c", "d"]},
        {"target": lambda out: out[:, 0] - out[:, 1] ** 2},
        {"target": torch.tensor([1, 2])},
        {"target": torch.tensor([1, 2]).to(device)},
    ):
        same_settings = {**settings, "target": _here(settings["target"])}
        result, expected = sw.attribute(away, x, **settings), sw.attribute(model, x, **same_settings)
        assert same(result.values, expected.values, ROUNDING)


def _here(target: Any) -> Any:
    return target.cpu() if isinstance(target, Tensor) else target


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_types(device: str, dtype: torch.dtype) -> None:
    model, x = conv_net().to(dtype), images().to(dtype)
    result = sw.attribute(there(model, device), x, method="gradient", fold=False)
    assert same(result.values, sw.attribute(model, x, method="gradient", fold=False).values)


def test_float32_with_folded_batch_norms(device: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 3)).eval()
    result = sw.attribute(there(model, device), images().float(), method="smoothgrad", chunk_size=8)
    assert same(result.values, sw.attribute(model, images().float(), method="smoothgrad", chunk_size=8).values)


def test_dropout_draws_the_same_numbers(device: str) -> None:
    model = nn.Sequential(nn.Linear(4, 32), nn.Dropout(0.5), nn.ReLU(), nn.Linear(32, 2)).double().train()
    result = sw.attribute(there(model, device), rows(), method="gradient")
    assert_same(result, sw.attribute(model, rows(), method="gradient"))


def test_rows_that_influence_each_other(device: str) -> None:
    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x + x.flip(0)).tanh()

    torch.manual_seed(0)
    model = Graph()
    for method in ("gradient", "integrated_gradients", "smoothgrad"):
        result = sw.attribute(there(model, device), rows(0, 4, 4), method=method)
        assert_same(result, sw.attribute(model, rows(0, 4, 4), method=method), ROUNDING)


def test_faults_have_the_same_words(device: str) -> None:
    class Nothing(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.tensor(factor, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return self.factor * x.flatten(1)[:, :2]

    class OfGradient(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Parameter(torch.ones((), dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return (self.one * (x - x)).sqrt()[:, :2]

    for model, message in (
        (Nothing(float("nan")), "its score is NaN or infinite"),
        (Nothing(float("inf")), "its score is NaN or infinite"),
        (OfGradient(), "its gradient is NaN or infinite"),
    ):
        for one in (model, there(model, device)):
            with pytest.raises(ValueError, match=message):
                sw.attribute(one, rows(), method="gradient")


@pytest.mark.parametrize("method", ["captum.IntegratedGradients", "captum.LayerGradCam", "captum.Occlusion"])
def test_methods_of_captum(device: str, method: str) -> None:
    model, x = conv_net(), images(3, 1, 3, 8, 8)
    options = {"LayerGradCam": {"layer": "2"}, "Occlusion": {"window": 0.25}}
    settings = options.get(method.removeprefix("captum."), {})
    result, expected = (sw.attribute(m, x, method=method, **settings) for m in (there(model, device), model))
    assert_same(result, expected, ROUNDING)


def test_drawn_maps_and_the_checkup(device: str) -> None:
    model, x = conv_net(), images(3, 1, 3, 8, 8)
    result, expected = (sw.attribute(m, x, method="gradient") for m in (there(model, device), model))
    assert np.array_equal(result.saliency_map(), expected.saliency_map())
    assert str(sw.checkup(there(model, device), x)) == str(sw.checkup(model, x))


# ---- widgets

MOVES: tuple[dict[str, Any], ...] = (
    {"method": "gradient"},
    {"sign": "signed"},
    {"method": "smoothgrad", "n_samples": 8},
    {"n_samples": 16},
    {"noise_level": 0.3},
    {"target": 2},
    {"method": "integrated_gradients", "n_steps": 16},
    {"n_steps": 64},
    {"baseline": "white"},
    {"method": "grad_cam"},
    {"channels": "sum"},
    {"score": "probability"},
)


def test_an_explorer(device: str) -> None:
    model = conv_net()
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    here, away = (sw.explore(one, image, executor="inline") for one in (model, there(model, device)))
    for move in MOVES:
        here.update(**move)
        away.update(**move)
        assert_same(away.wait(), here.wait(), ROUNDING)
        assert _said(away.settings) == _said(here.settings)
    with torch.no_grad():
        for one in (here, away):
            next(one.problem.model.parameters()).mul_(2)
    assert_same(away.wait(), here.wait(), ROUNDING)
    for one in (here, away):
        one.close()


@pytest.mark.parametrize("shift", [0.0, -0.5, 3.0])
def test_an_image_that_lies_on_the_device(device: str, shift: float) -> None:
    model, x = conv_net(), images(3, 1, 3, 8, 8) + shift
    here, away = (prepare(one, device="cpu", dtype=torch.float32) for one in (x, x.to(device)))
    assert here.images is not None
    assert np.array_equal(away.images, here.images)
    assert away.notes == here.notes
    assert same(away.tensor, here.tensor)
    result = sw.attribute(there(model, device), x.to(device), method="blur_ig", n_steps=8)
    assert_same(result, sw.attribute(model, x, method="blur_ig", n_steps=8), ROUNDING)


def test_inputs_that_are_no_numbers_there(device: str) -> None:
    model, x = there(conv_net().float(), device), images(3, 1, 3, 8, 8)
    x[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="1 of 192 numbers are NaN or infinite"):
        sw.attribute(model, x.to(device), method="gradient")
    x[0, 0, 0, 0] = 1e300
    for one in (x, x.to(device)):
        with pytest.raises(ValueError, match=r"too large for the model's type, torch\.float32"):
            sw.attribute(model, one, method="gradient")


def test_what_an_explorer_saves(device: str, tmp_path: Path) -> None:
    model, x = conv_net(), images(3, 1, 3, 8, 8)
    here, away = (sw.explore(m, x, executor="inline", method="smoothgrad") for m in (model, there(model, device)))
    for name, one in (("here", here), ("away", away)):
        one.wait()
        one.save_png(tmp_path / f"{name}.png")
        one.save_html(tmp_path / f"{name}.html")
        one.save_state(tmp_path / f"{name}.zip")
        one.update(method="gradient", sign="signed")
    images_saved = [Image.open(tmp_path / f"{name}.png") for name in ("here", "away")]
    assert np.abs(np.diff([np.asarray(image, dtype=int) for image in images_saved], axis=0)).max() <= 1
    away.load_state(tmp_path / "here.zip")
    here.load_state(tmp_path / "away.zip")
    assert_same(away.wait(), here.wait(), ROUNDING)
    assert away.wait().method == "smoothgrad"
    for one in (here, away):
        one.close()


def _maps(compared: Comparison) -> Iterator[sw.Attribution]:
    compared.wait(timeout=300)
    yield from (compared.attributions[key] for key in sorted(compared.attributions))


def test_a_comparison(device: str) -> None:
    model, x = conv_net(), images()
    names = ["gradient", "smoothgrad", "grad_cam"]
    here, away = (sw.compare(one, list(x), methods=names, n_samples=8) for one in (model, there(model, device)))
    for result, expected in zip(_maps(away), _maps(here), strict=True):
        assert_same(result, expected, ROUNDING)
    here.close()
    away.close()


def test_a_lesson(device: str) -> None:
    model, x = conv_net(), images()[:1]
    here, away = (sw.lesson(one, x, n_samples=8).wait(timeout=300) for one in (model, there(model, device)))
    for step in here.steps:
        result, expected = away.view.content(step), here.view.content(step)
        assert (result["state"], expected["state"]) == ("ready", "ready"), result
        assert result.get("maps", {}).keys() == expected.get("maps", {}).keys()
        for name, one in result.get("maps", {}).items():
            other = expected["maps"][name]
            codes, others = (np.frombuffer(m["codes"], "<u2").astype(int) for m in (one, other))
            assert np.abs(codes - others).max() <= 1, (step, name)
            assert one["high"] == pytest.approx(other["high"], rel=ROUNDING)
    here.close()
    away.close()


def test_a_sweep(device: str) -> None:
    model, x = conv_net(), images()
    grid = {"noise_level": [0.1, 0.4], "n_samples": [2, 8]}
    metrics = ["similarity", "standard_error"]
    here, away = (sw.sweep(m, x, "smoothgrad", grid, metrics, progress=False) for m in (model, there(model, device)))
    pd.testing.assert_frame_equal(away.summary, here.summary, rtol=1e-9)
    assert away.words == here.words


# ---- trust, and tables


def test_the_trust_tests(device: str) -> None:
    model, x = conv_net(), images()
    names = ["gradient", "grad_cam", "smoothgrad"]
    settings = {**QUICK, "params": {"n_samples": 4}}
    result, expected = (sw.evaluate(m, x, names, **settings) for m in (there(model, device), model))
    pd.testing.assert_frame_equal(pd.DataFrame(result), pd.DataFrame(expected), rtol=1e-9)
    assert result.attrs["reasons"] == expected.attrs["reasons"]


@pytest.mark.parametrize("fill", ["blur", "mean", "noise", "zero", "neighbors"])
def test_an_ablation(device: str, fill: str) -> None:
    model, x = conv_net(), images(3, 1, 3, 8, 8)
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[2:5, 3:7] = True
    here = sw.ablate(model, x, mask, fill=fill)
    for value in (mask, mask.to(device), mask.numpy()):
        away = sw.ablate(there(model, device), x, value, fill=fill)
        assert same(away.inputs, here.inputs, ROUNDING)
        assert str(away) == str(here)
    top = sw.attribute(there(model, device), x, method="gradient")
    away = sw.ablate(there(model, device), x, top, top=0.1, fill=fill)
    assert str(away) == str(sw.ablate(model, x, sw.attribute(model, x, method="gradient"), top=0.1, fill=fill))


@pytest.fixture
def people() -> pd.DataFrame:
    generator = np.random.default_rng(3)
    return pd.DataFrame(generator.normal(size=(40, 4)), columns=["age", "income", "debt", "rent"])


def test_rows_of_a_table(device: str, people: pd.DataFrame) -> None:
    model = mlp()
    here, away = (
        sw.explore(m, people.iloc[3], background=people, executor="inline") for m in (model, there(model, device))
    )
    for move in (
        {"method": "gradient"},
        {"method": "integrated_gradients"},
        {"baseline": "median"},
        {"method": "expected_gradients", "n_samples": 8},
        {"method": "smoothgrad", "n_samples": 8},
    ):
        here.update(**move)
        away.update(**move)
        assert_same(away.wait(), here.wait(), ROUNDING)
    for one in (here, away):
        one.close()


def test_shuffling_and_importance(device: str, people: pd.DataFrame) -> None:
    model, labels = mlp(), np.arange(len(people)) % 3
    away = there(model, device)
    result, expected = (sw.shuffle(m, people.iloc[7], people, draws=16) for m in (away, model))
    pd.testing.assert_frame_equal(result, expected, rtol=1e-9)
    result, expected = (sw.importance(m, people, labels, repeats=2, progress=False) for m in (away, model))
    pd.testing.assert_frame_equal(result, expected, rtol=1e-9)
    result, expected = (sw.importance(m, people, repeats=2, progress=False) for m in (away, model))
    pd.testing.assert_frame_equal(result, expected, rtol=1e-9)
