"""Agreement with captum on the pretrained EfficientNet-Lite0 in float64, where captum is correct."""

import captum.attr
import numpy as np
import pytest
import torch
from torch.nn import functional as F
from toys import conv_net, far, images

import saliency_widgets as sw
from saliency_widgets.attribution.numerics.noise import normal_noise

pytestmark = pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")
CLOSE = 1e-6
CLASS = 285  # Egyptian cat


@pytest.fixture(scope="module")
def run(pretrained64, cat):
    def attribute(method, **params):
        return sw.attribute(pretrained64, cat, method=method, **{"target": CLASS, **params})

    return attribute


def test_gradient(run, pretrained64, cat):
    expected = captum.attr.Saliency(pretrained64).attribute(cat.clone(), target=CLASS, abs=False)
    result = run("gradient")
    assert far(result.values, expected) < CLOSE
    assert far(result.score, pretrained64(cat)[:, CLASS].detach()) < CLOSE


def test_the_gradient_on_other_scales(run, pretrained64, cat):
    for score, scale in {"probability": F.softmax, "log_probability": F.log_softmax}.items():
        expected = captum.attr.Saliency(lambda x, f=scale: f(pretrained64(x), dim=1)).attribute(
            cat.clone(), target=CLASS, abs=False
        )
        assert far(run("gradient", score=score).values, expected) < CLOSE


def test_input_x_gradient(run, pretrained64, cat):
    expected = captum.attr.InputXGradient(pretrained64).attribute(cat.clone(), target=CLASS)
    assert far(run("input_x_gradient").values, expected.detach()) < CLOSE


def test_integrated_gradients_on_the_same_nodes(run, pretrained64, cat):
    baseline = torch.full_like(cat, -127 / 128)
    expected, delta = captum.attr.IntegratedGradients(pretrained64).attribute(
        cat,
        baseline,
        target=CLASS,
        n_steps=3,
        method="gausslegendre",
        internal_batch_size=3,
        return_convergence_delta=True,
    )
    result = run("integrated_gradients", n_steps=3, quadrature="gauss_legendre", baseline=baseline)
    assert far(result.values, expected) < CLOSE
    assert far(result.delta, delta) < CLOSE


def test_integrated_gradients_of_a_batch_with_midpoints(pretrained64, cat):
    both = torch.cat([cat, cat.flip(-1)])
    expected = captum.attr.IntegratedGradients(pretrained64).attribute(
        both, target=torch.tensor([CLASS, 281]), n_steps=2, method="riemann_middle"
    )
    result = sw.attribute(
        pretrained64,
        both,
        method="integrated_gradients",
        target=[CLASS, 281],
        baseline="zero",
        n_steps=2,
        quadrature="midpoint",
    )
    assert far(result.values, expected) < CLOSE


def test_smoothgrad_and_squared_smoothgrad_on_the_same_noise(run, pretrained64, cat):
    noise = normal_noise(cat, 3, range(2))[:, 0] * 0.1 * (cat.max() - cat.min())
    drawn = captum.attr.Saliency(pretrained64).attribute((cat + noise).clone(), target=CLASS, abs=False)
    settings = {"n_samples": 2, "noise_level": 0.1, "seed": 3}
    assert far(run("smoothgrad", **settings).values, drawn.mean(0, keepdim=True)) < CLOSE
    squared = run("smoothgrad", statistic="squared", **settings)
    assert far(squared.values, drawn.square().mean(0, keepdim=True)) < CLOSE


def test_smoothgrad_agrees_with_captums_own_noise_within_the_sampling_error():
    """The two sets of samples are independent, so their difference in standard errors is standard normal."""
    model, x, n = conv_net(activation=torch.nn.Tanh), images(0, 1, 3, 8, 8), 500
    sigma = 0.15 * float(x.max() - x.min())
    torch.manual_seed(0)
    expected = captum.attr.NoiseTunnel(captum.attr.InputXGradient(model)).attribute(
        x, nt_type="smoothgrad", nt_samples=n, stdevs=sigma, target=1
    )
    result = sw.attribute(model, x, method="smoothgrad", base="input_x_gradient", n_samples=n, target=1)
    z = (result.values - expected.detach()) / (result.standard_error * 2**0.5)
    assert float(z.abs().max()) < 5
    assert float(z.square().mean()) == pytest.approx(1, abs=0.5)  # the pixels' estimates are correlated


@pytest.mark.parametrize("layer", [None, "_blocks.5"])
def test_grad_cam_before_resizing(run, pretrained64, cat, layer):
    result = run("grad_cam", layer=layer)
    module = pretrained64.get_submodule(result.layer)
    expected = captum.attr.LayerGradCam(pretrained64, module).attribute(cat, target=CLASS, relu_attributions=False)
    assert far(result.values, expected.detach()) < CLOSE
    assert result.values.shape[-1] > 1


def test_grad_cam_at_a_convolution_whose_output_is_normalized_next(run, pretrained64, cat):
    convolutions = [p for p, m in pretrained64.named_modules() if isinstance(m, torch.nn.Conv2d)]
    result = run("grad_cam", layer=convolutions[-1])
    expected = captum.attr.LayerGradCam(pretrained64, pretrained64.get_submodule(convolutions[-1])).attribute(
        cat, target=CLASS, relu_attributions=False
    )
    assert far(result.values, expected.detach()) < CLOSE


def test_guided_grad_cam_with_bilinear_resizing():
    """By default, captum resizes by nearest neighbors."""
    model, x = conv_net(), images()
    with pytest.warns(UserWarning, match="backward hooks"):
        expected = captum.attr.GuidedGradCam(model, model[2]).attribute(
            x.clone().requires_grad_(), target=2, interpolate_mode="bilinear"
        )
    assert far(sw.attribute(model, x, method="guided_grad_cam", layer="2", target=2).values, expected.detach()) < CLOSE


def test_guided_grad_cam_is_the_product_of_its_parts(run, cat):
    guided, cam = run("guided_backprop").values, run("grad_cam").values
    mask = F.interpolate(cam.clamp(min=0), size=cat.shape[-2:], mode="bilinear", align_corners=False)
    result = run("guided_grad_cam")
    assert far(result.values, guided * mask) < 1e-12
    assert float(guided.abs().max()) > 0


def test_guided_backprop_applies_to_relu6(run):
    """captum's result is the plain gradient here, because it handles only nn.ReLU."""
    assert far(run("guided_backprop").values, run("gradient").values) > 0.1


def test_the_saliency_map_is_on_the_cat(pretrained):
    """End to end with an image file, its transform, a class name and default settings."""
    from saliency_widgets.demos import sample_image

    result = sw.attribute(
        pretrained.model,
        sample_image("chelsea"),
        transform=pretrained.transform,
        class_names=pretrained.class_names,
        method="grad_cam",
        target="Egyptian cat",
    )
    assert result.settings["target"] == CLASS
    shown = result.saliency_map()
    assert shown.shape == (224, 224)
    y, x = np.unravel_index(shown.argmax(), shown.shape)
    assert 20 < y < 204
    assert 20 < x < 204
