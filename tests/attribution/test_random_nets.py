"""Properties that hold for all nets and methods, on small random nets."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from toys import estimates, far

import saliency_widgets as sw
from saliency_widgets.attribution.numerics.quadrature import RULES

METHODS = sw.methods()
SIZES = {"n_steps": 11, "n_samples": 9}
ACTIVATIONS = (nn.ReLU, nn.Tanh, nn.GELU, nn.ReLU6)
CLOSE = {torch.float32: 1e-5, torch.float64: 1e-12}
FEW = settings(max_examples=25)
MORE = settings(max_examples=120)  # for tests that draw the method as well


def conv_stack(draw, channels, activation):
    layers = []
    for _ in range(draw(st.integers(1, 3))):
        width = draw(st.integers(1, 5))
        layers.append(nn.Conv2d(channels, width, draw(st.sampled_from([1, 3])), padding=1, bias=draw(st.booleans())))
        if draw(st.booleans()):
            layers.append(nn.BatchNorm2d(width))
        layers.append(activation())
        channels = width
    pooled = draw(st.sampled_from([1, 2]))
    return [*layers, nn.AdaptiveAvgPool2d(pooled), nn.Flatten()], channels * pooled**2


def dense_stack(draw, features, activation):
    layers = []
    for _ in range(draw(st.integers(0, 3))):
        width = draw(st.integers(1, 8))
        layers.append(nn.Linear(features, width, bias=draw(st.booleans())))
        if draw(st.booleans()):
            layers.append(nn.BatchNorm1d(width))
        layers.append(activation())
        features = width
    return layers, features


@st.composite
def nets(draw, dtypes=(torch.float32, torch.float64)):
    """A net in eval mode, a batch, and a class for each of its samples."""
    torch.manual_seed(draw(st.integers(0, 2**16)))
    activation, dtype = draw(st.sampled_from(ACTIVATIONS)), draw(st.sampled_from(dtypes))
    batch, classes = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    if draw(st.booleans()):
        shape = (draw(st.sampled_from([1, 3])), draw(st.integers(3, 9)), draw(st.integers(3, 9)))
        layers, features = conv_stack(draw, shape[0], activation)
    else:
        shape = (draw(st.integers(1, 9)),)
        layers, features = dense_stack(draw, shape[0], activation)
    model = nn.Sequential(*layers, nn.Linear(features, classes)).to(dtype)
    for norm in (m for m in model.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))):
        nn.init.normal_(norm.running_mean, std=0.3)
        nn.init.uniform_(norm.running_var, 0.5, 2)
        nn.init.normal_(norm.bias, std=0.3)
    target = [draw(st.integers(0, classes - 1)) for _ in range(batch)]
    draw_inputs = torch.randn if len(shape) == 1 else torch.rand  # image values lie in [0, 1]
    return model.eval(), draw_inputs(batch, *shape, dtype=dtype), target


def inapplicable(model, x, method):
    """Return whether the method can't be applied to the net."""
    needs = METHODS[method].needs
    return (
        ("relu" in needs and not any(isinstance(m, (nn.ReLU, nn.ReLU6)) for m in model))
        or ("layer" in needs and x.ndim != 4)
        or (method == "blur_ig" and x.ndim != 4)
    )


def explain(method, model, x, target, **more):
    return sw.attribute(model, x, method=method, **{"target": target, **size_of(method), **more})


def size_of(method):
    return {param.name: SIZES[param.name] for param in METHODS[method].params if param.name in SIZES}


def scale_of(result):
    """Return the scale of rounding errors, which are relative to the largest summand even if the sum is small."""
    return float(result.abs().max()) + 1e-3


@pytest.mark.parametrize("method", [name for name in METHODS if "chunk_size" in {p.name for p in METHODS[name].params}])
@FEW
@given(net=nets(), chunk_size=st.integers(1, 40))
def test_the_result_does_not_depend_on_the_chunk_size(method, net, chunk_size):
    model, x, target = net
    if inapplicable(model, x, method):
        return
    whole = explain(method, model, x, target, chunk_size=1024)
    result = explain(method, model, x, target, chunk_size=chunk_size)
    close = CLOSE[x.dtype] * scale_of(whole.values)
    assert float((result.values - whole.values).abs().max()) <= close
    assert result.evaluations == whole.evaluations


@settings(max_examples=60)
@given(net=nets(), method=st.sampled_from([*METHODS]))
def test_a_batch_equals_its_samples_alone(net, method):
    model, x, target = net
    if inapplicable(model, x, method):
        with pytest.raises(ValueError, match=r"^(method|layer): "):
            explain(method, model, x, target)
        return
    layer = {}
    together = explain(method, model, x, target)
    if "layer" in together.settings:
        # The default layer may depend on where gradients are zero, and thus on the batch.
        layer = {"layer": together.settings["layer"] or "0"}
        together = explain(method, model, x, target, **layer)
    alone = [explain(method, model, x[i : i + 1], target[i], **layer).values for i in range(len(x))]
    close = CLOSE[x.dtype] * scale_of(together.values)
    assert float((torch.cat(alone) - together.values).abs().max()) <= close


