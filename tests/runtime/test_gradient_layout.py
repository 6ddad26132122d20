"""Gradients of every memory layout, compared with formulas and finite differences in float64."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from toys import each, far, images, rows

import saliency_widgets as sw
from saliency_widgets.runtime.model.isolation import undisturbed
from saliency_widgets.session.cache import Cache
from saliency_widgets.session.problem import Problem
from saliency_widgets.session.request import Request
from saliency_widgets.session.session import Session

EXACT = 1e-9


def layouts(tensor):
    """Yield a tensor in several memory layouts: orders of dimensions, strides of dimensions of size 1, and a slice."""
    dims = range(tensor.ndim)
    orders = {
        "contiguous": [*dims],
        "channels last": [0, *dims[2:], 1],
        "rows and columns swapped": [*dims[:-2], dims[-1], dims[-2]],
        "positions first": [*dims[2:], 0, 1],
    }
    for name, order in orders.items():
        ordered = tensor.permute(order).contiguous().permute([order.index(d) for d in dims])
        yield name, ordered
        if 1 in tensor.shape:
            for unused_stride in (0, tensor.shape[1]):
                strides = [
                    unused_stride if size == 1 else stride
                    for size, stride in zip(tensor.shape, ordered.stride(), strict=True)
                ]
                yield f"{name}, {unused_stride}", ordered.as_strided(tensor.shape, strides)
    yield "a slice", torch.cat([tensor, tensor], 1)[:, : tensor.shape[1]]


MEAN, VARIANCE = rows(1, 4), rows(2, 4).abs() + 0.5
WEIGHT, BIAS = rows(3, 4), rows(4, 4)


def normalized(x, mean, variance):
    shape = (1, -1, *[1] * (x.ndim - 2))
    return (x - mean) / (variance + 1e-5).sqrt() * WEIGHT.view(shape) + BIAS.view(shape)


def by_running_statistics(x):
    shape = (1, -1, *[1] * (x.ndim - 2))
    return normalized(x, MEAN.view(shape), VARIANCE.view(shape))


def by_input_statistics(*dims):
    def formula(x):
        over = [d for d in dims if d < x.ndim]
        return normalized(x, x.mean(over, keepdim=True), x.var(over, keepdim=True, unbiased=False))

    return formula


ATEN = torch.ops.aten
LOCAL = (MEAN.clone(), VARIANCE.clone())
NORMS = {
    "eval": (lambda x: F.batch_norm(x, MEAN, VARIANCE, WEIGHT, BIAS), by_running_statistics),
    "training": (lambda x: F.batch_norm(x, *LOCAL, WEIGHT, BIAS, True), by_input_statistics(0, 2, 3, 4)),
    "torch.batch_norm": (
        lambda x: torch.batch_norm(x, WEIGHT, BIAS, MEAN, VARIANCE, False, 0.1, 1e-5, False),
        by_running_statistics,
    ),
    "exported": (
        lambda x: ATEN.batch_norm.default(x, WEIGHT, BIAS, MEAN, VARIANCE, False, 0.1, 1e-5, False),
        by_running_statistics,
    ),
    "decomposed": (
        lambda x: ATEN._native_batch_norm_legit_no_training.default(x, WEIGHT, BIAS, MEAN, VARIANCE, 0.1, 1e-5)[0],
        by_running_statistics,
    ),
    "keyword arguments": (
        lambda x: F.batch_norm(input=x, running_mean=MEAN, running_var=VARIANCE, weight=WEIGHT, bias=BIAS),
        by_running_statistics,
    ),
    "instance": (lambda x: F.instance_norm(x, weight=WEIGHT, bias=BIAS), by_input_statistics(2, 3, 4)),
    "instance, running": (lambda x: F.instance_norm(x, MEAN, VARIANCE, WEIGHT, BIAS, False), by_running_statistics),
}


@each("shape", [(1, 4, 3, 5), (2, 4, 1, 5), (2, 4, 3, 1), (2, 4, 3, 5), (1, 4, 2, 3, 5), (1, 4, 6)], ids=str)
@pytest.mark.parametrize("norm", NORMS)
def test_a_norms_gradient_is_right_in_every_layout(norm, shape):
    function, formula = NORMS[norm]
    x, g = rows(5, *shape), rows(6, *shape)
    leaf = x.clone().requires_grad_(True)
    (truth,) = torch.autograd.grad(formula(leaf), leaf, g)
    for _, inputs in layouts(x):
        with undisturbed(nn.Identity()):
            leaf = inputs.detach().requires_grad_(True)
            output = function(leaf)
            assert far(output.detach(), formula(x)) < EXACT
            for name, gradient in layouts(g):
                (result,) = torch.autograd.grad(output, leaf, gradient, retain_graph=True)
                assert far(result, truth) < EXACT, (inputs.stride(), name)


def test_torch_alone_gives_a_wrong_gradient():
    """If this fails, the error in torch is fixed, and :mod:`gradient_layout` can be removed."""
    x = rows(5, 1, 4, 3, 5).requires_grad_(True)
    tokens = NORMS["eval"][0](x).flatten(2).transpose(1, 2)
    (wrong,) = torch.autograd.grad(tokens, x, rows(6, 1, 15, 4))
    tokens = by_running_statistics(x).flatten(2).transpose(1, 2)
    (right,) = torch.autograd.grad(tokens, x, rows(6, 1, 15, 4))
    assert far(wrong, right) > 0.5


def test_second_derivatives_are_right():
    """A gradient penalty differentiates the gradient again."""
    x, g = rows(5, 1, 4, 3, 5), rows(6, 1, 15, 4)

    def penalty(norm):
        leaf = x.clone().requires_grad_(True)
        tokens = norm(leaf).flatten(2).transpose(1, 2)
        (first,) = torch.autograd.grad((tokens**3 * g).sum(), leaf, create_graph=True)
        return torch.autograd.grad((first.flatten(2).transpose(1, 2) ** 2 * g).sum(), leaf)[0]

    with undisturbed(nn.Identity()):
        result = penalty(NORMS["eval"][0])
    assert far(result, penalty(by_running_statistics)) < EXACT


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradients_inside_a_checkpoint_are_right(reentrant):
    """A checkpoint runs the norm again in the backward pass, and differentiates that."""
    x, g = rows(5, 1, 4, 3, 5), rows(6, 1, 15, 4)

    def derived(norm):
        leaf = x.clone().requires_grad_(True)
        part = lambda x: norm(x).flatten(2).transpose(1, 2)  # noqa: E731
        (checkpoint(part, leaf, use_reentrant=reentrant) ** 3 * g).sum().backward()
        return leaf.grad

    with undisturbed(nn.Identity()):
        result = derived(NORMS["eval"][0])
    assert far(result, derived(by_running_statistics)) < EXACT


@pytest.mark.parametrize("transform", ["grad", "vmap", "jacobian"])
def test_gradients_inside_function_transforms_are_right(transform):
    x, g = rows(5, 1, 4, 3, 5), rows(6, 1, 15, 4)

    def derived(norm):
        score = lambda x: (norm(x).flatten(2).transpose(1, 2) * g).sum((1, 2))  # noqa: E731
        if transform == "grad":
            return torch.func.grad(lambda x: score(x).sum())(x)
        if transform == "jacobian":
            return torch.autograd.functional.jacobian(score, x, vectorize=True)
        leaf = x[None].clone().requires_grad_(True)
        return torch.autograd.grad(torch.vmap(score)(leaf).sum(), leaf)[0]

    with undisturbed(nn.Identity()):
        result = derived(NORMS["eval"][0])
    assert far(result, derived(by_running_statistics)) < EXACT


class Stem(nn.Module):
    """A convolution and a norm, then tokens; the norm is torch's, or computed by its formula."""

    def __init__(self, norm="batch", by_formula=False):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 4, 2, 2), nn.Linear(4, 3)
        kind = nn.BatchNorm2d if norm == "batch" else nn.InstanceNorm2d
        self.norm, self.by_formula = kind(4, affine=True, track_running_stats=norm == "batch"), by_formula
        self.double().eval()
        with torch.no_grad():
            self.norm.weight.copy_(WEIGHT), self.norm.bias.copy_(BIAS)
        if norm == "batch":
            self.norm.running_mean.copy_(MEAN), self.norm.running_var.copy_(VARIANCE)
        self.formula = by_running_statistics if norm == "batch" else by_input_statistics(2, 3)

    def forward(self, x):
        y = self.conv(x)
        y = self.formula(y) if self.by_formula else self.norm(y)
        return self.head((y.flatten(2).transpose(1, 2) ** 3).mean(1))


