"""Baselines: the closed form of each name, tensors, functions, defaults, and invalid values."""

import numpy as np
import pytest
import torch
from torch import nn
from toys import conv_net, each, far, images, linear, rows

import saliency_widgets as sw
from saliency_widgets.attribution import Kind, PixelRange, baseline_of
from saliency_widgets.inputs import ImageKind

X = images(2, 2, 3, 9, 12)
PIXELS = PixelRange(torch.tensor([-1.0, -2.0, 0.5]).view(3, 1, 1), torch.tensor([1.0, 2.0, -0.5]).view(3, 1, 1))


def compute(value, x=X, pixels=PIXELS, seed=0):
    kind = ImageKind(pixels) if x.ndim == 4 else Kind()
    result = baseline_of(value, x, kind, seed)
    assert result.shape == x.shape
    assert result.dtype == x.dtype
    assert result.data_ptr() != x.data_ptr()
    result.zero_()  # the result shares no memory: writing to it must not change the next call's
    return baseline_of(value, x, kind, seed)


@pytest.mark.parametrize("name", ["black", "white"])
def test_black_and_white_are_those_of_the_pixel_range(name):
    assert torch.equal(compute(name), getattr(PIXELS, name).double().expand_as(X))


def test_zero():
    assert torch.equal(compute("zero"), torch.zeros_like(X))


def test_mean_is_one_color_per_image():
    assert far(compute("mean"), X.mean((2, 3), keepdim=True).expand_as(X)) < 1e-14
    flat = rows(1, 3, 7)
    assert far(compute("mean", flat, None), flat.mean(1, keepdim=True).expand_as(flat)) < 1e-14


def test_blur_keeps_a_constant_image():
    flat = torch.tensor([0.2, -3.0, 7.0], dtype=torch.float64).view(1, 3, 1, 1).expand(2, 3, 9, 12)
    assert far(compute("blur", flat), flat) < 1e-14


def test_blur_of_a_point_is_a_gaussian_of_a_tenth_of_the_shorter_side():
    x = torch.zeros(1, 1, 41, 61, dtype=torch.float64)
    x[0, 0, 20, 30] = 1
    result = compute("blur", x)[0, 0]
    assert float(result.sum()) == pytest.approx(1, abs=1e-12)  # nothing is lost away from the border
    assert torch.allclose(result, result.flip(0), atol=1e-15)
    assert torch.allclose(result, result.flip(1), atol=1e-15)
    ratio = np.exp(-0.5 / 4.1**2)
    assert float(result[20, 31] / result[20, 30]) == pytest.approx(ratio, rel=1e-12)
    assert float(result[21, 30] / result[20, 30]) == pytest.approx(ratio, rel=1e-12)
    assert float(result[21, 31] / result[20, 30]) == pytest.approx(ratio**2, rel=1e-12)


def test_blur_is_linear_and_keeps_channels_and_images_apart():
    a, b = compute("blur", X), compute("blur", X.flip(0))
    assert far(a.flip(0), b) < 1e-14
    assert far(compute("blur", 2 * X + 1), 2 * a + 1) < 1e-14
    alone = compute("blur", X[:1, 1:2], PixelRange(torch.zeros(1, 1, 1), torch.ones(1, 1, 1)))
    assert far(alone, a[:1, 1:2]) < 1e-14
    assert float(a.var()) < 0.5 * float(X.var())


@each("size", [(1, 1), (1, 8), (2, 2), (3, 50)])
def test_blur_of_tiny_images(size):
    x = images(0, 1, 3, *size)
    result = compute("blur", x)
    assert bool(torch.isfinite(result).all())
    assert float(x.min()) - 1e-12 <= float(result.min())
    assert float(result.max()) <= float(x.max()) + 1e-12


def test_noise_lies_between_black_and_white_and_follows_its_seed():
    result = compute("noise")
    low, high = torch.minimum(PIXELS.black, PIXELS.white), torch.maximum(PIXELS.black, PIXELS.white)
    assert bool(((result >= low) & (result <= high)).all())
    assert torch.equal(result[0], result[1]), "an image's baseline depends on the rest of the batch"
    assert torch.equal(result, compute("noise"))
    assert not torch.equal(result, compute("noise", seed=1))


