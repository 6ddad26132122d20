"""Invalid calls raise one clear error and leave the model unchanged, and the next call works."""

import contextlib
import re

import numpy as np
import pytest
import torch
from captum.attr import Occlusion, Saliency
from torch import nn
from toys import conv_net, each, images, mlp, rows, state_of

import saliency_widgets as sw

X = images()


def assert_fails(model, x, error, pattern, **settings):
    """Check that the call raises an error with a message of one paragraph, and changes neither model nor inputs."""
    before, inputs = state_of(model), x.clone() if isinstance(x, torch.Tensor) else x
    with pytest.raises(error) as caught:
        sw.attribute(model, x, **{"method": "gradient", "target": 0, **settings})
    message = str(caught.value)
    assert re.search(pattern, message, re.DOTALL), message
    assert "\n\n" not in message
    assert state_of(model) == before
    if isinstance(x, torch.Tensor):
        assert x.shape == inputs.shape
        assert torch.equal(x.nan_to_num(), inputs.nan_to_num())
    return caught.value


def assert_works(model, x=X):
    assert sw.attribute(model, x, method="gradient", target=0).values.shape == x.shape


# ---- the call


@each(
    ("settings", "error", "pattern"),
    [
        ({"method": "smoothgard"}, ValueError, r"method: 'smoothgard' is not known\. Did you mean 'smoothgrad'"),
        ({"method": None}, TypeError, r"method: expected a name such as 'smoothgrad', got a NoneType"),
        ({"n_samples": 5}, TypeError, r"parameter of gradient: 'n_samples' is not known\. Known: 'none'"),
        ({"transfrom": 1}, TypeError, r"'transfrom' is not known\. Did you mean 'transform'"),
        ({"method": "smoothgrad", "trget": 1}, TypeError, r"'trget' is not known\. Did you mean 'target'"),
        ({"method": "smoothgrad", "n_sample": 5}, TypeError, r"'n_sample' is not known\. Did you mean 'n_samples'"),
        (
            {"method": "smoothgrad", "n_samples": 0},
            ValueError,
            r"n_samples: expected a number from 1 to 1000000, got 0",
        ),
        ({"method": "smoothgrad", "n_samples": 2.5}, TypeError, r"n_samples: expected an integer"),
        ({"method": "smoothgrad", "n_samples": True}, TypeError, r"n_samples: expected an integer"),
        ({"method": "smoothgrad", "noise_level": np.True_}, TypeError, r"noise_level: expected a number.*np\.True_"),
        ({"method": "integrated_gradients", "baseline": np.True_}, TypeError, r"baseline: expected a name.*got a bool"),
        (
            {"method": "smoothgrad", "noise_level": -0.1},
            ValueError,
            r"noise_level: expected a number of at least 0, got -0\.1",
        ),
        ({"method": "smoothgrad", "noise_level": float("nan")}, ValueError, r"noise_level: .*nan"),
        ({"method": "smoothgrad", "noise_level": "lots"}, TypeError, r"noise_level: expected a number.*'lots'"),
        ({"method": "smoothgrad", "statistic": "median"}, ValueError, r"statistic: 'median' is not known"),
        ({"method": "smoothgrad", "base": "grad_cam"}, ValueError, r"base: 'grad_cam' is not known"),
        ({"method": "smoothgrad", "seed": -1}, ValueError, r"seed: expected a number from 0"),
        ({"method": "smoothgrad", "chunk_size": 0}, ValueError, r"chunk_size: expected a number from 1"),
        ({"method": "integrated_gradients", "n_steps": 0}, ValueError, r"n_steps: expected a number from 1"),
        ({"method": "integrated_gradients", "quadrature": "simpson"}, ValueError, r"quadrature: 'simpson'"),
        ({"method": "integrated_gradients", "baseline": "blakc"}, ValueError, r"baseline: 'blakc'.*'black'"),
        ({"method": "integrated_gradients", "baseline": torch.zeros(5)}, ValueError, r"baseline: shape \(5,\)"),
        ({"target": 4}, ValueError, r"target: class 4 is out of range, the model scores classes 0 to 3"),
        ({"score": "odds"}, ValueError, r"score: 'odds' is not known"),
    ],
    ids=str,
)
def test_invalid_arguments(settings, error, pattern):
    model = conv_net()
    assert_fails(model, X, error, pattern, **settings)
    assert_works(model)


@each("model", [lambda x: x.sum(1), nn.Linear, None, "resnet18"])
def test_a_model_that_is_no_module_is_refused(model):
    with pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module, got a "):
        sw.attribute(model, X)