X = images(0, 1, 3, 8, 6)
PATHS = {
    "target": {"target": 1},
    "no fold": {"target": 1, "fold": False},
    "function": {"target": lambda out: out[:, 1]},
    "integrated": {"target": lambda out: out[:, 1], "method": "integrated_gradients", "n_steps": 3, "chunk_size": 1},
    "layer": {"target": 1, "method": "layer_cam", "layer": "conv"},
    "layer, no fold": {"target": 1, "method": "layer_cam", "layer": "conv", "fold": False},
    "layer, function": {"target": lambda out: out[:, 1], "method": "layer_cam", "layer": "conv"},
    "captum": {"target": 1, "method": "captum.Saliency"},
    "captum, layer": {"target": 1, "method": "captum.LayerGradientXActivation", "layer": "conv"},
}


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("path", PATHS)
def test_every_kind_of_pass_gives_the_map_of_the_formula(path, norm):
    if path.startswith("captum"):
        pytest.importorskip("captum")
    settings = {"method": "gradient", **PATHS[path]}
    result, expected = (sw.attribute(Stem(norm, by_formula), X, **settings) for by_formula in (False, True))
    assert far(result.values, expected.values) < EXACT


def test_float32_differs_by_rounding():
    result = sw.attribute(Stem().float(), X.float(), target=lambda out: out[:, 1], method="gradient").values
    assert far(result.double(), sw.attribute(Stem(by_formula=True), X, target=1, method="gradient").values) < 1e-5


