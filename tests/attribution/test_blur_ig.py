"""Blur-IG: the blur compared with scipy's, the attributions with closed forms."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import fft, ndimage
from torch import nn
from toys import Formula, conv_net, each, estimates, far, images, linear, mlp, rows

import saliency_widgets as sw
from saliency_widgets.attribution.methods import blur_ig as blur_ig_file
from saliency_widgets.attribution.methods.blur_ig import scale_space
from saliency_widgets.attribution.numerics.quadrature import coarse_to_fine

X = images(1, 2, 3, 7, 10)
LEVEL = 0.3
STRONGEST = LEVEL * 7


def explain(model, x=X, **settings):
    return sw.attribute(model, x, method="blur_ig", **{"blur_level": LEVEL, "score": "value", **settings})


def blurred(x, sigma):
    """Blur by scipy's cosine transform."""
    spectrum = fft.dctn(x.numpy(), axes=(-2, -1))
    rows, columns = (np.pi * np.arange(n) / n for n in x.shape[-2:])
    spectrum *= np.exp(-0.5 * sigma**2 * (rows[:, None] ** 2 + columns**2))
    return torch.from_numpy(fft.idctn(spectrum, axes=(-2, -1)))


def flat(model):
    return nn.Sequential(nn.Flatten(), model)


WEIGHTS = rows(2, 210)
FORM = rows(3, 210, 210)
QUADRATIC = flat(Formula(lambda x: ((x @ FORM) * x).sum(1) + x @ WEIGHTS))


# ---- the blur


@each("sigma", [0.05, 0.7, 2.1, 30.0])
@each("shape", [(2, 3, 7, 10), (1, 1, 16, 16), (1, 2, 1, 9), (1, 1, 5, 2)])
def test_the_blur_equals_scipys_cosine_transform(shape, sigma):
    x = images(4, *shape)
    assert far(scale_space(x)(sigma), blurred(x, sigma)) < 1e-13


@pytest.mark.parametrize("sigma", [2.0, 3.5, 9.0])
def test_the_blur_equals_scipys_gaussian_filter(sigma):
    """For sigma of at least 2 pixels, the continuous and the sampled Gaussian agree to 1e-8."""
    x = images(4, 1, 2, 24, 31)
    expected = ndimage.gaussian_filter(x.numpy(), sigma, axes=(-2, -1), mode="reflect", truncate=12)
    assert far(scale_space(x)(sigma), torch.from_numpy(expected)) < 1e-7


def test_the_blur_keeps_the_mean_and_starts_with_the_image():
    space = scale_space(X)
    assert torch.equal(space(0.0), X)
    assert far(space(1e-9), X) < 1e-14
    for sigma in (0.1, 1.0, 5.0, 200.0):
        assert far(space(sigma).mean((2, 3)), X.mean((2, 3))) < 1e-14
    assert far(space(200.0), X.mean((2, 3), keepdim=True).expand_as(X)) < 1e-14


def test_two_blurs_equal_one_of_their_combined_width():
    assert far(scale_space(scale_space(X)(1.2))(0.5), scale_space(X)(1.3)) < 1e-13


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_blur_keeps_the_dtype_and_computes_in_float32_at_least(dtype):
    x = X.to(dtype)
    result = scale_space(x)(1.5)
    assert result.dtype == dtype
    assert far(result.double(), blurred(x.double(), 1.5)) < max(torch.finfo(dtype).eps, 1e-6)


# ---- exact at any number of steps


@each("n_steps", [1, 2, 3, 7, 16, 21])
def test_linear_is_exact_in_every_estimate(n_steps):
    exact = WEIGHTS.view(3, 7, 10) * (X - blurred(X, STRONGEST))
    model = flat(linear(WEIGHTS, 3.0))
    result = list(estimates(model, X, "blur_ig", blur_level=LEVEL, n_steps=n_steps, chunk_size=4, score="value"))
    for estimate in result:
        assert far(estimate.values, exact) < 1e-12
        assert estimate.delta is None or float(estimate.delta.abs().max()) < 1e-12
    assert [estimate.delta is None for estimate in result] == [True] + [False] * (len(result) - 1)
    assert result[-1].done == result[-1].total == result[-1].evaluations == n_steps + 1
    assert far(result[-1].score, model(X)[:, 0].detach()) < 1e-15


@each("n_steps", [1, 2, 5, 16])
def test_squares_are_exact(n_steps):
    """For F = sum f(x), pixels are independent: a = f(x) - f(L(s_max)), here with f(x) = x^2."""
    assert (
        far(explain(flat(Formula(lambda x: (x**2).sum(1))), n_steps=n_steps).values, X**2 - blurred(X, STRONGEST) ** 2)
        < 1e-12
    )


@each("n_steps", [1, 2, 5, 16])
def test_any_quadratic_is_complete(n_steps):
    """The gradient is linear on each interval, so its mean there is that of the two ends."""
    for estimate in estimates(QUADRATIC, X, "blur_ig", blur_level=LEVEL, n_steps=n_steps, score="value"):
        scale = estimate.values.abs().sum(dim=(1, 2, 3))
        assert estimate.delta is None or bool((estimate.delta.abs() < 1e-13 * scale).all())
    change = (QUADRATIC(X) - QUADRATIC(blurred(X, STRONGEST)))[:, 0].detach()
    assert far(estimate.values.sum((1, 2, 3)), change) < 1e-12
    assert float(scale.min()) > 1


# ---- quadrature


