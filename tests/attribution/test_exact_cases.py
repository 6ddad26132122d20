"""Models whose attributions are known in closed form."""

import pytest
import torch
from torch import nn
from toys import Formula, each, estimates, far, linear, power, rows

import saliency_widgets as sw
from saliency_widgets.attribution.numerics.noise import normal_noise

RULES = ("trapezoid", "midpoint", "gauss_legendre")
X = torch.tensor([[0.5, -2.0, 3.0, 1.0], [1.5, 0.25, -1.0, 2.0]], dtype=torch.float64)
W = torch.tensor([1.0, -2.0, 0.5, 4.0], dtype=torch.float64)


def values(model, x=X, *, method, **params):
    return sw.attribute(model, x, method=method, score="value", **params).values


# ---- linear: w . x + b


@pytest.mark.parametrize("method", ["gradient", "smoothgrad"])
def test_linear_the_gradient_is_the_weights_with_and_without_noise(method):
    assert far(values(linear(W, 3.0), method=method), W.expand_as(X)) < 1e-14


def test_linear_input_x_gradient():
    assert torch.equal(values(linear(W, 3.0), method="input_x_gradient"), W * X)


@each("rule", RULES)
@each("n_steps", [1, 2, 3, 7, 32])
def test_linear_integrated_gradients_is_exact_at_any_number_of_steps(rule, n_steps):
    baseline = rows(3, 2, 4)
    result = values(linear(W, 3.0), method="integrated_gradients", baseline=baseline, quadrature=rule, n_steps=n_steps)
    assert far(result, W * (X - baseline)) < 1e-14


def test_linear_the_variance_over_noise_is_zero_also_in_float32():
    """The mean of squares minus the squared mean would leave rounding errors: both are about 1e12 in float32."""
    steep = (1e3 * W + 1e6).float()
    result = values(linear(steep), X.float(), method="smoothgrad", statistic="variance")
    assert float(result.abs().max()) == 0


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("smoothgrad", {"n_samples": 1000, "noise_level": 3.0}),
        ("integrated_gradients", {"n_steps": 2001, "tolerance": 0.0, "baseline": "zero"}),
        ("integrated_gradients", {"n_steps": 2001, "quadrature": "clenshaw_curtis", "baseline": "zero"}),
        ("expected_gradients", {"n_samples": 2000, "baselines": "zero"}),
    ],
)
def test_linear_with_more_samples_or_steps_than_the_sliders_allow(method, params):
    result = sw.attribute(linear(W, 3.0), X, method=method, score="value", **params)
    assert result.evaluations == params.get("n_samples", params.get("n_steps", 0) + 1)
    assert far(result.values, W.expand_as(X) if method == "smoothgrad" else W * X) < 1e-12


# ---- sum of squares and of cubes


@each("rule", RULES)
@each("n_steps", [1, 2, 5, 16])
def test_squares_integrated_gradients_from_zero(rule, n_steps):
    result = values(power(2), method="integrated_gradients", n_steps=n_steps, quadrature=rule)
    assert far(result, X**2) < 1e-14


@each("n_steps", [2, 3, 8, 64])
def test_cubes_gauss_legendre_is_exact(n_steps):
    result = sw.attribute(
        power(3),
        X,
        method="integrated_gradients",
        quadrature="gauss_legendre",
        n_steps=n_steps,
        score="value",
    )
    assert far(result.values, X**3) < 1e-13
    assert far(result.delta + 1, torch.ones(2, dtype=torch.float64)) < 1e-12


@each(("rule", "error"), [("trapezoid", 1 / 2), ("midpoint", -1 / 4)])
@each("n_steps", [1, 2, 5, 10, 100])
def test_cubes_the_other_rules_have_their_theoretical_errors(rule, error, n_steps):
    """The integral of 3 t^2: the trapezoid rule gives 1 + 1/(2 n^2), the midpoint rule 1 - 1/(4 n^2)."""
    result = sw.attribute(power(3), X, method="integrated_gradients", quadrature=rule, n_steps=n_steps, score="value")
    assert far(result.values, X**3 * (1 + error / n_steps**2)) < 1e-13
    assert far(result.delta, (X**3).sum(1) * error / n_steps**2) < 1e-9