def test_a_session_with_cached_graphs_gives_the_same_map_for_each_target_and_layer():
    """A cached graph is differentiated several times, for other classes and at another layer."""
    maps = []
    for by_formula in (False, True):
        session = Session(Problem(Stem(by_formula=by_formula), X, fold=False), lambda _: None, cache=Cache())
        requested = [Request.of("gradient", {}, target=k) for k in range(3)]
        requested += [Request.of("grad_cam", {"layer": "conv"}, target=k) for k in range(2)]
        maps.append([session.run(request)[0].values for request in requested])
        session.close()
    assert all(far(result, expected) < EXACT for result, expected in zip(*maps, strict=True))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["module", "decomposed"])
def test_an_exported_program_gives_the_map_of_the_formula(form):
    program = torch.export.export(Stem(), (X,))
    model = program.module() if form == "module" else program.run_decompositions().module()
    result = sw.attribute(model, X, target=1, method="gradient").values
    assert far(result, sw.attribute(Stem(by_formula=True), X, target=1, method="gradient").values) < EXACT


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", [torch.jit.script, lambda model: torch.jit.trace(model, X)], ids=["script", "trace"])
def test_the_check_up_reports_the_wrong_gradient_of_a_scripted_model(form):
    """Scripted code can't be intercepted, but the gradient differs from finite differences of the score."""

    class Scriptable(Stem):
        def forward(self, x):
            y = self.norm(self.conv(x))
            return self.head((y.flatten(2).transpose(1, 2) ** 3).mean(1))

    findings = [
        finding for finding in sw.checkup(form(Scriptable()), X, target=1) if "backward pass is wrong" in finding.what
    ]
    assert len(findings) == 1
    assert findings[0].severity == "wrong"
    assert "before torch.jit" in findings[0].remedy
    assert not [finding for finding in sw.checkup(Scriptable(), X, target=1) if "backward" in finding.what]


# ---- operators of vision and sequence models


def conv(function, *shape, **settings):
    weight = rows(7, *shape)
    return lambda x: function(x, weight.to(x), **settings)


def tokens_of(x):
    return x.flatten(2).transpose(1, 2)


def attention(x):
    q, k, v = (tokens_of(x * scale).unflatten(2, (2, -1)).transpose(1, 2) for scale in (1.0, 0.5, -0.7))
    return F.scaled_dot_product_attention(q, k, v)


def recurrent(kind):
    torch.manual_seed(0)
    layer = kind(4, 3, batch_first=True, bidirectional=True).double()
    return lambda x: layer(tokens_of(x)[:, :5])[0]


