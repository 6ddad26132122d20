"""Known errors of other libraries: each is reproduced, and the same request has an exact result here."""

import copy

import captum.attr as ca
import numpy as np
import pytest
import saliency.core as pair
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torchcam.utils import overlay_mask
from toys import Formula, conv_net, far, images, linear, state_of

import saliency_widgets as sw
from saliency_widgets import render

pytestmark = pytest.mark.filterwarnings(
    "ignore:Input Tensor 0 did not already require gradients",
    "ignore:Setting backward hooks",
)
X = torch.tensor([[0.5, -2.0, 3.0, 1.0], [1.5, 0.25, -1.0, 2.0]], dtype=torch.float64)
W = torch.tensor([1.0, -2.0, 0.5, 4.0], dtype=torch.float64)
FLOAT32 = 1e-6  # captum and PAIR use float32 weights and sums whatever the model's type


# ---- captum


@pytest.mark.parametrize("n", [2, 5, 50])
def test_captums_trapezoid_rule_underestimates_a_linear_model(n):
    """Its n weights are 1/n, and 1/2n at both ends: they sum to (n - 1) / n."""
    model = linear(W, 3.0)
    peer = ca.IntegratedGradients(model).attribute(X, n_steps=n, method="riemann_trapezoid")
    assert far(peer, W * X * (n - 1) / n) < FLOAT32
    ours = sw.attribute(model, X, method="integrated_gradients", n_steps=n, quadrature="trapezoid", score="value")
    assert far(ours.values, W * X) < 1e-14


def test_captums_vargrad_of_a_linear_model_is_rounding_error():
    """captum subtracts the squared mean from the mean of squares in float32: 1e12 minus 1e12 for a variance of 0."""
    steep = linear((1e3 * W + 1e6).float())
    torch.manual_seed(0)
    peer = ca.NoiseTunnel(ca.Saliency(steep)).attribute(X.float(), nt_type="vargrad", nt_samples=50, stdevs=0.5)
    assert float(peer.abs().max()) > 1e3
    ours = sw.attribute(steep, X.float(), method="smoothgrad", statistic="variance", score="value")
    assert float(ours.values.abs().max()) == 0


def test_captums_smoothgrad_averages_absolute_values():
    """SmoothGrad is the mean gradient; where gradients have both signs, the mean of absolute values differs from it."""
    model, x = Formula(lambda x: (20 * x).sin().sum(1)), torch.linspace(0, 1, 40, dtype=torch.float64)[None]
    sigma, n = 0.15, 400
    exact = 20 * (20 * x).cos() * np.exp(-200 * sigma**2)
    torch.manual_seed(0)
    peer = ca.NoiseTunnel(ca.Saliency(model)).attribute(x, nt_samples=n, stdevs=sigma)
    assert float((peer - exact.abs()).abs().min()) > 5
    ours = sw.attribute(model, x, method="smoothgrad", n_samples=n, noise_level=sigma, score="value")
    z = (ours.values - exact) / ours.standard_error
    assert float(z.abs().max()) < 5
    assert float(ours.values.abs().max()) < 5


class Functional(nn.Module):
    """Three linear layers with a given activation between them."""

    def __init__(self, rectified):
        super().__init__()
        torch.manual_seed(2)
        self.first, self.second, self.last = (nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 1))
        self.double()
        self.rectified = rectified

    def forward(self, x):
        return self.last(self.rectified(self.second(self.rectified(self.first(x)))))


def by_hand(model, x, slope):
    """Compute Guided Backprop: at each ReLU, the positive part of the gradient times the slope."""
    a = model.first(x)
    b = model.second(model.rectified(a))
    g = model.last.weight.expand(len(x), -1)
    g = g.clamp(min=0) * slope(b)
    g = (g @ model.second.weight).clamp(min=0) * slope(a)
    return (g @ model.first.weight).detach()


@pytest.mark.parametrize(
    ("rectified", "slope"),
    [
        (F.relu, lambda a: (a > 0).double()),
        (nn.ReLU6(), lambda a: ((a > 0) & (a < 6)).double()),
    ],
    ids=["a function", "ReLU6"],
)
def test_captums_guided_backprop_ignores_relus_other_than_nn_relu(rectified, slope):
    model, x = Functional(rectified), 4 * X
    peer = ca.GuidedBackprop(model).attribute(x.clone())
    plain = ca.Saliency(model).attribute(x.clone(), abs=False)
    assert torch.equal(peer, plain)
    expected = by_hand(model, x, slope)
    assert far(expected, plain) > 0.1
    assert far(sw.attribute(model, x, method="guided_backprop", score="value").values, expected) < 1e-13


def test_captums_guided_backprop_accepts_a_model_without_relus():
    model = Functional(nn.SiLU())
    peer = ca.GuidedBackprop(model).attribute(X.clone())
    assert torch.equal(peer, ca.Saliency(model).attribute(X.clone(), abs=False))
    with pytest.raises(ValueError, match="ReLU"):
        sw.attribute(model, X, method="guided_backprop", score="value")


