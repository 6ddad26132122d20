"""Folded BatchNorms and the channels-last layout: used on copies only, and only if the results are the same."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval
from toys import each, runner, state_of

import saliency_widgets as sw
from saliency_widgets.runtime.reuse.fusion import Tuned
from saliency_widgets.runtime.reuse.survey import survey
from saliency_widgets.session import Problem, Request


def trained(norm: nn.Module, seed: int = 0) -> nn.Module:
    """Give a BatchNorm statistics and weights as after training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor, low, high in ((norm.running_mean, -0.5, 0.5), (norm.running_var, 0.3, 2.0)):
            tensor.uniform_(low, high, generator=generator)
        if norm.weight is not None:
            norm.weight.uniform_(0.5, 1.5, generator=generator)
            norm.bias.uniform_(-0.5, 0.5, generator=generator)
    return norm


class Net(nn.Module):
    """A convolution and a BatchNorm; ``run`` applies them to the input."""

    def __init__(self, run, norm: nn.Module | None = None, bias: bool = True) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=bias)
        self.norm = trained(nn.BatchNorm2d(4)) if norm is None else norm
        self.head = nn.Linear(4, 3)
        self.run = run

    def forward(self, x):
        return self.head(torch.relu(self.run(self, x)).mean((2, 3)))


def plain_run(net, x):
    return net.norm(net.conv(x))


X = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def tuned(model: nn.Module, x: torch.Tensor = X) -> Tuned | None:
    return survey(runner(model, x).passes, fold=True).tuned


@each("bias", [True, False])
@each("affine", [True, False])
def test_folded_weights_equal_those_of_torchs_fusion(bias, affine):
    model = Net(plain_run, trained(nn.BatchNorm2d(4, affine=affine)), bias).double().eval()
    result = tuned(model)
    assert result.folded == ("norm",)
    if affine:
        expected = fuse_conv_bn_eval(model.conv, model.norm)
        assert torch.allclose(result.weight(model.conv.weight), expected.weight, rtol=1e-13, atol=0)
        assert torch.allclose(result.biases["conv"], expected.bias, rtol=1e-13, atol=1e-14)
    before = state_of(model)
    for method in sw.methods():
        folded, unfolded = (sw.attribute(model, X, method=method, target=1, fold=fold) for fold in (True, False))
        size = float(unfolded.values.abs().max())
        assert torch.allclose(folded.values, unfolded.values, rtol=0, atol=1e-12 * size), method
    assert state_of(model) == before
    assert "fold" not in folded.settings
    assert unfolded.settings["fold"] is False


NOT_FOLDED = {
    "the convolution runs twice": lambda net, x: net.norm(net.conv(x)) + net.conv(x),
    "the convolution's result is used again": lambda net, x: (lambda y: net.norm(y) + y)(net.conv(x)),
    "the convolution's weight is used again": lambda net, x: net.norm(net.conv(x)) + net.conv.weight.sum(),
    "an activation between them": lambda net, x: net.norm(F.relu(net.conv(x))),
    "a BatchNorm that runs twice": lambda net, x: net.norm(net.norm(net.conv(x))),
    "changed in place between them": lambda net, x: net.norm(net.conv(x).mul_(2)),
}


@each("case", NOT_FOLDED)
def test_a_convolution_and_a_norm_with_other_uses_are_not_folded(case):
    model = Net(NOT_FOLDED[case]).double().eval()
    result = tuned(model)
    assert result is None or not result.folded
    expected = sw.attribute(model, X, method="gradient", target=1, fold=False).values
    assert torch.equal(sw.attribute(model, X, method="gradient", target=1).values, expected)


class NormAct(nn.BatchNorm2d):
    def forward(self, x):
        return torch.relu(super().forward(x))


