"""Results for a model on a device equal those on the CPU.

They are equal bit for bit if the passes have the same sizes, because the kernels are the same. In passes of other sizes
(a device takes more rows at once), matrix products round differently: by up to 1e-12 of the largest value in float64.
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


def copied_to(model: nn.Module, device: str) -> nn.Module:
    return copy.deepcopy(model).to(device)


def same(result: Any, expected: Any, rounding: float = 0.0) -> bool:
    """Return whether values are equal, on any device; NaN equals NaN."""
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
        # A difference is as exact as the values that are subtracted.
        if rounding and other is not None and name in ("delta", "map_error", "standard_error"):
            size = expected.values.cpu().abs().sum() if name == "delta" else 1.0
            assert float((one.cpu() - other.cpu()).abs().max()) <= rounding * max(1.0, float(size)), name
        else:
            assert same(one, other, rounding), name
    assert result.notes == expected.notes
    assert _comparable(result.settings) == _comparable(expected.settings)
    assert (result.done, result.total, result.layer) == (expected.done, expected.total, expected.layer)


def _comparable(settings: Any) -> dict[str, Any]:
    """Return the plain settings, except the device and the rows per pass that depend on it."""
    return {k: v for k, v in settings.items() if isinstance(v, (int, float, str, list)) and k not in _DEVICE_SETTINGS}


_DEVICE_SETTINGS = ("device", "chunk_size")


# ---- maps


@pytest.mark.parametrize(
    ("kind", "method"),
    [(kind, method) for kind, case in KINDS.items() for method in METHODS if reason(case, method) is None],
)
def test_a_map_equals_that_on_the_cpu(device: str, kind: str, method: str) -> None:
    case, model = KINDS[kind], made(kind)
    on_device = copied_to(model, device)
    assert_same(explain(case, on_device, method), explain(case, model, method), ROUNDING)


@pytest.mark.parametrize("method", METHODS)
def test_passes_of_one_size_give_the_same_bits(device: str, method: str) -> None:
    model, x = conv_net(), images()
    size = {"chunk_size": 16} if any(param.name == "chunk_size" for param in METHODS[method].params) else {}
    result = sw.attribute(copied_to(model, device), x, method=method, **size)
    assert result.values.device.type == device
    assert_same(result, sw.attribute(model, x, method=method, **size))


@pytest.mark.parametrize("method", METHODS)
def test_inputs_on_the_device_and_the_device_argument(device: str, method: str) -> None:
    model, x = conv_net(), images(3, 1, 3, 8, 8)
    expected = sw.attribute(copied_to(model, device), x, method=method, target=2)
    assert_same(sw.attribute(copied_to(model, device), x.to(device), method=method, target=2), expected)
    assert_same(sw.attribute(model, x, method=method, target=2, device=device), expected)


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_equals_its_samples_one_by_one(device: str, method: str) -> None:
    model, x = copied_to(conv_net(), device), images(4, 5, 3, 8, 8)
    together = sw.attribute(model, x, method=method, target=[0, 1, 2, 3, 0])
    alone = sw.attribute(model, x[3:4], method=method, target=3)
    is_random = any(param.name == "seed" for param in METHODS[method].params)
    assert is_random or far(together.values[3:4].cpu(), alone.values.cpu()) <= 1e-10


@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_not_changed(device: str, method: str) -> None:
    model = copied_to(conv_net(), device)

    def state() -> dict[str, Any]:
        on_cpu = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
        return {name: (id(p), p._version, on_cpu[name].numpy().tobytes()) for name, p in model.named_parameters()}

    before, caller = state(), state_of(nn.Identity())
    sw.attribute(model, images(), method=method)
    assert state() == before
    assert state_of(nn.Identity())["random state"] == caller["random state"]


@pytest.mark.parametrize("score", ["probability", "log_probability"])
def test_scores_contrasts_and_target_functions(device: str, score: str) -> None:
    model, x = conv_net(), images()
    on_device = copied_to(model, device)
    for settings in (
        {"score": score, "target": [1, 3], "contrast": [2, 0]},
        {"score": score, "target": "b", "class_names": ["a", "b", "c", "d"]},
        {"target": lambda out: out[:, 0] - out[:, 1] ** 2},
        {"target": torch.tensor([1, 2])},
        {"target": torch.tensor([1, 2]).to(device)},
    ):
        same_settings = {**settings, "target": _to_cpu(settings["target"])}
        result, expected = sw.attribute(on_device, x, **settings), sw.attribute(model, x, **same_settings)
        assert same(result.values, expected.values, ROUNDING)


def _to_cpu(target: Any) -> Any:
    return target.cpu() if isinstance(target, Tensor) else target


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_types(device: str, dtype: torch.dtype) -> None:
    model, x = conv_net().to(dtype), images().to(dtype)
    result = sw.attribute(copied_to(model, device), x, method="gradient", fold=False)
    assert same(result.values, sw.attribute(model, x, method="gradient", fold=False).values)


def test_float32_with_folded_batch_norms(device: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 3)).eval()
    result = sw.attribute(copied_to(model, device), images().float(), method="smoothgrad", chunk_size=8)
    assert same(result.values, sw.attribute(model, images().float(), method="smoothgrad", chunk_size=8).values)


def test_dropout_draws_the_same_numbers(device: str) -> None:
    model = nn.Sequential(nn.Linear(4, 32), nn.Dropout(0.5), nn.ReLU(), nn.Linear(32, 2)).double().train()
    result = sw.attribute(copied_to(model, device), rows(), method="gradient")
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
        result = sw.attribute(copied_to(model, device), rows(0, 4, 4), method=method)
        assert_same(result, sw.attribute(model, rows(0, 4, 4), method=method), ROUNDING)


def test_errors_are_the_same_as_on_the_cpu(device: str) -> None:
    class Scaled(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.tensor(factor, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return self.factor * x.flatten(1)[:, :2]

    class InfiniteGradient(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Parameter(torch.ones((), dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return (self.one * (x - x)).sqrt()[:, :2]

    for model, message in (
        (Scaled(float("nan")), "its score is NaN or infinite"),
        (Scaled(float("inf")), "its score is NaN or infinite"),
        (InfiniteGradient(), "its gradient is NaN or infinite"),
    ):
        for one in (model, copied_to(model, device)):
            with pytest.raises(ValueError, match=message):
                sw.attribute(one, rows(), method="gradient")


@pytest.mark.parametrize("method", ["captum.IntegratedGradients", "captum.LayerGradCam", "captum.Occlusion"])
def test_methods_of_captum(device: str, method: str) -> None:
    model, x = conv_net(), images(3, 1, 3, 8, 8)
    options = {"LayerGradCam": {"layer": "2"}, "Occlusion": {"window": 0.25}}
    settings = options.get(method.removeprefix("captum."), {})
    result, expected = (sw.attribute(m, x, method=method, **settings) for m in (copied_to(model, device), model))
    assert_same(result, expected, ROUNDING)


def test_saliency_maps_and_the_checkup(device: str) -> None:
    model, x = conv_net(), images(3, 1, 3, 8, 8)
    result, expected = (sw.attribute(m, x, method="gradient") for m in (copied_to(model, device), model))
    assert np.array_equal(result.saliency_map(), expected.saliency_map())
    assert str(sw.checkup(copied_to(model, device), x)) == str(sw.checkup(model, x))


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
    on_cpu, on_device = (sw.explore(one, image, executor="inline") for one in (model, copied_to(model, device)))
    for move in MOVES:
        on_cpu.update(**move)
        on_device.update(**move)
        assert_same(on_device.wait(), on_cpu.wait(), ROUNDING)
        assert _comparable(on_device.settings) == _comparable(on_cpu.settings)
    with torch.no_grad():
        for one in (on_cpu, on_device):
            next(one.problem.model.parameters()).mul_(2)
    assert_same(on_device.wait(), on_cpu.wait(), ROUNDING)
    for one in (on_cpu, on_device):
        one.close()


@pytest.mark.parametrize("shift", [0.0, -0.5, 3.0])
def test_an_image_on_the_device(device: str, shift: float) -> None:
    model, x = conv_net(), images(3, 1, 3, 8, 8) + shift
    on_cpu, on_device = (prepare(one, device="cpu", dtype=torch.float32) for one in (x, x.to(device)))
    assert on_cpu.images is not None
    assert np.array_equal(on_device.images, on_cpu.images)
    assert on_device.notes == on_cpu.notes
    assert same(on_device.tensor, on_cpu.tensor)
    result = sw.attribute(copied_to(model, device), x.to(device), method="blur_ig", n_steps=8)
    assert_same(result, sw.attribute(model, x, method="blur_ig", n_steps=8), ROUNDING)


def test_inputs_that_are_not_finite_on_the_device(device: str) -> None:
    model, x = copied_to(conv_net().float(), device), images(3, 1, 3, 8, 8)
    x[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="1 of 192 numbers are NaN or infinite"):
        sw.attribute(model, x.to(device), method="gradient")
    x[0, 0, 0, 0] = 1e300
    for one in (x, x.to(device)):
        with pytest.raises(ValueError, match=r"too large for the model's type, torch\.float32"):
            sw.attribute(model, one, method="gradient")


def test_files_that_an_explorer_saves(device: str, tmp_path: Path) -> None:
    model, x = conv_net(), images(3, 1, 3, 8, 8)
    on_cpu, on_device = (
        sw.explore(m, x, executor="inline", method="smoothgrad") for m in (model, copied_to(model, device))
    )
    for name, one in (("cpu", on_cpu), ("device", on_device)):
        one.wait()
        one.save_png(tmp_path / f"{name}.png")
        one.save_html(tmp_path / f"{name}.html")
        one.save_state(tmp_path / f"{name}.zip")
        one.update(method="gradient", sign="signed")
    images_saved = [Image.open(tmp_path / f"{name}.png") for name in ("cpu", "device")]
    assert np.abs(np.diff([np.asarray(image, dtype=int) for image in images_saved], axis=0)).max() <= 1
    on_device.load_state(tmp_path / "cpu.zip")
    on_cpu.load_state(tmp_path / "device.zip")
    assert_same(on_device.wait(), on_cpu.wait(), ROUNDING)
    assert on_device.wait().method == "smoothgrad"
    for one in (on_cpu, on_device):
        one.close()


def _maps(compared: Comparison) -> Iterator[sw.Attribution]:
    compared.wait(timeout=300)
    yield from (compared.attributions[key] for key in sorted(compared.attributions))


def test_a_comparison(device: str) -> None:
    model, x = conv_net(), images()
    names = ["gradient", "smoothgrad", "grad_cam"]
    on_cpu, on_device = (
        sw.compare(one, list(x), methods=names, n_samples=8) for one in (model, copied_to(model, device))
    )
    for result, expected in zip(_maps(on_device), _maps(on_cpu), strict=True):
        assert_same(result, expected, ROUNDING)
    on_cpu.close()
    on_device.close()


def test_a_lesson(device: str) -> None:
    model, x = conv_net(), images()[:1]
    on_cpu, on_device = (sw.lesson(one, x, n_samples=8).wait(timeout=300) for one in (model, copied_to(model, device)))
    for step in on_cpu.steps:
        result, expected = on_device.view.content(step), on_cpu.view.content(step)
        assert (result["state"], expected["state"]) == ("ready", "ready"), result
        assert result.get("maps", {}).keys() == expected.get("maps", {}).keys()
        for name, one in result.get("maps", {}).items():
            other = expected["maps"][name]
            codes, others = (np.frombuffer(m["codes"], "<u2").astype(int) for m in (one, other))
            assert np.abs(codes - others).max() <= 1, (step, name)
            assert one["high"] == pytest.approx(other["high"], rel=ROUNDING)
    on_cpu.close()
    on_device.close()


def test_a_sweep(device: str) -> None:
    model, x = conv_net(), images()
    grid = {"noise_level": [0.1, 0.4], "n_samples": [2, 8]}
    metrics = ["similarity", "standard_error"]
    on_cpu, on_device = (
        sw.sweep(m, x, "smoothgrad", grid, metrics, progress=False) for m in (model, copied_to(model, device))
    )
    pd.testing.assert_frame_equal(on_device.summary, on_cpu.summary, rtol=1e-9)
    assert on_device.words == on_cpu.words


# ---- trust, and tables


def test_the_trust_tests(device: str) -> None:
    model, x = conv_net(), images()
    names = ["gradient", "grad_cam", "smoothgrad"]
    settings = {**QUICK, "params": {"n_samples": 4}}
    result, expected = (sw.evaluate(m, x, names, **settings) for m in (copied_to(model, device), model))
    pd.testing.assert_frame_equal(pd.DataFrame(result), pd.DataFrame(expected), rtol=1e-9)
    assert result.attrs["reasons"] == expected.attrs["reasons"]


@pytest.mark.parametrize("fill", ["blur", "mean", "noise", "zero", "neighbors"])
def test_an_ablation(device: str, fill: str) -> None:
    model, x = conv_net(), images(3, 1, 3, 8, 8)
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[2:5, 3:7] = True
    on_cpu = sw.ablate(model, x, mask, fill=fill)
    for value in (mask, mask.to(device), mask.numpy()):
        on_device = sw.ablate(copied_to(model, device), x, value, fill=fill)
        assert same(on_device.inputs, on_cpu.inputs, ROUNDING)
        assert str(on_device) == str(on_cpu)
    top = sw.attribute(copied_to(model, device), x, method="gradient")
    on_device = sw.ablate(copied_to(model, device), x, top, top=0.1, fill=fill)
    assert str(on_device) == str(sw.ablate(model, x, sw.attribute(model, x, method="gradient"), top=0.1, fill=fill))


@pytest.fixture
def table() -> pd.DataFrame:
    generator = np.random.default_rng(3)
    return pd.DataFrame(generator.normal(size=(40, 4)), columns=["age", "income", "debt", "rent"])


def test_rows_of_a_table(device: str, table: pd.DataFrame) -> None:
    model = mlp()
    on_cpu, on_device = (
        sw.explore(m, table.iloc[3], background=table, executor="inline") for m in (model, copied_to(model, device))
    )
    for move in (
        {"method": "gradient"},
        {"method": "integrated_gradients"},
        {"baseline": "median"},
        {"method": "expected_gradients", "n_samples": 8},
        {"method": "smoothgrad", "n_samples": 8},
    ):
        on_cpu.update(**move)
        on_device.update(**move)
        assert_same(on_device.wait(), on_cpu.wait(), ROUNDING)
    for one in (on_cpu, on_device):
        one.close()


def test_shuffling_and_importance(device: str, table: pd.DataFrame) -> None:
    model, labels = mlp(), np.arange(len(table)) % 3
    on_device = copied_to(model, device)
    result, expected = (sw.shuffle(m, table.iloc[7], table, draws=16) for m in (on_device, model))
    pd.testing.assert_frame_equal(result, expected, rtol=1e-9)
    result, expected = (sw.importance(m, table, labels, repeats=2, progress=False) for m in (on_device, model))
    pd.testing.assert_frame_equal(result, expected, rtol=1e-9)
    result, expected = (sw.importance(m, table, repeats=2, progress=False) for m in (on_device, model))
    pd.testing.assert_frame_equal(result, expected, rtol=1e-9)
