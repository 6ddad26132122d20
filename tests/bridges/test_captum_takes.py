"""The bridge accepts what captum accepts and gives the same numbers: layers, integers, masks and several inputs."""

import copy
import dataclasses
import re
import warnings
from functools import partial

import captum.attr as ca
import numpy as np
import pytest
import torch
from captum._utils.models.linear_model import SkLearnLinearRegression
from torch import nn
from toys import Formula, each, far, linear, rows, state_of

import saliency_widgets as sw
from saliency_widgets.bridges.captum import from_captum
from saliency_widgets.runtime.model.rng import SeededRandom

X, Y = rows(1, 2, 4), rows(2, 2, 4)
IDS, POSITIONS = torch.tensor([[3, 1, 4], [1, 5, 9]]), torch.tensor([[0, 1, 2], [2, 3, 4]])
FLAGS = torch.tensor([[True, False, True], [True, True, True]])
TARGETS = [1, 2]
BACKGROUND = rows(3, 3, 4)


class Halves(nn.Module):
    """A layer that returns two tensors."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 8).double()

    def forward(self, x):
        return self.inner(x).chunk(2, 1)


class Rows(nn.Module):
    """Takes one input or two."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.act, self.halves = nn.Linear(4, 4).double(), nn.Tanh(), Halves()
        self.last = nn.Linear(4, 3).double()

    def forward(self, a, b=None):
        left, right = self.halves(self.act(self.first(a if b is None else a + 2 * b)))
        return self.last(left * right)


class Tokens(nn.Module):
    """Takes indices of tokens and, optionally, of their positions: only integers."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.positions = nn.Embedding(10, 4).double(), nn.Embedding(9, 4).double()
        self.last = nn.Linear(4, 3).double()

    def forward(self, ids, positions=None):
        result = self.words(ids) if positions is None else self.words(ids) + self.positions(positions)
        return self.last(torch.tanh(result).sum(1))


class Flags(nn.Module):
    """Takes only booleans."""

    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, flags):
        assert flags.dtype is torch.bool
        a, b, c = flags.double().unbind(1)
        return self.one * torch.stack([a + b + c, 2 * a * b, a * c - b], 1)


class Mixed(Tokens):
    """Takes three inputs of different types."""

    def forward(self, x, ids, flags):
        assert (x.dtype, ids.dtype, flags.dtype) == (torch.float64, torch.int64, torch.bool)
        return self.last(torch.tanh(self.words(ids)).sum(1) * x * flags.double().sum(1, keepdim=True))


def flat(result):
    tensors = [result] if isinstance(result, torch.Tensor) else [flat(item) for item in result]
    return torch.cat([tensor.reshape(len(tensor), -1) for tensor in tensors], 1).detach()


def directly(make, model, inputs, targets, arguments):
    """Return the values of captum itself, computed sample by sample, with all tensors flattened and concatenated."""
    model, result = copy.deepcopy(model), []

    def local(value, k):
        if isinstance(value, tuple):
            return tuple(local(item, k) for item in value)
        return value[k : k + 1] if isinstance(value, torch.Tensor) and value.ndim and len(value) == 2 else value

    state = np.random.get_state()  # noqa: NPY002
    for k, target in enumerate(targets):
        np.random.seed(0)  # noqa: NPY002
        with warnings.catch_warnings(), SeededRandom(0):
            warnings.simplefilter("ignore")
            of_sample = {name: local(value, k) for name, value in arguments.items()}
            about = {} if target is None else {"target": target}
            pieces = tuple(x[k : k + 1].clone() for x in inputs)
            result.append(flat(make(model).attribute(pieces if len(pieces) > 1 else pieces[0], **about, **of_sample)))
    np.random.set_state(state)  # noqa: NPY002
    return torch.cat(result)


def check(make, model, inputs, *, targets=TARGETS, explain=None, **arguments):
    """Assert that the bridge's values equal captum's, and return the bridge's result."""
    expected = directly(make, model, inputs, targets, arguments)
    before = state_of(model), [x.clone() for x in inputs]
    result = sw.attribute(
        model, inputs if len(inputs) > 1 else inputs[0], method=from_captum(make(model), **arguments),
        target=TARGETS, explain=explain,
    )  # fmt: skip
    assert state_of(model) == before[0]
    assert all(map(torch.equal, inputs, before[1]))
    values = result.values.reshape(len(expected), -1)
    assert values.dtype == expected.dtype
    assert torch.allclose(values, expected, rtol=1e-10, atol=1e-14)
    assert float(expected.abs().max()) > 0
    return result


