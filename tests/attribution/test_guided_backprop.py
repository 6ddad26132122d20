"""Guided Backprop and Deconvnet compared with their backward rules by hand, for every form of ReLU in torch."""

import captum.attr
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from toys import conv_net, each, far, images, mlp, rows, state_of

import saliency_widgets as sw
from saliency_widgets.runtime.relu_rules import ReLURule

RULES = {"guided_backprop": "guided", "deconvnet": "deconvnet"}


class Two(nn.Module):
    """Linear, activation, linear, activation, linear; the activation is a function or a module, used twice."""

    def __init__(self, activation):
        super().__init__()
        torch.manual_seed(4)
        self.first, self.second, self.last = nn.Linear(4, 16), nn.Linear(16, 16), nn.Linear(16, 3)
        self.activation = activation
        self.double().eval()
        with torch.no_grad():
            self.first.weight *= 8  # so that some units are above 6

    def forward(self, x):
        return self.last(self.activation(self.second(self.activation(self.first(x)))))


X = rows(5, 6, 4)
SLOPES = torch.linspace(0.05, 0.9, 16, dtype=torch.float64)


def rectified(method, g, z, high=float("inf"), below=0.0):
    """Return the gradient at an activation's input ``z``, from that at its output, ``g``."""
    slope = torch.where(z > 0, (z < high).double(), torch.as_tensor(below, dtype=torch.float64))
    return g.clamp(min=0) * (slope if method == "guided_backprop" else 1)


def by_hand(method, model, x, target, high=float("inf"), below=0.0):
    """Forward with the weights, then backward by the rule."""
    with torch.no_grad():
        first = model.first(x)
        second = model.second(torch.where(first > 0, first.clamp(max=high), below * first))
        g = model.last.weight[target].expand(len(x), -1)
        g = rectified(method, g, second, high, below) @ model.second.weight
        return rectified(method, g, first, high, below) @ model.first.weight


RELU_FORMS = {
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU in place": nn.ReLU(inplace=True),
    "nn.ReLU made in forward": lambda x: nn.ReLU()(x),
    "F.relu": F.relu,
    "F.relu in place": lambda x: F.relu(x, inplace=True),
    "F.relu in place by position": lambda x: F.relu(x, True),
    "F.relu_": F.relu_,
    "x.relu()": lambda x: x.relu(),
    "x.relu_()": lambda x: x.relu_(),
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "clamp(min=0)": lambda x: x.clamp(min=0),
    "clamp(0)": lambda x: x.clamp(0),
    "torch.clamp(x, 0.0)": lambda x: torch.clamp(x, 0.0),
    "torch.clamp(input=x, min=0)": lambda x: torch.clamp(input=x, min=0),
    "clamp_(min=0)": lambda x: x.clamp_(min=0),
    "clip(min=0)": lambda x: x.clip(min=0),
    "clamp_min": lambda x: x.clamp_min(0),
    "torch.clamp_min": lambda x: torch.clamp_min(x, 0),
    "clamp_min_": lambda x: x.clamp_min_(0),
    "clamp to a tensor": lambda x: x.clamp(min=torch.zeros_like(x[:1])),
    "clamp_ to a tensor": lambda x: x.clamp_(torch.zeros_like(x)),
    "clamp_min to a tensor": lambda x: x.clamp_min(x.new_zeros(())),
    "nn.Threshold": nn.Threshold(0, 0),
    "nn.Threshold in place": nn.Threshold(0.0, 0.0, inplace=True),
    "F.threshold": lambda x: F.threshold(x, 0, 0),
    "F.threshold_": lambda x: F.threshold_(x, threshold=0, value=0),
    "torch.threshold": lambda x: torch.threshold(x, 0, 0),
    "torch.threshold_": lambda x: torch.threshold_(x, 0, 0),
    "torch.maximum": lambda x: torch.maximum(x, torch.zeros_like(x)),
    "torch.maximum with swapped arguments": lambda x: torch.maximum(torch.zeros_like(x), x),
    "x.maximum": lambda x: x.maximum(x.new_zeros(())),
    "torch.max": lambda x: torch.max(x, torch.zeros(1, 16, dtype=x.dtype)),
    "torch.max by name": lambda x: torch.max(x, other=torch.zeros((), dtype=x.dtype)),
    "x.max": lambda x: x.max(torch.zeros_like(x)),
}
RELU6_FORMS = {
    "nn.ReLU6": nn.ReLU6(),
    "nn.ReLU6 in place": nn.ReLU6(inplace=True),
    "F.relu6": F.relu6,
    "F.relu6 in place": lambda x: F.relu6(x, inplace=True),
    "nn.Hardtanh(0, 6)": nn.Hardtanh(0.0, 6.0),
    "F.hardtanh(0, 6)": lambda x: F.hardtanh(x, 0.0, 6.0),
    "F.hardtanh_": lambda x: F.hardtanh_(x, min_val=0.0, max_val=6.0),
    "clamp(0, 6)": lambda x: x.clamp(0, 6),
    "clamp(min=0, max=6)": lambda x: torch.clamp(x, min=0, max=6),
    "clamp_(0, 6)": lambda x: x.clamp_(0, 6),
    "clamp between tensors": lambda x: x.clamp(torch.zeros_like(x), torch.full_like(x[:1], 6.0)),
}