@pytest.mark.parametrize("method", ["integrated_gradients", "expected_gradients"])
def test_an_image_of_unknown_range_does_not_depend_on_the_rest_of_the_batch(method):
    """The inputs of an unknown transform have an unknown pixel range, which must be guessed from each image alone."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 2)).double()
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64) * torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)
    together = explain(method, model, x, [0, 1]).values
    alone = [explain(method, model, x[i : i + 1], i).values for i in range(2)]
    assert far(together, torch.cat(alone)) < 1e-12


@MORE
@given(net=nets(), method=st.sampled_from([*METHODS]), seed=st.integers(0, 2**31 - 1))
def test_the_same_seed_gives_the_same_bits(net, method, seed):
    model, x, target = net
    if inapplicable(model, x, method):
        return
    options = {"seed": seed} if "seed" in {param.name for param in METHODS[method].params} else {}
    first = explain(method, model, x, target, **options)
    torch.manual_seed(seed)
    again = explain(method, model, x, target, **options)
    assert torch.equal(first.values, again.values)
    assert first.settings == again.settings


@FEW
@given(net=nets(), n_steps=st.integers(1, 40), rule=st.sampled_from(sorted(RULES)), baseline=st.booleans())
def test_delta_equals_its_definition(net, n_steps, rule, baseline):
    model, x, target = net
    start = torch.randn(x.shape, dtype=x.dtype) if baseline else torch.zeros_like(x)
    settings = {"baseline": start, "n_steps": n_steps, "quadrature": rule}
    result = explain("integrated_gradients", model, x, target, **settings)
    rows = torch.arange(len(x))
    with torch.no_grad():
        change = model(x)[rows, target] - model(start)[rows, target]
        size = result.values.abs().flatten(1).sum(1).max() + change.abs().max() + model(x).abs().max()
    missing = result.values.flatten(1).sum(1) - change
    assert float((result.delta - missing).abs().max()) <= CLOSE[x.dtype] * float(size)


@FEW
@given(net=nets(dtypes=(torch.float64,)), method=st.sampled_from(["integrated_gradients", "expected_gradients"]))
def test_delta_of_every_estimate_equals_its_definition(net, method):
    """There is only one baseline, so that the mean score of the baselines drawn so far is constant."""
    model, x, target = net
    start = 0.7 * x[:1].flip(-1)
    options = {"baseline": start} if method == "integrated_gradients" else {"baselines": start}
    with torch.no_grad():
        change = (model(x) - model(start))[torch.arange(len(x)), target]
    running = [
        result
        for result in estimates(model, x, method, target=target, chunk_size=1, **size_of(method), **options)
        if result.delta is not None
    ]
    assert len(running) > 1
    for result in running:
        missing = result.values.flatten(1).sum(1) - change
        size = float(result.values.abs().flatten(1).sum(1).max() + model(x).detach().abs().max())
        assert float((result.delta - missing).abs().max()) <= 1e-12 * size


def clenshaw_curtis_by_moments(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes, at Chebyshev extrema, and the weights that integrate Chebyshev polynomials up to degree n."""
    nodes = (1 - np.cos(np.pi * np.arange(n + 1) / n)) / 2
    moments = [0.0 if k % 2 else 1 / (1 - k * k) for k in range(n + 1)]
    return nodes, np.linalg.solve(np.polynomial.chebyshev.chebvander(2 * nodes - 1, n).T, moments)


@FEW
@given(net=nets(dtypes=(torch.float64,)), n_steps=st.integers(1, 12), rule=st.sampled_from(sorted(RULES)))
def test_integrated_gradients_are_the_weighted_sum_of_raw_gradients(net, n_steps, rule):
    model, x, target = net
    nodes, weights = {
        "trapezoid": (np.linspace(0, 1, n_steps + 1), np.r_[0.5, np.ones(n_steps - 1), 0.5] / n_steps),
        "midpoint": ((np.arange(n_steps) + 0.5) / n_steps, np.full(n_steps, 1 / n_steps)),
        "gauss_legendre": [
            half / 2 + shift for half, shift in zip(np.polynomial.legendre.leggauss(n_steps), (0.5, 0.0), strict=True)
        ],
        "clenshaw_curtis": clenshaw_curtis_by_moments(n_steps),
    }[rule]
    expected = torch.zeros_like(x)
    for t, w in zip(nodes, weights, strict=True):
        leaf = (float(t) * x).requires_grad_()
        scores = model(leaf)[torch.arange(len(x)), target]
        expected += float(w) * x * torch.autograd.grad(scores.sum(), leaf)[0]
    result = explain("integrated_gradients", model, x, target, n_steps=n_steps, quadrature=rule, baseline="zero")
    # A node within rounding of a kink may fall on either side of it, but that is too rare to occur in these draws.
    assert float((result.values - expected).abs().max()) <= 1e-11 * scale_of(expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_most_nets_have_a_gradient_that_is_not_zero(dtype):
    """Otherwise, the tests above would only compare zeros."""
    alive = []

    @settings(max_examples=40, database=None)
    @given(net=nets(dtypes=(dtype,)))
    def look(net):
        model, x, target = net
        alive.append(bool(explain("integrated_gradients", model, x, target).values.any()))

    look()
    assert sum(alive) > 0.6 * len(alive)
