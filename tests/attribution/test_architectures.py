"""Every method on every model of the zoo: the map equals its oracle, or the method is refused with the reason."""

import pytest
import torch
from toys import each, far, state_of
from zoo import KINDS, ORACLES, blurred, explain, made, other_input, reason

import saliency_widgets as sw

pytestmark = pytest.mark.filterwarnings("error")
METHODS = sw.methods()
CLOSE = 1e-10


def outcome(kind, method, model=None):
    return explain(KINDS[kind], made(kind) if model is None else model, method)


def test_every_method_has_an_oracle():
    assert set(ORACLES) == set(METHODS)


@each("method", ORACLES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_map_equals_its_oracle_or_the_method_is_refused(kind, method):
    case, model = KINDS[kind], made(kind)
    before = state_of(model)
    why = reason(case, method)
    if why is not None:
        with pytest.raises(ValueError, match=why):
            outcome(kind, method, model)
        assert state_of(model) == before
        return
    result = outcome(kind, method, model)
    assert state_of(model) == before
    expected = ORACLES[method](case, made(kind))
    assert float(expected.abs().max()) > 0, "the expected map is all zeros, so the test proves nothing"
    assert far(result.values, expected) < CLOSE
    with torch.no_grad():
        score = case.score(model, case.x)
    if result.score is not None:
        assert far(result.score, score) < CLOSE
    if "layer" in METHODS[method].needs and result.layer is not None:
        assert result.layer == case.layer


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_agrees_with_central_differences(kind):
    """The reference is central differences along random directions, without autograd."""
    case, model, h = KINDS[kind], made(kind), 1e-6
    values = outcome(kind, "gradient", model).values
    generator = torch.Generator().manual_seed(9)
    for _ in range(3):
        step = torch.randn(case.x.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            slope = (case.score(model, case.x + h * step) - case.score(model, case.x - h * step)) / (2 * h)
        assert far((values * step).flatten(1).sum(1), slope) < 1e-6


@each("method", ["integrated_gradients", "expected_gradients", "blur_ig"])
@pytest.mark.parametrize("kind", KINDS)
def test_delta_equals_its_definition_and_vanishes_with_more_steps(kind, method):
    case, model = KINDS[kind], made(kind)
    if reason(case, method) is not None:
        return
    start = {
        "integrated_gradients": torch.zeros_like(case.x),
        "expected_gradients": other_input(case).expand_as(case.x),
        "blur_ig": blurred(case.x, 0.2 * min(case.x.shape[-2:])),
    }[method]
    with torch.no_grad():
        change = case.score(model, case.x) - case.score(model, start)
    result = outcome(kind, method, model)
    sums = result.values.flatten(1).sum(1)
    assert torch.allclose(result.delta, sums - change, rtol=0, atol=1e-12)
    if method == "expected_gradients":
        return  # its samples are random; other tests compare its standard error
    settings = {"method": method, "target": case.target, "chunk_size": 64}
    settings |= {"tolerance": 0.0} if method == "integrated_gradients" else {}
    fine = sw.attribute(model, case.inputs, n_steps=512, **settings)
    size = float(result.values.abs().sum(tuple(range(1, result.values.ndim))).max())
    assert float(fine.delta.abs().max()) < 2e-3 * size


# Whether samples mix depends on the model: one method of a single gradient, one of many and one of a layer suffice.
@each("method", ["gradient", "integrated_gradients", "grad_cam"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_does_not_depend_on_the_rest_of_the_batch(kind, method):
    case = KINDS[kind]
    if reason(case, method) is not None or callable(case.target):
        return
    together, model = outcome(kind, method), made(kind)
    settings = dict(together.settings) | {"target": case.target[1]}
    if isinstance(case.inputs, dict):
        second = {name: value[1:] for name, value in case.inputs.items()}
    else:
        second = case.inputs[1:]
    alone = sw.attribute(model, second, **settings)
    assert far(alone.values, together.values[1:]) < CLOSE


@each("method", ORACLES)
def test_a_detector_without_a_target_function_is_refused(method):
    with pytest.raises((TypeError, ValueError), match=r"target: the model returned a list.*Pass target= a function"):
        sw.attribute(made("detector"), KINDS["detector"].inputs, method=method)


@each("samples", [1, 2, 3, 4, 5])
@each("kind", ["LSTM", "GRU"])
def test_batches_of_sequences_of_every_size(kind, samples):
    """(1, T, F) and (3, T, F) could be images of one or three channels, but this model takes sequences."""
    model, x = made(kind), torch.randn(samples, 6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)
    assert far(sw.attribute(model, x, method="gradient", target=1).values, expected) < CLOSE
