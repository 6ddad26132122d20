"""Expected Gradients: closed forms, and expectations within the standard error."""

import numpy as np
import pytest
import torch
from torch import nn
from toys import Formula, conv_net, each, estimates, far, images, linear, mlp, power, rows, runner, state_of

import saliency_widgets as sw

X = torch.tensor([[0.5, -2.0, 3.0, 1.0], [1.5, 0.25, -1.0, 2.0]], dtype=torch.float64)
W = torch.tensor([1.0, -2.0, 0.5, 4.0], dtype=torch.float64)


def explain(model, x=X, **settings):
    return sw.attribute(model, x, method="expected_gradients", **{"score": "value", **settings})


# ---- the drawn baselines


def test_linear_is_exact_for_the_baselines_that_were_drawn():
    """With the unit vectors as baselines, n (x - values / w) is the number of times that each was drawn."""
    n, stack = 200, torch.eye(4, dtype=torch.float64)
    result = explain(linear(W, 3.0), baselines=stack, n_samples=n)
    counts = n * (X - result.values / W)
    assert far(counts, counts.round()) < 1e-12
    assert torch.equal(counts.round()[0], counts.round()[1]), "the rows of a batch share their draws"
    assert float(counts[0].sum()) == pytest.approx(n)
    chi_square = float((counts[0] - n / 4).square().sum() / (n / 4))
    assert 0.07 < chi_square < 21  # 3 degrees of freedom: one in 200 below, one in 10000 above
    assert float(result.delta.abs().max()) < 1e-12
    assert far(result.score, X @ W + 3.0) < 1e-15


@each("seed", range(5))
def test_linear_from_noise_is_within_the_standard_error_of_its_expectation(seed):
    """Uniform between a row's min and max: mean (low + high) / 2, variance (high - low)^2 / 12."""
    n, x = 400, torch.cat([rows(1, 1, 200), 3 + 0.1 * rows(2, 1, 200)])
    weights = rows(3, 200)
    low, high = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    result = explain(linear(weights), x, n_samples=n, seed=seed)
    standard_error = weights.abs() * (high - low) / (12 * n) ** 0.5
    z = (result.values - weights * (x - (low + high) / 2)) / standard_error
    assert float(z.abs().max()) < 5
    assert float(z[0].square().mean()) == pytest.approx(1, abs=5 * (2 / 200) ** 0.5)
    assert float((result.standard_error / standard_error).mean()) == pytest.approx(1, abs=0.02)
    assert float(result.delta.abs().max()) < 1e-11


def test_noise_of_an_image_lies_between_black_and_white():
    model = nn.Sequential(nn.Flatten(), linear(torch.ones(3 * 64, dtype=torch.float64)))
    x = 0.4 + 0.2 * images(0, 1, 3, 8, 8)
    result = explain(model, x, n_samples=400)
    assert far(result.standard_error.mean()[None], torch.tensor([1 / (12 * 400) ** 0.5]).double()) < 0.02
    assert float((result.values - (x - 0.5)).abs().max()) < 5 / (12 * 400) ** 0.5


def test_noise_is_the_default_and_may_be_named_in_a_list():
    argument = [None, "noise", ["noise"], ("noise",), ["noise", None]]
    result = [explain(power(3), baselines=value, n_samples=7, seed=3).values for value in argument]
    assert all(torch.equal(values, result[0]) for values in result[1:])
    assert not torch.equal(explain(power(3), n_samples=7, seed=4).values, result[0])


# ---- closed forms


SEEDS = 60


def squares(n, **settings):
    """Return the estimates for sum x^2 and their reported standard errors, each stacked over seeds."""
    result = [explain(power(2), n_samples=n, seed=seed, **settings) for seed in range(SEEDS)]
    return torch.stack([f.values for f in result]), torch.stack([f.standard_error for f in result])


def test_squares_from_zero():
    """A sample is 2 t x^2, with t uniform: mean x^2, variance x^4 / 3."""
    n = 100
    values, reported = squares(n, baselines="zero")
    standard_error = X**2 / (3 * n) ** 0.5
    z = (values - X**2) / standard_error
    assert float(z.abs().max()) < 4.5
    assert torch.allclose(z.square().mean(0), torch.ones_like(X), atol=5 * (2 / SEEDS) ** 0.5)
    assert torch.allclose((reported / standard_error).mean(0), torch.ones_like(X), atol=0.02)


@pytest.mark.soak
def test_squares_from_two_baselines():
    """The expectation is E[x^2 - x'^2], the mean of the results for each baseline."""
    stack = torch.stack([torch.zeros(4), torch.full((4,), 2.0)]).double()
    values, reported = squares(100, baselines=stack)
    z = (values - (X**2 - 2)) / reported
    assert float(z.abs().max()) < 5
    assert torch.allclose(z.square().mean(0), torch.ones_like(X), atol=5 * (2 / SEEDS) ** 0.5)


