"""Captum's methods through the bridge: the same numbers as captum's, and no change of the caller's objects."""

import copy
import sys
import threading
import warnings

import captum.attr as ca
import numpy as np
import pytest
import torch
from captum.attr._utils.lrp_rules import GammaRule
from torch import nn
from torch.nn import functional as F
from toys import Shared, conv_net, each, estimates, far, images, linear, rows, runner, state_of

import saliency_widgets as sw
from saliency_widgets.attribution import get_method
from saliency_widgets.attribution.baselines import BASELINE
from saliency_widgets.attribution.errors import Cancelled
from saliency_widgets.attribution.numerics.noise import SEED
from saliency_widgets.attribution.query import CHUNK_SIZE
from saliency_widgets.bridges.captum import WINDOW, from_captum
from saliency_widgets.runtime.model.rng import SeededRandom

X = images()
TARGETS = [1, 3]
MASK = torch.arange(16).view(4, 4).repeat_interleave(2, 0).repeat_interleave(2, 1)[None, None]
BOTH = torch.stack([images(5)[0], images(6)[0], images(7)[0]])
CLOSE = 1e-12


@pytest.fixture
def model():
    return conv_net()


def of_sample(value, sample, batch):
    """Return one sample's row of a tensor with a row for each of several samples, and any other value unchanged."""
    return value[sample : sample + 1] if isinstance(value, torch.Tensor) and len(value) == batch > 1 else value


def directly(make, model, x=X, targets=TARGETS, *, seed=0, **arguments):
    """Return the values of captum itself, computed sample by sample on a copy of the model."""
    model, result = copy.deepcopy(model), []
    state = np.random.get_state()  # noqa: NPY002
    for b, target in enumerate(targets):
        np.random.seed(seed)  # noqa: NPY002
        with warnings.catch_warnings(), SeededRandom(seed):
            warnings.simplefilter("ignore")
            local = {name: of_sample(value, b, len(x)) for name, value in arguments.items()}
            requested = {} if target is None else {"target": target}
            result.append(make(model).attribute(x[b : b + 1].clone(), **requested, **local).detach())
    np.random.set_state(state)  # noqa: NPY002
    return torch.cat(result)


def states(model):
    """Return the state of the model and of NumPy's global generator."""
    return state_of(model), np.random.get_state()[1].tolist()  # noqa: NPY002