@each(
    ("settings", "error", "pattern"),
    [
        ({"class_names": 5}, TypeError, r"class_names: expected the names in order.*got a int"),
        ({"class_names": {"a"}}, TypeError, r"class_names: expected the names in order.*got a set"),
        ({"class_names": b"abcd"}, TypeError, r"class_names: expected the names in order.*got a bytes"),
        ({"class_names": np.array(3)}, TypeError, r"class_names: expected the names in order.*got a ndarray"),
        (
            {"class_names": {"cat": 0, "dog": 1, "cow": 2, "hen": 3}},
            TypeError,
            r"class_names: expected a mapping from index to name, got one from 'cat' to 0\..*pass id2label",
        ),
        ({"class_names": {None: "a"}}, TypeError, r"class_names: expected a mapping from index to name"),
        ({"device": []}, TypeError, r"device: expected a torch\.device or a name.*got \[\] \(list\)\. Omit it"),
        ({"device": 1.5}, TypeError, r"device: expected a torch\.device or a name.*got 1\.5 \(float\)"),
        ({"device": True}, TypeError, r"device: expected a torch\.device or a name.*got True \(bool\)"),
        ({"device": "meta"}, ValueError, r"device: 'meta' can't compute anything"),
        ({"device": "gpu"}, ValueError, r"device: 'gpu' can't be used here"),
    ],
    ids=repr,
)
def test_invalid_arguments_about_the_model(settings, error, pattern):
    model = conv_net()
    assert_fails(model, X, error, pattern, **settings)
    assert_works(model)


@pytest.mark.parametrize(
    "settings",
    [{"device": "x" * 10**6}, {"class_names": {"x" * 10**6: "a"}}],
    ids=["device", "class_names"],
)
def test_long_values_are_truncated_in_messages(settings):
    with pytest.raises((TypeError, ValueError)) as caught:
        sw.attribute(conv_net(), X, **{"method": "gradient", "target": 0, **settings})
    assert len(str(caught.value)) < 1000


# ---- the input


@each(
    ("x", "error", "pattern"),
    [
        (torch.zeros(2, 5, 8, 8), ValueError, r"model: it raised RuntimeError in layer '0' \(Conv2d\).*\(2, 5, 8, 8\)"),
        (torch.zeros(2, 4), ValueError, r"in layer '0' \(Conv2d\).*transform="),
        (torch.full((1, 3, 8, 8), float("nan")), ValueError, r"inputs: 192 of 192 numbers are NaN or infinite"),
        (torch.full((3, 8, 8), float("-inf")), ValueError, r"inputs: 192 of 192 numbers are NaN or infinite"),
        (torch.zeros(0, 3, 8, 8), ValueError, r"inputs: they are empty, with shape \(0, 3, 8, 8\)"),
        (torch.zeros(1, 3, 8, 0), ValueError, r"inputs: they are empty"),
        (torch.tensor(3.0), ValueError, r"inputs: .*got a single number"),
        (torch.zeros(3, 8, 8, dtype=torch.complex64), TypeError, r"inputs: complex numbers"),
        (None, TypeError, r"inputs: expected a PIL image, a path, an array or a tensor, got a NoneType"),
        ({"x": 1}, ValueError, r"inputs: no input has a gradient; got \{'x': 'int'\}.*embeddings"),
        ({1, 2}, TypeError, r"inputs: expected a PIL image.*got a set"),
        ([], ValueError, r"inputs: they are empty"),
        (["no-such-file.png"], ValueError, r"inputs: there is no file 'no-such-file\.png'"),
        (np.array([["a", "b"]]), TypeError, r"inputs: expected numbers, got an array of <U1"),
        (np.array([[None, 1.0]]), TypeError, r"inputs: expected numbers, got an array of object"),
    ],
    ids=repr,
)
def test_invalid_inputs(x, error, pattern):
    model = conv_net()
    assert_fails(model, x, error, pattern)
    assert_works(model)


def test_numbers_too_large_for_the_models_type_are_refused():
    model = conv_net().half()
    assert_fails(model, np.full((1, 3, 8, 8), 1e6), ValueError, r"inputs: some numbers are too large for.*float16")


# ---- the model


class Broken(nn.Module):
    """A conv net whose forward is replaced by ``replacement`` if that is set."""

    def __init__(self):
        super().__init__()
        self.net, self.replacement = conv_net(), None

    def forward(self, x):
        return self.net(x) if self.replacement is None else self.replacement(self, x)


def detached(self, x):
    return self.net(x).detach()


def under_no_grad(self, x):
    with torch.no_grad():
        return self.net(x)


def under_inference_mode(self, x):
    with torch.inference_mode():
        return self.net(x)


def constant(self, x):
    return torch.ones(len(x), 4, dtype=torch.float64)


def parameter_only(self, x):
    return self.net[6].bias.expand(len(x), 4)


def classes(self, x):
    return nn.functional.one_hot(self.net(x).argmax(1), 4).double()