def prelu(slopes):
    module = nn.PReLU(len(slopes)).double()
    with torch.no_grad():
        module.weight.copy_(slopes)
    return module


LEAKY = {  # each with its slope below zero
    "nn.LeakyReLU": (nn.LeakyReLU(0.2), 0.2),
    "nn.LeakyReLU in place": (nn.LeakyReLU(0.2, inplace=True), 0.2),
    "F.leaky_relu": (F.leaky_relu, 0.01),
    "F.leaky_relu in place": (lambda x: F.leaky_relu(x, 0.3, True), 0.3),
    "F.leaky_relu_": (lambda x: F.leaky_relu_(x, negative_slope=0.3), 0.3),
    "nn.PReLU": (prelu(SLOPES[:1]), float(SLOPES[0])),
    "nn.PReLU of each channel": (prelu(SLOPES), SLOPES),
    "F.prelu": (lambda x: F.prelu(x, SLOPES), SLOPES),
    "torch.prelu": (lambda x: torch.prelu(x, weight=SLOPES), SLOPES),
    "x.prelu": (lambda x: x.prelu(SLOPES), SLOPES),
    "nn.RReLU": (nn.RReLU(0.1, 0.3).eval(), 0.2),
    "nn.RReLU in place": (nn.RReLU(0.1, 0.3, inplace=True).eval(), 0.2),
    "F.rrelu": (F.rrelu, 11 / 48),
    "F.rrelu in place": (lambda x: F.rrelu(x, upper=0.375, inplace=True), 0.25),
    "torch.rrelu": (lambda x: torch.rrelu(x, 0.1, 0.3), 0.2),
    "torch.rrelu_": (lambda x: torch.rrelu_(x, 0.1, 0.3), 0.2),
}
ALL = {**RELU_FORMS, **RELU6_FORMS, **{name: activation for name, (activation, _) in LEAKY.items()}}
IN_PLACE = [name for name in ALL if "in place" in name or name.partition("(")[0].partition(" ")[0].endswith("_")]


@pytest.mark.parametrize("method", RULES)
@each("form", RELU_FORMS)
def test_every_form_of_relu(form, method):
    target = 2
    model = Two(RELU_FORMS[form])
    expected = by_hand(method, model, X, target)
    result = sw.attribute(model, X, method=method, target=target)
    assert far(result.values, expected) < 1e-14
    plain = sw.attribute(model, X, method="gradient", target=target)
    assert far(plain.values, expected) > 0.1, "on this net the rule hardly differs from the gradient"
    assert torch.equal(result.score, plain.score)