def test_squares_from_noise():
    """E[x'^2] of x' uniform from low to high is (low^2 + low high + high^2) / 3."""
    low, high = X.amin(1, keepdim=True), X.amax(1, keepdim=True)
    values, reported = squares(100)
    z = (values - (X**2 - (low**2 + low * high + high**2) / 3)) / reported
    assert float(z.abs().max()) < 5
    assert torch.allclose(z.square().mean(0), torch.ones_like(X), atol=5 * (2 / SEEDS) ** 0.5)


@pytest.mark.parametrize("seed", range(3))
def test_with_one_baseline_it_agrees_with_integrated_gradients(seed):
    model, x, baseline = mlp(seed, activation=nn.Tanh), rows(seed + 1), rows(seed + 2, 4)
    settings = {"target": [2, 0], "score": "logit"}
    exact = sw.attribute(
        model, x, method="integrated_gradients", baseline=baseline, n_steps=64, quadrature="gauss_legendre", **settings
    )
    result = explain(model, x, baselines=baseline, n_samples=400, seed=seed, **settings)
    assert float(((result.values - exact.values) / result.standard_error).abs().max()) < 4
    assert far(result.score, exact.score) < 1e-14


def test_the_standard_error_is_that_of_the_samples():
    """Each sample is computed from the means of k and of k - 1 samples."""
    n, settings = 13, {"seed": 5, "chunk_size": 4}
    means = [torch.zeros_like(X), *(explain(power(3), n_samples=k, **settings).values for k in range(1, n + 1))]
    drawn = torch.stack([k * means[k] - (k - 1) * means[k - 1] for k in range(1, n + 1)])
    result = explain(power(3), n_samples=n, **settings)
    assert far(result.standard_error, drawn.std(0) / n**0.5) < 1e-11
    assert explain(power(3), n_samples=1).standard_error is None


# ---- completeness


SEEN = []  # global, because what a hook closes over is copied with the model


def scored_without_gradients(model, x, **settings):
    """Return the final result, and the rows other than the inputs that were scored without gradients."""
    SEEN.clear()
    handle = model.register_forward_hook(
        lambda _module, inputs, output: None if output.requires_grad else SEEN.append(inputs[0].clone())
    )
    run = sw.methods()["expected_gradients"]
    *_, result = run.run(runner(model, x), **run.check_params(settings))
    handle.remove()
    assert torch.equal(SEEN[0], x)
    return result, torch.cat(SEEN[1:]).view(-1, *x.shape)


@pytest.mark.parametrize("chunk_size", [1, 4, 100])
def test_delta_equals_its_definition(chunk_size):
    model = Formula(lambda x: (2 * x).sin().sum(1) * x.prod(1))
    result, baselines = scored_without_gradients(model, X, n_samples=11, chunk_size=chunk_size)
    assert len(baselines) == 11
    expected = model(baselines.flatten(0, 1)).view(11, 2).mean(0).detach()
    assert far(result.delta, result.values.sum(1) - (model(X)[:, 0].detach() - expected)) < 1e-12


def test_each_baseline_is_scored_once():
    stack = rows(4, 3, 4)
    for baselines, most in {"zero": 1, stack: 3, (stack, "zero", "mean"): 5}.items():
        _, scored = scored_without_gradients(power(3), X, baselines=baselines, n_samples=100)
        assert len(scored) == most
    result, _ = scored_without_gradients(power(2), X, baselines="mean", n_samples=100)
    mean = X.mean(1, keepdim=True).expand(2, 4)
    assert far(result.delta, result.values.sum(1) - (X**2 - mean**2).sum(1)) < 1e-12


def test_a_change_of_the_score_without_gradient_is_reported():
    """Half of the score has no gradient, which a note reports; the sampling error of few samples needs no note."""

    class Half(nn.Module):
        def forward(self, x):
            smooth = x.square().sum(1, keepdim=True)
            return smooth + smooth.detach()

    noisy = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    for baselines in (torch.zeros(1, 4), noisy):
        (note,) = explain(Half().eval(), baselines=baselines, n_samples=100).notes
        assert "of the score's change of sample" in note
        assert "More samples will hardly reduce it" in note
        assert not explain(power(2).eval(), baselines=baselines, n_samples=20).notes


def test_delta_decreases_with_more_samples():
    deltas = [explain(power(3), baselines="zero", n_samples=n).delta.abs() for n in (5, 500)]
    assert bool((deltas[1] < deltas[0]).all())
    # From zero, sum(values) - F(x) is (mean of 3 t^2 - 1) F(x): a standard deviation of sqrt(4 / 5 / n) F(x).
    assert bool((deltas[1] < 4 * (0.8 / 500) ** 0.5 * (X**3).sum(1).abs()).all())


# ---- chunks, batches and seeds