def of_layer(kind, *names):
    """Return a function that creates a captum object for layers of a model."""

    def make(model):
        layers = [model.get_submodule(name) for name in names]
        return kind(model, layers[0] if len(layers) == 1 else layers)

    return make


# ---- layers without spatial dimensions


LAYERS = {
    "LayerActivation": {},
    "LayerConductance": {"n_steps": 5, "internal_batch_size": 3},
    "InternalInfluence": {"n_steps": 5},
    "LayerIntegratedGradients": {"n_steps": 5},
    "LayerGradientXActivation": {},
    "LayerDeepLift": {},
    "LayerFeatureAblation": {"perturbations_per_eval": 2},
    "LayerGradCam": {},
}


@each("inputs", [(X,), (X, Y)], ids=["one", "two"])
@each("name", LAYERS)
def test_values_at_a_layer_of_rows_equal_captums(name, inputs):
    targets = [None, None] if name == "LayerActivation" else TARGETS
    compare = partial(check, model=Rows(), inputs=inputs, targets=targets, **LAYERS[name])
    kind = getattr(ca, name)
    result = compare(of_layer(kind, "first"))
    assert result.values.shape == ((2, 1) if name == "LayerGradCam" else (2, 4))
    assert result.layer == "first"
    assert compare(of_layer(kind, "last"), attribute_to_layer_input=True).layer == "last"


@each("name", LAYERS)
def test_each_tensor_that_a_layer_returns_is_a_part(name):
    targets = [None, None] if name == "LayerActivation" else TARGETS
    result = check(of_layer(getattr(ca, name), "halves"), Rows(), (X,), targets=targets, **LAYERS[name])
    size = 1 if name == "LayerGradCam" else 4
    assert dict(result.parts) == {"halves[0]": (size,), "halves[1]": (size,)}
    assert torch.equal(result.part("halves[1]").values, result.values[:, size:])


@pytest.mark.parametrize("name", ["LayerActivation", "LayerGradientXActivation"])
def test_each_of_several_layers_is_a_part(name):
    targets = [None, None] if name == "LayerActivation" else TARGETS
    result = check(of_layer(getattr(ca, name), "first", "last"), Rows(), (X, Y), targets=targets)
    assert result.layer == "first, last"
    assert dict(result.parts) == {"first": (4,), "last": (3,)}
    with pytest.raises(ValueError, match="'a' is not known"):
        result.part("a")


@each(
    ("name", "arguments"),
    [
        ("LayerGradientShap", {"baselines": BACKGROUND, "n_samples": 3, "stdevs": 0.1}),
        ("LayerDeepLiftShap", {"baselines": BACKGROUND}),
        ("LayerFeatureAblation", {"layer_mask": torch.tensor([[0, 0, 1, 1]]), "layer_baselines": 0.5}),
        ("LayerFeatureAblation", {"layer_mask": torch.tensor([[0, 1, 1, 1], [0, 0, 0, 1]]), "layer_baselines": Y}),
    ],
    ids=range(4),
)
def test_arguments_of_layers(name, arguments):
    check(of_layer(getattr(ca, name), "first"), Rows(), (X,), **arguments)


@pytest.mark.filterwarnings("ignore:Multiple layers provided")
def test_embeddings_are_layers_with_integers_as_inputs():
    """Integrated Gradients at the embeddings sum to F(x) - F(x')."""
    model, arguments = Tokens(), {"n_steps": 40, "baselines": (torch.zeros_like(IDS), torch.zeros_like(IDS))}
    result = check(of_layer(ca.LayerIntegratedGradients, "words", "positions"), model, (IDS, POSITIONS), **arguments)
    assert result.part("words").values.shape == (2, 3, 4)
    change = (model(IDS, POSITIONS) - model(IDS * 0, IDS * 0)).gather(1, torch.tensor(TARGETS)[:, None])[:, 0]
    assert far(result.values.sum(1), change.detach()) < 1e-6
    by_name = sw.attribute(
        model, IDS, method="captum.LayerIntegratedGradients", layer="words", target=TARGETS, n_steps=40
    )
    assert torch.equal(sw.attribute(model, IDS, **by_name.settings).values, by_name.values)