@pytest.mark.parametrize("method", RULES)
@each("form", RELU6_FORMS)
def test_every_form_of_relu6(form, method):
    model = Two(RELU6_FORMS[form])
    result = sw.attribute(model, X, method=method, target=1)
    assert far(result.values, by_hand(method, model, X, 1, high=6.0)) < 1e-14
    if method == "guided_backprop":
        assert far(by_hand(method, model, X, 1), by_hand(method, model, X, 1, high=6.0)) > 0.01, "no unit is above 6"


@pytest.mark.parametrize("method", RULES)
@each("form", LEAKY)
def test_every_form_of_leaky_relu(form, method):
    activation, below = LEAKY[form]
    model = Two(activation)
    result = sw.attribute(model, X, method=method, target=1)
    assert far(result.values, by_hand(method, model, X, 1, below=below)) < 1e-14
    if method == "guided_backprop":
        assert far(by_hand(method, model, X, 1), by_hand(method, model, X, 1, below=below)) > 0.005


UNTOUCHED = {
    "hardtanh(-1, 1)": F.hardtanh,
    "clamp(max=1)": lambda x: x.clamp(max=1),
    "clamp(min=-1)": lambda x: x.clamp(min=-1),
    "clamp_min(0.5)": lambda x: x.clamp_min(0.5),
    "clamp to a tensor not all zero": lambda x: x.clamp(min=torch.arange(16.0, dtype=x.dtype) / 16),
    "clamp to a tensor that is learned": lambda x: x.clamp(min=torch.zeros_like(x).requires_grad_()),
    "clamp below a tensor that is learned": lambda x: x.clamp(x.new_zeros(()), x.new_ones(()).requires_grad_()),
    "threshold(0.1, 0)": lambda x: F.threshold(x, 0.1, 0),
    "threshold(0, 1)": lambda x: F.threshold(x, 0, 1),
    "maximum with ones": lambda x: torch.maximum(x, torch.ones_like(x)),
    "maximum with itself": lambda x: torch.maximum(x, -x),
    "maximum with a tensor that is learned": lambda x: torch.maximum(x, torch.zeros_like(x).requires_grad_()),
    "max of a row": lambda x: x - x.max(1, keepdim=True).values + torch.max(x),
    "gelu": F.gelu,
    "silu": F.silu,
    "softplus": F.softplus,
    "elu": F.elu,
    "abs": torch.abs,
}


@pytest.mark.parametrize("method", RULES)
@each("form", UNTOUCHED)
def test_other_functions_keep_their_gradient_and_are_refused_if_there_is_no_relu(form, method):
    with pytest.raises(ValueError, match=rf"{sw.methods()[method].title} changes the gradient at ReLUs.*ran none") as e:
        sw.attribute(Two(UNTOUCHED[form]), X, method=method, target=0)
    assert "Use 'gradient'" in str(e.value)
    # With a final ReLU that is active for all inputs, the rule applies only there, so the map is the plain gradient.
    model = Two(UNTOUCHED[form])
    last = model.last
    with torch.no_grad():
        last.bias += 1e3
    mixed = nn.Sequential(model, nn.ReLU())
    plain = sw.attribute(model, X, method="gradient", target=0)
    assert far(sw.attribute(mixed, X, method=method, target=0).values, plain.values) < 1e-14


SMOOTH = {
    "celu": [nn.CELU(), nn.CELU(inplace=True), torch.celu],
    "elu": [nn.ELU(), F.elu_],
    "gelu": [nn.GELU(), F.gelu],
    "hardsigmoid": [nn.Hardsigmoid()],
    "hardswish": [nn.Hardswish(), nn.Hardswish(inplace=True)],
    "logsigmoid": [nn.LogSigmoid()],
    "mish": [nn.Mish()],
    "selu": [nn.SELU(), torch.selu_],
    "sigmoid": [nn.Sigmoid(), torch.sigmoid, F.sigmoid, lambda x: x.sigmoid_()],
    "silu": [nn.SiLU(), nn.SiLU(inplace=True)],
    "softplus": [nn.Softplus()],
    "tanh": [nn.Tanh(), F.tanh, lambda x: x.tanh()],
}


