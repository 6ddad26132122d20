"""Chunks, batches and running estimates: results must not depend on how the work is split."""

import threading

import pytest
import torch
from torch import nn
from toys import Shared, conv_net, each, estimates, far, images, mlp, rows

import saliency_widgets as sw
from saliency_widgets.attribution.numerics.noise import normal_noise
from saliency_widgets.runtime.batching import paced_rows

CHUNKED = {
    "smoothgrad": {"n_samples": 13},
    "integrated_gradients": {"n_steps": 40},
}


def last(*args, **settings):
    *_, result = estimates(*args, **settings)
    return result


@each("chunk_size", [1, 2, 3, 5, 8, 16, 1000])
@each("statistic", ["mean", "squared", "variance"])
def test_smoothgrad_does_not_depend_on_the_chunk_size(chunk_size, statistic):
    model, x = conv_net(activation=nn.Tanh), images()
    settings = {"n_samples": 21, "statistic": statistic, "target": 1}
    s = 0.15 * (x.flatten(1).amax(1) - x.flatten(1).amin(1)).view(-1, 1, 1, 1)
    noisy = (x + s * normal_noise(x, 0, range(21))).flatten(0, 1).requires_grad_()
    (drawn,) = torch.autograd.grad(model(noisy)[:, 1].sum(), noisy)
    drawn = drawn.view(21, *x.shape)
    whole = {"mean": drawn.mean(0), "squared": drawn.square().mean(0), "variance": drawn.var(0)}[statistic]
    assert far(last(model, x, "smoothgrad", chunk_size=chunk_size, **settings).values, whole) < 1e-12


@each("chunk_size", [1, 3, 8, 1000])
@each("quadrature", ["trapezoid", "midpoint", "gauss_legendre"])
@each("n_steps", [1, 7, 16])
def test_integrated_gradients_do_not_depend_on_the_chunk_size(chunk_size, quadrature, n_steps):
    model, x = conv_net(activation=nn.Tanh), images()
    settings = {"n_steps": n_steps, "quadrature": quadrature, "target": 1}
    whole = last(model, x, "integrated_gradients", chunk_size=1024, **settings)
    split = last(model, x, "integrated_gradients", chunk_size=chunk_size, **settings)
    assert far(split.values, whole.values) < 1e-12
    assert torch.allclose(split.delta, whole.delta, rtol=0, atol=1e-12)
    assert split.evaluations == whole.evaluations == n_steps + (quadrature == "trapezoid")


@pytest.mark.parametrize("method", sw.methods())
def test_a_batch_equals_its_samples_alone(method):
    model, x = conv_net(), images(0, 3, 3, 8, 8)
    settings = {"target": [2, 0, 3], **CHUNKED.get(method, {})}
    together = last(model, x, method, **settings)
    for i, target in enumerate([2, 0, 3]):
        alone = last(model, x[i : i + 1], method, **{**settings, "target": target})
        assert far(together.values[i : i + 1], alone.values) < 1e-11
        if together.delta is not None:
            assert torch.allclose(together.delta[i : i + 1], alone.delta, rtol=0, atol=1e-12)
        if together.score is not None:
            assert torch.allclose(together.score[i : i + 1], alone.score, rtol=0, atol=1e-12)


SPLIT = [
    ("smoothgrad", {}),
    ("integrated_gradients", {"quadrature": "trapezoid"}),
    ("integrated_gradients", {"quadrature": "midpoint"}),
]