def test_the_settings_of_an_object_with_a_layer_repeat_its_result():
    model = Rows()
    result = sw.attribute(model, X, method=ca.LayerActivation(model, model.first), target=0)
    assert "layer" not in result.settings
    assert torch.equal(sw.attribute(model, X, **result.settings).values, result.values)
    with pytest.raises(ValueError, match="the values are those of layer 'first'"):
        result.part("a")


class TimeFirst(nn.Module):
    """A model with a layer whose first dimension is time."""

    def __init__(self):
        super().__init__()
        self.step = nn.Linear(2, 3).double()

    def forward(self, x):
        return self.step(x.view(len(x), 2, 2).transpose(0, 1)).sum(0)


def test_values_whose_first_dimension_is_not_the_batch():
    model = TimeFirst()
    method = ca.LayerActivation(model, model.step)
    one = sw.attribute(model, X[:1], method=method, target=0)
    assert torch.equal(one.values, model.step(X[:1].view(1, 2, 2).transpose(0, 1)).detach())
    with pytest.raises(ValueError, match=r"shape \(2, 1, 3\) for one sample at 'step'.*one sample at a time"):
        sw.attribute(model, X, method=method, target=0)


@pytest.mark.parametrize(
    ("layer", "message"),
    [(None, r"one layer, and none was chosen. Pass layer= one of \['first', 'act'"), ("frist", "mean 'first'")],
)
def test_the_layer_is_required_and_its_name_checked(layer, message):
    with pytest.raises(ValueError, match=message):
        sw.attribute(Rows(), X, method="captum.LayerConductance", layer=layer, target=0)
    result = sw.attribute(Rows(), X, method="captum.LayerConductance", layer="first", target=0)
    assert result.settings["layer"] == "first"


NEURONS = {
    "NeuronGradient": {"neuron_selector": 2},
    "NeuronIntegratedGradients": {"neuron_selector": (2,), "n_steps": 5},
    "NeuronConductance": {"neuron_selector": 2, "n_steps": 5},
    "NeuronDeepLift": {"neuron_selector": lambda out: out[:, 1:3].sum(1)},
    "NeuronFeatureAblation": {"neuron_selector": 1, "attribute_to_neuron_input": True},
    "NeuronGuidedBackprop": {"neuron_selector": 0},
}


@each("inputs", [(X,), (X, Y)], ids=["one", "two"])
@each("name", NEURONS)
def test_a_neurons_values_have_the_inputs_shape(name, inputs):
    targets = TARGETS if name == "NeuronConductance" else [None, None]
    result = check(of_layer(getattr(ca, name), "first"), Rows(), inputs, targets=targets, **NEURONS[name])
    assert result.values.shape == (2, 4 * len(inputs))
    assert result.layer is None


# ---- integers and booleans


METHODS = {
    "FeatureAblation": {},
    "ShapleyValueSampling": {"n_samples": 2},
    "Lime": {"n_samples": 20},
    "KernelShap": {"n_samples": 20},
    "Occlusion": {"sliding_window_shapes": (1,)},
}
DISCRETE = {
    "tokens": (Tokens, (IDS,)),
    "int32": (Tokens, (IDS.int(),)),
    "booleans": (Flags, (FLAGS,)),
    "two": (Tokens, (IDS, POSITIONS)),
    "mixed": (Mixed, (X, IDS, FLAGS)),
}


@each("case", DISCRETE)
@each("name", METHODS)
def test_perturbations_of_integers_and_booleans_equal_captums(name, case):
    kind, inputs = DISCRETE[case]
    arguments = dict(METHODS[name])
    if name == "Occlusion" and len(inputs) > 1:
        arguments["sliding_window_shapes"] = ((1,),) * len(inputs)
    explain = list(range(len(inputs))) if len(inputs) > 1 else None
    result = check(getattr(ca, name), kind(), inputs, explain=explain, **arguments)
    assert result.values.shape == (2, sum(x.shape[1] for x in inputs))