@each("name", SMOOTH)
def test_smooth_activations_are_unchanged_and_named(name):
    for activation in SMOOTH[name]:
        model = Two(activation)
        with ReLURule("guided") as rule:
            model(X.clone().requires_grad_())
        assert (rule.calls, rule.smooth) == (0, {name: 2})
        with pytest.raises(ValueError, match=rf"ran none, only {name} \(2 times\), and the rule is not defined"):
            sw.attribute(model, X, method="guided_backprop", target=0)
        with ReLURule("guided") as rule, torch.no_grad():
            model(X)
        assert rule.smooth == {}


def test_the_random_slopes_of_rrelu_in_training_are_not_replaced():
    x = X.clone().requires_grad_()
    with ReLURule("guided") as rule:
        F.rrelu(x, training=True)
        torch.rrelu(x, 0.1, 0.3, True)
    assert rule.calls == 0


def test_a_module_that_is_used_twice_is_counted_at_each_call():
    activation = nn.ReLU()
    model = Two(activation)
    with ReLURule("guided") as rule:
        model(X.clone().requires_grad_())
    assert rule.calls == 2
    twin = nn.Sequential(model.first, nn.ReLU(), model.second, nn.ReLU(), model.last)
    assert torch.equal(
        sw.attribute(model, X, method="guided_backprop", target=0).values,
        sw.attribute(twin, X, method="guided_backprop", target=0).values,
    )


@each("form", ALL)
def test_the_forward_pass_is_unchanged(form):
    for rule in RULES.values():
        check_forward_pass(form, rule)


def check_forward_pass(form, rule):
    model = Two(ALL[form])
    expected = model(X.clone())
    with ReLURule(rule) as active:
        outcome = model(X.clone().requires_grad_())
        value = model.first(X.clone().requires_grad_())
        before = value.clone()
        result = ALL[form](value)
    assert active.calls == 3
    assert torch.equal(outcome, expected)
    if form in IN_PLACE:
        assert result is value
    else:
        assert result is not value
        assert torch.equal(value, before)


def test_in_place_forms_return_their_input():
    for form in IN_PLACE:
        value = rows(1, 3, 16)
        assert ALL[form](value) is value


@each("form", ALL)
def test_at_zero_every_form_has_the_slope_of_negative_inputs(form):
    below = LEAKY[form][1] if form in LEAKY else 0.0
    for rule, slope in {"guided": below, "deconvnet": 1.0}.items():
        x = torch.zeros(2, 16, dtype=torch.float64, requires_grad=True)
        with ReLURule(rule):
            ALL[form](x.clone()).sum().backward()
        assert far(x.grad, torch.as_tensor(slope, dtype=torch.float64).expand(2, 16)) < 1e-14


class Residual(nn.Module):
    """In-place sums with the output of a ReLU, which has two consumers, before a second ReLU."""

    def __init__(self, activation):
        super().__init__()
        torch.manual_seed(2)
        self.a, self.b, self.c = nn.Linear(4, 16), nn.Linear(4, 16), nn.Linear(16, 16)
        self.last, self.activation = nn.Linear(16, 3), activation
        self.double().eval()

    def forward(self, x):
        y = self.activation(self.a(x))
        y += self.b(x)
        z = self.c(y)
        z += y
        return self.last(self.activation(z))


@each("form", ALL)
def test_sums_in_place_after_a_relu(form):
    for method in RULES:
        check_sums_in_place(form, method)


def check_sums_in_place(form, method):
    model = Residual(ALL[form])
    shape = {"high": 6.0} if form in RELU6_FORMS else {"below": LEAKY[form][1]} if form in LEAKY else {}
    with torch.no_grad():
        first = model.a(X)
        y = ALL[form](first.clone()) + model.b(X)
        g = rectified(method, model.last.weight[1].expand(len(X), -1), model.c(y) + y, **shape)
        g = g @ model.c.weight + g
        expected = rectified(method, g, first, **shape) @ model.a.weight + g @ model.b.weight
    assert far(sw.attribute(model, X, method=method, target=1).values, expected) < 1e-14


