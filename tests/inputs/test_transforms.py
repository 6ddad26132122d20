"""Transform functions: the tensor that the model gets, and the displayed image, which is recovered from two probes."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from toys import conv_net, each, far

import saliency_widgets as sw
from saliency_widgets.inputs import prepare

RNG = np.random.default_rng(1)
IMAGE = np.asarray(
    Image.fromarray(RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)).resize((60, 40), Image.Resampling.BICUBIC)
)
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def to_tensor(image):
    """As torchvision's ToTensor does."""
    array = np.asarray(image)
    array = array[..., None] if array.ndim == 2 else array
    return torch.from_numpy(array.copy()).movedim(-1, 0).float() / 255


def resized(image, size=(32, 28)):
    return image.resize(size, Image.Resampling.BILINEAR)


def cropped(image):
    return image.crop((5, 3, 29, 27))


# Transforms, each with the image that the model sees, before the pixels are scaled.
STYLES = {
    "scaled": (to_tensor, lambda p: p),
    "normalized": (lambda p: (to_tensor(p) - MEAN) / STD, lambda p: p),
    "resized and cropped": (lambda p: (to_tensor(cropped(resized(p))) - MEAN) / STD, lambda p: cropped(resized(p))),
    "from -1 to 1": (lambda p: to_tensor(p) * 2 - 1, lambda p: p),
    "inverted": (lambda p: 1 - to_tensor(p), lambda p: p),
    "inverted and normalized": (lambda p: (MEAN - to_tensor(p)) / STD, lambda p: p),
    "255": (lambda p: to_tensor(p) * 255 - 127, lambda p: p),
    "tiny": (lambda p: to_tensor(p) * 1e-6, lambda p: p),
    "bytes": (lambda p: torch.from_numpy(np.array(p)).movedim(-1, 0), lambda p: p),
    "bytes inverted": (lambda p: 255 - torch.from_numpy(np.array(p)).movedim(-1, 0), lambda p: p),
    "batch of one": (lambda p: ((to_tensor(p) - MEAN) / STD)[None], lambda p: p),
    "array": (lambda p: np.moveaxis(np.asarray(p) / 127.5 - 1, -1, 0), lambda p: p),
    "array with its channels last": (lambda p: np.asarray(p) / 127.5 - 1, lambda p: p),
    "image": (lambda p: cropped(resized(p)), lambda p: cropped(resized(p))),
    "in double precision": (lambda p: to_tensor(p).double(), lambda p: p),
    "mirrored": (lambda p: to_tensor(p).flip(-1), lambda p: p.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
}


@each("style", STYLES)
def test_the_image_on_screen_is_what_the_model_sees(style):
    transform, seen = STYLES[style]
    image = Image.fromarray(IMAGE)
    result = prepare(image, transform)
    expected = np.asarray(seen(image))
    assert result.images.shape == (1, *expected.shape)
    assert np.abs(result.images[0].astype(int) - expected).max() <= 1
    assert result.notes == ()


@each("style", STYLES)
def test_black_and_white_are_the_transformed_uniform_images(style):
    transform, _ = STYLES[style]
    result = prepare(Image.fromarray(IMAGE), transform)
    for color in ("black", "white"):
        uniform = prepare(Image.new("RGB", (60, 40), color), transform)
        end = getattr(result.kind.pixels, color)
        assert torch.equal(end.to(uniform.tensor).expand_as(uniform.tensor), uniform.tensor)


@pytest.mark.parametrize("form", ["path", "array", "floats", "tensor", "tensor of floats", "batch"])
def test_every_form_of_input_goes_through_the_transform(tmp_path, form):
    path = tmp_path / "image.png"
    Image.fromarray(IMAGE).save(path)
    chw = torch.from_numpy(IMAGE.copy()).movedim(-1, 0)
    inputs, transform = {
        "path": (path, lambda p: (to_tensor(p) - MEAN) / STD),
        "array": (IMAGE, lambda a: (to_tensor(a) - MEAN) / STD),
        "floats": (IMAGE / 255, lambda a: (torch.from_numpy(a).movedim(-1, 0) - MEAN) / STD),
        "tensor": (chw, lambda t: (t / 255 - MEAN) / STD),
        "tensor of floats": (chw / 255, lambda t: (t - MEAN) / STD),
        "batch": (torch.stack([chw, chw.flip(1)]), lambda t: (t / 255 - MEAN) / STD),
    }[form]
    result = prepare(inputs, transform, dtype=torch.float64)
    expected = (chw / 255 - MEAN) / STD
    assert far(result.tensor[:1], expected[None].double()) < 1e-6
    np.testing.assert_array_equal(result.images[0], IMAGE)
    assert far(result.kind.pixels.black.double()[:, 0, 0], (-MEAN / STD).flatten().double()) < 1e-6
    assert far(result.kind.pixels.white.double()[:, 0, 0], ((1 - MEAN) / STD).flatten().double()) < 1e-6
    assert result.notes == ()


def test_sixteen_bit_arrays_have_sixteen_bit_white():
    deep = (IMAGE.astype(np.uint16) * 257).copy()
    result = prepare(deep, lambda a: torch.from_numpy(a.astype(np.float32) / 65535).movedim(-1, 0))
    np.testing.assert_array_equal(result.images[0], IMAGE)


@each("dtype", [bool, np.int64, np.float32, np.float64])
@each("top", [1, 255])
def test_arrays_of_other_types_have_their_own_white(dtype, top):
    mask = IMAGE > 127
    array = mask if dtype is bool else (mask * top).astype(dtype)
    white = 1 if dtype is bool else top
    result = prepare(array, lambda a: torch.from_numpy(np.moveaxis(a.astype(np.float32), -1, 0) / white * 2 - 1))
    np.testing.assert_array_equal(result.images[0], mask * np.uint8(255))
    assert result.notes == ()


def test_grays():
    gray = Image.fromarray(IMAGE).convert("L")
    result = prepare(gray, lambda p: (to_tensor(p) - 0.1307) / 0.3081)
    assert result.tensor.shape == (1, 1, 40, 60)
    np.testing.assert_array_equal(result.images[0, ..., 0], np.asarray(gray))


def padded(value):
    def transform(image):
        return torch.nn.functional.pad((to_tensor(image) - MEAN) / STD, (4, 6, 2, 0), value=value)

    return transform


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_padding_is_shown_in_the_color_of_its_value(value):
    result = prepare(Image.fromarray(IMAGE), padded(value))
    inside = result.images[0, 2:, 4:-6]
    assert np.abs(inside.astype(int) - IMAGE).max() <= 1
    color = (value * STD + MEAN).flatten() * 255
    border = np.concatenate([result.images[0, :2].reshape(-1, 3), result.images[0, :, :4].reshape(-1, 3)])
    assert np.abs(border - color.clamp(0, 255).numpy()).max() <= 1


def test_padding_of_each_image_by_its_own_size():
    """The black and white baselines of an image are padded as the image is."""

    def letterbox(array):
        h, w = array.shape[:2]
        return torch.nn.functional.pad(to_tensor(array) + 1, (0, 60 - w, 0, 60 - h))

    tall, wide = IMAGE[:, :30], IMAGE[:20]
    result = prepare([tall, wide], letterbox)
    assert result.kind.pixels.black.shape == (2, 3, 60, 60)
    for i, one in enumerate((tall, wide)):
        assert torch.equal(result.kind.pixels.black[i], letterbox(np.zeros_like(one)))
        assert torch.equal(result.kind.pixels.white[i], letterbox(np.full_like(one, 255)))
    together = sw.attribute(conv_net(), [tall, wide], transform=letterbox, method="integrated_gradients", target=1)
    for i, one in enumerate((tall, wide)):
        alone = sw.attribute(conv_net(), one, transform=letterbox, method="integrated_gradients", target=1)
        assert far(together.values[i : i + 1], alone.values) < 1e-11


# ---- transforms that two probes don't identify


def standardized(image):
    t = to_tensor(image)
    return (t - t.mean()) / t.std()


def careful(image):
    t = to_tensor(image)
    if float(t.std()) == 0:
        raise ZeroDivisionError("flat image")
    return (t - t.mean()) / t.std()


def stretched(image):
    t = to_tensor(image)
    return (t - t.min()) / (t.max() - t.min() + 1e-8)


@pytest.mark.parametrize("transform", [standardized, careful])
def test_normalizing_each_image_separately_is_noted_and_shown_stretched(transform):
    result = prepare(Image.fromarray(IMAGE), transform)
    (note,) = result.notes
    assert "normalize each image separately" in note
    t = to_tensor(IMAGE)
    expected = ((t - t.min()) / (t.max() - t.min()) * 255).round().movedim(0, -1).numpy()
    assert np.abs(result.images[0] - expected).max() <= 1
    assert torch.equal(result.tensor[0], transform(IMAGE))


def test_stretching_each_image_is_noted():
    (note,) = prepare(Image.fromarray(IMAGE), stretched).notes
    assert "separately" in note


@each("curve", [torch.square, torch.sqrt, lambda t: t + (6.3 * t).sin(), lambda t: (t - MEAN).exp() * STD])
def test_a_nonlinear_transform_is_noted(curve):
    (note,) = prepare(Image.fromarray(IMAGE), lambda p: curve(to_tensor(p))).notes
    assert "not linear in the pixels" in note


def test_a_result_that_is_no_image_is_not_displayed():
    result = prepare(Image.fromarray(IMAGE), lambda p: to_tensor(p).mean((1, 2)))
    assert result.tensor.shape == (1, 3)
    assert result.kind.pixels is None
    assert result.images is None


# ---- transforms that fail


@pytest.mark.parametrize(
    "vary", [lambda t, k: t + 0.01 * k, lambda t, k: t[:, :, k % 2 :], lambda t, k: t.flip(-1) if k % 2 else t]
)
def test_transforms_that_vary_are_refused(vary):
    """Jitter, a random crop, a random flip: each call gives another result."""
    calls = itertools.count()
    with pytest.raises(
        ValueError, match=r"transform: it returns a different result each time.*deterministic.*validation"
    ):
        prepare(Image.fromarray(IMAGE), lambda p: vary(to_tensor(p), next(calls)))


def test_an_exception_in_a_transform_is_reported_with_its_input():
    def transform(image):
        raise KeyError("pixel_values")

    with pytest.raises(
        ValueError, match=r"transform: it raised KeyError for a RGB image of 60 x 40: 'pixel_values'"
    ) as e:
        prepare(Image.fromarray(IMAGE), transform)
    assert isinstance(e.value.__cause__, KeyError)
    with pytest.raises(ValueError, match=r"transform: it raised .* for a ndarray of shape \(40, 60, 3\)"):
        prepare(IMAGE, transform)


@each("result", [None, "image", {"pixel_values": torch.zeros(1, 3, 4, 4)}, [1.0, 2.0], 3.0])
def test_a_transform_must_return_a_tensor(result):
    with pytest.raises(ValueError, match=rf"transform: it must return a tensor, got a {type(result).__name__}; end it"):
        prepare(Image.fromarray(IMAGE), lambda _: result)


@pytest.mark.parametrize("fill", [float("nan"), float("inf")])
def test_a_transform_that_returns_nan_or_infinity_is_refused(fill):
    with pytest.raises(ValueError, match=r"inputs: .* numbers are NaN or infinite.*check the transform"):
        prepare(Image.fromarray(IMAGE), lambda p: torch.full((3, 4, 4), fill))


def test_a_transform_that_returns_an_empty_tensor_is_refused():
    with pytest.raises(ValueError, match=r"inputs: they are empty"):
        prepare(IMAGE, lambda p: torch.zeros(3, 0, 4))
    with pytest.raises(ValueError, match=r"inputs: they are empty"):
        prepare(np.zeros((0, 4, 3), np.uint8), to_tensor)


def test_a_transform_that_works_in_place_gets_copies():
    array, tensor = IMAGE.astype(np.float32), torch.from_numpy(IMAGE.copy()).movedim(-1, 0).float()

    def on_array(a):
        a /= 255
        return torch.from_numpy(a).movedim(-1, 0)

    for inputs, transform in ((array, on_array), (tensor, lambda t: t.div_(255))):
        before = inputs.copy() if isinstance(inputs, np.ndarray) else inputs.clone()
        result = prepare(inputs, transform)
        assert (inputs == before).all()
        np.testing.assert_array_equal(result.images[0], IMAGE)


def test_the_result_of_a_transform_with_parameters_is_detached():
    scale = torch.nn.Parameter(torch.tensor(2.0))
    result = prepare(Image.fromarray(IMAGE), lambda p: to_tensor(p) * scale)
    assert not result.tensor.requires_grad
    assert scale.grad is None


# ---- images of every mode

RGBA = Image.fromarray(np.dstack([IMAGE, RNG.integers(1, 256, (40, 60), dtype=np.uint8)]))
DEEP = RNG.integers(0, 4096, (40, 60)).astype(np.uint16)
DEEP[0, 0] = 4095
MODES = {
    "RGBA": RGBA,
    "P": Image.fromarray(IMAGE).quantize(16),
    "1": Image.fromarray(IMAGE[..., 0] > 127),
    "I;16": Image.fromarray(DEEP),
    "I": Image.fromarray(DEEP.astype(np.int32)),
    "F": Image.fromarray((DEEP / 4095).astype(np.float32)),
    **{mode: Image.fromarray(IMAGE).convert(mode) for mode in ("LA", "CMYK", "YCbCr", "HSV", "PA")},
}


def as_it_is(image):
    array = np.asarray(image).astype(np.float32)
    return torch.from_numpy(np.moveaxis(np.atleast_3d(array), -1, 0).copy())


@pytest.mark.parametrize(
    ("mode", "form"),
    [
        *itertools.product(MODES, ["image", "list"]),
        *((mode, "path") for mode in ("RGBA", "P", "1", "I;16", "LA")),  # the modes that PNG supports
    ],
)
def test_the_transform_gets_the_image_in_its_own_mode(tmp_path, mode, form):
    image, seen = MODES[mode], []
    assert image.mode == mode
    path = tmp_path / "image.png"
    if form == "path":
        image.save(path)

    def transform(value):
        seen.append((value.mode, value.size, value.tobytes()))
        return as_it_is(value)

    result = prepare({"image": image, "list": [image], "path": path}[form], transform)
    assert seen[0] == (mode, image.size, image.tobytes())
    assert torch.equal(result.tensor[0], as_it_is(image))


@each("kind", ["I;16", "I"])
@each(("top", "white"), [(4095, 4095), (4000, 4095), (65535, 65535), (200, 255), (256, 511)])
def test_deep_grays_have_the_white_of_their_bit_depth(kind, top, white):
    numbers = np.linspace(0, top, 54).reshape(6, 9).round()
    image = Image.fromarray(numbers.astype(np.uint16 if kind == "I;16" else np.int32))
    assert image.mode == kind
    result = prepare(image, lambda p: torch.from_numpy(np.asarray(p).astype(np.float32) / white * 2 - 1)[None])
    assert torch.equal(result.kind.pixels.black, torch.full((1, 6, 9), -1.0))
    assert torch.equal(result.kind.pixels.white, torch.ones(1, 6, 9))
    assert np.abs(result.images[0, ..., 0] - numbers / white * 255).max() <= 1
    assert result.notes == ()


@pytest.mark.parametrize("top", [1, 255, 1023])
def test_grays_of_floats_have_their_own_white(top):
    image = Image.fromarray(np.linspace(0, top, 54).reshape(6, 9).astype(np.float32))
    assert image.mode == "F"
    result = prepare(image, lambda p: torch.from_numpy(np.array(p))[None])
    assert float(result.kind.pixels.white.unique()) == top
    assert np.abs(result.images[0, ..., 0] - np.linspace(0, 255, 54).reshape(6, 9)).max() <= 1
    assert result.notes == ()


def composite(image):
    return to_tensor(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"))


@each("transform", [to_tensor, composite, lambda p: to_tensor(p.convert("RGB")), lambda p: p])
def test_black_and_white_of_an_image_with_alpha(transform):
    result = prepare(RGBA, transform)
    assert result.notes == ()
    assert torch.equal(result.kind.pixels.black[:3], torch.zeros(3, 40, 60))
    assert torch.equal(result.kind.pixels.white[:3], torch.ones(3, 40, 60))
    seen = np.asarray(RGBA)[..., :3] if transform is not composite else composite(RGBA).movedim(0, -1) * 255
    assert np.abs(result.images[0] - np.asarray(seen)).max() <= 1


@pytest.mark.parametrize("mode", ["P", "CMYK", "1"])
def test_black_and_white_if_the_transform_converts_the_mode(mode):
    result = prepare(MODES[mode], lambda p: (to_tensor(p.convert("RGB")) - MEAN) / STD)
    assert far(result.kind.pixels.black, (-MEAN / STD).expand(3, 40, 60)) < 1e-6
    assert far(result.kind.pixels.white, ((1 - MEAN) / STD).expand(3, 40, 60)) < 1e-6
    shown = np.asarray(MODES[mode].convert("RGB"))
    assert np.abs(result.images[0].astype(int) - shown).max() <= 1


def test_white_of_a_one_bit_image():
    result = prepare(MODES["1"], as_it_is)
    assert result.notes == ()
    assert torch.equal(result.kind.pixels.white, torch.ones(1, 40, 60))


def test_a_failure_due_to_the_mode_is_reported_with_the_conversion():
    def rgb_only(image):
        return (to_tensor(image) - MEAN) / STD  # like Normalize, fails for 4 channels and 3 means

    with pytest.raises(ValueError, match=r"transform: it raised .* RGBA image .*for example image\.convert\('RGB'\)"):
        prepare(RGBA, rgb_only)


def test_the_score_is_computed_with_the_callers_transform():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(40 * 60, 3))

    def transform(image):
        return torch.from_numpy(np.asarray(image).astype(np.float32) / 4095)[None]

    result = sw.attribute(model, MODES["I;16"], transform=transform, method="gradient", target=1)
    with torch.no_grad():
        assert torch.equal(result.score, model(transform(MODES["I;16"])[None])[:, 1])