def test_feature_ablation_of_a_token_by_hand():
    model = Tokens()
    result = sw.attribute(model, (IDS,), method="captum.FeatureAblation", target=0)
    score = model(IDS)[:, 0]
    for k in range(3):
        without = IDS.clone()
        without[:, k] = 0
        assert far(result.values[:, k], (score - model(without)[:, 0]).detach()) < 1e-14
    for same in (IDS, IDS.numpy(), IDS.tolist(), {"ids": IDS}, (IDS.numpy(),)):
        assert torch.equal(sw.attribute(model, same, method="captum.FeatureAblation", target=0).values, result.values)


def test_rows_of_integers_are_floats_for_a_model_that_takes_floats():
    weights = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    result = sw.attribute(linear(weights), IDS, method="captum.FeatureAblation", score="value")
    assert far(result.values, IDS * weights) < 1e-14


def test_large_integers_are_not_rounded_among_other_inputs():
    big = torch.tensor([[2**40 + 1]])

    class Parity(nn.Module):
        def forward(self, x, n):
            return x.sum(1, keepdim=True) + (n % 2)

    result = sw.attribute(Parity(), (X[:1].float(), big), explain=[0, 1], method="captum.FeatureAblation", target=0)
    assert float(result.part("n").values) == 1


@pytest.mark.parametrize("method", ["gradient", "captum.Saliency", "captum.IntegratedGradients"])
@each(("inputs", "explain"), [(IDS, None), ((IDS,), None), ((IDS,), 0)])
def test_gradients_of_integers_are_refused_with_the_remedy(method, inputs, explain):
    with pytest.raises(ValueError, match=r"(?i)integers .*method='captum\.FeatureAblation'"):
        sw.attribute(Tokens(), inputs, method=method, explain=explain, target=0)


@each("baseline", ["mean", "noise", 0.5 * torch.ones(1, 3), torch.tensor(1.5)])
def test_baselines_that_are_no_integers_are_refused(baseline):
    with pytest.raises(ValueError, match="baseline: "):
        sw.attribute(Tokens(), IDS, method="captum.FeatureAblation", baseline=baseline, target=0)
    stored = torch.tensor([[7.0, 0.0, 7.0]])
    result = sw.attribute(Tokens(), IDS, method="captum.FeatureAblation", baseline=stored, target=0)
    same = sw.attribute(Tokens(), IDS, method="captum.FeatureAblation", baseline=stored.long(), target=0)
    assert torch.equal(result.values, same.values)


# ---- arguments


STACKS = (BACKGROUND, rows(4, 3, 4))
GRADIENTS = {
    "Saliency": {"abs": False},
    "InputXGradient": {},
    "IntegratedGradients": {"n_steps": 5, "method": "riemann_trapezoid", "internal_batch_size": 2, "baselines": (0, Y)},
    "DeepLift": {"baselines": (X[:1] / 3, Y)},
    "DeepLiftShap": {"baselines": STACKS},
    "GradientShap": {"baselines": STACKS, "n_samples": 3, "stdevs": 0.1},
    "GuidedBackprop": {},
    "Deconvolution": {},
}


@each("name", GRADIENTS)
def test_gradients_of_several_inputs_equal_captums(name):
    kind, arguments = getattr(ca, name), GRADIENTS[name]
    check(kind, Rows(), (X, Y), **arguments)
    if not name.endswith("Shap"):  # these have their own numbers of samples and noise levels
        check(lambda m: ca.NoiseTunnel(kind(m)), Rows(), (X, Y), nt_samples=3, stdevs=(0.1, 0.2), **arguments)


@each("name", ["FeatureAblation", "Lime", "ShapleyValueSampling"])
@each(
    "arguments",
    [
        {"feature_mask": torch.tensor(0)},
        {"feature_mask": torch.tensor([[0, 0, 1, 1]])},
        {"feature_mask": torch.tensor([[0, 0, 1, 1], [0, 1, 1, 0]]), "baselines": Y},
        {"baselines": 0.5},
        {"baselines": Y[:1], "perturbations_per_eval": 3},
    ],
    ids=range(5),
)
def test_masks_and_baselines_of_one_input(name, arguments):
    check(getattr(ca, name), Rows(), (X,), **METHODS[name], **arguments)