def test_exponential_converges_with_the_order_of_each_rule():
    model = Formula(lambda x: x.exp().sum(1))
    errors = {
        rule: [
            far(values(model, method="integrated_gradients", n_steps=n, quadrature=rule), X.exp() - 1) for n in (8, 16)
        ]
        for rule in RULES
    }
    assert errors["trapezoid"][0] / errors["trapezoid"][1] == pytest.approx(4, rel=0.02)
    assert errors["midpoint"][0] / errors["midpoint"][1] == pytest.approx(4, rel=0.02)
    assert errors["gauss_legendre"][0] < 1e-12


# ---- noise


N = 400
WIDE = torch.linspace(-1.0, 2.0, 300, dtype=torch.float64)[None]  # max - min = 3
LEVEL = 0.2
SIGMA = 0.2 * 3.0


def moments(x, s):
    """E[u^2], E[u^4], E[u^8] of u = x + s z."""
    return (
        x**2 + s**2,
        x**4 + 6 * x**2 * s**2 + 3 * s**4,
        x**8 + 28 * x**6 * s**2 + 210 * x**4 * s**4 + 420 * x**2 * s**6 + 105 * s**8,
    )


def assert_within_sampling_error(result, expected, standard_error):
    """Check that all z-scores are below 4, and that together they have mean 0 and mean square 1."""
    z = (result - expected) / standard_error
    assert float(z.abs().max()) < 4
    assert float(z.square().mean()) == pytest.approx(1, abs=5 * (2 / z.numel()) ** 0.5)
    assert float(z.mean()) == pytest.approx(0, abs=5 / z.numel() ** 0.5)


def noisy(statistic, **more):
    return sw.attribute(
        power(3),
        WIDE,
        method="smoothgrad",
        noise_level=LEVEL,
        n_samples=N,
        statistic=statistic,
        score="value",
        **more,
    )


def test_cubes_smoothgrad_is_the_gradient_plus_three_times_the_variance_of_the_noise():
    second, fourth, _ = moments(WIDE, SIGMA)
    result = noisy("mean")
    standard_error = 3 * ((fourth - second**2) / N).sqrt()
    assert_within_sampling_error(result.values, 3 * WIDE**2 + 3 * SIGMA**2, standard_error)
    # The reported standard error is right, to within the sampling error of a standard deviation.
    assert float((result.standard_error / standard_error).mean()) == pytest.approx(1, abs=0.02)


def test_cubes_squared_smoothgrad():
    _, fourth, eighth = moments(WIDE, SIGMA)
    assert_within_sampling_error(noisy("squared").values, 9 * fourth, 9 * ((eighth - fourth**2) / N).sqrt())


def test_cubes_vargrad():
    a, b = 2 * WIDE * SIGMA, SIGMA**2  # u^2 - E[u^2] = a z + b (z^2 - 1)
    variance = a**2 + 2 * b**2
    fourth = 3 * a**4 + 60 * a**2 * b**2 + 60 * b**4
    spread = ((fourth - variance**2 * (N - 3) / (N - 1)) / N).sqrt()
    result = noisy("variance").values
    assert torch.allclose(9 * variance, 9 * (4 * WIDE**2 * SIGMA**2 + 2 * SIGMA**4))
    # The sample variance is skewed: z-scores are below 4, but their mean square is not 1.
    z = (result - 9 * variance) / (9 * spread)
    assert float(z.abs().max()) < 4
    assert float(z.mean()) == pytest.approx(0, abs=5 / z.numel() ** 0.5)


def test_another_seed_gives_other_noise():
    first, second = noisy("mean", seed=0).values, noisy("mean", seed=1).values
    assert float((first - second).abs().min()) > 0


@pytest.mark.parametrize("statistic", ["mean", "squared"])
def test_zero_noise_is_the_gradient(statistic):
    result = values(power(3), method="smoothgrad", noise_level=0.0, n_samples=9, statistic=statistic)
    exact = 3 * X**2
    assert far(result, exact if statistic == "mean" else exact**2) < 1e-14


def test_a_constant_input_gets_no_noise():
    flat = torch.full((1, 4), 0.7, dtype=torch.float64)
    assert far(values(power(3), flat, method="smoothgrad"), 3 * flat**2) < 1e-14


def test_the_noise_is_scaled_by_each_samples_own_range():
    both = torch.stack([X[0], 10 * X[0]])
    alone = [values(power(3), x[None], method="smoothgrad", n_samples=5) for x in both]
    assert far(values(power(3), both, method="smoothgrad", n_samples=5), torch.cat(alone)) < 1e-13
    assert far(alone[1], 100 * alone[0]) < 1e-12  # the noise scales with x, and the gradient is homogeneous of degree 2


