"""Guided Backprop against the rule written out by hand, for every way of writing a ReLU."""

import captum.attr
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from toys import conv_net, far, mlp, pictures, rows, state_of

import saliency_widgets as sw
from saliency_widgets.attribution.relu_rules import GuidedReLU


class Two(nn.Module):
    """Linear, activation, linear, activation, linear; the activation is a function or a module, used twice."""

    def __init__(self, activation):
        super().__init__()
        torch.manual_seed(4)
        self.first, self.second, self.last = nn.Linear(4, 16), nn.Linear(16, 16), nn.Linear(16, 3)
        self.activation = activation
        self.double()
        with torch.no_grad():
            self.first.weight *= 8  # so that some units lie beyond 6

    def forward(self, x):
        return self.last(self.activation(self.second(self.activation(self.first(x)))))


X = rows(5, 6, 4)


def by_hand(model, x, target, high=float("inf")):
    """Forward with the weights, then backward by the rule g [0 < a < high] [g > 0]."""
    with torch.no_grad():
        first = model.first(x)
        second = model.second(first.clamp(0, high))
        g = model.last.weight[target].expand(len(x), -1)
        g = g.clamp(min=0) * ((second > 0) & (second < high))
        g = g @ model.second.weight
        g = g.clamp(min=0) * ((first > 0) & (first < high))
        return g @ model.first.weight


WAYS = {
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU in place": nn.ReLU(inplace=True),
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
    "clamp_(min=0)": lambda x: x.clamp_(min=0),
    "clip(min=0)": lambda x: x.clip(min=0),
    "clamp_min": lambda x: x.clamp_min(0),
    "torch.clamp_min": lambda x: torch.clamp_min(x, 0),
    "clamp_min_": lambda x: x.clamp_min_(0),
}
WAYS_TO_6 = {
    "nn.ReLU6": nn.ReLU6(),
    "nn.ReLU6 in place": nn.ReLU6(inplace=True),
    "F.relu6": F.relu6,
    "F.relu6 in place": lambda x: F.relu6(x, inplace=True),
    "nn.Hardtanh(0, 6)": nn.Hardtanh(0.0, 6.0),
    "F.hardtanh(0, 6)": lambda x: F.hardtanh(x, 0.0, 6.0),
    "F.hardtanh_": lambda x: F.hardtanh_(x, min_val=0.0, max_val=6.0),
    "clamp(0, 6)": lambda x: x.clamp(0, 6),
    "clamp(min=0, max=6)": lambda x: torch.clamp(x, min=0, max=6),
}


@pytest.mark.parametrize("target", [0, 2])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_writing_relu(way, target):
    model = Two(WAYS[way])
    expected = by_hand(model, X, target)
    found = sw.attribute(model, X, method="guided_backprop", target=target)
    assert far(found.values, expected) < 1e-14
    plain = sw.attribute(model, X, method="gradient", target=target)
    assert far(plain.values, expected) > 0.1, "this net can't tell the rule from the gradient"
    assert torch.equal(found.score, plain.score)


@pytest.mark.parametrize("way", WAYS_TO_6)
def test_every_way_of_writing_relu6(way):
    model = Two(WAYS_TO_6[way])
    found = sw.attribute(model, X, method="guided_backprop", target=1)
    assert far(found.values, by_hand(model, X, 1, high=6.0)) < 1e-14
    assert far(by_hand(model, X, 1), by_hand(model, X, 1, high=6.0)) > 0.01, "no unit lies beyond 6"


UNTOUCHED = {
    "leaky_relu": F.leaky_relu,
    "hardtanh(-1, 1)": F.hardtanh,
    "clamp(max=1)": lambda x: x.clamp(max=1),
    "clamp(min=-1)": lambda x: x.clamp(min=-1),
    "clamp_min(0.5)": lambda x: x.clamp_min(0.5),
    "clamp to a tensor": lambda x: x.clamp(min=torch.zeros_like(x[:1])),
    "gelu": F.gelu,
    "silu": F.silu,
    "softplus": F.softplus,
    "elu": F.elu,
    "abs": torch.abs,
}


@pytest.mark.parametrize("way", UNTOUCHED)
def test_what_is_no_relu_keeps_its_gradient_and_alone_is_refused(way):
    with pytest.raises(ValueError, match=r"Guided Backprop.*no.*Use 'gradient'|ran none") as caught:
        sw.attribute(Two(UNTOUCHED[way]), X, method="guided_backprop", target=0)
    assert "'gradient'" in str(caught.value)
    # Behind a ReLU that passes everything, the rule is only applied there: the gradients before it are the plain ones.
    model = Two(UNTOUCHED[way])
    last = model.last
    with torch.no_grad():
        last.bias += 1e3
    mixed = nn.Sequential(model, nn.ReLU())
    plain = sw.attribute(model, X, method="gradient", target=0)
    assert far(sw.attribute(mixed, X, method="guided_backprop", target=0).values, plain.values) < 1e-14


def test_one_module_used_many_times_counts_each_time():
    activation = nn.ReLU()
    model = Two(activation)
    with GuidedReLU() as rule:
        model(X.clone().requires_grad_())
    assert rule.calls == 2
    twin = nn.Sequential(model.first, nn.ReLU(), model.second, nn.ReLU(), model.last)
    assert torch.equal(
        sw.attribute(model, X, method="guided_backprop", target=0).values,
        sw.attribute(twin, X, method="guided_backprop", target=0).values,
    )


@pytest.mark.parametrize("way", [*WAYS, *WAYS_TO_6])
def test_the_forward_pass_is_the_models_own(way):
    model = Two({**WAYS, **WAYS_TO_6}[way])
    expected = model(X.clone())
    with GuidedReLU():
        found = model(X.clone().requires_grad_())
    assert torch.equal(found, expected)


def test_where_nothing_is_differentiated_the_rule_stays_out_of_the_way():
    model = Two(nn.ReLU())
    model.requires_grad_(False)
    with GuidedReLU() as rule:
        model(X)
        out = torch.empty_like(X)
        torch.clamp(X, min=0, out=out)
    assert rule.calls == 0
    assert torch.equal(out, X.clamp(min=0))


@pytest.mark.parametrize("net", [mlp, conv_net])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_captum_on_modules(net, seed):
    model = net(seed)
    x = rows(seed) if net is mlp else pictures(seed)
    for target in (0, 2):
        with pytest.warns(UserWarning, match="backward hooks"):
            expected = captum.attr.GuidedBackprop(model).attribute(x.clone().requires_grad_(), target=target)
        found = sw.attribute(model, x, method="guided_backprop", target=target)
        assert far(found.values, expected.detach()) < 1e-12


def test_nothing_is_left_behind_and_the_next_gradient_is_plain():
    model, x = conv_net(), pictures()
    before, plain = state_of(model), sw.attribute(model, x, method="gradient", target=1)
    sw.attribute(model, x, method="guided_backprop", target=1)
    assert state_of(model) == before
    assert torch.equal(sw.attribute(model, x, method="gradient", target=1).values, plain.values)


def test_in_place_on_the_first_layers_output_and_on_the_input_itself():
    """In place or not is a matter of memory, not of the result."""
    torch.manual_seed(0)
    linear = nn.Linear(4, 3).double()
    nets = [nn.Sequential(nn.ReLU(inplace), linear, nn.ReLU(inplace)) for inplace in (False, True)]
    x = X.clone()
    found = [sw.attribute(net, x, method="guided_backprop", target=0).values for net in nets]
    assert torch.equal(*found)
    assert torch.equal(x, X)
