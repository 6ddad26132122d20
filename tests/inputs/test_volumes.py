"""Volumes and video: their axes, baselines and errors, and maps against captum and closed forms in float64."""

import captum.attr
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from toys import far, rows

import saliency_widgets as sw
from saliency_widgets.attribution import Reduction, Score
from saliency_widgets.inputs.volume import Planes, VolumeKind
from saliency_widgets.session import Problem

BATCH = rows(3, 1, 2, 6, 8, 10)
VOLUME = BATCH[0]
DEPTH = {"slices": "depth"}


def convolutions(channels=2):
    """3-D convolutions with a pooling and a normalization, in float64."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv3d(channels, 6, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(6, 8, 3, padding=1),
        nn.BatchNorm3d(8), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 3),
    ).double().eval()  # fmt: skip


class TimeFirst(nn.Module):
    """Convolutions of video with time before the channels, (N, T, C, H, W)."""

    def __init__(self):
        super().__init__()
        self.body = convolutions()

    def forward(self, x):
        return self.body(x.transpose(1, 2))


class Weighted(nn.Module):
    """The weighted sum of a volume: the attribution is known."""

    def __init__(self, *shape):
        super().__init__()
        self.weight = nn.Parameter(rows(9, 2, *shape))

    def forward(self, x):
        return torch.stack([(x * weight).flatten(1).sum(1) for weight in self.weight], 1)


# ---- axes


@pytest.mark.parametrize(
    ("volume", "options", "shape"),
    [
        (VOLUME, DEPTH, (1, 2, 6, 8, 10)),
        (VOLUME[0], {"slices": "axial"}, (1, 1, 6, 8, 10)),
        (VOLUME.numpy(), DEPTH, (1, 2, 6, 8, 10)),
        (VOLUME, {"slices": "time"}, (1, 2, 6, 8, 10)),
        (VOLUME.transpose(0, 1), {"slices": "time first"}, (1, 6, 2, 8, 10)),
        (BATCH, {}, (1, 2, 6, 8, 10)),
    ],
)
def test_the_shape_and_the_option_make_a_volume(volume, options, shape):
    model = TimeFirst() if options == {"slices": "time first"} else convolutions(shape[1])
    problem = Problem(model, volume, **options)
    assert isinstance(problem.kind, VolumeKind)
    assert tuple(problem.tensor.shape) == shape
    assert problem.kind.shape_of(problem.tensor) == (6, 8, 10)


def test_planes_meet_in_a_voxel():
    kind = Problem(convolutions(), VOLUME, **DEPTH).kind
    assert isinstance(kind, VolumeKind)
    whole = torch.arange(480.0).view(6, 8, 10)
    packed = kind.features.part(whole, Planes(at=(1, 2, 3)))
    assert torch.equal(packed, torch.cat([whole[1].flatten(), whole[:, 2].flatten(), whole[:, :, 3].flatten()]))
    video = Problem(convolutions(), VOLUME, slices="time").kind
    assert isinstance(video, VolumeKind)
    assert torch.equal(video.features.part(whole, Planes(at=(1, 2, 3))), whole[1].flatten())


# ---- values


@pytest.mark.parametrize(("model", "volume", "slices"), [
    (convolutions, VOLUME, "depth"), (TimeFirst, VOLUME.transpose(0, 1), "time first"),
])  # fmt: skip
def test_gradient_methods_equal_captums(model, volume, slices):
    net, batch = model(), volume[None]
    theirs = {
        "gradient": captum.attr.Saliency(net).attribute(batch, target=1, abs=False),
        "input_x_gradient": captum.attr.InputXGradient(net).attribute(batch, target=1),
        "guided_backprop": captum.attr.GuidedBackprop(net).attribute(batch, target=1),
        "integrated_gradients": captum.attr.IntegratedGradients(net).attribute(
            batch, target=1, n_steps=16, method="riemann_middle"
        ),
    }
    rule = {"n_steps": 16, "quadrature": "midpoint", "tolerance": 0, "baseline": "zero"}
    for name, expected in theirs.items():
        settings = rule if name == "integrated_gradients" else {}
        result = sw.attribute(net, volume, slices=slices, method=name, target=1, **settings)
        assert result.values.shape == batch.shape
        assert far(result.values, expected.detach()) < 1e-12, name


@pytest.mark.parametrize("path", ["0", "1", "2", "3", "4", "5"])
def test_class_activation_maps_of_3d_layers_equal_captums(path):
    net = convolutions()
    result = sw.attribute(net, VOLUME, **DEPTH, method="grad_cam", layer=path, target=2)
    theirs = captum.attr.LayerGradCam(net, net.get_submodule(path)).attribute(BATCH, target=2).detach()
    assert far(result.values, theirs) < 1e-12
    expected = F.interpolate(theirs, size=(6, 8, 10), mode="trilinear", align_corners=False)[0, 0]
    assert far(result.reduced(Reduction("signed")), expected) < 1e-12


def test_the_default_layer_is_the_last_on_the_grid():
    assert sw.attribute(convolutions(), VOLUME, **DEPTH, method="grad_cam", target=2).layer == "5"
    flat = nn.Sequential(nn.Flatten(), nn.Linear(960, 3)).double()
    with pytest.raises(ValueError, match="no layer of this model has"):
        sw.attribute(flat, VOLUME, **DEPTH, method="grad_cam")


def test_an_object_is_at_its_voxels_in_a_map_of_a_layer():
    net = nn.Sequential(nn.Conv3d(1, 1, 4, stride=4, bias=False), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten())
    net[0].weight.data.fill_(1.0)
    volume = torch.zeros(16, 20, 24)
    volume[4:8, 12:16, 16:20] = 1
    values = sw.attribute(net, volume, **DEPTH, method="grad_cam", layer="1", target=0).reduced(Reduction("signed"))
    (d, h, w) = torch.unravel_index(values.argmax(), values.shape)
    assert 4 <= int(d) < 8
    assert 12 <= int(h) < 16
    assert 16 <= int(w) < 20
    assert (
        float(values[:2].abs().max()) == float(values[:, :10].abs().max()) == float(values[..., :14].abs().max()) == 0
    )


@pytest.mark.parametrize("baseline", ["zero", "mean", "min"])
def test_a_linear_model_in_closed_form(baseline):
    net = Weighted(2, 6, 8, 10).double()
    start = {
        "zero": torch.zeros_like(VOLUME),
        "mean": VOLUME.mean((1, 2, 3), keepdim=True),
        "min": VOLUME.amin((1, 2, 3), keepdim=True),
    }[baseline]
    if baseline == "min":
        start = Problem(net, VOLUME, **DEPTH).runner(Score("logit", torch.tensor([1]))).baseline("min", 0)[0]
        assert bool((start <= VOLUME).all())
    result = sw.attribute(net, VOLUME, **DEPTH, target=1, baseline=baseline, n_steps=4)
    assert far(result.values[0], (net.weight[1] * (VOLUME - start)).detach()) < 1e-12
    assert far(result.reduced(Reduction("signed", "sum")), result.values[0].sum(0)) < 1e-12


def test_a_linear_convolution_in_closed_form():
    net = nn.Sequential(nn.Conv3d(2, 1, (6, 8, 10), bias=False), nn.Flatten()).double().eval()
    weights = net[0].weight.detach()
    for method, expected in (("gradient", weights), ("input_x_gradient", weights * BATCH)):
        assert far(sw.attribute(net, VOLUME, **DEPTH, method=method, target=0).values, expected) < 1e-12


def test_a_blurred_constant_is_the_constant():
    problem = Problem(convolutions(), torch.full_like(VOLUME, 0.7), **DEPTH)
    blurred = problem.runner(Score("logit", torch.tensor([0]))).baseline("blur", 0)
    assert far(blurred, torch.full_like(BATCH, 0.7)) < 1e-12
    # A Gaussian is separable and symmetric: an impulse in the middle spreads alike to both sides.
    impulse = torch.zeros(1, 7, 7, 7, dtype=torch.float64)
    impulse[0, 3, 3, 3] = 1
    problem = Problem(convolutions(1), impulse, **DEPTH)
    blurred = problem.runner(Score("logit", torch.tensor([0]))).baseline("blur", 0)[0, 0]
    for axis in range(3):
        assert far(blurred, blurred.flip(axis)) < 1e-12
        assert far(blurred, blurred.transpose(0, axis)) < 1e-12
    assert float(blurred[3, 3, 3]) == float(blurred.max()) < 1


def test_ablation_of_a_linear_model_is_the_sum_of_what_was_removed():
    net = Weighted(2, 6, 8, 10).double()
    mask = torch.zeros(6, 8, 10, dtype=torch.bool)
    mask[1:4, 2:5, 3:7] = True
    result = sw.ablate(net, VOLUME, mask, **DEPTH, target=1, fill="zero", draws=0)
    removed = (net.weight[1] * VOLUME)[:, mask].sum().detach()
    assert abs(float(result.logits_before[1] - result.logits_after[1] - removed)) < 1e-12


# ---- errors


@pytest.mark.parametrize(
    ("volume", "options", "message"),
    [
        (VOLUME[0, 0], DEPTH, r"inputs: expected a volume of shape \(D, H, W\) or \(C, D, H, W\).*got shape \(8, 10\)"),
        (VOLUME[0], {"slices": "time first"}, r"inputs: expected a video of shape \(T, C, H, W\).*got shape \(6, 8, 1"),
        (VOLUME[:, :0], DEPTH, r"inputs: expected a volume .* got shape \(2, 0, 8, 10\)"),
        (VOLUME.index_fill(1, torch.tensor([2]), torch.nan), DEPTH, "160 of 960 numbers are NaN or infinite, the first "
         "in slice 2 at row 0, column 0"),
        (VOLUME, {"slices": "sideways"}, "slices: "),
        (VOLUME, {"slices": "depth", "feature_names": ["a"]}, "feature_names: it doesn't apply to a volume"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_message(volume, options, message):
    with pytest.raises(ValueError, match=message):
        sw.attribute(convolutions(), volume, **options)


def test_another_baseline_names_those_of_volumes():
    with pytest.raises(ValueError, match=r"isn't defined for volumes\. Use one of"):
        sw.attribute(convolutions(), VOLUME, **DEPTH, baseline="white")