@each("name", ["FeatureAblation", "Lime"])
@each(
    "arguments",
    [
        {"feature_mask": (torch.tensor(0), torch.tensor([[1, 1, 2, 2]]))},
        {"feature_mask": (torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, 1, 1, 1]])), "baselines": (0, 1.5)},
        {"baselines": (Y, X[:1])},
        {"baselines": (torch.zeros(1, 4).double(), 2)},
    ],
    ids=range(4),
)
def test_masks_and_baselines_of_several_inputs(name, arguments):
    check(getattr(ca, name), Rows(), (X, Y), **METHODS[name], **arguments)


SEGMENTS = torch.arange(16).view(4, 4) // 5  # superpixels, without dimensions for channels and samples
FEWER_DIMENSIONS = {
    "a row's mask": (rows(0, 3, 4), {"feature_mask": torch.tensor([0, 0, 1, 2])}),
    "as many rows as columns": (rows(0, 4, 4), {"feature_mask": torch.tensor([0, 0, 1, 2])}),
    "superpixels": (rows(0, 4, 3, 4, 4), {"feature_mask": SEGMENTS}),
    "superpixels of one image": (rows(0, 1, 3, 4, 4), {"feature_mask": SEGMENTS}),
    "superpixels with a channel": (rows(0, 2, 3, 4, 4), {"feature_mask": SEGMENTS[None]}),
    "a mask of each channel": (rows(0, 3, 3, 4, 4), {"feature_mask": torch.stack([SEGMENTS, SEGMENTS + 4, SEGMENTS])}),
    "means of channels": (rows(0, 3, 3, 4, 4), {"baselines": torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)}),
    "a row as baseline": (rows(0, 4, 4), {"baselines": torch.tensor([0.1, 0.2, 0.3, 0.4])}),
}


@pytest.mark.soak
@each("chunk_size", [None, 1])
@each("name", ["FeatureAblation", "ShapleyValueSampling"])
@each("form", FEWER_DIMENSIONS)
def test_masks_and_baselines_of_fewer_dimensions_apply_to_every_sample(form, name, chunk_size):
    """Also if the number of samples equals the length of the mask."""
    x, arguments = FEWER_DIMENSIONS[form]
    model = Formula(lambda x: x.flatten(1).square().cumsum(1).tanh().sum(1))
    kind, argument = getattr(ca, name), {**METHODS[name], **arguments}
    result = sw.attribute(model, x, method=from_captum(kind(model), **argument), target=0, chunk_size=chunk_size)
    one = [sw.attribute(model, row[None], method=from_captum(kind(model), **{
        key: value.expand(1, *row.shape).contiguous() if isinstance(value, torch.Tensor) else value
        for key, value in argument.items()}), target=0, chunk_size=1).values for row in x]  # fmt: skip
    assert far(result.values, torch.cat(one)) < 1e-12
    if name == "FeatureAblation":
        assert torch.allclose(result.values, kind(model).attribute(x, **arguments), atol=1e-12)


def test_a_large_convergence_delta_is_noted_with_its_cause():
    class Hidden(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head = torch.nn.Linear(4, 3).double()

        def forward(self, x):
            return self.head(x) + 100 * self.head(x).detach()

    for name, why in (("IntegratedGradients", "More steps"), ("DeepLift", "has no gradient")):
        note = " ".join(sw.attribute(Hidden().eval(), X, method=f"captum.{name}", target=1).notes)
        assert re.search(rf"of the score's change of sample \d is unaccounted for.*{why}", note), note
        assert not sw.attribute(Hidden().eval().head, X, method=f"captum.{name}", target=1).notes


def test_masks_and_baselines_without_dimensions():
    """By hand, for a sum: a group of all features has the sum, and a single feature its difference to the baseline."""
    model = Formula(lambda x: x.sum(1))
    group = from_captum(ca.FeatureAblation(model), feature_mask=torch.tensor(0))
    assert far(sw.attribute(model, X, method=group, target=0).values, X.sum(1, keepdim=True).expand(2, 4)) < 1e-14
    two = from_captum(ca.FeatureAblation(model), baselines=torch.tensor(2.0))
    assert far(sw.attribute(model, X, method=two, target=0).values, X - 2) < 1e-14


def test_arguments_that_captum_passes_on():
    """Lime's linear fit of a linear model is the model itself; Lime's functions get the caller's arguments."""
    seen = []

    def perturbed(original, **value):
        seen.append(value["share"])
        return torch.bernoulli(torch.full((1, 4), value["share"]))

    weights = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64)
    model = linear(weights)
    base = ca.LimeBase(
        model, SkLearnLinearRegression(), lambda *_args, **_value: torch.tensor(1.0), perturbed, True,
        lambda chosen, original, **_value: original * chosen, None,
    )  # fmt: skip
    result = sw.attribute(model, X, method=from_captum(base, n_samples=30, share=0.4), score="value")
    assert far(result.values.double(), X * weights) < 1e-5  # captum fits in float32
    assert set(seen) == {0.4}
    check(ca.FeatureAblation, Rows(), (X, Y), enable_cross_tensor_attribution=True)


