"""Results: saliency maps, code that reproduces them, and their printed form; the printed table of methods."""

import dataclasses

import numpy as np
import pytest
import torch
from toys import conv_net, each, far, images, mlp, rows

import saliency_widgets as sw
from saliency_widgets.attribution import Reduction
from saliency_widgets.attribution.reduction import CHANNELS, SIGNS

X = images(0, 2, 3, 8, 10)


@pytest.fixture(scope="module")
def result():
    return sw.attribute(conv_net(), X, method="integrated_gradients", target=1, n_steps=4)


# ---- maps


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("channels", CHANNELS)
def test_maps_lie_in_0_1_and_have_the_inputs_size(result, sign, channels):
    for sample in (0, 1):
        shown = result.saliency_map(sign=sign, channels=channels, sample=sample)
        assert shown.shape == (8, 10)
        assert shown.dtype == np.float64
        assert 0 <= shown.min() <= shown.max() <= 1
        assert shown.max() > shown.min()


def test_a_map_is_linear_in_the_values_between_its_limits(result):
    """Clipping at 0 and 100 percent maps the smallest value to 0 and the largest to 1, up to 16-bit rounding."""
    size = result.values[0].abs().amax(0)
    shown = result.saliency_map(clip=(0, 100))
    low = float(size.min())
    expected = (size - low) / (size.max() - low)
    assert np.abs(shown - expected.numpy()).max() < 2 / 65534


def test_in_a_signed_map_zero_is_a_half_and_opposite_values_are_mirrored_about_it(result):
    opposite = dataclasses.replace(result, values=-result.values)
    shown, mirrored = (a.saliency_map(sign="signed", channels="sum") for a in (result, opposite))
    assert np.abs(shown + mirrored - 1).max() < 1e-4
    total = result.values[0].sum(0).numpy()
    clear = np.abs(total) > 0.01 * np.abs(total).max()
    assert (np.sign(shown - 0.5) == np.sign(total))[clear].all()


def test_the_default_sign_is_that_of_the_method():
    cam = sw.attribute(conv_net(), X, method="grad_cam", target=1)
    assert np.array_equal(cam.saliency_map(), cam.saliency_map(sign="positive"))
    assert cam.values.shape[-2:] != X.shape[-2:]
    assert cam.saliency_map().shape == (8, 10)


def test_a_map_of_zeros_is_constant(result):
    zeros = dataclasses.replace(result, values=torch.zeros_like(result.values))
    for sign, level in (("absolute", 0.0), ("signed", 0.5)):
        assert set(zeros.saliency_map(sign=sign).ravel()) == {level}


@pytest.mark.parametrize(
    ("settings", "pattern"),
    [
        ({"sign": "both"}, "sign: 'both' is not known"),
        ({"channels": "median"}, "channels: 'median' is not known"),
        ({"sample": 2}, "sample: expected a number from 0 to 1, got 2"),
        ({"sample": -1}, "sample: expected a number from 0 to 1, got -1"),
    ],
)
def test_invalid_map_settings_are_refused(result, settings, pattern):
    with pytest.raises(ValueError, match=pattern):
        result.saliency_map(**settings)


def test_a_map_of_rows_is_refused():
    with pytest.raises(ValueError, match=r"a map needs shape \(B, C, H, W\), got \(1, 4\)"):
        sw.attribute(mlp(), rows(), method="gradient", target=0).saliency_map()


# ---- reductions, compared with their definitions


V = torch.tensor([[1.0, -5.0, 3.0], [-2.0, 4.0, 0.0]], dtype=torch.float64).T.reshape(1, 3, 1, 2)


@each(
    ("sign", "channels", "expected"),
    [
        ("signed", "max", [-5, 4]),
        ("signed", "mean", [-1 / 3, 2 / 3]),
        ("signed", "sum", [-1, 2]),
        ("signed", "L2", [-(35**0.5), 20**0.5]),
        ("absolute", "max", [5, 4]),
        ("absolute", "sum", [9, 6]),
        ("absolute", "L2", [35**0.5, 20**0.5]),
        ("positive", "max", [3, 4]),
        ("positive", "sum", [4, 4]),
        ("negative", "max", [5, 2]),
        ("negative", "sum", [5, 2]),
        ("squared", "sum", [35, 20]),
        ("squared", "max", [25, 16]),
    ],
)
def test_reductions(sign, channels, expected):
    assert far(Reduction(sign, channels)(V, (1, 2)), torch.tensor([[expected]], dtype=torch.float64)) < 1e-14