@each("n_steps", [1, 2, 3, 7, 11, 16, 29])
@each("chunk_size", [1, 6, 64])
def test_every_estimate_is_the_sum_over_the_visited_nodes(n_steps, chunk_size):
    """The reference is the formula with scipy's blur and the exact gradient, 4 x^3 plus a linear term."""
    model = flat(Formula(lambda x: (x**4).sum(1) + ((x @ FORM) * x).sum(1)))

    def slope(x):
        rows = x.flatten(1)
        return (4 * rows**3 + rows @ (FORM + FORM.T)).view_as(x)

    settings = {"blur_level": LEVEL, "n_steps": n_steps, "chunk_size": chunk_size, "score": "value"}
    for estimate in estimates(model, X, "blur_ig", **settings):
        nodes = sorted(coarse_to_fine(n_steps + 1)[: estimate.done])
        space = [blurred(X, STRONGEST * (1 - node / n_steps)) for node in nodes]
        if len(nodes) == 1:
            expected = slope(X) * (X - blurred(X, STRONGEST))
        else:
            expected = sum((slope(a) + slope(b)) / 2 * (b - a) for a, b in pairwise(space))
        assert far(estimate.values, expected) < 1e-12


def test_it_converges_with_the_square_of_the_step():
    """For sum exp(3 x) the integral is exp(3 x) - exp(3 L(s_max)), pixel by pixel."""
    exact = (3 * X).exp() - (3 * blurred(X, STRONGEST)).exp()
    result = [explain(flat(Formula(lambda x: (3 * x).exp().sum(1))), n_steps=n) for n in (16, 32, 64)]
    errors = [far(f.values, exact) for f in result]
    deltas = [float(f.delta.abs().max()) for f in result]
    for coarse, fine in [*pairwise(errors), *pairwise(deltas)]:
        assert coarse / fine == pytest.approx(4, rel=0.1)
    assert errors[-1] < 1e-3


def test_delta_equals_its_definition():
    model = conv_net()
    x = images()
    result = explain(model, x, n_steps=3, target=[1, 2], score="logit")
    with torch.no_grad():
        change = (model(x) - model(blurred(x, LEVEL * 8)))[[0, 1], [1, 2]]
    assert far(result.delta, result.values.sum((1, 2, 3)) - change) < 1e-10
    assert float(result.delta.abs().min()) > 1e-9


@each("chunk_size", [1, 2, 3, 5, 8, 16, 1000])
@each("n_steps", [1, 7, 16])
def test_the_result_does_not_depend_on_the_chunk_size(chunk_size, n_steps):
    model, x = conv_net(activation=nn.Tanh), images(0, 3, 3, 8, 8)
    settings = {"n_steps": n_steps, "target": [2, 0, 3], "score": "logit"}
    whole = explain(model, x, chunk_size=1024, **settings)
    split = explain(model, x, chunk_size=chunk_size, **settings)
    assert far(split.values, whole.values) < 1e-12
    assert torch.allclose(split.delta, whole.delta, rtol=0, atol=1e-12)
    for i, target in enumerate([2, 0, 3]):
        alone = explain(model, x[i : i + 1], **{**settings, "target": target})
        assert far(whole.values[i : i + 1], alone.values) < 1e-12
        assert torch.allclose(whole.delta[i : i + 1], alone.delta, rtol=0, atol=1e-12)


# ---- images


def test_an_image_of_one_color_gets_zeros():
    x = torch.tensor([0.2, 0.9, 0.5], dtype=torch.float64).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    result = explain(conv_net(), x, n_steps=4, target=1, score="logit")
    assert float(result.values.abs().max()) < 1e-15
    assert float(result.delta.abs().max()) < 1e-14


def test_a_mirrored_image_gets_the_mirrored_map():
    model = flat(Formula(lambda x: (x**4).sum(1)))
    for side in (-1, -2):
        assert far(explain(model, X.flip(side), n_steps=5).values, explain(model, n_steps=5).values.flip(side)) < 1e-12


def test_the_blur_is_a_fraction_of_the_shorter_side():
    model = flat(linear(WEIGHTS))
    for level in (0.01, 0.2, 1.0):
        expected = WEIGHTS.view(3, 7, 10) * (X - blurred(X, 7 * level))
        assert far(explain(model, blur_level=level, n_steps=1).values, expected) < 1e-12
    tall = X.transpose(2, 3)
    turned = flat(linear(WEIGHTS.view(3, 7, 10).transpose(1, 2).flatten()))
    assert far(explain(turned, tall, n_steps=1).values, explain(model, n_steps=1).values.transpose(2, 3)) < 1e-12
    assert torch.equal(
        explain(model, blur_level=0.2).values, sw.attribute(model, X, method="blur_ig", score="value").values
    )


@each("n_steps", [1, 2, 7, 64, 100, 1500, 3000])
def test_the_number_of_held_nodes_is_bounded_and_they_are_released(n_steps):
    order = coarse_to_fine(n_steps + 1, None if n_steps <= blur_ig_file._OPEN else blur_ig_file._OPEN // 2)
    integral = blur_ig_file._Trapezoid(n_steps, torch.zeros(1), torch.full((1,), float(n_steps)))
    for node in order:
        integral.add(node, torch.tensor([float(node)]), torch.tensor([float(node)]))
        assert len(integral._held) <= min(800, n_steps + 1)
    assert float(integral.values) == n_steps**2 / 2  # the integral of t from 0 to n
    assert len(integral._held) <= 1


def test_rows_and_a_blur_level_of_zero_are_refused():
    with pytest.raises(ValueError, match=r"Blur-IG needs images \(N, C, H, W\), got inputs of shape \(2, 4\)\. Use"):
        explain(mlp(), rows(), target=1, score="logit")
    with pytest.raises(ValueError, match=r"blur_level: expected a number of at least 0\.01, got 0"):
        explain(conv_net(), images(), blur_level=0.0, target=1, score="logit")