@each(
    "change",
    {
        "training": lambda m: m.norm.train(),
        "an activation inside": lambda m: setattr(m, "norm", trained(NormAct(4)).double().eval()),
        "no running statistics": lambda m: setattr(
            m, "norm", nn.BatchNorm2d(4, track_running_stats=False).double().eval()
        ),
        "a hook": lambda m: m.conv.register_forward_hook(lambda *_: None),
        "a hook on the gradient": lambda m: m.norm.register_full_backward_hook(lambda *_: None),
        "a replaced forward": lambda m: m.norm.__dict__.update(forward=lambda x: x * 2),
        "a parametrized weight": lambda m: nn.utils.parametrizations.weight_norm(m.conv),
    }.items(),
    ids=lambda item: item[0],
)
def test_layers_with_hooks_or_modifications_are_not_folded(change):
    model = Net(plain_run).double().eval()
    change[1](model)
    result = tuned(model)
    assert result is None or not result.folded
    expected = sw.attribute(model, X, method="gradient", target=1, fold=False).values
    assert torch.equal(sw.attribute(model, X, method="gradient", target=1).values, expected)


def test_layers_hidden_by_folding_have_the_activations_of_the_model():
    model = Net(plain_run).double().eval()
    seen = {}
    for name in ("conv", "norm"):
        model.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
    model(X)
    for module in (model.conv, model.norm):
        module._forward_hooks.clear()
    problem = Problem(model, X)
    score, _ = problem.resolve(Request.of("grad_cam", {}))
    for name, expected in seen.items():
        activation, _, _, runs = problem.runner(score).passes.layer_gradient(name)
        assert torch.allclose(activation, expected, rtol=0, atol=1e-13), name
        assert runs == 1
    assert problem.runner(score).passes.tuned.hidden == {"conv"}


def test_a_layer_with_two_names_is_hidden_under_both():
    model = Net(plain_run).double().eval()
    model.again = nn.Sequential(model.conv, model.norm)
    for name in ("conv", "again.0"):
        one, other = (sw.attribute(model, X, method="grad_cam", layer=name, target=1, fold=f) for f in (True, False))
        assert torch.allclose(one.values, other.values, rtol=0, atol=1e-12), name


class Views(Net):
    """Calls ``view``, which fails in the channels-last layout."""

    def forward(self, x):
        y = torch.relu(self.norm(self.conv(x)))
        return self.head(y.view(len(x), -1).unflatten(1, (4, -1)).mean(2))


def test_channels_last_is_not_used_if_the_model_fails_with_it():
    x = X.float()
    model = Views(plain_run).eval()
    result = tuned(model, x)
    assert result.folded == ("norm",)
    assert not result.channels_last
    assert tuned(Net(plain_run).eval(), x).channels_last
    assert any("channels-last layout" in f.what and "view" in f.what for f in sw.checkup(model, x))
    assert not any("without optimizations" in f.what for f in sw.checkup(Net(plain_run).eval(), x))
    one, other = (sw.attribute(model, x, method="gradient", target=0, fold=fold).values for fold in (True, False))
    assert torch.allclose(one, other, rtol=0, atol=1e-5 * float(other.abs().max()))


def test_a_model_whose_scores_change_by_folding_is_not_folded():
    """Folding gives the convolution a bias, on which this model's scores depend."""

    def depends_on_bias(net, x):
        return net.norm(net.conv(x)) * (1 if net.conv.bias is None else 2)

    model = Net(depends_on_bias, bias=False).double().eval()
    result = tuned(model)
    assert result is None or not result.folded
    assert any("folded" in f.what and "the scores differ" in f.what for f in sw.checkup(model, X))


def test_all_norms_of_the_pretrained_model_are_folded_without_changing_its_map(pretrained64, cat):
    result = tuned(pretrained64, cat)
    assert len(result.folded) == sum(isinstance(m, nn.BatchNorm2d) for m in pretrained64.modules()) == 49
    one, other = (
        sw.attribute(pretrained64, cat, method="gradient", target=285, fold=fold).values for fold in (True, False)
    )
    assert float((one - other).abs().max()) < 1e-9 * float(other.abs().max())


def test_only_weights_that_folding_changes_are_copied():
    model = Net(plain_run).double().eval()
    result = tuned(model)
    assert result.weight(model.head.weight).data_ptr() == model.head.weight.data_ptr()
    assert result.weight(model.conv.weight).data_ptr() != model.conv.weight.data_ptr()
    assert result.weight(copy.deepcopy(model).conv.weight) is None