@pytest.mark.parametrize("statistic", ["mean", "squared", "variance"])
def test_statistic_and_standard_error_equal_their_formulas(statistic):
    n, x = 13, X
    s = 0.15 * (x.amax(1) - x.amin(1))[:, None]
    drawn = 3 * (x + s * normal_noise(x, 7, range(n))) ** 2  # (n, B, F)
    if statistic == "squared":
        drawn = drawn**2
    result = sw.attribute(
        power(3),
        x,
        method="smoothgrad",
        n_samples=n,
        seed=7,
        statistic=statistic,
        chunk_size=4,
        score="value",
    )
    assert far(result.values, drawn.var(0) if statistic == "variance" else drawn.mean(0)) < 1e-13
    if statistic == "variance":
        assert result.standard_error is None
    else:
        assert far(result.standard_error, drawn.std(0) / n**0.5) < 1e-13


@pytest.mark.parametrize("level", [0.05, 0.5])
def test_sample_k_is_the_same_at_every_sample_count_and_noise_level(level):
    s = level * (X.amax(1) - X.amin(1))[:, None]
    means = {n: values(power(3), method="smoothgrad", n_samples=n, noise_level=level) for n in (1, 2, 3, 10, 20)}
    fresh = 3 * (X + s * normal_noise(X, 0, range(20))) ** 2
    assert far(means[1], fresh[0]) < 1e-13
    assert far(3 * means[3] - 2 * means[2], fresh[2]) < 1e-12
    assert far(means[20], (means[10] + fresh[10:].mean(0)) / 2) < 1e-13


def test_noise_is_normal_and_independent_of_its_neighbors():
    z = normal_noise(torch.zeros(3, 2000), 0, range(20))[:, 0].double()
    assert float(z.mean()) == pytest.approx(0, abs=5 / z.numel() ** 0.5)
    assert float(z.square().mean()) == pytest.approx(1, abs=5 * (2 / z.numel()) ** 0.5)
    correlation = (z @ z.T / z.shape[1]) - torch.diag(z.square().mean(1))
    assert float(correlation.abs().max()) < 5 / z.shape[1] ** 0.5


def test_noise_does_not_depend_on_type_or_default_type():
    single, double = normal_noise(torch.zeros(1, 99), 5, range(4)), normal_noise(rows(0, 1, 99), 5, range(4))
    assert torch.equal(single.double(), double)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(normal_noise(torch.zeros(1, 99, dtype=torch.float32), 5, range(4)), single)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("base", ["input_x_gradient", "guided_backprop"])
def test_smoothgrad_averages_any_pointwise_method(base):
    model = nn.Sequential(linear(W), nn.ReLU())
    s = 0.15 * (X.amax(1) - X.amin(1))[:, None]
    noisy_inputs = X + s * normal_noise(X, 0, range(6))
    expected = torch.stack([values(model, x, method=base) for x in noisy_inputs]).mean(0)
    assert far(values(model, method="smoothgrad", base=base, n_samples=6), expected) < 1e-13


# ---- kinks and layers


@pytest.mark.parametrize("n_steps", [32, 256])
def test_two_hidden_kinks(n_steps):
    """relu(relu(x1) - 1 - relu(x2)) at (3, 1): on the path from zero it is relu(2t - 1)."""
    model = Formula(lambda x: (x[:, 0].relu() - 1 - x[:, 1].relu()).relu())
    x = torch.tensor([[3.0, 1.0]], dtype=torch.float64)
    result = sw.attribute(
        model, x, method="integrated_gradients", n_steps=n_steps, score="value", quadrature="midpoint"
    )
    # The kink lies on a border between two midpoint intervals, so the rule is exact.
    assert far(result.values, torch.tensor([[1.5, -0.5]], dtype=torch.float64)) < 1e-13
    assert float(result.delta.abs()) < 1e-13
    assert float(result.score) == 1.0


def grad_cam_model():
    """1x1 convolution (1, -1), mean, linear (2, 3): the score is -mean(x), the channels' weights are 2/hw and 3/hw."""
    model = nn.Sequential(
        nn.Conv2d(1, 2, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 1, bias=False)
    ).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
        model[3].weight.copy_(torch.tensor([[2.0, 3.0]]))
    return model


def test_grad_cam_of_a_mean():
    x = rows(1, 2, 1, 2, 2)
    result = sw.attribute(grad_cam_model(), x, method="grad_cam", score="value")
    assert result.layer == "0"
    assert result.values.shape == (2, 1, 2, 2)
    assert far(result.values, -0.25 * x) < 1e-15
    assert far(result.score, -x.mean((1, 2, 3))) < 1e-14


