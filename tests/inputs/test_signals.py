"""Signals: their axes, names, baselines and fills, and maps against captum and closed forms in float64."""

import captum.attr
import pytest
import torch
from torch import nn
from toys import far, rows

import saliency_widgets as sw
from saliency_widgets.attribution import Reduction
from saliency_widgets.evaluation.fills import filling
from saliency_widgets.inputs.signal import SignalKind
from saliency_widgets.session import Problem

RATE = {"sampling_rate": 100}
BATCH = rows(3, 1, 2, 40)
SIGNAL = BATCH[0]


def convolutions():
    """Convolutions over time with every pooling, in float64."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(2, 6, 5, padding=2), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(6, 8, 3, padding=1, stride=2),
        nn.BatchNorm1d(8), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 3),
    ).double().eval()  # fmt: skip


class Recurrent(nn.Module):
    """An LSTM over (N, T, C), and a linear layer on its last state."""

    def __init__(self, channels=2):
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.head = nn.LSTM(channels, 5, batch_first=True), nn.Linear(5, 3)
        self.double().eval()

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


class Transformer(nn.Module):
    """A transformer over (N, T, C)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        self.embed, self.encoder = nn.Linear(2, 4), nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(4, 3)
        self.double().eval()

    def forward(self, x):
        return self.head(self.encoder(self.embed(x)).mean(1))


class Transposing(nn.Module):
    """A convolution of (N, T, C), which it transposes."""

    def __init__(self):
        super().__init__()
        self.body = convolutions()

    def forward(self, x):
        return self.body(x.transpose(1, 2))


