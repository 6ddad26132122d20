"""Axioms of Integrated Gradients and of gradients, on random models."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from toys import Formula, far, mlp, rows

import saliency_widgets as sw

SEEDS = st.integers(0, 2**16)
FEW = settings(max_examples=15)
PLAIN = ("gradient", "input_x_gradient", "smoothgrad", "integrated_gradients")


def run(model, x, method="integrated_gradients", **params):
    sizes = {"smoothgrad": {"n_samples": 5}, "integrated_gradients": {"n_steps": 8}}.get(method, {})
    return sw.attribute(model, x, method=method, **{"target": 0, **sizes, **params})


def polynomial(seed, degree, features=3):
    """A random polynomial in all variables: a sum of products of linear forms."""
    forms = rows(seed, 4, degree, features)
    return Formula(lambda x: torch.einsum("kdf,nf->nkd", forms, x).prod(2).sum(1))


@FEW
@given(seed=SEEDS, degree=st.integers(1, 6))
def test_completeness_on_polynomials(seed, degree):
    """The integrand has degree - 1 in t: Gauss-Legendre with n nodes is exact up to 2n - 1."""
    model, x, baseline = polynomial(seed, degree), rows(seed + 1, 2, 3), rows(seed + 2, 2, 3)
    result = run(model, x, baseline=baseline, quadrature="gauss_legendre", n_steps=(degree + 1) // 2, score="value")
    scale = float(result.values.abs().max()) + 1
    assert float(result.delta.abs().max()) < 1e-12 * scale


@FEW
@given(seed=SEEDS, n_steps=st.integers(1, 100))
def test_completeness_error_on_a_piecewise_linear_net_is_bounded_by_the_step_width(seed, n_steps):
    """Each jump of the slope causes an error of the trapezoid rule of at most half a step times the jump."""
    model, x = mlp(seed), rows(seed + 1, 1, 4)
    t = torch.linspace(0, 1, 4001, dtype=torch.float64)[:, None].requires_grad_()
    (slope,) = torch.autograd.grad(model(t * x)[:, 0].sum(), t)
    jumps = float(slope.diff(dim=0).abs().sum())
    assert (
        float(run(model, x, n_steps=n_steps, quadrature="trapezoid").delta.abs())
        <= 1.001 * jumps / (2 * n_steps) + 1e-12
    )


@FEW
@given(seed=SEEDS, method=st.sampled_from(PLAIN))
def test_dummy_an_unused_input_gets_exactly_zero(seed, method):
    model, x = mlp(seed), rows(seed + 1)
    with torch.no_grad():
        model[0].weight[:, 2] = 0
    assert bool((run(model, x, method).values[:, 2] == 0).all())


@FEW
@given(seed=SEEDS, method=st.sampled_from(["gradient", "input_x_gradient", "integrated_gradients"]))
def test_symmetry_equal_inputs_with_equal_weights_get_equal_values(seed, method):
    model, x = mlp(seed), rows(seed + 1)
    with torch.no_grad():
        model[0].weight[:, 3] = model[0].weight[:, 1]
    x[:, 3] = x[:, 1]
    values = run(model, x, method).values
    assert far(values[:, 3], values[:, 1]) < 1e-13


@FEW
@given(seed=SEEDS, method=st.sampled_from(PLAIN), a=st.floats(-3, 3), b=st.floats(-3, 3))
def test_linearity_in_the_model(seed, method, a, b):
    first, second, x = mlp(seed, classes=1), mlp(seed + 1, classes=1), rows(seed + 2)
    both = Formula(lambda x: (a * first(x) + b * second(x))[:, 0])
    parts = [run(model, x, method).values for model in (first, second)]
    expected = a * parts[0] + b * parts[1]
    assert float((run(both, x, method).values - expected).abs().max()) < 1e-12


@FEW
@given(seed=SEEDS, method=st.sampled_from(PLAIN))
def test_implementation_invariance_two_nets_that_compute_one_function_get_equal_values(seed, method):
    """A permuted hidden layer, and relu(2x) / 2, compute the same function."""
    model, x = mlp(seed), rows(seed + 1)
    twin = mlp(seed)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        twin[0].weight.copy_(2 * model[0].weight[order])
        twin[0].bias.copy_(2 * model[0].bias[order])
        twin[2].weight.copy_(model[2].weight[:, order] / 2)
    assert far(run(twin, x, method).values, run(model, x, method).values) < 1e-12


@FEW
@given(seed=SEEDS)
def test_an_input_equal_to_its_baseline_gets_zero(seed):
    x = rows(seed + 1)
    result = run(mlp(seed), x, baseline=x.clone())
    assert bool((result.values == 0).all())
    # rows of one batch may be rounded differently
    assert bool((result.delta.abs() < 1e-15).all())
    assert any("equals the baseline" in note for note in result.notes)


@FEW
@given(seed=SEEDS, rule=st.sampled_from(["trapezoid", "midpoint", "gauss_legendre"]))
def test_exchanging_input_and_baseline_changes_the_sign(seed, rule):
    """All rules are symmetric about the middle of the integration path."""
    model, x, baseline = mlp(seed, activation=nn.Tanh), rows(seed + 1), rows(seed + 2)
    forward = run(model, x, baseline=baseline, quadrature=rule)
    backward = run(model, baseline, baseline=x, quadrature=rule)
    assert far(-backward.values, forward.values) < 1e-11


@FEW
@given(seed=SEEDS)
def test_the_gradient_agrees_with_central_differences(seed):
    model, x, h = mlp(seed, activation=nn.Tanh), rows(seed + 1), 1e-5
    result = run(model, x, "gradient").values
    with torch.no_grad():
        steps = torch.eye(4, dtype=torch.float64) * h
        slopes = [(model(x + step) - model(x - step))[:, 0] / (2 * h) for step in steps]
    assert torch.allclose(result, torch.stack(slopes, 1), rtol=0, atol=1e-8)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_completeness_delta_is_not_distributed_over_the_values(scale):
    """Values that were rescaled for completeness would sum to the change of the score."""
    model = Formula(lambda x: scale * (x**4).sum(1))
    x = torch.tensor([[1.0, 2.0, -1.0]], dtype=torch.float64)
    result = run(model, x, n_steps=2, score="value")
    # The trapezoid rule with 2 steps gives 4 t^3 as (0 + 2 * 4/8 + 4) / 4 = 1.25.
    assert far(result.values, 1.25 * scale * x**4) < 1e-14
    assert far(result.delta, 0.25 * scale * (x**4).sum(1)) < 1e-13