def test_a_coarse_map_is_interpolated_between_the_centers_of_its_cells():
    coarse = torch.tensor([0.0, 1.0], dtype=torch.float64).view(1, 1, 1, 2)
    fine = Reduction("signed", "sum")(coarse, (2, 4))
    assert far(fine, torch.tensor([0.0, 0.25, 0.75, 1.0], dtype=torch.float64).expand(1, 2, 4)) < 1e-14


# ---- code


CASES = [
    ("gradient", {"target": 2}),
    ("smoothgrad", {"n_samples": 5, "noise_level": 0.1, "seed": 3}),
    ("smoothgrad", {"n_samples": 5, "base": "guided_backprop", "statistic": "squared", "target": [1, 0]}),
    ("integrated_gradients", {"n_steps": 7, "baseline": "blur", "quadrature": "midpoint", "score": "probability"}),
    ("integrated_gradients", {"n_steps": 3, "target": "c", "contrast": ["d", "a"], "class_names": list("abcd")}),
    ("grad_cam", {}),
    ("grad_cam", {"layer": "0"}),
    ("guided_grad_cam", {"target": 3}),
]


@pytest.mark.parametrize(("method", "settings"), CASES)
def test_the_code_reproduces_the_result_bit_for_bit(method, settings):
    model = conv_net()
    result = sw.attribute(model, X, method=method, **settings)
    names = {"model": model, "inputs": X}
    exec(result.to_code(), names)
    assert torch.equal(names["attribution"].values, result.values)
    assert names["attribution"].settings == result.settings


def test_in_the_code_values_without_a_literal_are_variables_named_like_the_argument():
    model, baseline = conv_net(), images(3, 3, 8, 10)

    def target(output):
        return output[:, 1] - output[:, 2]

    def transform(x):
        return x * 2 - 1

    settings = {"target": target, "baseline": baseline, "transform": transform, "n_steps": 3}
    result = sw.attribute(model, X, method="integrated_gradients", **settings)
    code = result.to_code()
    for name in ("target", "baseline", "transform"):
        assert f"    {name}={name},\n" in code
    names = {"model": model, "inputs": X, "target": target, "baseline": baseline, "transform": transform}
    exec(code, names)
    assert torch.equal(names["attribution"].values, result.values)


def test_the_code_names_the_class_of_the_top_prediction():
    result = sw.attribute(conv_net(), X[:1], method="gradient")
    assert f"target={int(conv_net()(X[:1]).argmax())}," in result.to_code()


def test_the_repr_shows_settings_and_no_values(result):
    text = repr(result)
    assert text.startswith("Attribution((2, 3, 8, 10), method='integrated_gradients', target=1, score='logit'")
    assert "tensor" not in text
    assert "\n" not in text
    running = dataclasses.replace(result, done=3)
    assert repr(running).endswith("3 of 5 gradients)")


def test_a_result_is_immutable(result):
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.values = None


# ---- the table of methods


def test_the_table_of_methods_lists_names_defaults_ranges_and_units():
    text = repr(sw.methods())
    for name, entry in sw.methods().items():
        assert f"{name}: {entry.help}" in text
        for param in entry.params:
            assert f"    {param.name} = {param.default!r}" in text
    assert "    n_samples = 50, 1 to 500 samples on the slider, and beyond" in text
    assert "    noise_level = 0.15, 0 to 1 of the input's range on the slider, and beyond" in text
    assert "    seed = 0, 0 to 2147483647\n" in text
    assert "    quadrature = 'adaptive', one of adaptive, trapezoid, midpoint, gauss_legendre, clenshaw_curtis" in text


def test_the_table_of_methods_shows_ranges_with_one_bound():
    from saliency_widgets.attribution.registry import Method, Methods
    from saliency_widgets.params import Param

    params = (Param("a", 1, low=0), Param("b", 1, high=0), Param("c", 1))
    text = repr(Methods({"m": Method("m", "M", "Help.", params, iter)}))
    assert text.splitlines() == ["m: Help.", "    a = 1, at least 0", "    b = 1, up to 0", "    c = 1"]


def test_methods_are_a_mapping():
    result = sw.methods()
    assert len(result) == len(list(result)) == len(dict(result))
    assert list(result) == sorted(result)
    assert "gradient" in result
    with pytest.raises(KeyError):
        result["no such method"]