METHODS = {
    "Saliency": (ca.Saliency, {"abs": False}),
    "InputXGradient": (ca.InputXGradient, {}),
    "IntegratedGradients": (ca.IntegratedGradients, {"n_steps": 7, "baselines": X.flip(0) / 2}),
    "DeepLift": (ca.DeepLift, {"baselines": X[:1] / 3}),
    "DeepLiftShap": (ca.DeepLiftShap, {"baselines": BOTH}),
    "GuidedBackprop": (ca.GuidedBackprop, {}),
    "Deconvolution": (ca.Deconvolution, {}),
    "Occlusion": (ca.Occlusion, {"sliding_window_shapes": (3, 4, 4), "strides": (3, 2, 2)}),
    "FeatureAblation": (ca.FeatureAblation, {"feature_mask": MASK}),
    "ShapleyValueSampling": (ca.ShapleyValueSampling, {"feature_mask": MASK, "n_samples": 3}),
    "GradientShap": (ca.GradientShap, {"baselines": BOTH, "n_samples": 4, "stdevs": 0.1}),
    "NoiseTunnel": (
        lambda m: ca.NoiseTunnel(ca.IntegratedGradients(m)),
        {"nt_samples": 3, "stdevs": 0.2, "n_steps": 4, "nt_type": "smoothgrad_sq"},
    ),
    "GuidedGradCam": (lambda m: ca.GuidedGradCam(m, m[2]), {"interpolate_mode": "bilinear"}),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", METHODS)
def test_values_equal_captums_for_each_sample_and_its_target(model, name):
    make, arguments = METHODS[name]
    expected = directly(make, model, seed=0, **arguments)
    before = states(model)
    result = sw.attribute(model, X, method=from_captum(make(model), **arguments), target=TARGETS)
    assert states(model) == before
    assert far(result.values, expected) < CLOSE
    assert float(expected.abs().min(0).values.max()) > 0
    assert result.layer is None


@pytest.mark.parametrize("kind", [ca.Lime, ca.KernelShap])
def test_values_of_lime_and_kernel_shap_equal_captums(model, kind):
    with torch.no_grad():
        model[-1].weight.mul_(100)  # Lime's Lasso makes small values zeros
    arguments = {"feature_mask": MASK, "n_samples": 40}
    expected = directly(kind, model, seed=0, **arguments)
    result = sw.attribute(model, X, method=from_captum(kind(model), **arguments), target=TARGETS)
    assert far(result.values, expected) < CLOSE
    assert float(expected.abs().max()) > 0


LAYERS = {
    "LayerGradCam": {},
    "LayerActivation": {},
    "LayerGradientXActivation": {},
    "LayerDeepLift": {"baselines": X[:1] / 3},
    "InternalInfluence": {"n_steps": 5},
    "LayerIntegratedGradients": {"n_steps": 6},
}


@pytest.mark.parametrize("name", LAYERS)
def test_values_at_a_layer_equal_captums_summed_over_channels(model, name):
    arguments, kind = LAYERS[name], getattr(ca, name)
    targets = [None, None] if name == "LayerActivation" else TARGETS
    expected = directly(lambda m: kind(m, m[2]), model, targets=targets, **arguments).sum(1, keepdim=True)
    before = state_of(model)
    result = sw.attribute(model, X, method=from_captum(kind(model, model[2]), **arguments), target=TARGETS)
    assert state_of(model) == before
    assert far(result.values, expected) < CLOSE
    assert result.values.shape == (2, 1, 4, 4)
    assert result.layer == "2"


def test_values_of_a_neuron_equal_captums(model):
    copied = copy.deepcopy(model)
    with pytest.warns(UserWarning, match="did not already require gradients"):
        expected = ca.NeuronGradient(copied, copied[0]).attribute(X.clone(), neuron_selector=(2, 1, 1))
    result = sw.attribute(model, X, method=from_captum(ca.NeuronGradient(model, model[0]), neuron_selector=(2, 1, 1)))
    assert far(result.values, expected) < CLOSE


# ---- scores, targets and several inputs


def scored(scale, contrast=None):
    """Return a wrapper for models whose outputs are the explained scores."""

    class Scaled(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            value = scale(self.model(x))
            return value if contrast is None else value - value[:, [contrast]]

    return Scaled


@pytest.mark.parametrize("name", ["DeepLift", "Saliency", "FeatureAblation"])
@pytest.mark.parametrize(
    ("options", "scale"),
    [
        ({"score": "probability"}, scored(lambda out: F.softmax(out, 1))),
        ({"score": "log_probability"}, scored(lambda out: F.log_softmax(out, 1))),
        ({"contrast": 2}, scored(lambda out: out, contrast=2)),
    ],
)
def test_scores_and_contrasts_are_applied_before_captum(model, name, options, scale):
    make, arguments = METHODS[name]
    expected = directly(make, scale(model), **arguments)
    result = sw.attribute(model, X, method=from_captum(make(model), **arguments), target=TARGETS, **options)
    assert far(result.values, expected) < CLOSE


def test_a_function_as_target(model):
    expected = directly(ca.InputXGradient, scored(lambda out: out**2)(model), targets=[1, 1])
    result = sw.attribute(model, X, method="captum.InputXGradient", target=lambda out: out[:, 1] ** 2)
    assert far(result.values, expected) < CLOSE


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.image, self.row = conv_net(1), linear(torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64))

    def forward(self, image, row):
        return {"logits": self.image(image) * self.row(row)}


def test_several_inputs_and_a_dict_as_output():
    """The values of each input equal captum's for a tuple; scores are read from a dict, which captum can't do."""
    model, row = TwoInputs(), rows(3, 2, 3)

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = copy.deepcopy(model)

        def forward(self, image, row):
            return self.inner(image, row)["logits"]

    result = sw.attribute(
        model, (X, row), method="captum.IntegratedGradients", target=TARGETS, baseline="zero", n_steps=5
    )
    for b, target in enumerate(TARGETS):
        expected = ca.IntegratedGradients(Plain()).attribute((X[b : b + 1], row[b : b + 1]), target=target, n_steps=5)
        for name, one in zip(result.parts, expected, strict=True):
            assert far(result.part(name).values[b : b + 1], one) < CLOSE
    explained = sw.attribute(model, (X, row), method="captum.Saliency", target=TARGETS, explain="row")
    leaf = row.clone().requires_grad_()
    (expected,) = torch.autograd.grad(model(X, leaf)["logits"].gather(1, torch.tensor(TARGETS)[:, None]).sum(), leaf)
    assert far(explained.values, expected.abs()) < CLOSE


# ---- by name, by object, with parameters


@pytest.mark.parametrize("name", ["DeepLift", "IntegratedGradients", "Saliency", "Occlusion", "GradientShap"])
def test_a_name_and_an_object_give_the_same_values(model, name):
    by_name = sw.attribute(model, X, method=f"captum.{name}", target=TARGETS)
    by_object = sw.attribute(model, X, method=getattr(ca, name)(model), target=TARGETS)
    assert torch.equal(by_name.values, by_object.values)
    assert by_name.values.shape == X.shape
    assert by_name.method == f"captum.{name}"


def test_one_baseline_is_enough_for_methods_that_draw_from_several(model):
    result = sw.attribute(model, X, method="captum.DeepLiftShap", target=TARGETS, baseline="mean")
    expected = sw.attribute(model, X, method="captum.DeepLift", target=TARGETS, baseline="mean")
    assert far(result.values, expected.values) < CLOSE


def test_baselines_to_draw_from_are_not_split_by_sample(model):
    """With two samples and two baselines, each sample is compared with both."""
    result = sw.attribute(model, X, method=from_captum(ca.DeepLiftShap(model), baselines=BOTH[:2]), target=TARGETS)
    one, other = (
        sw.attribute(model, X, method="captum.DeepLift", target=TARGETS, baseline=b[None]).values for b in BOTH[:2]
    )
    assert far(result.values, (one + other) / 2) < CLOSE


@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, torch.compile, lambda m: m.forward], ids=["parallel", "compiled", "forward"]
)
def test_an_object_may_be_created_for_the_wrapped_model(model, wrap):
    wrapped = wrap(model)
    explained = wrapped if isinstance(wrapped, nn.Module) else model
    result = sw.attribute(explained, X, method=ca.InputXGradient(wrapped), target=TARGETS)
    assert far(result.values, directly(ca.InputXGradient, model)) < CLOSE


