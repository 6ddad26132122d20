"""Inputs of shape (a, b, c): one image or a batch, as the model accepts them; and rows without a batch dimension."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from toys import each, far, state_of

import saliency_widgets as sw
from saliency_widgets.runtime.model.isolation import dtype_of
from saliency_widgets.session.problem import Problem


def numbers(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Pooled(nn.Module):
    """Ends in a mean over the positions, so that it also runs on an image without a batch dimension."""

    def __init__(self, channels, classes):
        super().__init__()
        self.conv = nn.Conv2d(channels, classes, 3)

    def forward(self, x):
        return self.conv(x).square().mean((-1, -2))


class Attention(nn.Module):
    """Attention without a transformer layer by which it could be recognized; takes any number of dimensions."""

    def __init__(self, pool):
        super().__init__()
        self.embed, self.head, self.pool = nn.Linear(6, 6), nn.Linear(6, 3), pool

    def forward(self, x):
        h = self.embed(x)
        return self.head(self.pool(F.scaled_dot_product_attention(h, h, h)))


class Spectrogram(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.conv(x.unsqueeze(1)).square().mean((2, 3)))


def seeded(make, *args):
    torch.manual_seed(0)
    return make(*args).double().eval()


def gradient(model, x, score=lambda out: out[:, 1]):
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(score(model(leaf)).sum(), leaf)[0]


def explained(model, x, expected, **settings):
    """Assert that the map is the gradient at ``expected`` and the model is unchanged; return the notes on the shape."""
    before = state_of(model)
    result = sw.attribute(model, x, method="gradient", target=1, **settings)
    assert far(result.values, gradient(model, expected)) < 1e-12
    assert state_of(model) == before
    return [note for note in result.notes if note.startswith("The input of shape")]


@each("channels", [1, 2, 3, 4, 5, 7])
@each("classes", [2, 5, 7])
def test_one_image_of_any_number_of_channels(channels, classes):
    x = numbers(channels, 8, 9)
    assert explained(seeded(Pooled, channels, classes), x, x[None]) == []
    assert explained(seeded(Pooled, channels, classes), x.numpy(), x[None]) == []


def test_a_model_that_accepts_one_image_runs_once():
    runs = []

    class Counted(Pooled):
        def forward(self, x):
            runs.append(tuple(x.shape))
            return super().forward(x)

    model = seeded(Counted, 3, 4)
    Problem(model, numbers(3, 8, 8))
    assert runs == [(1, 3, 8, 8)]
    for x in (numbers(1, 3, 8, 8), numbers(4), numbers(2, 4), numbers(1, 3, 2, 4, 4)):
        Problem(model, x)
    assert len(runs) == 1


@each("samples", [1, 2, 3, 4, 5])
@each("pool", [lambda h: h.mean(1), lambda h: h.mean(-2)], ids=["second", "last but one"])
@each("kind", [torch.clone, torch.Tensor.numpy], ids=["tensor", "array"])
def test_sequences_of_a_custom_transformer(samples, pool, kind):
    x = numbers(samples, 10, 6)
    assert explained(seeded(Attention, pool), kind(x), x) == []


@pytest.mark.parametrize("samples", [2, 3, 4])
def test_an_ambiguous_shape_is_noted(samples):
    model, x = seeded(Attention, lambda h: h.flatten(1, -2).mean(1)), numbers(samples, 10, 6)
    message = f"The input of shape ({samples}, 10, 6) was read as a batch of {samples}. Pass x[None] for one image."
    assert explained(model, x, x) == [message]
    assert explained(model, x[None], x[None]) == []


def test_a_result_without_a_class_dimension_means_one_image():
    class Means(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 3)

        def forward(self, x):
            return self.head(x.square().mean((-1, -2)))

    model, x = seeded(Means), numbers(3, 8, 8)
    message = "The input of shape (3, 8, 8) was read as one image. Pass (x,) for a batch of 3."
    assert explained(model, x, x[None]) == [message]
    result = sw.attribute(model, (x,), method="gradient", target=0)
    assert far(result.values, gradient(model, x, score=lambda out: out)) < 1e-12


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_a_model_that_adds_the_channel_dimension(samples):
    x = numbers(samples, 20, 30)
    assert explained(seeded(Spectrogram), x, x) == []


def test_arrays_of_sequences_are_not_transposed():
    x = numbers(8, 20, 3)
    model = seeded(nn.Sequential, nn.Flatten(), nn.Linear(60, 3))
    assert explained(model, x.numpy(), x) == []
    assert explained(model, x.numpy().astype(">f8")[:, ::-1], x.flip(1)) == []


def test_a_gray_image_is_one_image():
    model, x = seeded(nn.Sequential, nn.Flatten(), nn.Linear(64, 3)), numbers(1, 8, 8)
    assert explained(model, x, x[None]) == []
    assert explained(model, numbers(3, 8, 8), numbers(3, 8, 8)) == []


def test_a_list_of_detections_is_a_valid_output():
    class Detector(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(5, 4, 3)

        def forward(self, x):
            return [{"found": one.mean((-1, -2))} for one in self.conv(x)]

    result = Problem(seeded(Detector), numbers(5, 8, 8))
    assert result.tensor.shape == (1, 5, 8, 8)


def test_a_model_that_accepts_neither_raises_the_usual_error():
    with pytest.raises(ValueError, match=r"model: it raised RuntimeError in layer 'conv' \(Conv2d\).*\(1, 3, 8, 8\)"):
        sw.attribute(seeded(Pooled, 6, 2), numbers(3, 8, 8), target=0)


def test_the_trial_pass_changes_neither_the_inputs_nor_the_model():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.head = nn.BatchNorm1d(6), nn.Linear(6, 3)

        def forward(self, x):
            x *= 2
            return self.head(self.norm(x.mean(-2)))

    torch.manual_seed(0)
    model, x = InPlace().double().train(), numbers(3, 10, 6)
    before, stored = state_of(model), x.clone()
    assert Problem(model, x).tensor.shape == (3, 10, 6)
    assert state_of(model) == before
    assert torch.equal(x, stored)


# ---- rows without a batch dimension, and lists, in a mapping or a tuple


ROW = [0.5, -1.0, 2.0, 0.25, 3.0, -2.0]


@pytest.mark.parametrize("inputs", [{"input": torch.tensor(ROW)}, {"input": ROW}, (np.array(ROW),)], ids=range(3))
def test_a_row_without_a_batch_dimension_in_a_mapping_is_refused(inputs):
    model = seeded(nn.Linear, 6, 3)
    with pytest.raises(
        ValueError, match=r"inputs: 'input' has shape \(6,\).*takes one sample of 6 numbers.*pass input\[None\]\."
    ):
        sw.attribute(model, inputs, target=0)


class Gated(nn.Module):
    """Takes rows, one number per row, and a setting."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(6, 3)

    def forward(self, x, gate, sizes=()):
        assert isinstance(sizes, (list, tuple))
        return self.net(x) * gate[:, None]


