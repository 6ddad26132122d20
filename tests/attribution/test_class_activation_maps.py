"""Grad-CAM++ and Layer-CAM compared with their formulas, written as loops."""

import numpy as np
import pytest
import torch
from torch import nn
from toys import conv_net, each, far, images, rows

import saliency_widgets as sw

METHODS = ("grad_cam_plus_plus", "layer_cam")
X = images()


def cam(method, model, x=X, **settings):
    return sw.attribute(model, x, method=method, **{"target": 1, **settings})


def on_identity(weights, scale=1.0):
    """A model whose layer "0" is the identity on (1, K, h, w), and whose score is the weighted sum of that."""
    model = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(weights.numel(), 1, bias=False)).double()
    with torch.no_grad():
        model[2].weight.copy_(scale * weights.reshape(1, -1))
    return model


def cam_on_identity(method, weights, activation, scale=1.0):
    return cam(method, on_identity(weights, scale), activation, target=None, score="value", layer="0").values


def by_loops(method, activation, gradient):
    """Compute the papers' formulas in loops; shape (B, 1, h, w)."""
    batch, channels, height, width = activation.shape
    values = np.zeros((batch, 1, height, width))
    for b in range(batch):
        for k in range(channels):
            a, g = activation[b, k], gradient[b, k]
            if method == "layer_cam":
                for i in range(height):
                    for j in range(width):
                        values[b, 0, i, j] += max(g[i, j], 0) * a[i, j]
                continue
            weight = 0.0
            for i in range(height):
                for j in range(width):
                    denominator = 2 * g[i, j] ** 2 + a.sum() * g[i, j] ** 3
                    alpha = g[i, j] ** 2 / denominator if denominator else 0
                    weight += alpha * max(g[i, j], 0)
            values[b, 0] += weight * a
    return values


# ---- numeric examples

A = torch.tensor([[[[1.0, 2.0], [0.0, 3.0]], [[1.0, -1.0], [0.0, 2.0]]]], dtype=torch.float64)  # sums 6 and 2
G = torch.tensor([[[1.0, -1.0], [2.0, 0.0]], [[0.0, 3.0], [0.0, -1.0]]], dtype=torch.float64)


def test_grad_cam_plus_plus_on_a_numeric_example():
    """alpha: 1/(2 + 6 * 1) and 1/(2 + 6 * 2) in the first channel, 1/(2 + 2 * 3) in the second."""
    first, second = 1 / 8 * 1 + 1 / 14 * 2, 1 / 8 * 3
    expected = torch.tensor(
        [[[[first + second, 2 * first - second], [0.0, 3 * first + 2 * second]]]], dtype=torch.float64
    )
    assert far(cam_on_identity("grad_cam_plus_plus", G, A), expected) < 1e-15


def test_layer_cam_on_a_numeric_example():
    expected = torch.tensor([[[[1.0, -3.0], [0.0, 0.0]]]], dtype=torch.float64)
    assert torch.equal(cam_on_identity("layer_cam", G, A), expected)


# ---- the formulas


@pytest.mark.parametrize("method", METHODS)
@each("layer", ["0", "1", "2", "3", "4"])
def test_the_formula_holds_at_every_layer_of_a_net(method, layer):
    model = conv_net()
    stored = {}

    def keep(_module, _inputs, output):
        output.retain_grad()
        stored["activation"] = output

    handle = model.get_submodule(layer).register_forward_hook(keep)
    model(X).gather(1, torch.tensor([[1], [3]])).sum().backward()
    handle.remove()
    activation, gradient = stored["activation"].detach().numpy(), stored["activation"].grad.numpy()
    result = cam(method, model, layer=layer, target=[1, 3])
    assert result.layer == layer
    assert far(result.values, torch.from_numpy(by_loops(method, activation, gradient))) < 1e-12
    assert far(result.score, model(X).detach()[[0, 1], [1, 3]]) < 1e-15


def test_alpha_is_that_of_the_paper_for_an_exponential_score():
    """For Y = exp(F), alpha is Y''/(2 Y'' + sum A Y'''), here with autograd's derivatives at each location."""
    activation, weights = rows(1, 1, 3, 2, 2).abs(), rows(2, 3, 2, 2)
    score = float((weights * activation).sum())
    expected = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    for k in range(3):
        weight = 0.0
        for i, j in np.ndindex(2, 2):
            a = activation[0, k, i, j].clone().requires_grad_()
            y = (score + weights[k, i, j] * (a - a.detach())).exp()
            derivatives = []
            for _ in range(3):
                (y,) = torch.autograd.grad(y, a, create_graph=True)
                derivatives.append(float(y.detach()))
            alpha = derivatives[1] / (2 * derivatives[1] + float(activation[0, k].sum()) * derivatives[2])
            weight += alpha * max(derivatives[0], 0)
        expected[0, 0] += weight * activation[0, k]
    # The expected weights contain the gradient of exp(F), which is exp(F) times that of F.
    assert far(np.exp(score) * cam_on_identity("grad_cam_plus_plus", weights, activation), expected) < 1e-12