def test_grad_cam_keeps_negative_values():
    x = rows(1, 1, 1, 2, 2).abs()
    result = sw.attribute(grad_cam_model(), x, method="grad_cam", score="value")
    assert bool((result.values < 0).all())
    assert result.default_sign == "positive"


def test_the_score_and_the_evaluations_are_reported():
    expected = {"gradient": 1, "input_x_gradient": 1, "smoothgrad": 12, "integrated_gradients": 9}
    for method, evaluations in expected.items():
        sizes = {"smoothgrad": {"n_samples": 12}, "integrated_gradients": {"n_steps": 8}}.get(method, {})
        result = sw.attribute(power(2), X, method=method, score="value", **sizes)
        assert result.evaluations == evaluations
        if result.score is not None:
            assert far(result.score, (X**2).sum(1)) < 1e-15


def test_delta_equals_its_definition_and_vanishes_with_more_steps():
    model = Formula(lambda x: (2 * x).sin().sum(1) * x.prod(1))
    baseline = rows(2, 2, 4)
    deltas = []
    for n_steps in (4, 16, 64, 256):
        for last in estimates(
            model, X, "integrated_gradients", n_steps=n_steps, baseline=baseline, score="value", tolerance=0
        ):
            if last.delta is not None:
                change = model(X)[:, 0] - model(baseline)[:, 0]
                assert torch.allclose(last.delta, last.values.sum(1) - change, rtol=0, atol=1e-12)
        deltas.append(float(last.delta.abs().max()))
    assert deltas == sorted(deltas, reverse=True)
    assert deltas[-1] < 1e-3 * deltas[0]


@pytest.mark.parametrize(("method", "size"), [("integrated_gradients", "n_steps"), ("smoothgrad", "n_samples")])
def test_many_steps_of_a_model_in_half_precision_stay_accurate(method, size):
    """Sums of 500 terms in bfloat16, which has 8 significant bits, would lose whole digits."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
    x = torch.randn(2, 6)
    settings = {"method": method, "target": 1, size: 500}
    exact = sw.attribute(model, x, **settings).values
    result = sw.attribute(model.bfloat16(), x.bfloat16(), **settings)
    assert result.values.dtype == torch.bfloat16
    assert far(result.values.float(), exact) < 0.02


def test_smoothgrad_stops_at_its_tolerance_with_a_note():
    model = Formula(lambda x: (x**3).sum(1))
    settings = {"noise_level": 0.1, "score": "value", "method": "smoothgrad"}
    result = sw.attribute(model, X, n_samples=400, tolerance=0.05, **settings)
    assert result.complete
    assert result.evaluations < 400
    relative = result.standard_error.flatten(1).mean(1) / result.values.abs().flatten(1).mean(1)
    assert float(relative.max()) <= 0.05
    assert any("were enough" in note for note in result.notes)
    same = sw.attribute(model, X, n_samples=result.evaluations, **settings)
    assert torch.equal(result.values, same.values)
    assert not any("tolerance" in note for note in same.notes)
    over = sw.attribute(model, X, n_samples=4, tolerance=1e-4, **settings)
    assert any("was used up" in note for note in over.notes)


def test_agreement_is_the_rank_correlation_of_two_halves_of_the_samples():
    from scipy.stats import spearmanr

    model = Formula(lambda x: (x**3).sum(1))
    x = rows(8, 1, 60)
    settings = {"noise_level": 0.3, "score": "value", "method": "smoothgrad", "chunk_size": 4}
    result = sw.attribute(model, x, n_samples=21, **settings)
    drawn, before = [], torch.zeros_like(x)
    for n in range(1, 22):  # the means of n and n - 1 samples give the n-th sample
        fewer = sw.attribute(model, x, n_samples=n, **settings).values
        drawn.append(n * fewer - (n - 1) * before)
        before = fewer
    even, odd = (torch.stack(drawn[first::2]).mean(0)[0].abs() for first in (0, 1))
    assert float(result.agreement) == pytest.approx(spearmanr(even, odd).statistic, abs=1e-9)
    exact = sw.attribute(linear(rows(1, 4)), X, n_samples=9, score="value", method="smoothgrad")
    assert bool((exact.agreement > 1 - 1e-12).all()), "on a linear model all samples are the same"