@pytest.mark.parametrize("layer", [None, "0"])
def test_the_layer_is_a_parameter_and_by_default_the_last_spatial_one(model, layer):
    result = sw.attribute(model, X, method="captum.LayerGradCam", target=TARGETS, layer=layer)
    assert result.layer == (layer or sw.attribute(model, X, method="grad_cam").layer)
    expected = sw.attribute(model, X, method="grad_cam", layer=result.layer, target=TARGETS)
    assert far(result.values, expected.values) < CLOSE
    assert result.default_sign == "positive"


def test_the_window_of_occlusion_is_a_share_of_each_side(model):
    expected = directly(ca.Occlusion, model, sliding_window_shapes=(3, 4, 4), strides=(3, 2, 2))
    result = sw.attribute(model, X, method="captum.Occlusion", target=TARGETS, window=0.5)
    assert far(result.values, expected) < CLOSE
    row = rows(0, 2, 5)
    result = sw.attribute(linear(torch.arange(5.0).double()), row, method="captum.Occlusion", window=0.2, score="value")
    assert far(result.values, torch.arange(5) * row) < 1e-6  # captum divides by counts in float32


def test_captums_numbers_and_baselines_are_parameters(model):
    sliders = {p.name: p for p in get_method("captum.IntegratedGradients").params}
    assert list(sliders) == ["baseline", "n_steps", "seed", "chunk_size"]
    assert sliders["baseline"] is BASELINE
    assert sliders["seed"] is SEED
    assert sliders["chunk_size"] is CHUNK_SIZE
    steps = sliders["n_steps"]
    assert (steps.kind, steps.low, steps.default, steps.high) == ("int", 1, 50, 500)
    noise = {p.name: p for p in from_captum(ca.NoiseTunnel(ca.IntegratedGradients(model))).params}
    assert list(noise) == ["baseline", "nt_samples", "stdevs", "n_steps", "seed", "chunk_size"]
    assert (noise["stdevs"].kind, noise["stdevs"].low, noise["stdevs"].high) == ("float", 0, 4.0)
    assert (noise["nt_samples"].low, noise["nt_samples"].high) == (1, 50)
    fixed = from_captum(ca.IntegratedGradients(model), n_steps=9, baselines=0, title="IG")
    assert [p.name for p in fixed.params] == ["chunk_size"]
    assert fixed.title == "IG"
    assert get_method("captum.Saliency").params == ()
    assert get_method("captum.Occlusion").params == (BASELINE, WINDOW, SEED, CHUNK_SIZE)
    assert get_method("captum.LayerGradCam").params[0].kind == "layer"
    for entry in (fixed, get_method("captum.GradientShap"), get_method("captum.ShapleyValueSampling")):
        assert entry.check_params({}) == {p.name: p.default for p in entry.params}
        assert {p: hash(p) for p in entry.params}