# ---- relations


def test_before_global_average_pooling_layer_cam_is_the_positive_channels_of_grad_cam():
    """The gradient is the same at every location of a channel: (head weight) / hw."""
    model = conv_net()
    model[4], model[6] = nn.AdaptiveAvgPool2d(1), nn.Linear(5, 4).double()
    with torch.no_grad():
        model[6].weight[1] = torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0])
        activation = model[:4](X)
        shares = model[6].weight[1] / 16
    result = {m: cam(m, model, layer="3").values for m in (*METHODS, "grad_cam")}
    parts = shares[None, :, None, None] * activation
    assert far(result["grad_cam"], parts.sum(1, keepdim=True)) < 1e-13
    assert far(result["layer_cam"], parts[:, shares > 0].sum(1, keepdim=True)) < 1e-13
    sums = activation.sum((2, 3), keepdim=True)
    weights = 16 * shares.clamp(min=0)[None, :, None, None] / (2 + shares[None, :, None, None] * sums)
    assert far(result["grad_cam_plus_plus"], (weights * activation).sum(1, keepdim=True)) < 1e-13
    with torch.no_grad():
        model[6].weight.abs_()
    assert far(cam("layer_cam", model, layer="3").values, cam("grad_cam", model, layer="3").values) < 1e-13


def test_layer_cam_for_a_class_minus_that_against_it_is_activation_times_gradient():
    model = conv_net()
    against = nn.Sequential(*model, nn.Linear(4, 4, bias=False)).double()
    with torch.no_grad():
        against[7].weight.copy_(-torch.eye(4))
        activation = model[:3](X)
    leaf = activation.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model[3:](leaf)[:, 1].sum(), leaf)
    result = cam("layer_cam", model, layer="2").values - cam("layer_cam", against, layer="2").values
    assert far(result, (gradient * activation).sum(1, keepdim=True)) < 1e-13


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_with_several_targets_equals_its_samples_alone(method):
    model, x = conv_net(), images(0, 3, 3, 8, 8)
    together = cam(method, model, x, target=[2, 0, 3])
    for i, target in enumerate([2, 0, 3]):
        assert far(together.values[i : i + 1], cam(method, model, x[i : i + 1], target=target).values) < 1e-12


@pytest.mark.parametrize("method", METHODS)
def test_the_papers_relu_is_applied_only_for_display(method):
    result = cam(method, conv_net(activation=nn.Tanh), layer="2")  # a convolution: its output has both signs
    assert result.default_sign == "positive"
    assert bool((result.values < 0).any())


# ---- where the formula is 0 / 0


def test_a_location_at_the_pole_of_alpha_gets_no_weight():
    """sum A = -2 and g = 1: the denominator 2 g^2 + sum A g^3 is exactly 0. The other location is unaffected."""
    activation = torch.tensor([[[[-3.0, 1.0]]]], dtype=torch.float64)
    result = cam_on_identity("grad_cam_plus_plus", torch.tensor([[[1.0, 0.5]]]), activation)
    assert torch.equal(result, 0.5 / (2 - 2 * 0.5) * activation)
    near = cam_on_identity("grad_cam_plus_plus", torch.tensor([[[1.0, 0.5]]]), activation * (1 - 1e-15))
    assert bool(torch.isfinite(near).all())


@pytest.mark.parametrize("scale", [1e-100, 1e-160, 1e-300])
def test_gradients_whose_cube_underflows_still_count(scale):
    """For g -> 0 alpha is 1/2: the weights are half the sum of the positive gradients."""
    weights = G.clamp(min=0).sum((1, 2))[None, :, None, None] / 2
    result = cam_on_identity("grad_cam_plus_plus", G, A, scale)
    assert far(result / scale, (weights * A).sum(1, keepdim=True)) < 1e-12


def test_gradients_whose_cube_overflows_still_count():
    """For g -> infinity alpha g is 1 / sum A: a weight is the number of positive gradients, divided by that sum."""
    weights = (G > 0).sum((1, 2))[None, :, None, None] / A.sum((2, 3), keepdim=True)
    assert far(cam_on_identity("grad_cam_plus_plus", G, A, 1e150), (weights * A).sum(1, keepdim=True)) < 1e-12


@pytest.mark.parametrize("method", METHODS)
@each("dead", ["gradient", "activation"])
def test_a_dead_layer_gives_zeros(method, dead):
    weights, activation = (G * 0, A) if dead == "gradient" else (G, A * 0)
    assert torch.equal(cam_on_identity(method, weights, activation), torch.zeros(1, 1, 2, 2, dtype=torch.float64))