def rounded(self, x):
    return self.net(x).argmax(1, keepdim=True).expand(-1, 4)


WITHOUT_GRADIENT = [detached, under_no_grad, under_inference_mode, constant, parameter_only, classes, rounded]


@each("replacement", WITHOUT_GRADIENT)
@pytest.mark.parametrize("method", ["gradient", "smoothgrad", "integrated_gradients", "guided_backprop"])
def test_an_output_that_does_not_depend_on_the_input_is_refused(replacement, method):
    model = Broken()
    model.replacement = replacement
    assert_fails(
        model, X, ValueError, r"model: the score does not depend on the inputs: no gradient reaches it", method=method
    )
    model.replacement = None
    assert_works(model)


def nan(self, x):
    return self.net(x) * float("nan")


def infinite(self, x):
    return self.net(x).abs().exp() ** 1e6


def nan_gradient(self, x):
    return self.net(x - x).sum(1, keepdim=True) + (x - x).sqrt().sum((1, 2, 3))[:, None].expand(-1, 4)


@each(("replacement", "what"), [(nan, "score"), (infinite, "score"), (nan_gradient, "gradient")])
@each("target", [0, None])
def test_nan_and_infinite_outputs_are_refused(replacement, what, target):
    model = Broken()
    model.replacement = replacement
    assert_fails(model, X, ValueError, rf"model: its {what} is NaN or infinite for these inputs", target=target)
    model.replacement = None
    assert_works(model)


@each("target", [0, None])
@each(
    ("replacement", "row_count"),
    [
        (lambda self, x: self.net(x).sum(0, keepdim=True), 1),
        (lambda self, x: self.net(x)[:1], 1),
        (lambda self, x: self.net(x).repeat(2, 1), 4),
        (lambda self, x: self.net(x).flatten(), 8),
    ],
)
def test_a_wrong_number_of_rows_is_refused(replacement, row_count, target):
    model = Broken()
    model.replacement = replacement
    pattern = rf"model: it returned {row_count} rows of scores for 2 inputs.*must return scores for each row"
    assert_fails(model, X, ValueError, pattern, target=target)
    model.replacement = None
    assert_works(model)


class Raising(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, x):
        raise self.error


@each(
    "error",
    [RuntimeError("boom"), AssertionError("boom"), KeyError("boom"), TypeError("boom"), NotImplementedError("boom")],
)
def test_a_layer_that_raises_is_named(error):
    model = nn.Sequential(conv_net(), nn.Sequential(nn.Identity(), nn.ModuleDict({"inner": Raising(error)})["inner"]))
    raised = assert_fails(
        model, X, ValueError, rf"model: it raised {type(error).__name__} in layer '1\.1' \(Raising\).*boom"
    )
    assert raised.__cause__ is error
    model[1][1] = nn.Identity()
    assert_works(model)


def test_an_error_in_the_models_own_forward_is_reported_as_such():
    model = Broken()
    model.replacement = lambda self, x: x.reshape(7, 11)
    assert_fails(
        model, X, ValueError, r"model: it raised RuntimeError in its forward for an input of shape \(2, 3, 8, 8\)"
    )


def test_out_of_memory_is_not_reported_as_an_error_of_the_model():
    error = torch.OutOfMemoryError("no more")
    model = nn.Sequential(conv_net(), Raising(error))
    with pytest.raises(torch.OutOfMemoryError, match="no more"):
        sw.attribute(model, X, method="gradient", target=0)


def test_a_model_made_in_inference_mode_is_refused_and_unchanged():
    with torch.inference_mode():
        model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    statistics = model[1].running_mean.clone()
    with pytest.raises(ValueError, match=r"model: its weights were created under torch.inference_mode"):
        sw.attribute(model, rows(0, 3, 4).float(), method="gradient", target=0)
    assert torch.equal(model[1].running_mean, statistics)


@each("which", ["all", "a weight", "a buffer"])
@each("device", [None, "cpu", "meta"])
def test_a_model_on_the_meta_device_is_refused(which, device):
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    if which == "all":
        model = model.to("meta")
    elif which == "a weight":
        model[2] = model[2].to("meta")
    else:
        model[1].running_mean = model[1].running_mean.to("meta")
    for call in (sw.attribute, sw.checkup):
        with pytest.raises(ValueError, match=r"model: some weights are on the meta device and have no values\. Load"):
            call(model, torch.zeros(1, 4), device=device)


# ---- unusual but valid calls


def test_a_model_may_normalize_its_input_in_place():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = conv_net()

        def forward(self, x):
            x -= 0.5
            x.div_(0.25)
            return self.net(x)

    class Twin(InPlace):
        def forward(self, x):
            return self.net((x - 0.5) / 0.25)

    x = X.clone()
    for method in sw.methods():
        result, expected = (sw.attribute(model(), x, method=method) for model in (InPlace, Twin))
        assert torch.equal(result.values, expected.values), method
        assert result.settings == expected.settings
    assert torch.equal(x, X)