@each(
    ("arguments", "message"),
    [
        ({"baseline": 0}, "'baseline' is not known. Did you mean 'baselines'"),
        ({"perturbation_per_eval": 2}, "Did you mean 'perturbations_per_eval'"),
        ({"additional_forward_args": 1}, "is not known.*Pass all the model's inputs to sw.attribute"),
        ({"return_convergence_delta": True}, "see Attribution.delta"),
    ],
)
def test_unknown_and_reserved_arguments_are_refused(arguments, message):
    with pytest.raises(TypeError, match=message):
        from_captum(ca.FeatureAblation(Rows()), **arguments)


def test_permutation_of_a_batch():
    """Two samples can only be swapped: in a linear model, each feature changes the score by w (x - the other x)."""
    weights = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64)
    model = linear(weights)
    result = sw.attribute(model, X, method="captum.FeaturePermutation", score="value")
    assert far(result.values, weights * (X - X.flip(0))) < 1e-14
    assert sw.attribute(Tokens(), IDS, method="captum.FeaturePermutation", target=TARGETS).values.shape == (2, 3)
    with pytest.raises(ValueError, match="shuffles a feature among the samples of a batch, but there is only one"):
        sw.attribute(model, X[:1], method="captum.FeaturePermutation", score="value")


def test_an_error_of_captums_hooks_is_not_attributed_to_the_model():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right, self.one = nn.ReLU(), nn.ReLU(), nn.Parameter(torch.ones(()).double())

        def forward(self, a, b):
            return self.one * (self.left(a) * self.right(b)).sum(1, keepdim=True)

    with pytest.raises(ValueError, match=r"method: Captum's DeepLift hooks layers.*Omit explain="):
        sw.attribute(Both(), (X, Y), method="captum.DeepLift", explain="a", target=0)


# ---- one number per sample, and nested inputs


@each("name", ["DeepLift", "Saliency", "IntegratedGradients", "FeatureAblation", "Occlusion"])
def test_inputs_of_one_number_per_sample(name):
    """Captum's ReLUDeepLiftModel with two inputs of shape (N,)."""

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right, self.one = nn.ReLU(), nn.ReLU(), nn.Parameter(torch.ones(()).double())

        def forward(self, a, b):
            return self.one * torch.stack([2 * self.left(a) + 2 * self.right(b - 1.5)] * 3, 1)

    a, b = torch.tensor([1.0, 3.0]).double(), torch.tensor([2.0, 1.0]).double()
    arguments = {"sliding_window_shapes": ((), ())} if name == "Occlusion" else {}
    if name == "DeepLift":
        arguments = {"baselines": (torch.zeros(1).double(), torch.zeros(1).double())}
    result = check(getattr(ca, name), Two(), (a, b), **arguments)
    assert result.part("b").values.shape == (2,)
    if name == "DeepLift":
        assert torch.equal(result.values, torch.tensor([[2.0, 1.0], [6.0, 0.0]]).double())


def test_inputs_in_a_dataclass_have_the_values_of_a_tuple():
    @dataclasses.dataclass
    class Batch:
        rows: dict
        names: list

    class Nested(Rows):
        def forward(self, batch):
            return super().forward(batch.rows["a"], batch.rows["b"])

    result = sw.attribute(
        Nested(), (Batch({"a": X, "b": Y}, ["p", "q"]),), method="captum.IntegratedGradients", target=1
    )
    flat_ = sw.attribute(Rows(), (X, Y), method="captum.IntegratedGradients", target=1)
    assert torch.equal(result.values, flat_.values)
    assert list(result.parts) == ["batch.rows.a", "batch.rows.b"]