@pytest.mark.parametrize("method", RULES)
@each("form", [form for form in IN_PLACE if form not in RELU6_FORMS and form not in LEAKY])
def test_in_place_on_a_slice(form, method):
    """The ReLU modifies a slice, whose gradient comes through the whole tensor."""

    class Part(Two):
        def forward(self, x):
            y = self.first(x)
            self.activation(y[:, :10])
            return self.second(y)

    model = Part(RELU_FORMS[form])
    with torch.no_grad():
        g, first = model.second.weight[3].expand(len(X), -1), model.first(X)
        g = torch.cat([rectified(method, g, first)[:, :10], g[:, 10:]], 1)
        expected = g @ model.first.weight
    assert far(sw.attribute(model, X, method=method, target=3).values, expected) < 1e-14


def test_guided_backprop_does_not_change_a_gradient_that_is_positive_everywhere():
    """Also if the slopes of a PReLU are computed from the input."""

    class Computed(nn.Module):
        def forward(self, x):
            return F.prelu(x, x.square().mean().reshape(1)).sum(1, keepdim=True)

    model, x = Computed(), X[:1]
    plain = sw.attribute(model, x, method="gradient", score="value")
    assert far(sw.attribute(model, x, method="guided_backprop", score="value").values, plain.values) < 1e-14


def test_a_maximum_that_broadcasts_its_input():
    x = X.clone().requires_grad_()
    weights = rows(3, 5, 6, 4)
    with ReLURule("guided"):
        y = torch.maximum(x, torch.zeros(5, 1, 1, dtype=torch.float64))
    assert torch.equal(y, X.clamp(min=0).expand(5, 6, 4))
    (y * weights).sum().backward()
    assert far(x.grad, weights.clamp(min=0).sum(0) * (X > 0)) < 1e-14


def test_without_gradients_the_rule_is_not_applied():
    model = Two(nn.ReLU())
    model.requires_grad_(False)
    out = torch.empty_like(X)
    with ReLURule("guided") as rule:
        model(X)
        torch.clamp(X, min=0, out=out)
        with pytest.raises(RuntimeError, match="don't support automatic differentiation"):
            torch.clamp(X.clone().requires_grad_(), min=0, out=out)
    assert rule.calls == 0
    assert torch.equal(out, X.clamp(min=0))


@each("net", [mlp, conv_net])
@each("seed", range(3))
@pytest.mark.parametrize(
    ("method", "reference"),
    [("guided_backprop", captum.attr.GuidedBackprop), ("deconvnet", captum.attr.Deconvolution)],
)
def test_agrees_with_captum_on_modules(net, seed, method, reference):
    model = net(seed)
    x = rows(seed) if net is mlp else images(seed)
    for target in (0, 2):
        with pytest.warns(UserWarning, match="backward hooks"):
            expected = reference(model).attribute(x.clone().requires_grad_(), target=target)
        result = sw.attribute(model, x, method=method, target=target)
        assert far(result.values, expected.detach()) < 1e-12


@pytest.mark.parametrize("method", RULES)
def test_the_model_is_unchanged_and_the_next_gradient_is_plain(method):
    model, x = conv_net(), images()
    before, plain = state_of(model), sw.attribute(model, x, method="gradient", target=1)
    sw.attribute(model, x, method=method, target=1)
    assert state_of(model) == before
    assert torch.equal(sw.attribute(model, x, method="gradient", target=1).values, plain.values)


def test_in_place_on_the_input_and_on_a_layers_output():
    """In-place ReLUs give the same result, and the caller's input is not modified."""
    torch.manual_seed(0)
    linear = nn.Linear(4, 3).double()
    nets = [nn.Sequential(nn.ReLU(inplace), linear, nn.ReLU(inplace)) for inplace in (False, True)]
    x = X.clone()
    result = [sw.attribute(net, x, method="guided_backprop", target=0).values for net in nets]
    assert torch.equal(*result)
    assert torch.equal(x, X)
