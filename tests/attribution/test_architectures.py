"""Every method on models of every make: the right map, or one clear reason why there is none.

What is right is computed here from the raw model: gradients by autograd and by differences, layers by plain hooks,
the rules for ReLUs by a relu of our own in place of torch's, blurs by SciPy's cosine transform.
"""

import numpy as np
import pytest
import scipy.fft
import torch
from torch.nn import functional as F
from toys import far, state_of
from zoo import KINDS, made, one_thread  # noqa: F401

import saliency_widgets as sw
from saliency_widgets.attribution.noise import normal_noise, seeded

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("one_thread")]
METHODS = sw.methods()
STEPS, SAMPLES = 6, 5
SIZES = {"n_steps": STEPS, "n_samples": SAMPLES, "chunk_size": 4}
CLOSE = 1e-10


def found(kind, method, model=None, **more):
    case = KINDS[kind]
    settings = {param.name: SIZES[param.name] for param in METHODS[method].params if param.name in SIZES}
    if method == "expected_gradients":
        settings["baselines"] = other_input(case)
    model = made(kind) if model is None else model
    return sw.attribute(model, case.inputs, method=method, target=case.target, **settings, **more)


# ---- what is right


def raw_gradient(case, model, x):
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(case.score(model, leaf).sum(), leaf)[0]


def other_input(case):
    """Another input of the same kind, (1, ...)."""
    return case.x[:1].flip(-1) * 0.7


def gradient(case, model):
    return raw_gradient(case, model, case.x)


def input_x_gradient(case, model):
    return case.x * raw_gradient(case, model, case.x)


def noise(case):
    """What SmoothGrad adds: each sample's, and each input's, own range times 0.15 times normal noise."""
    ranges = [
        torch.stack([piece.max() - piece.min() for piece in part]).view(-1, *[1] * (part.ndim - 1)).expand_as(part)
        for part in case.parts(case.x)
    ]
    return 0.15 * torch.cat(ranges, 1) * normal_noise(case.x, 0, range(SAMPLES))


def smoothgrad(case, model):
    return torch.stack([raw_gradient(case, model, case.x + z) for z in noise(case)]).mean(0)


def integrated_gradients(case, model):
    """From zeros, which are black where there are pictures."""
    along = [raw_gradient(case, model, case.x * t).numpy() for t in np.linspace(0, 1, STEPS + 1)]
    return case.x * torch.from_numpy(np.trapezoid(along, dx=1 / STEPS, axis=0))


def expected_gradients(case, model):
    start = other_input(case)
    way = case.x - start
    times = [
        float(torch.rand((), generator=seeded(0, "expected gradients", k), dtype=torch.float64)) for k in range(SAMPLES)
    ]
    return torch.stack([way * raw_gradient(case, model, start + t * way) for t in times]).mean(0)


def blurred(x, sigma):
    """Each cosine of the pictures, weakened as a Gaussian weakens it."""
    frequencies = [np.pi * np.arange(n) / n for n in x.shape[-2:]]
    squares = frequencies[0][:, None] ** 2 + frequencies[1][None] ** 2
    spectrum = scipy.fft.dctn(x.numpy(), axes=(-2, -1), norm="ortho")
    return torch.from_numpy(scipy.fft.idctn(spectrum * np.exp(-(sigma**2) * squares / 2), axes=(-2, -1), norm="ortho"))


def blur_ig(case, model):
    strongest = 0.2 * min(case.x.shape[-2:])
    seen = [blurred(case.x, strongest * (1 - j / STEPS)) for j in range(STEPS + 1)]
    slopes = [raw_gradient(case, model, x) for x in seen]
    return sum((slopes[j] + slopes[j + 1]) / 2 * (seen[j + 1] - seen[j]) for j in range(STEPS))


def at_layer(case, model):
    """Activation and gradient of the layer, as channels on a grid."""
    if case.behind is not None:
        activation, behind = case.behind(model, case.x)
        leaf = activation.detach().requires_grad_()
        score = case.read(behind(leaf.clone()))
    else:
        runs = []

        def cut(_module, _inputs, output):
            runs.append(output.detach().requires_grad_())
            return runs[-1].clone()

        handle = model.get_submodule(case.layer).register_forward_hook(cut)
        score = case.score(model, case.x)
        handle.remove()
        leaf = runs[-1]
    (slope,) = torch.autograd.grad(score.sum(), leaf)
    return case.grid(leaf.detach()), case.grid(slope)


def grad_cam(case, model):
    activation, slope = at_layer(case, model)
    return torch.einsum("nkij,nk->nij", activation, slope.mean((2, 3)))[:, None]


def grad_cam_plus_plus(case, model):
    activation, slope = at_layer(case, model)
    alpha = slope**2 / (2 * slope**2 + slope**3 * activation.sum((2, 3), keepdim=True))
    weights = (alpha.nan_to_num() * F.relu(slope)).sum((2, 3))
    return torch.einsum("nkij,nk->nij", activation, weights)[:, None]


def layer_cam(case, model):
    activation, slope = at_layer(case, model)
    return (F.relu(slope) * activation).sum(1, keepdim=True)


class Rectified(torch.autograd.Function):
    """A ReLU that hands back positive gradients only; guided, where its input was positive."""

    @staticmethod
    def forward(ctx, x, guided):
        ctx.save_for_backward(x)
        ctx.guided = guided
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        g = g * (g > 0)
        return (g * (x > 0) if ctx.guided else g), None