def test_captums_integrated_gradients_update_the_models_batchnorm_statistics():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3)).double().train()
    copied, before = copy.deepcopy(model), state_of(model)
    ca.IntegratedGradients(copied).attribute(images(), target=1, n_steps=4)
    assert int(copied[1].num_batches_tracked) > 0
    assert far(copied[1].running_mean, model[1].running_mean + 1) > 1e-3
    sw.attribute(model, images(), method="integrated_gradients", target=1, n_steps=4)
    assert state_of(model) == before
    sw.attribute(model, images(), method=ca.IntegratedGradients(model), target=1, n_steps=4)
    assert state_of(model) == before


def test_captum_does_not_support_a_dict_as_output():
    inner = linear(W, 3.0)

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return {"logits": self.inner(x)}

    with pytest.raises(AttributeError, match="'dict' object has no attribute"):
        ca.IntegratedGradients(Named()).attribute(X, target=0)
    ours = sw.attribute(Named(), X, method="integrated_gradients", n_steps=3, baseline="zero")
    assert far(ours.values, W * X) < 1e-14
    assert far(sw.attribute(Named(), X, method="captum.IntegratedGradients").values, W * X) < FLOAT32


# ---- PAIR's saliency


def gradients_of(model):
    def call(x, call_model_args=None, expected_keys=None):
        leaf = torch.as_tensor(x).requires_grad_()
        (gradient,) = torch.autograd.grad(model(leaf).sum(), leaf)
        return {pair.INPUT_OUTPUT_GRADIENTS: gradient.numpy()}

    return call


@pytest.mark.parametrize("n", [3, 25])
def test_pairs_integrated_gradients_weight_the_ends_like_the_middle(n):
    """Its n equidistant gradients from 0 to 1 weigh 1/n each: for sum x^3, it gives (1 + 1 / (2 (n - 1))) x^3."""
    model = Formula(lambda x: (x**3).sum(1))
    peer = pair.IntegratedGradients().GetMask(X[0].numpy(), gradients_of(model), x_steps=n)
    factor = 3 * np.mean(np.linspace(0, 1, n) ** 2)
    assert factor == pytest.approx(1 + 1 / (2 * (n - 1)))
    assert np.allclose(peer, X[0].numpy() ** 3 * factor, rtol=FLOAT32)
    exact = sw.attribute(model, X, method="integrated_gradients", n_steps=n, quadrature="gauss_legendre", score="value")
    assert far(exact.values, X**3) < 1e-13
    rule = {"quadrature": "trapezoid", "n_steps": n - 1}
    ours = sw.attribute(model, X, method="integrated_gradients", score="value", **rule)
    assert far(ours.values, X**3 * (1 + 1 / (2 * (n - 1) ** 2))) < 1e-13  # the same gradients, half weight at the ends


def test_pairs_image_of_a_map_of_zeros_is_nan():
    with np.errstate(invalid="ignore"):
        assert np.isnan(pair.VisualizeImageGrayscale(np.zeros((8, 8, 3)))).all()
        assert np.isnan(pair.VisualizeImageDiverging(np.zeros((8, 8, 3)))).all()
    model = conv_net()
    with torch.no_grad():
        model[-1].weight.zero_()
    result = sw.attribute(model, images(), method="gradient", target=0)
    assert float(result.values.abs().max()) == 0
    assert np.array_equal(result.saliency_map(), np.zeros((8, 8)))
    assert np.array_equal(result.saliency_map(sign="signed"), np.full((8, 8), 0.5))


# ---- torch-cam and pytorch-grad-cam


def test_torchcams_overlay_overflows_in_eight_bits():
    """A mask value of 16 squares to 256, which wraps to 0 and is invisible, while 15 is shown as almost the maximum."""
    black = Image.new("RGB", (8, 8))

    def painted(strength):
        mask = Image.fromarray(np.full((8, 8), strength, np.uint8))
        return np.asarray(overlay_mask(black, mask, "gray", alpha=0.0))[0, 0]

    assert painted(16).tolist() == [0, 0, 0]
    assert painted(15).tolist() == [225, 225, 225]

    values, gray = np.arange(256)[None] / 255, np.arange(256, dtype=np.uint8)[:, None].repeat(3, 1)
    look = {"lut": gray, "opacity": 1.0, "clip": (0.0, 100.0), "threshold": 0.0, "blend": "uniform"}
    ours = render.blend(np.zeros((1, 256, 3), np.uint8), render.quantize(values, signed=False), **look)
    assert ours[0, :, 0].tolist() == list(range(256))


def test_a_model_keeps_its_relus_and_their_hooks():
    """Guided Backprop leaves the model unchanged.

    pytorch-grad-cam replaces each ReLU by a module of its own, calls eval, and finally puts one new ReLU everywhere,
    so in-place flags, the training mode and hooks are lost.
    """
    model = conv_net().train()
    model[1] = nn.ReLU(inplace=True)
    model[3].register_forward_hook(lambda _m, _i, _o: None)
    theirs = copy.deepcopy(model)
    one = nn.ReLU()
    theirs[1], theirs[3] = one, one
    theirs.eval()
    before = state_of(model)
    assert state_of(theirs)["modules"] != before["modules"]
    sw.attribute(model, images(), method="guided_backprop", target=1)
    assert state_of(model) == before
    assert model[1] is not model[3]
    assert model[1].inplace