class Waveform(nn.Module):
    """A model of signals without an axis of channels, (N, T)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv1d(1, 4, 5), nn.Linear(4, 2)
        self.double().eval()

    def forward(self, x):
        return self.head(self.conv(x[:, None]).relu().mean(2))


class Weighted(nn.Module):
    """The weighted sum of a signal: the attribution is known."""

    def __init__(self, shape):
        super().__init__()
        self.weight = nn.Parameter(rows(9, 2, *shape))

    def forward(self, x):
        return torch.stack([(x * weight).flatten(1).sum(1) for weight in self.weight], 1)


# ---- axes


@pytest.mark.parametrize(
    ("model", "signal", "options", "shape", "lanes"),
    [
        (convolutions, SIGNAL, RATE, (1, 2, 40), (2, 40)),
        (convolutions, BATCH, {}, (1, 2, 40), (2, 40)),
        (convolutions, BATCH.repeat(3, 1, 1), {"time_axis": "auto"}, (3, 2, 40), (2, 40)),
        (Recurrent, SIGNAL.T, RATE, (1, 40, 2), (2, 40)),
        (Recurrent, BATCH.mT, {}, (1, 40, 2), (2, 40)),
        (Transposing, SIGNAL.T, RATE, (1, 40, 2), (2, 40)),
        (Waveform, SIGNAL[0], RATE, (1, 40), (1, 40)),
        (Waveform, SIGNAL, RATE, (2, 40), (1, 40)),
        (lambda: Recurrent(1), SIGNAL[0], RATE, (1, 40, 1), (1, 40)),
        (convolutions, SIGNAL.numpy(), {"channel_names": ["a", "b"]}, (1, 2, 40), (2, 40)),
        (convolutions, SIGNAL.tolist(), RATE, (1, 2, 40), (2, 40)),
    ],
)
def test_the_model_shows_which_axis_is_time(model, signal, options, shape, lanes):
    problem = Problem(model(), signal, **options)
    assert isinstance(problem.kind, SignalKind)
    assert tuple(problem.tensor.shape) == shape
    assert problem.kind.shape_of(problem.tensor) == lanes
    assert problem.prepared.notes == ()
    assert problem.kind.features.time_first == (shape[1:] in ((40, 2), (40, 1)))


def test_square_signals_are_read_by_their_values():
    square = rows(1, 2, 2)
    assert not Problem(convolutions(), square, **RATE).kind.features.time_first
    assert Problem(Transposing(), square, **RATE).kind.features.time_first


def test_what_the_model_does_not_show_is_a_note():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(80, 3)).double()
    problem = Problem(flat, SIGNAL, **RATE)
    assert problem.kind.shape_of(problem.tensor) == (2, 40)
    assert problem.prepared.notes == (
        "The input was read as 2 channels of 40 samples. Pass time_axis='first' if it is 40 channels of 2 samples.",
    )
    (note,) = Problem(Transformer(), SIGNAL.T, **RATE).prepared.notes  # a linear layer could also mix the samples
    assert note.startswith("The input was read as 2 channels of 40 samples. Pass time_axis='last'")
    assert Problem(flat, SIGNAL, time_axis="first").kind.shape_of(BATCH) == (40, 2)
    assert problem.prepared.notes[0] in sw.attribute(flat, SIGNAL, **RATE, method="gradient").notes


# ---- values


@pytest.mark.parametrize(
    ("model", "signal"),
    [(convolutions, SIGNAL), (Recurrent, SIGNAL.T), (Transformer, SIGNAL.T), (Waveform, SIGNAL[0])],
)
def test_gradient_methods_equal_captums(model, signal):
    net, batch = model(), signal[None]
    theirs = {
        "gradient": captum.attr.Saliency(net).attribute(batch, target=1, abs=False),
        "input_x_gradient": captum.attr.InputXGradient(net).attribute(batch, target=1),
        "integrated_gradients": captum.attr.IntegratedGradients(net).attribute(
            batch, target=1, n_steps=32, method="riemann_middle"
        ),
    }
    rule = {"n_steps": 32, "quadrature": "midpoint", "tolerance": 0}
    for name, expected in theirs.items():
        settings = rule if name == "integrated_gradients" else {}
        result = sw.attribute(net, signal, **RATE, method=name, target=1, **settings)
        assert result.values.shape == batch.shape
        assert far(result.values, expected.detach()) < 1e-12, name


def test_guided_backprop_and_smoothgrad_of_convolutions():
    net = convolutions()
    guided = sw.attribute(net, SIGNAL, **RATE, method="guided_backprop", target=1).values
    assert far(guided, captum.attr.GuidedBackprop(net).attribute(BATCH, target=1).detach()) < 1e-12
    smooth = sw.attribute(net, SIGNAL, **RATE, method="smoothgrad", target=1, noise_level=0.0, n_samples=4).values
    assert far(smooth, captum.attr.Saliency(net).attribute(BATCH, target=1, abs=False).detach()) < 1e-12


@pytest.mark.parametrize("path", ["0", "1", "2", "3", "4", "5"])
def test_class_activation_maps_over_time_equal_captums(path):
    net = convolutions()
    result = sw.attribute(net, SIGNAL, **RATE, method="grad_cam", layer=path, target=2)
    theirs = captum.attr.LayerGradCam(net, net.get_submodule(path)).attribute(BATCH, target=2).detach()
    assert result.values.shape == (1, 1, *theirs.shape[1:])
    assert far(result.values[:, 0], theirs) < 1e-12


def test_the_default_layer_is_the_last_over_time():
    assert sw.attribute(convolutions(), SIGNAL, **RATE, method="grad_cam", target=2).layer == "5"
    assert sw.attribute(Transposing(), SIGNAL.T, **RATE, method="grad_cam", target=2).layer == "body.5"
    with pytest.raises(ValueError, match="no layer of this model has"):
        sw.attribute(Recurrent(), SIGNAL.T, **RATE, method="grad_cam")


class Planes(nn.Module):
    """2-D convolutions over channels and time, as in networks for electroencephalograms."""

    def __init__(self, time_first=False):
        super().__init__()
        torch.manual_seed(0)
        self.along, self.across = nn.Conv2d(1, 3, (1, 4), stride=(1, 2)), nn.Conv2d(3, 4, (2, 1))
        self.head, self.time_first = nn.Linear(4, 3), time_first
        self.double().eval()

    def forward(self, x):
        x = x.mT if self.time_first else x
        return self.head(self.across(self.along(x[:, None]).relu()).relu().mean((2, 3)))


@pytest.mark.parametrize("time_first", [False, True])
def test_layers_over_channels_and_time(time_first):
    net, signal = Planes(time_first), SIGNAL.T if time_first else SIGNAL
    options = {"time_axis": "first" if time_first else "last", "target": 1, "method": "grad_cam"}
    for path, height in (("along", 2), ("across", 1)):
        result = sw.attribute(net, signal, layer=path, **options)
        theirs = captum.attr.LayerGradCam(net, net.get_submodule(path)).attribute(signal[None], target=1).detach()
        assert result.values.shape == (1, 1, height, 19)
        assert far(result.values, theirs) < 1e-12
        shown = result.reduced(Reduction("signed"))
        expected = nn.functional.interpolate(theirs, size=(height, 40), mode="bilinear")[0, 0]
        assert far(shown, expected.expand(2, 40)) < 1e-12


def test_a_learned_spectrogram_is_an_image():
    class Spectrogram(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.bank, self.conv = nn.Conv1d(1, 8, 5, stride=4), nn.Conv2d(1, 3, 3, padding=1)

        def forward(self, x):
            return self.conv(self.bank(x)[:, None].abs()).relu().mean((2, 3))

    net, wave = Spectrogram().double().eval(), SIGNAL[:1]
    result = sw.attribute(net, wave, **RATE, method="grad_cam", target=1)
    assert result.layer == "conv"
    assert far(result.values, captum.attr.LayerGradCam(net, net.conv).attribute(wave[None], target=1).detach()) < 1e-12
    with pytest.raises(ValueError, match=r"those of a layer over time, with 1 row, got shape \(1, 8, 9\)"):
        result.saliency_map()


def test_an_event_is_at_its_time_in_a_map_of_a_layer():
    net = nn.Sequential(nn.Conv1d(1, 1, 4, stride=4, bias=False), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    net[0].weight.data.fill_(1.0)
    signal = torch.zeros(40)
    signal[24:28] = 1
    result = sw.attribute(net, signal, **RATE, method="grad_cam", layer="1", target=0)
    values = result.reduced(Reduction("signed"))
    assert values.shape == (1, 40)
    assert 24 <= int(values[0].argmax()) < 28
    assert float(values[0, :22].abs().max()) == 0


@pytest.mark.parametrize("model", [convolutions, Recurrent])
def test_gradients_equal_finite_differences(model):
    net = model()
    signal = SIGNAL if model is convolutions else SIGNAL.T
    values = sw.attribute(net, signal, **RATE, method="gradient", target=1).values[0]
    for index in range(0, signal.numel(), 7):
        step = torch.zeros(signal.shape, dtype=torch.float64)
        step.view(-1)[index] = 1e-6
        with torch.no_grad():
            change = (net((signal + step)[None]) - net((signal - step)[None]))[0, 1] / 2e-6
        assert abs(float(values.reshape(-1)[index] - change)) < 1e-7


@pytest.mark.parametrize("time_axis", ["first", "last"])
@pytest.mark.parametrize("baseline", ["zero", "mean", "first"])
def test_a_linear_model_in_closed_form(baseline, time_axis):
    signal = SIGNAL.T if time_axis == "first" else SIGNAL
    net, axis = Weighted(signal.shape).double(), 0 if time_axis == "first" else 1
    start = {
        "zero": torch.zeros_like(signal),
        "mean": signal.mean(axis, keepdim=True),
        "first": signal.narrow(axis, 0, 1),
    }[baseline]
    result = sw.attribute(net, signal, time_axis=time_axis, target=1, baseline=baseline, n_steps=4)
    assert far(result.values[0], (net.weight[1] * (signal - start)).detach()) < 1e-12
    assert result.saliency_map().shape == (2, 40)


def test_noise_stays_in_the_range_of_each_channel():
    signal = SIGNAL * torch.tensor([[1.0], [100.0]])
    problem = Problem(convolutions(), signal, **RATE)
    noise = problem.runner(sw.attribution.Score("logit", torch.tensor([0]))).baseline("noise", 0)[0]
    low, high = signal.amin(1, keepdim=True), signal.amax(1, keepdim=True)
    assert bool(((noise >= low) & (noise <= high)).all())
    assert float(noise[1].std() / noise[0].std()) > 20
    assert torch.equal(problem.kind.spread(problem.tensor)[0], high - low)


def test_other_signals_are_baselines_of_expected_gradients():
    net, others, settings = Weighted((2, 40)).double(), rows(5, 6, 2, 40), {"target": 0, "n_samples": 8}
    result = sw.attribute(net, SIGNAL, **RATE, background=others, method="expected_gradients", **settings)
    assert result.settings["baselines"] == "background"
    stack = sw.attribute(net, SIGNAL, **RATE, method="expected_gradients", baselines=others, **settings)
    assert torch.equal(result.values, stack.values)
    same = others[:1].expand(3, -1, -1)
    result = sw.attribute(net, SIGNAL, **RATE, background=same, method="expected_gradients", **settings)
    assert far(result.values[0], (net.weight[0] * (SIGNAL - others[0])).detach()) < 1e-12


# ---- maps and fills


def test_values_are_reduced_to_channels_and_samples():
    for signal, options in ((SIGNAL, {}), (SIGNAL.T, {"time_axis": "first"})):
        net = Weighted(signal.shape).double()
        result = sw.attribute(net, signal, **RATE, **options, method="gradient", target=0)
        expected = net.weight[0].detach() if signal is SIGNAL else net.weight[0].detach().T
        assert torch.equal(result.reduced(Reduction("signed")), expected)
        assert torch.equal(result.reduced(Reduction("absolute")), expected.abs())


@pytest.mark.parametrize("time_first", [False, True])
def test_neighbors_are_a_straight_line_between_the_ends(time_first):
    signal = SIGNAL.T if time_first else SIGNAL
    net = Weighted(signal.shape).double()
    problem = Problem(net, signal, time_axis="first" if time_first else "last")
    runner = problem.runner(sw.attribution.Score("logit", torch.tensor([0])))
    masks = torch.zeros(3, 2, 40, dtype=torch.bool)
    masks[0, 0, 10:14] = True
    masks[1, :, :5] = True
    masks[2, 1] = True
    filled = filling(runner, "neighbors")(masks)
    filled = filled.mT if time_first else filled
    line = SIGNAL[0, 9] + (SIGNAL[0, 14] - SIGNAL[0, 9]) * torch.arange(1, 5) / 5
    assert far(filled[0, 0, 10:14], line) < 1e-12
    assert torch.equal(filled[1, :, :5], SIGNAL[:, 5:6].expand(2, 5))
    assert far(filled[2, 1], SIGNAL[1].mean().expand(40)) < 1e-12
    for k in range(3):
        assert torch.equal(filled[k][~masks[k]], SIGNAL[~masks[k]])


def test_ablation_of_a_linear_model_is_the_sum_of_what_was_removed():
    net = Weighted((2, 40)).double()
    mask = torch.zeros(2, 40, dtype=torch.bool)
    mask[:, 5:15] = True
    result = sw.ablate(net, SIGNAL, mask, **RATE, target=1, fill="zero", draws=2)
    assert abs(result.change + float((net.weight[1].detach() * SIGNAL)[mask].sum())) < 1e-10
    assert float((result.inputs[0] - SIGNAL)[~mask].abs().max()) == 0


# ---- other functions


def test_functions_for_images_give_a_reason():
    net = convolutions()
    with pytest.raises(ValueError, match="a lesson requires an image"):
        sw.lesson(net, BATCH)


def test_a_sweep_of_a_batch_of_signals():
    result = sw.sweep(convolutions(), BATCH, "smoothgrad", {"n_samples": [2, 4]}, metrics=["deletion"], progress=False)
    assert len(result.table) == 2
    assert result.table["deletion"].notna().all()


# ---- errors

NAN = SIGNAL.clone()
NAN[1, 30] = torch.nan


@pytest.mark.parametrize(
    ("signal", "options", "error", "message"),
    [
        (NAN, {**RATE, "channel_names": ["a", "b"]}, ValueError,
         r"1 of 80 numbers are NaN or infinite, the first in 'b' at sample 30 \(0.3 s\)"),
        (SIGNAL[:, :0], RATE, ValueError, r"got shape \(2, 0\)"),
        (SIGNAL[:, :1], RATE, ValueError, r"can't take a signal of shape \(2, 1\); layer '2' raised"),
        (rows(3, 5, 40), RATE, ValueError, r"can't take a signal of shape \(5, 40\); layer '0' raised .* 2 channels"),
        (SIGNAL.T, RATE, ValueError, r"in the other order\. Pass x\.T\."),
        (BATCH[None], RATE, ValueError, r"got shape \(1, 1, 2, 40\)"),
        (SIGNAL, {"channel_names": ["a"]}, ValueError, "expected 2, one for each channel, got 1"),
        (SIGNAL, {"channel_names": "ab"}, TypeError, "expected a list of names, got a str"),
        (SIGNAL, {"channel_names": [1, 2]}, TypeError, "channel_names: expected a string"),
        (SIGNAL, {"sampling_rate": 0}, ValueError, "expected a positive number of samples per second, got 0"),
        (SIGNAL, {"sampling_rate": 10**5000}, ValueError, "expected a positive number of samples per second"),
        (SIGNAL, {"sampling_rate": float("nan")}, ValueError, "expected a positive number"),
        (SIGNAL, {"sampling_rate": "fast"}, TypeError, "expected a number of samples per second, got a str"),
        (SIGNAL, {"time_axis": "middle"}, ValueError, "time_axis"),
        (SIGNAL, {**RATE, "transform": str}, ValueError, "transform: it doesn't apply to a signal"),
        (SIGNAL, {**RATE, "slices": "depth"}, ValueError, "slices: it doesn't apply to a signal"),
        (SIGNAL, {**RATE, "baseline": "black"}, ValueError, "'black' isn't defined for signals"),
        (SIGNAL, {**RATE, "background": rows(1, 4, 2, 30)}, ValueError, r"of the same shape, \(N, 2, 40\)"),
        ({"x": SIGNAL}, RATE, TypeError, "need a single array"),
        ("file.wav", RATE, TypeError, "inputs: expected numbers"),
        (SIGNAL + 1j, RATE, TypeError, "expected real numbers"),
    ],
)  # fmt: skip
def test_invalid_arguments(signal, options, error, message):
    with pytest.raises(error, match=message):
        sw.attribute(convolutions(), signal, **{"target": 0, "n_steps": 2, **options})


def test_an_image_needs_no_options_of_signals():
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert Problem(net, torch.rand(3, 8, 8)).kind.name == "image"