def rectified(case, model, guided):
    """The gradient with another relu in torch's place."""
    with pytest.MonkeyPatch.context() as patch:
        for room in (torch, F, torch.Tensor):
            patch.setattr(room, "relu", lambda x, inplace=False: Rectified.apply(x, guided))
        return raw_gradient(case, model, case.x)


def guided_backprop(case, model):
    return rectified(case, model, guided=True)


def deconvnet(case, model):
    return rectified(case, model, guided=False)


def guided_grad_cam(case, model):
    seen = F.relu(grad_cam(case, model))
    mask = F.interpolate(seen, size=case.x.shape[-2:], mode="bilinear", align_corners=False)
    return guided_backprop(case, model) * mask


ORACLES = {
    oracle.__name__: oracle
    for oracle in (
        *(gradient, input_x_gradient, smoothgrad, integrated_gradients, expected_gradients, blur_ig),
        *(grad_cam, grad_cam_plus_plus, layer_cam, guided_backprop, deconvnet, guided_grad_cam),
    )
}

# ---- why there may be none

NO_RELU = r"method: (Guided Backprop|Deconvnet) changes the gradient at ReLUs, and this model ran none.*Use 'gradient'"
NO_LAYER = r"layer: no layer of this model has a spatial output.*Use a gradient method such as 'integrated_gradients'"
NO_PICTURE = r"method: Blur-IG needs pictures \(N, C, H, W\), got inputs of shape.*Use 'integrated_gradients'"
NO_ONE_PICTURE = r"method: Guided Grad-CAM .*(Use|explain=)"


def reason(case, method):
    """Why a method does not apply to a kind of model; None where it does."""
    needs = METHODS[method].needs
    if method == "blur_ig" and not case.picture:
        return NO_PICTURE
    if "layer" in needs and case.layer is None:
        return NO_LAYER
    if "relu" in needs and not case.relu:
        return NO_RELU
    if method == "guided_grad_cam" and not case.picture:
        return NO_ONE_PICTURE
    return None


def test_every_method_has_an_expectation_here():
    assert set(ORACLES) == set(METHODS)


@pytest.mark.parametrize("method", ORACLES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_right_map_or_one_reason(kind, method):
    case, model = KINDS[kind], made(kind)
    before = state_of(model)
    why = reason(case, method)
    if why is not None:
        with pytest.raises(ValueError, match=why):
            found(kind, method, model)
        assert state_of(model) == before
        return
    result = found(kind, method, model)
    assert state_of(model) == before
    expected = ORACLES[method](case, made(kind))
    assert float(expected.abs().max()) > 0, "this model and input give nothing to see"
    assert far(result.values, expected) < CLOSE
    with torch.no_grad():
        score = case.score(model, case.x)
    if result.score is not None:
        assert far(result.score, score) < CLOSE
    if "layer" in METHODS[method].needs and result.layer is not None:
        assert result.layer == case.layer


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_the_limit_of_differences(kind):
    """Central differences along random directions, and so no autograd at all."""
    case, model, h = KINDS[kind], made(kind), 1e-6
    values = found(kind, "gradient", model).values
    generator = torch.Generator().manual_seed(9)
    for _ in range(3):
        step = torch.randn(case.x.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            slope = (case.score(model, case.x + h * step) - case.score(model, case.x - h * step)) / (2 * h)
        assert far((values * step).flatten(1).sum(1), slope) < 1e-6


@pytest.mark.parametrize("method", ["integrated_gradients", "expected_gradients", "blur_ig"])
@pytest.mark.parametrize("kind", KINDS)
def test_delta_is_what_is_missing_and_vanishes(kind, method):
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
    result = found(kind, method, model)
    sums = result.values.flatten(1).sum(1)
    assert torch.allclose(result.delta, sums - change, rtol=0, atol=1e-12)
    if method == "expected_gradients":
        return  # its samples are drawn: see the standard errors elsewhere
    settings = {"method": method, "target": case.target, "chunk_size": 64}
    fine = sw.attribute(model, case.inputs, n_steps=512, **settings)
    size = float(result.values.abs().sum(tuple(range(1, result.values.ndim))).max())
    assert float(fine.delta.abs().max()) < 2e-3 * size


@pytest.mark.parametrize("method", ORACLES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_does_not_depend_on_the_one_beside_it(kind, method):
    case = KINDS[kind]
    if reason(case, method) is not None or callable(case.target):
        return
    together, model = found(kind, method), made(kind)
    settings = dict(together.settings) | {"target": case.target[1]}
    if isinstance(case.inputs, dict):
        second = {name: value[1:] for name, value in case.inputs.items()}
    else:
        second = case.inputs[1:]
    alone = sw.attribute(model, second, **settings)
    assert far(alone.values, together.values[1:]) < CLOSE


@pytest.mark.parametrize("method", ORACLES)
def test_a_detector_without_a_function_is_refused(method):
    with pytest.raises((TypeError, ValueError), match=r"target: the model returned a list.*Pass target= a function"):
        sw.attribute(made("detector"), KINDS["detector"].inputs, method=method)


@pytest.mark.parametrize("samples", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_batches_of_sequences_of_every_size(kind, samples):
    """(1, T, F) and (3, T, F) could be pictures of one or three channels; to this model they are sequences."""
    model, x = made(kind), torch.randn(samples, 6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)
    assert far(sw.attribute(model, x, method="gradient", target=1).values, expected) < CLOSE