def test_parameters_reach_captum(model):
    def make(m):
        return ca.NoiseTunnel(ca.IntegratedGradients(m))

    requested = {"nt_samples": 2, "stdevs": 0.3, "n_steps": 3}
    result = sw.attribute(model, X, method=make(model), target=TARGETS, baseline="mean", seed=4, **requested)
    for b, one in enumerate(X):
        mean = one.mean((1, 2), keepdim=True).expand(1, 3, 8, 8)
        expected = directly(make, model, one[None], TARGETS[b : b + 1], seed=4, baselines=mean, **requested)
        assert far(result.values[b : b + 1], expected) < CLOSE


def test_chunk_size_changes_only_the_size_of_the_passes(model):
    sizes = Shared()
    model.register_forward_hook(lambda _m, inputs, _o: sizes.append(len(inputs[0])))
    result = {}
    for chunk in (1, 5):
        sizes.clear()
        result[chunk] = sw.attribute(model, X, method="captum.FeatureAblation", target=TARGETS, chunk_size=chunk)
        assert max(sizes[1:]) == chunk  # the first pass resolves the target
    sizes.clear()
    sw.attribute(model, X, method=from_captum(ca.FeatureAblation(model), perturbations_per_eval=3), target=TARGETS)
    assert max(sizes[1:]) == 3
    assert far(result[1].values, result[5].values) < CLOSE