@each("requires_grad", [False, True])
@each("contiguous", [False, True])
def test_inputs_are_not_modified(requires_grad, contiguous):
    x = X.clone() if contiguous else X.transpose(2, 3).contiguous().transpose(2, 3)
    x.requires_grad_(requires_grad)
    result = sw.attribute(conv_net(), x, method="integrated_gradients", target=0)
    assert x.grad is None
    assert x.requires_grad == requires_grad
    assert torch.equal(x, X)
    assert not result.values.requires_grad
    assert torch.equal(result.values, sw.attribute(conv_net(), X, method="integrated_gradients", target=0).values)


def test_an_input_that_is_part_of_an_autograd_graph_stays_part_of_it():
    leaf = X.clone().requires_grad_()
    sw.attribute(conv_net(), leaf * 2, method="gradient", target=0)
    (leaf * 2).sum().backward()
    assert torch.equal(leaf.grad, torch.full_like(X, 2))


@each("dtype", [torch.int64, torch.int16, torch.float16, torch.bfloat16, torch.bool])
def test_inputs_of_another_type_are_converted_to_the_models(dtype):
    x = (rows(1, 2, 4) * 3).to(dtype)
    result = sw.attribute(mlp(), x, method="gradient", target=0)
    assert result.values.dtype == torch.float64
    assert torch.equal(result.values, sw.attribute(mlp(), x.double(), method="gradient", target=0).values)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_models_in_half_precision_give_finite_values(dtype):
    model = conv_net().to(dtype)
    for method in sw.methods():
        result = sw.attribute(model, X, method=method, target=0)
        assert result.values.dtype == dtype
        assert bool(torch.isfinite(result.values).all())


@pytest.mark.parametrize("ambient", [contextlib.nullcontext, torch.no_grad, torch.inference_mode])
def test_the_result_can_be_used_in_autograd_whatever_the_grad_mode_of_the_call(ambient):
    model = conv_net()
    with ambient():
        result = sw.attribute(model, X, method="integrated_gradients", target=0)
    factor = torch.ones((), dtype=torch.float64, requires_grad=True)
    (result.values * factor).sum().backward()
    assert factor.grad is not None


# ---- unbounded arguments


def self_containing_list():
    itself = []
    itself.append(itself)
    return itself


@each(
    ("argument", "value", "pattern"),
    [
        (
            "inputs",
            self_containing_list(),
            r"inputs: they are nested more than 32 levels deep, or contain themselves\. Pass",
        ),
        ("inputs", range(10**9), r"inputs: expected"),
        ("target", range(10**9), r"target: expected one class for each of the 2 inputs, got 1000000000"),
        ("class_names", range(10**9), r"class_names: expected at most 1000000 items, got range"),
        ("feature_names", range(10**30), r"feature_names: expected at most 1000000 items, got range"),
    ],
    ids=str,
)
def test_unbounded_arguments_are_refused_without_iterating_over_them(argument, value, pattern):
    settings = {"inputs": X, "method": "gradient", "target": 0, argument: value}
    with pytest.raises((TypeError, ValueError), match=pattern):
        sw.attribute(conv_net(), **settings)


def test_complex_rows_and_labels_are_refused():
    table, complex_ = rows(0, 6, 4), torch.zeros(6, dtype=torch.complex64)
    with pytest.raises(TypeError, match=r"inputs: .* holds complex numbers"):
        sw.attribute(mlp(), complex_.new_zeros(4), background=table.numpy(), method="gradient", target=0)
    with pytest.raises(TypeError, match=r"labels: expected classes or numbers, got complex numbers"):
        sw.importance(mlp(), table.numpy(), complex_, method="gradient", target=0, progress=False)


def test_captums_flags_and_tuples_are_checked():
    with pytest.raises(TypeError, match=r"abs: expected True or False, got 'x'"):
        sw.from_captum(Saliency(conv_net()), abs="x")
    model = conv_net()
    method = sw.from_captum(Occlusion(model), sliding_window_shapes=(3, 2, 2), baselines=(0, 1))
    with pytest.raises(ValueError, match=r"baselines: a tuple must have one item for each explained input, 1 here"):
        sw.attribute(model, X, method=method, target=0)


def test_a_sweep_refuses_an_invalid_fill_even_if_no_metric_uses_it():
    with pytest.raises((TypeError, ValueError), match=r"fill|baseline"):
        sw.sweep(conv_net(), X[:1], "smoothgrad", {"n_samples": [1, 2]}, ["similarity"], fill={1}, progress=False)