def test_one_number_per_sample_is_not_read_as_a_row():
    model, x, gate = seeded(Gated), numbers(4, 6), numbers(4)
    result = sw.attribute(model, (x, gate), method="gradient", target=1)
    assert far(result.part("x").values, gate[:, None] * model.net.weight[1].detach()) < 1e-12


def test_inputs_with_and_without_a_batch_dimension_are_refused():
    with pytest.raises(
        ValueError, match=r"same number of samples .*, got \{'x': 6, 'gate': 1\}.*pass x\[None\] for one sam"
    ):
        sw.attribute(seeded(Gated), (numbers(6), numbers(1)), target=0)


@pytest.mark.parametrize("chunk_size", [1, 3, 8])
def test_a_list_of_one_number_per_sample_is_an_input_and_another_list_a_setting(chunk_size):
    model, x, gate = seeded(Gated), numbers(3, 6), [0.5, 2.0, -1.0]
    inputs = {"x": x, "gate": gate, "sizes": [1.5, 2.5]}
    result = sw.attribute(model, inputs, method="integrated_gradients", target=1, n_steps=4, chunk_size=chunk_size)
    expected = x * torch.tensor(gate)[:, None] * model.net.weight[1].detach()
    assert far(result.values, expected) < 1e-12


def test_explained_lists_are_read_as_arrays():
    model, x = seeded(nn.Linear, 6, 3), numbers(2, 6)
    expected = sw.attribute(model, x, method="integrated_gradients", target=0, n_steps=3).values
    for inputs, explain in (({"input": x.tolist()}, None), ({"input": x.tolist()}, "input")):
        result = sw.attribute(model, inputs, explain=explain, method="integrated_gradients", target=0, n_steps=3)
        assert torch.equal(result.values, expected)