def test_noise_is_uniform():
    x = torch.zeros(1, 1, 200, 200, dtype=torch.float64)
    result = compute("noise", x, PixelRange(torch.zeros(1, 1, 1), torch.ones(1, 1, 1)))
    n = x.numel()
    assert float(result.mean()) == pytest.approx(1 / 2, abs=5 * (1 / 12 / n) ** 0.5)
    assert float(result.square().mean()) == pytest.approx(1 / 3, abs=5 * (4 / 45 / n) ** 0.5)


def test_noise_leaves_torchs_own_random_state_alone_and_ignores_the_default_type():
    state = torch.get_rng_state()
    result = compute("noise", X.float())
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(compute("noise", X.float()), result)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(torch.get_rng_state(), state)


def test_noise_of_rows_spans_each_rows_own_range():
    x = rows(1, 3, 50)
    result = compute("noise", x, None)
    low, high = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    assert bool(((result >= low) & (result <= high)).all())
    shares = (result - low) / (high - low)
    assert far(shares[0:1], shares[1:2]) < 1e-12


@each("shape", [(), (3, 1, 1), (1, 3, 1, 1), (1, 3, 9, 12), (3, 9, 12), (2, 3, 9, 12), (2, 1, 1, 1), (9, 12)])
@each("dtype", [torch.float32, torch.float64, torch.int64])
def test_a_tensor_is_broadcast(shape, dtype):
    value = (rows(1, *shape) if shape else rows(1, 1)[0]).mul(9).to(dtype)
    assert torch.equal(compute(value), value.double().expand_as(X))


def test_an_array_a_parameter_and_a_function():
    value = rows(1, 3, 9, 12)
    assert torch.equal(compute(value.numpy()), value.expand_as(X))
    assert torch.equal(compute(nn.Parameter(value)), value.expand_as(X))
    assert torch.equal(compute(lambda x: x.flip(-1)), X.flip(-1))
    assert torch.equal(compute(lambda x: value), value.expand_as(X))
    assert not compute(nn.Parameter(value)).requires_grad


@each(
    "view",
    [
        lambda a: a[..., ::-1],
        lambda a: a.astype(">f8"),
        lambda a: a.astype(np.longdouble),
        lambda a: np.broadcast_to(a[:, :1, :1], a.shape),
        lambda a: (a * 100).astype(np.uint16),
        lambda a: a > 0,
    ],
    ids=["reversed", "other byte order", "long", "read-only", "16-bit", "bools"],
)
def test_arrays_that_torch_cannot_convert_directly(view):
    value = view(images(1, 1, 3, 9, 12).numpy()[0])
    assert torch.equal(compute(value), torch.from_numpy(value.astype(np.float64)).expand_as(X))


def test_an_out_of_memory_error_of_a_function_is_raised_unchanged():
    def hungry(x):
        raise torch.OutOfMemoryError("no more")

    with pytest.raises(torch.OutOfMemoryError, match="no more"):
        compute(hungry)


def test_a_function_that_works_in_place_gets_a_copy():
    before = X.clone()
    compute(lambda x: x.zero_())
    assert torch.equal(X, before)


def test_the_default_is_black_for_images_and_zero_for_rows():
    assert torch.equal(compute(None), compute("black"))
    assert torch.equal(compute(None, rows(), None), torch.zeros(2, 4, dtype=torch.float64))