@pytest.mark.parametrize(("method", "settings"), SPLIT)
@each(("batch", "chunk_size"), [(2, 2), (2, 3), (2, 4), (2, 7), (5, 4), (9, 1)])
def test_no_pass_exceeds_the_chunk_size_but_a_batch_is_never_split(method, settings, batch, chunk_size):
    sizes = Shared()
    model, x = mlp(), rows(1, batch, 4)
    model.register_forward_hook(lambda _module, inputs, _output: sizes.append(len(inputs[0])))
    last(model, x, method, chunk_size=chunk_size, target=0, **settings)
    assert max(sizes) == max(batch, chunk_size // batch * batch)


def test_each_nested_level_of_integrated_gradients_is_the_coarser_rule():
    model, x = conv_net(activation=nn.Tanh), images()
    settings = {"target": 1, "quadrature": "trapezoid"}
    seen = {e.done: e for e in estimates(model, x, "integrated_gradients", n_steps=64, chunk_size=8, **settings)}
    for level in range(3, 7):
        coarse = last(model, x, "integrated_gradients", n_steps=2**level, **settings)
        running = seen[2**level + 1]
        assert far(running.values, coarse.values) < 1e-12
        assert torch.allclose(running.delta, coarse.delta, rtol=0, atol=1e-12)
    first = seen[1]  # only the gradient at the input: the estimate is input times gradient
    assert far(first.values, last(model, x, "input_x_gradient", target=1).values) < 1e-12
    assert first.delta is None


@each("quadrature", ["trapezoid", "midpoint", "gauss_legendre"])
@each("n_steps", [5, 12, 33])
def test_every_estimate_of_integrated_gradients_is_a_weighted_mean(quadrature, n_steps):
    """On a linear model every weighted mean is exact, unless the weights don't sum to 1."""
    weights = rows(3, 1, 4)
    model = nn.Linear(4, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(weights)
    x = rows(4, 2, 4)
    for estimate in estimates(
        model, x, "integrated_gradients", n_steps=n_steps, quadrature=quadrature, chunk_size=4, score="value"
    ):
        assert far(estimate.values, weights * x) < 1e-13
        if estimate.delta is not None:
            assert float(estimate.delta.abs().max()) < 1e-13


def test_each_running_mean_of_smoothgrad_is_the_result_for_fewer_samples():
    model, x = conv_net(activation=nn.Tanh), images()
    for statistic in ("mean", "squared", "variance"):
        settings = {"target": 1, "statistic": statistic, "chunk_size": 8}
        for running in estimates(model, x, "smoothgrad", n_samples=9, **settings):
            if statistic == "variance" and running.done == 1:
                continue
            fewer = last(model, x, "smoothgrad", n_samples=running.done, **settings)
            assert far(running.values, fewer.values) < 1e-11
            if running.done > 1 and statistic != "variance":
                assert far(running.standard_error, fewer.standard_error) < 1e-11


@pytest.mark.parametrize("method", CHUNKED)
def test_an_estimate_is_not_changed_by_later_ones(method):
    stored, copies = [], []
    for estimate in estimates(conv_net(), images(), method, target=1, chunk_size=4, **CHUNKED[method]):
        stored.append(estimate.values)
        copies.append(estimate.values.clone())
    assert len(stored) > 3
    assert all(torch.equal(a, b) for a, b in zip(stored, copies, strict=True))


def test_several_threads_can_explain_one_model_at_once():
    """Grad-CAM's hooks and Guided Backprop's rule must not affect other threads."""
    model, x = conv_net(), images()
    methods = ["gradient", "guided_backprop", "grad_cam", "integrated_gradients", "guided_grad_cam"]
    expected = {m: sw.attribute(model, x, method=m, target=1).values for m in methods}
    wrong = []
    start = threading.Barrier(len(methods))

    def work(method):
        try:
            start.wait()
            for _ in range(20):
                result = sw.attribute(model, x, method=method, target=1).values
                if not torch.equal(result, expected[method]):
                    wrong.append(method)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(m,)) for m in methods]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_several_threads_leave_a_model_in_training_mode_unchanged():
    """If each thread saved and restored BatchNorm's statistics, one could save, and restore, what another changed."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.3), nn.Linear(6, 3)).double()
    x = rows(1, 8, 4)
    before = {name: b.clone() for name, b in model.named_buffers()}
    state = torch.get_rng_state()
    expected = sw.attribute(model, x, method="gradient", target=1).values
    result, failures = [], []
    start = threading.Barrier(4)

    def work():
        try:
            start.wait()
            result.extend(sw.attribute(model, x, method="gradient", target=1).values for _ in range(25))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert all(torch.equal(b, before[name]) for name, b in model.named_buffers())
    assert torch.equal(torch.get_rng_state(), state)
    assert len(result) == 100
    assert all(torch.equal(values, expected) for values in result)


@each(
    ("seconds", "rows"),
    [
        (0.01, None),
        (0.04, None),
        (0.05, 8),
        (0.072, 8),
        (0.1, 4),
        (0.5, 1),
        (9.0, 1),
        (float("inf"), None),
        (0.0, None),
    ],
)
def test_slow_models_get_passes_of_about_a_second(seconds, rows):
    assert paced_rows(torch.device("cpu"), seconds) == rows