@pytest.mark.parametrize("name", ["captum.ShapleyValueSampling", "captum.GradientShap"])
def test_the_seed_determines_the_values(model, name):
    draws = {"stdevs": 0.1} if name.endswith("GradientShap") else {"n_samples": 2}
    first, again, other = (
        sw.attribute(model, X, method=name, target=0, seed=seed, **draws).values for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_delta_is_the_error_of_the_sum(model):
    baseline = images(9)
    for name, few in {"IntegratedGradients": {"n_steps": 2}, "DeepLift": {}}.items():
        result = sw.attribute(model, X, method=f"captum.{name}", target=TARGETS, baseline=baseline, **few)
        change = (model(X) - model(baseline)).gather(1, torch.tensor(TARGETS)[:, None])[:, 0]
        assert torch.allclose(result.delta, result.values.flatten(1).sum(1) - change, rtol=0, atol=1e-12)
    assert float(sw.attribute(model, X, method="captum.IntegratedGradients", n_steps=2).delta.abs().max()) > 1e-6
    assert (
        sw.attribute(model, X, method="captum.GradientShap", n_samples=1).delta is None
    )  # of a noisy copy of the input
    assert sw.attribute(model, X, method="captum.Saliency").delta is None


def test_evaluations_count_the_models_rows_per_sample(model):
    assert sw.attribute(model, X, method="captum.Saliency").evaluations == 1
    result = sw.attribute(model, X, method=from_captum(ca.FeatureAblation(model), feature_mask=MASK))
    assert result.evaluations == 17
    tunnel = from_captum(ca.NoiseTunnel(ca.Saliency(model)), nt_samples=6)
    assert sw.attribute(model, X, method=tunnel).evaluations == 6


# ---- side effects


class Trained(nn.Module):
    """BatchNorm, dropout, and layers that LRP has rules for."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.conv, self.norm, self.relu = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()
        self.pool, self.drop, self.out = nn.AdaptiveAvgPool2d(2), nn.Dropout(0.3), nn.Linear(16, 4)

    def forward(self, x):
        return self.out(self.drop(self.pool(self.relu(self.norm(self.conv(x)))).reshape(len(x), -1)))


@pytest.mark.filterwarnings("error")
@each("training", [True, False])
@each(
    "make",
    [
        ca.Saliency,
        ca.IntegratedGradients,
        ca.DeepLift,
        ca.LRP,
        ca.GuidedBackprop,
        ca.GradientShap,
        ca.ShapleyValueSampling,
        lambda m: ca.LayerGradCam(m, m.conv),
        lambda m: ca.LayerLRP(m, m.conv),
        lambda m: ca.NoiseTunnel(ca.GuidedGradCam(m, m.norm)),
    ],
)
def test_the_model_and_the_random_states_are_unchanged(make, training):
    model = Trained().double().train(training)
    model.conv.rule = GammaRule()
    model.relu.register_forward_hook(lambda _m, _i, _o: None)
    model.norm.register_full_backward_hook(lambda _m, _i, _o: None)
    model.out.bias.requires_grad_(False)
    x, y = X.clone(), X.clone()
    attribution = make(model)
    local = vars(model.conv.rule).copy()
    torch.manual_seed(11)
    np.random.seed(11)  # noqa: NPY002
    before = states(model)
    few = {"n_samples": 2, "feature_mask": MASK} if make is ca.ShapleyValueSampling else {}
    first, again = (sw.attribute(model, x, method=from_captum(attribution, **few), target=TARGETS) for _ in range(2))
    assert states(model) == before
    assert torch.equal(x, y)
    assert not x.requires_grad
    assert vars(model.conv.rule) == local
    assert torch.equal(first.values, again.values)


def test_numpys_random_state_is_restored_on_a_worker_too(model):
    worker = threading.Thread(target=sw.attribute, args=(model, X), kwargs={"method": "captum.GradientShap"})
    np.random.seed(11)  # noqa: NPY002
    before = states(model)
    worker.start()
    worker.join()
    assert states(model) == before


def test_lrp_with_a_rule_that_changes_weights_equals_captums():
    model = Trained().double().eval()
    model.conv.rule = GammaRule()

    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = copy.deepcopy(model)

        def forward(self, x):
            return self.model(x)

    expected = torch.cat([ca.LRP(Flat()).attribute(X[b : b + 1], target=t).detach() for b, t in enumerate(TARGETS)])
    result = sw.attribute(model, X, method=ca.LRP(model), target=TARGETS)
    assert far(result.values, expected) < CLOSE
    del model.conv.rule
    plain = sw.attribute(model, X, method=ca.LRP(model), target=TARGETS)
    assert far(plain.values, expected) > 0.01


@pytest.mark.parametrize("kind", [ca.DeepLift, ca.GuidedBackprop, ca.LRP])
def test_an_object_may_have_been_used_before(kind):
    model = Trained().double().eval()
    attribution = kind(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = attribution.attribute(X[:1].clone(), target=1).detach()
    before = state_of(model)
    assert far(sw.attribute(model, X[:1], method=attribution, target=1).values, expected) < CLOSE
    assert state_of(model) == before


def test_tied_weights_stay_tied():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(4, 4, bias=False).double()
            self.second = nn.Linear(4, 4, bias=False).double()
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(self.first(x).relu())

    model = Tied()
    seen = {}

    class Spy:
        def __init__(self, model):
            self.forward_func = model

        def attribute(self, inputs):
            inner = self.forward_func.model
            seen["tied"] = inner.first.weight is inner.second.weight
            seen["copied"] = inner.first.weight is not model.first.weight
            with torch.no_grad():
                inner.first.weight.zero_()
            return inputs * 2

    before = state_of(model)
    assert torch.equal(sw.attribute(model, rows(), method=Spy(model), target=0).values, 2 * rows())
    assert seen == {"tied": True, "copied": True}
    assert state_of(model) == before


class Duck:
    """Has the interface of a captum object."""

    def __init__(self, model, answer):
        self.forward_func, self.answer = model, answer

    def attribute(self, inputs):
        return self.answer(inputs)


def test_a_method_that_changes_its_inputs_gets_copies(model):
    requested, before = runner(model, X.clone()), X.clone()
    list(get_method(Duck(model, lambda inputs: inputs.zero_())).run(requested))
    assert torch.equal(requested.inputs, before)


def test_cancellation_stops_at_the_next_pass(model):
    left = 3

    def check():
        nonlocal left
        left -= 1
        if left < 0:
            raise Cancelled

    before = states(model)
    with pytest.raises(Cancelled):
        list(estimates(model, X, "captum.ShapleyValueSampling", check=check))
    assert left >= -2  # leaving torch.no_grad after the error calls a function that is checked, too
    assert states(model) == before


# ---- errors


def test_without_captum_the_message_says_how_to_get_it(model, monkeypatch):
    attribution = ca.Saliency(model)
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ImportError, match=r"pip install 'saliency-widgets\[captum\]'"):
        get_method("captum.DeepLift")
    assert get_method(attribution).name == "captum.Saliency"
    assert get_method("gradient").name == "gradient"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda m: "captum.DeepLft", ValueError, "'captum.DeepLft' is not known. Did you mean 'captum.DeepLift'"),
        (lambda m: "captum.NoiseTunnel", ValueError, "also needs attribution_method. Create the object"),
        (lambda m: "captum.NeuronGradient", ValueError, "NeuronGradient needs neuron_selector"),
        (lambda m: ca.DeepLift, TypeError, "expected a Captum object"),
        (lambda m: ca.DeepLift(copy.deepcopy(m)), ValueError, "DeepLift was created for another model"),
        (lambda m: ca.NoiseTunnel(ca.Saliency(copy.deepcopy(m))), ValueError, "created for another model"),
        (lambda m: ca.Saliency(lambda x: m(x)), ValueError, "another model or a function"),
        (
            lambda m: ca.LayerGradCam(m, copy.deepcopy(m)[2]),
            ValueError,
            "the layer that this LayerGradCam was created for",
        ),
        (
            lambda m: from_captum(ca.Saliency(m), absolute=False),
            TypeError,
            "'absolute' is not known. Did you mean 'abs'",
        ),
        (lambda m: from_captum(ca.Saliency(m), target=1), TypeError, "argument of Saliency: 'target' is not known"),
        (lambda m: Duck(m, lambda x: x / 0), ValueError, "Captum's Duck returned NaN or infinite values"),
        (
            lambda m: Duck(m, lambda x: x[:, :1]),
            ValueError,
            r"returned values of shape \(1, 1, 8, 8\), not the inputs' shape",
        ),
        (lambda m: ca.LRP(m), ValueError, "Captum's LRP raised TypeError: Module of type .*Flatten"),
        (
            lambda m: from_captum(ca.Occlusion(m), sliding_window_shapes=(99,)),
            ValueError,
            "Captum's Occlusion raised AssertionError",
        ),
    ],
)
def test_errors_say_what_to_do(model, make, error, message):
    before = state_of(model)
    with pytest.raises(error, match=message):
        sw.attribute(model, X, method=make(model), target=1)
    assert state_of(model) == before


class ChannelsLast(nn.Module):
    """Its only layer returns (N, height, width, channels)."""

    def __init__(self):
        super().__init__()
        self.lift = nn.Linear(3, 5).double()

    def forward(self, x):
        return self.lift(x.movedim(1, -1)).square().mean((1, 2))


def test_a_layer_that_captum_reads_wrongly_is_refused():
    """Captum's Grad-CAM takes the rows of such a layer for channels."""
    model = ChannelsLast()
    with pytest.raises(ValueError, match=r"returned values of shape \(2, 1, 8, 5\) at 'lift'.*Use 'grad_cam'"):
        sw.attribute(model, X, method="captum.LayerGradCam", target=1)
    assert sw.attribute(model, X, method="grad_cam", target=1).values.shape == (2, 1, 8, 8)


def test_a_convolution_that_is_not_a_module_is_refused():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2, 3, 3, 3, dtype=torch.float64))

        def forward(self, x):
            return F.conv2d(x, self.weight).mean((2, 3))

    with pytest.raises(ValueError, match="layer: 'conv2d #1' is not a module, which Captum requires"):
        sw.attribute(Bare(), X, method="captum.LayerGradCam", target=1)


def test_an_exception_of_the_model_is_reported_without_captum(model):
    model[4] = nn.AdaptiveAvgPool2d(3)
    with pytest.raises(ValueError, match="model: it raised RuntimeError in layer '6'") as caught:
        sw.attribute(model, X, method="captum.Saliency", target=lambda out: out[:, 0])
    assert "captum" not in str(caught.value)


def test_out_of_memory_errors_are_passed_on(model):
    class Full(nn.Module):
        def forward(self, x):
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        sw.attribute(Full(), X, method="captum.Saliency", target=lambda out: out[:, 0])


@pytest.mark.parametrize("method", ["captum.Occlusion", "captum.GuidedGradCam"])
def test_methods_by_name_on_the_pretrained_model(pretrained64, cat, method):
    more = {"window": 0.5} if method.endswith("Occlusion") else {}
    result = sw.attribute(pretrained64, cat, method=method, target=285, **more)
    assert result.values.shape == cat.shape
    assert float(result.values.abs().max()) > 0