@each("chunk_size", [1, 2, 3, 5, 8, 16, 1000])
@each("baselines", [None, "blur", images(9, 5, 3, 8, 8)], ids=["noise", "blur", "stack"])
def test_the_result_does_not_depend_on_the_chunk_size(chunk_size, baselines):
    model, x = conv_net(activation=nn.Tanh), images(0, 3, 3, 8, 8)
    settings = {"baselines": baselines, "n_samples": 17, "target": [2, 0, 3], "score": "logit"}
    whole = explain(model, x, chunk_size=1024, **settings)
    split = explain(model, x, chunk_size=chunk_size, **settings)
    assert far(split.values, whole.values) < 1e-12
    assert far(split.standard_error, whole.standard_error) < 1e-11
    assert torch.allclose(split.delta, whole.delta, rtol=0, atol=1e-12)
    for i, target in enumerate([2, 0, 3]):
        alone = explain(model, x[i : i + 1], **{**settings, "target": target})
        assert far(whole.values[i : i + 1], alone.values) < 1e-12
        assert torch.allclose(whole.delta[i : i + 1], alone.delta, rtol=0, atol=1e-12)


@pytest.mark.parametrize("baselines", [None, rows(4, 3, 4)], ids=["noise", "stack"])
def test_the_draws_of_few_samples_are_the_first_of_many(baselines):
    settings = {"baselines": baselines, "score": "value", "seed": 2}
    running = {e.done: e for e in estimates(power(3), X, "expected_gradients", n_samples=50, chunk_size=8, **settings)}
    assert {1, 4, 12, 20, 44, 50} <= set(running)
    for n, estimate in running.items():
        fewer = explain(power(3), n_samples=n, chunk_size=2, **settings)
        assert far(fewer.values, estimate.values) < 1e-12
        assert torch.allclose(fewer.delta, estimate.delta, rtol=0, atol=1e-11)


def test_a_list_equals_the_stack_of_its_items():
    first, second = rows(4, 2, 4), rows(5, 4)
    whole = explain(power(3), baselines=torch.cat([first, second[None], torch.zeros(1, 4)]), n_samples=20)
    for value in ([first, second, "zero"], (*first, second.numpy(), "zero"), [[*first], [second[None], "zero"]]):
        assert torch.equal(explain(power(3), baselines=value, n_samples=20).values, whole.values)
    alone = explain(power(3), baselines=second, n_samples=20)
    assert torch.equal(explain(power(3), baselines=[second], n_samples=20).values, alone.values)


@each(
    ("baselines", "error", "pattern"),
    [
        (torch.zeros(3, 5), ValueError, r"baselines: expected a stack of shape \(K, 4\).*got shape \(3, 5\)\. Apply"),
        (torch.zeros(5), ValueError, r"baselines: expected a stack of shape \(K, 4\).*got shape \(5,\)"),
        (torch.zeros(3, 2, 4), ValueError, r"baselines: .*got shape \(3, 2, 4\)"),
        (torch.zeros(0, 4), ValueError, r"baselines: .*got shape \(0, 4\)"),
        (torch.tensor(0.0), ValueError, r"baselines: .*got shape \(\)"),
        ([torch.zeros(4), torch.zeros(3)], ValueError, r"baselines: .*got shape \(3,\)"),
        (torch.full((2, 4), torch.nan), ValueError, r"baselines: they hold NaN or infinite values\. Remove"),
        ([torch.zeros(4), torch.full((4,), torch.inf)], ValueError, r"baselines: they hold NaN or infinite values"),
        ([], ValueError, r"baselines: the list is empty\. Pass at least one"),
        ("blakc", ValueError, r"baselines: 'blakc' is not known\. Did you mean 'black'"),
        (["zero", "blakc"], ValueError, r"baselines: 'blakc' is not known"),
        ("black", ValueError, r"'black' means black pixels, but these inputs are not images"),
        (3, TypeError, r"baselines: expected a name, a tensor.*got a int"),
        ([3.0], TypeError, r"baselines: expected a name, a tensor.*got a float"),
        (np.array(["a"]), TypeError, r"^baselines: expected numbers, got an array of <U1"),
        ([np.array([None] * 4)], TypeError, r"^baselines: expected numbers, got an array of object"),
        (
            torch.zeros(2, 4, dtype=torch.complex64),
            TypeError,
            r"^baselines: expected real numbers, got torch\.complex64",
        ),
        (["zero", "white"], ValueError, r"^baselines: 'white' means white pixels"),
        ("blur", ValueError, r"^baselines: 'blur' needs images"),
    ],
    ids=str,
)
def test_invalid_baselines_are_refused(baselines, error, pattern):
    model = power(2)
    before = state_of(model)
    with pytest.raises(error, match=pattern):
        explain(model, baselines=baselines)
    assert state_of(model) == before