@each(
    ("value", "error", "pattern"),
    [
        ("blak", ValueError, r"baseline: 'blak' is not known\. Did you mean 'black'"),
        (
            "uniform gray",
            ValueError,
            r"baseline: 'uniform gray' is not known\. Known: 'black', 'white', 'mean'",
        ),
        (
            torch.zeros(4, 9, 12),
            ValueError,
            r"baseline: shape \(4, 9, 12\) doesn't broadcast.*\(2, 3, 9, 12\)",
        ),
        (torch.zeros(1, 2, 3, 9, 12), ValueError, r"baseline: shape \(1, 2, 3, 9, 12\) doesn't broadcast"),
        (lambda x: x[:, :2], ValueError, r"baseline: shape \(2, 2, 9, 12\) doesn't broadcast"),
        (torch.tensor(float("nan")), ValueError, r"baseline: it holds NaN"),
        (torch.full((3, 1, 1), float("inf")), ValueError, r"baseline: it holds NaN or infinite"),
        (lambda x: "black", TypeError, r"baseline: expected a name, a tensor or a function.*str"),
        ([0, 0, 0], TypeError, r"baseline: expected a name, a tensor or a function.*list"),
        (True, TypeError, r"baseline: expected a name, a tensor or a function.*bool"),
        (float("nan"), ValueError, r"baseline: it holds NaN"),
        (np.array(["a"]), TypeError, r"baseline: expected numbers, got an array of <U1"),
        (np.array([None, 1.0]), TypeError, r"baseline: expected numbers, got an array of object"),
        (lambda x: np.array([object()]), TypeError, r"baseline: expected numbers, got an array of object"),
        (
            lambda x: x[7],
            ValueError,
            r"baseline: the function raised IndexError for the inputs, of shape \(2, 3, 9, 12",
        ),
        (lambda x, y: x, ValueError, r"baseline: the function raised TypeError.*must return a tensor that broadcasts"),
        (
            torch.zeros(2, 3, 9, 12, dtype=torch.complex64),
            TypeError,
            r"baseline: expected real numbers, got torch.comp",
        ),
        (np.zeros(12) + 1j, TypeError, r"baseline: expected real numbers, got torch\.complex128\. Pass \.real"),
        (lambda x: x + 1j, TypeError, r"baseline: expected real numbers"),
    ],
)
def test_invalid_baselines_are_refused(value, error, pattern):
    with pytest.raises(error, match=pattern):
        compute(value)


@each("value", [0, 0.5, np.float64(0.5), torch.tensor(0.5)])
def test_a_number_is_a_baseline(value):
    assert torch.equal(compute(value), torch.full_like(compute("zero"), float(value)))


@pytest.mark.parametrize("name", ["black", "white"])
def test_black_and_white_are_refused_for_rows(name):
    with pytest.raises(ValueError, match=rf"baseline: '{name}' means {name} pixels.*Use 'zero' or a tensor"):
        compute(name, rows(), None)


def test_blur_is_refused_for_rows():
    with pytest.raises(ValueError, match=r"baseline: 'blur' needs images.*Use 'mean'"):
        compute("blur", rows(), None)


# ---- through sw.attribute: a linear model's attribution reveals the baseline


@each("name", ["black", "white", "mean", "zero", "blur", "noise", None])
def test_integrated_gradients_start_from_the_baseline(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 9 * 12, 1)).double()
    weights = model[1].weight.detach().view(1, 3, 9, 12)
    result = sw.attribute(model, X, method="integrated_gradients", baseline=name, n_steps=1, seed=5)
    start = compute(name, X, PixelRange(torch.zeros(3, 1, 1), torch.ones(3, 1, 1)), seed=5)
    assert torch.allclose(X - result.values / weights, start, rtol=0, atol=1e-9)


def started_from(model, result, x):
    return x - result.values / model[1].weight.detach().view(1, *x.shape[1:])


@pytest.fixture
def flat():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 1)).double()


NORMAL = rows(0, 2, 3, 8, 8)
BYTES = (images() * 255).to(torch.uint8)


@pytest.mark.parametrize(
    ("x", "named", "noted"),
    [
        (NORMAL, "zero", "The baseline is zero, because the value of black pixels is unknown."),
        (NORMAL[:1] + 9, "zero", "the value of black pixels is unknown"),
        (images(), "zero", "The baseline is zero, which is black if pixels range from 0 to 1."),
        ((images() * 255).long(), "zero", "the value of black pixels is unknown"),
        (BYTES, "black", ""),
        ([BYTES[0], BYTES[1]], "black", ""),
        ([NORMAL[0], BYTES[1]], "zero", "the value of black pixels is unknown"),
    ],
    ids=["normal", "shifted", "unit", "integers", "bytes", "list", "mixed"],
)
def test_the_default_is_zero_unless_bytes_define_black(flat, x, named, noted):
    result = sw.attribute(flat, x, n_steps=1)
    product = (result.score - flat[1].bias.detach()).detach()  # = w . x
    assert result.settings["baseline"] == named
    assert far(result.values.flatten(1).sum(1), product) < 1e-12  # from zero, which is black here
    notes = [note for note in result.notes if "baseline" in note]
    assert len(notes) == bool(noted)
    assert not noted or noted in notes[0]
    assert torch.equal(sw.attribute(flat, x, **result.settings).values, result.values)