@each("value", [1.0, True, [1.5], [None], [True], {"a": 1}, b"a", torch.tensor([0.0])], ids=repr)
def test_explain_of_invalid_type_is_refused(value):
    with pytest.raises(TypeError, match=r"explain: expected a name or a position, or a list of them, got .*'gate'"):
        sw.attribute(seeded(Gated), (numbers(2, 6), numbers(2)), explain=value, target=0)


@pytest.mark.parametrize("value", [np.int64(0), [np.int64(0)], torch.tensor(0)], ids=repr)
def test_explain_takes_integers_of_any_type(value):
    inputs = (numbers(2, 6), numbers(2))
    assert Problem(seeded(Gated), inputs, explain=value).tensor.shape == (2, 6)


def test_an_empty_mapping_is_refused():
    with pytest.raises(ValueError, match=r"inputs: the mapping is empty"):
        sw.attribute(seeded(Gated), {}, explain="x", target=0)


# ---- the type that the model computes in


def test_the_models_type_is_that_of_most_of_its_weights():
    class Scaled(nn.Module):
        def __init__(self, kind):
            super().__init__()
            self.scale = nn.Parameter(torch.ones((), dtype=kind))
            self.net = nn.Linear(4, 3)

        def forward(self, x):
            return self.net(x) * self.scale.float()

    for kind in (torch.float64, torch.float16, torch.bfloat16):
        model = Scaled(kind)
        assert dtype_of(model) == torch.float32
        result = sw.attribute(model, torch.ones(1, 4), method="gradient", target=0)
        assert torch.equal(result.values[0], model.net.weight[0])
    buffers = nn.Module()
    buffers.register_buffer("steps", torch.zeros(9, dtype=torch.int64))
    buffers.register_buffer("mean", torch.zeros(3, dtype=torch.float64))
    assert dtype_of(buffers) == torch.float64
    assert dtype_of(nn.Identity()) is None
    stored = nn.Linear(4, 3)
    stored.weight = nn.Parameter(stored.weight.detach().to(torch.float8_e4m3fn), requires_grad=False)
    assert dtype_of(stored) == torch.float32


# ---- a transform among several inputs


class Compared(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

    def forward(self, left, right):
        return self.head((self.conv(left) * self.conv(right)).mean((2, 3)))


def test_a_transform_that_would_be_applied_to_nothing_is_an_error():
    settings = {"left": torch.rand(1, 3, 8, 8), "right": torch.rand(1, 3, 8, 8)}
    with pytest.raises(ValueError, match=r"transform: no input is an image.*transform=\{'left': \.\.\.\}"):
        sw.attribute(Compared(), settings, transform=lambda x: x * 2, target=0, n_steps=2)
    result = sw.attribute(Compared(), settings, transform={"left": lambda x: x * 2}, target=0, method="gradient")
    doubled = {**settings, "left": settings["left"] * 2}
    assert torch.equal(result.values, sw.attribute(Compared(), doubled, target=0, method="gradient").values)


def test_an_image_that_is_not_explained_is_transformed_too():
    left, right = (Image.fromarray(np.random.default_rng(k).integers(0, 255, (8, 8, 3), np.uint8)) for k in (0, 1))

    def transform(image):
        return torch.from_numpy(np.array(image)).movedim(-1, 0).float() / 128 - 1

    result = sw.attribute(Compared(), {"left": left, "right": right}, explain="left", transform=transform, target=0)
    ready = {"left": transform(left)[None], "right": transform(right)[None]}
    expected = sw.attribute(Compared(), ready, explain="left", target=0, baseline=torch.full((3, 1, 1), -1.0))
    assert torch.allclose(result.values, expected.values, atol=1e-6)