GRID, SHIFTS, INDEX = rows(8, 2, 3, 5, 2).clamp(-1.2, 1.2), torch.tensor([0, 2, 2, 1]), torch.tensor([3, 0, 0])
OPERATORS = {
    "conv2d": conv(F.conv2d, 5, 4, 3, 3, padding=1),
    "conv2d, strided": conv(F.conv2d, 5, 4, 2, 2, stride=2),
    "conv2d, dilated": conv(F.conv2d, 5, 4, 3, 3, dilation=2, padding=2),
    "conv2d, depthwise": conv(F.conv2d, 4, 1, 3, 3, groups=4, padding=1),
    "conv2d, 1 x 1": conv(F.conv2d, 5, 4, 1, 1),
    "conv_transpose2d": conv(F.conv_transpose2d, 4, 5, 3, 3, stride=2),
    "conv1d": lambda x: F.conv1d(x.flatten(2), rows(7, 5, 4, 3)),
    "conv3d": lambda x: F.conv3d(x[:, :, None], rows(7, 5, 4, 1, 3, 3)),
    "group_norm": lambda x: F.group_norm(x, 2, WEIGHT, BIAS),
    "layer_norm": lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (4,), WEIGHT, BIAS),
    "rms_norm": lambda x: F.rms_norm(x.permute(0, 2, 3, 1), (4,), WEIGHT),
    "batch_norm": NORMS["eval"][0],
    "instance_norm": NORMS["instance"][0],
    "local_response_norm": lambda x: F.local_response_norm(x, 3),
    "max_pool2d": lambda x: F.max_pool2d(x, 3, 2, 1),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, 3),
    "adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x, 3),
    "lp_pool2d": lambda x: F.lp_pool2d(x.square() + 1, 2, 2),
    "fractional_max_pool2d": lambda x: F.fractional_max_pool2d(
        x, 2, output_size=3, _random_samples=torch.full((len(x), 4, 2), 0.3).to(x)
    ),
    **{f"interpolate, {mode}": lambda x, mode=mode: F.interpolate(x, scale_factor=1.6, mode=mode)
       for mode in ("nearest", "bilinear", "bicubic", "area")},
    "interpolate, antialiased": lambda x: F.interpolate(x, scale_factor=0.6, mode="bilinear", antialias=True),
    **{f"pad, {mode}": lambda x, mode=mode: F.pad(x, (1, 2, 1, 0), mode=mode)
       for mode in ("constant", "reflect", "replicate", "circular")},
    "grid_sample": lambda x: F.grid_sample(x, GRID[: len(x)].to(x), align_corners=False),
    "unfold and fold": lambda x: F.fold(F.unfold(x, 3, padding=1), x.shape[2:], 3, padding=1),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x, 2),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x[..., :4, :4], 2),
    "channel_shuffle": lambda x: F.channel_shuffle(x, 2),
    **{name: getattr(F, name) for name in ("gelu", "silu", "mish", "hardswish", "elu", "softplus", "tanh", "relu6")},
    "prelu": lambda x: F.prelu(x, WEIGHT),
    "glu": lambda x: F.glu(x, 1),
    "softmax": lambda x: F.softmax(x, 1),
    "log_softmax": lambda x: F.log_softmax(x, -1),
    "attention": attention,
    "lstm": recurrent(nn.LSTM),
    "gru": recurrent(nn.GRU),
    "linear": lambda x: F.linear(tokens_of(x), rows(7, 5, 4)),
    "matmul": lambda x: tokens_of(x) @ x.flatten(2),
    "baddbmm": lambda x: torch.baddbmm(x.flatten(2)[:, :, :4], x.flatten(2), tokens_of(x)),
    "einsum": lambda x: torch.einsum("nchw,oc->nohw", x, rows(7, 5, 4)),
    "einsum, attention": lambda x: torch.einsum("nchw,nchv->nwv", x, x),
    "cumsum": lambda x: x.cumsum(1),
    "logsumexp": lambda x: x.logsumexp((2, 3)),
    "std": lambda x: x.std((2, 3)),
    "index": lambda x: x[:, SHIFTS][..., INDEX],
    "gather": lambda x: x.gather(1, SHIFTS[None, :, None, None].expand_as(x)),
    "scatter_add": lambda x: torch.zeros_like(x).scatter_add(1, SHIFTS[None, :, None, None].expand_as(x), x),
    "roll and flip": lambda x: x.roll(2, 3).flip(2),
    "cat": lambda x: torch.cat([x, x.square()], 1),
    "embedding_bag": lambda x: F.embedding_bag(
        SHIFTS.expand(len(x), 4), rows(7, 4, 3), mode="sum", per_sample_weights=x[..., 0, 0]
    ),
    "fft": lambda x: torch.fft.rfft2(x).abs(),
}  # fmt: skip


@each("batch", [1, 2])
@each("operator", OPERATORS)
def test_an_operators_gradient_equals_finite_differences(operator, batch):
    """In every layout of inputs and incoming gradients, including the expanded gradients of means and sums."""
    function, h = OPERATORS[operator], 1e-6
    x, step = rows(9, batch, 4, 6, 5), rows(10, batch, 4, 6, 5)
    ahead, behind = function(x + h * step), function(x - h * step)
    slope = (ahead - behind) / (2 * h)
    g = rows(11, *slope.shape)
    incoming = [*layouts(g)] if g.ndim > 2 else [("contiguous", g)]
    incoming += [("a mean's", g.flatten()[:1].expand(g.numel()).view(g.shape)), ("a sum's", g[..., :1].expand(g.shape))]
    for _, inputs in layouts(x):
        with undisturbed(nn.Identity()):
            leaf = inputs.detach().requires_grad_(True)
            output = function(leaf)
            for name, gradient in incoming:
                (result,) = torch.autograd.grad(output, leaf, gradient, retain_graph=True)
                expected, size = (slope * gradient).sum(), (slope * gradient).abs().sum()
                assert abs((result * step).sum() - expected) < 1e-7 * size, (inputs.stride(), name)