def test_with_a_transform_the_default_is_black_only_if_its_value_is_known(flat):
    image = BYTES[0].movedim(0, -1).numpy()

    def local(p):
        x = torch.from_numpy(p).movedim(-1, 0).double()
        return (x - x.mean()) / x.std()

    alone = sw.attribute(flat, image, transform=local, n_steps=1)
    assert alone.settings["baseline"] == "zero"
    assert float(started_from(flat, alone, local(image)[None]).abs().max()) < 1e-12
    with pytest.raises(ValueError, match=r"their values are unknown.*Use 'zero', 'mean' or 'blur'"):
        sw.attribute(flat, image, transform=local, baseline="black")
    attribution = sw.attribute(
        flat, image, transform=lambda p: torch.from_numpy(p).movedim(-1, 0) / 127.5 - 1, n_steps=1
    )
    assert attribution.settings["baseline"] == "black"
    start = started_from(flat, attribution, torch.from_numpy(image).movedim(-1, 0)[None] / 127.5 - 1)
    assert far(start, torch.full_like(start, -1)) < 1e-6


@pytest.mark.parametrize("name", ["black", "white"])
def test_black_and_white_are_refused_if_their_values_are_unknown(flat, name):
    for method in ("integrated_gradients", "expected_gradients"):
        settings = {"baselines": name} if method == "expected_gradients" else {"baseline": name}
        pattern = rf"'{name}' means {name} pixels, but their values are unknown.*or pass the image and transform="
        with pytest.raises(ValueError, match=pattern):
            sw.attribute(flat, NORMAL, method=method, **settings)
    with pytest.raises(ValueError, match="pass the image and transform="):
        sw.ablate(flat, NORMAL[:1], np.ones((8, 8), dtype=bool), fill=name)


def test_a_baseline_does_not_depend_on_the_rest_of_the_batch(flat):
    """One image lies in [0, 1], which its noise then spans; the other does not."""
    both = torch.cat([images()[:1], NORMAL[:1]])
    for value in ({}, {"baseline": "noise"}, {"method": "expected_gradients", "n_samples": 3}):
        alone = sw.attribute(flat, both[:1], **value).values
        assert far(sw.attribute(flat, both, **value).values[:1], alone) < 1e-12


def test_settings_name_the_default_of_each_input_and_can_be_serialized():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.of_image, self.of_row = nn.Linear(192, 2), nn.Linear(4, 2)

        def forward(self, image, row):
            return self.of_image(image.flatten(1)) + self.of_row(row)

    model, inputs = Both().double(), {"image": BYTES[:1], "row": rows()[:1]}
    result = sw.attribute(model, inputs, target=0, n_steps=2)
    assert result.settings["baseline"] == {"image": "black", "row": "zero"}
    assert "baseline={'image': 'black', 'row': 'zero'}," in result.to_code()
    assert sw.Attribution.settings_from_json(result.to_json()) == result.settings
    assert torch.equal(sw.attribute(model, inputs, **result.settings).values, result.values)
    value = sw.attribute(model, inputs, target=0, n_steps=2, baseline={"row": "mean"})
    assert value.settings["baseline"] == {"image": "black", "row": "mean"}
    alike = sw.attribute(model, {**inputs, "image": NORMAL[:1]}, target=0, n_steps=2)
    assert alike.settings["baseline"] == "zero"
    attribution = sw.attribute(model, inputs, target=0, n_steps=2, baseline={"row": rows()[:1]})
    assert "# model, inputs, baseline: yours" in attribution.to_code()


def test_settings_of_expected_gradients_name_the_default_baselines(flat):
    assert sw.attribute(flat, NORMAL, method="expected_gradients", n_samples=1).settings["baselines"] == "noise"


def test_black_is_what_the_transform_makes_of_a_black_image():
    mean, std = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1), torch.tensor([0.2, 0.3, 0.25]).view(3, 1, 1)

    def transform(array):
        return (torch.from_numpy(array).movedim(-1, 0) / 255 - mean) / std

    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    by_name = sw.attribute(conv_net(), image, transform=transform, method="integrated_gradients", target=1)
    black = transform(np.zeros_like(image))
    by_hand = sw.attribute(conv_net(), transform(image), method="integrated_gradients", target=1, baseline=black)
    assert far(by_name.values, by_hand.values) < 1e-12


def test_the_default_for_rows_is_zero():
    weights = rows(1, 4)
    result = sw.attribute(linear(weights), rows(), method="integrated_gradients", n_steps=2, score="value")
    assert far(result.values, weights * rows()) < 1e-14
