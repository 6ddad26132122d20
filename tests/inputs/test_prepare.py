"""Inputs without a transform: images, arrays, tensors and rows in many forms."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn
from toys import each

import saliency_widgets as sw
from saliency_widgets.inputs import prepare

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
GRAY = RNG.integers(0, 256, (6, 9), dtype=np.uint8)
SEEN = torch.from_numpy(IMAGE).movedim(-1, 0)[None] / 255  # the model input for IMAGE
BATCH = RNG.integers(0, 256, (4, 6, 9, 3), dtype=np.uint8)


def assert_shown(prepared, *images):
    """Assert that the displayed images equal these exactly."""
    assert prepared.images.dtype == np.uint8
    np.testing.assert_array_equal(prepared.images, np.stack(images))


FORMS = {
    "PIL": lambda: Image.fromarray(IMAGE),
    "array of bytes": lambda: IMAGE,
    "array of bytes, reversed twice": lambda: IMAGE[::-1].copy()[::-1],
    "array of floats": lambda: IMAGE / 255,
    "array of 32-bit floats": lambda: (IMAGE / 255).astype(np.float32),
    "array of 16-bit floats": lambda: (IMAGE / 255).astype(np.float16),
    "array in the other byte order": lambda: (IMAGE / 255).astype(">f8"),
    "array of long doubles": lambda: (IMAGE / 255).astype(np.longdouble),
    "array of channels first": lambda: np.moveaxis(IMAGE, -1, 0),
    "array of one image": lambda: IMAGE[None],
    "tensor": lambda: SEEN[0],
    "tensor of a batch": lambda: SEEN,
    "list of one": lambda: [IMAGE],
    "tuple of one": lambda: (Image.fromarray(IMAGE),),
}


@each("form", FORMS)
def test_forms_of_one_image(form):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = prepare(FORMS[form]())
    assert result.tensor.shape == (1, 3, 6, 9)
    assert result.tensor.dtype == torch.float32
    assert torch.allclose(result.tensor, SEEN, rtol=0, atol=3e-4 if "16-bit" in form else 1e-7)
    assert np.abs(result.images[0].astype(int) - IMAGE).max() <= ("16-bit" in form)
    assert result.notes == ()
    assert torch.equal(result.kind.pixels.black, torch.zeros(3, 1, 1))
    assert torch.equal(result.kind.pixels.white, torch.ones(3, 1, 1))


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff"])
@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_a_path(tmp_path, suffix, kind):
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(IMAGE).save(path)
    result = prepare(kind(path))
    assert torch.equal(result.tensor, SEEN)
    assert_shown(result, IMAGE)


def test_a_batch_and_a_list_of_images():
    seen = torch.from_numpy(BATCH).movedim(-1, 1) / 255
    for form in (BATCH, list(BATCH), [Image.fromarray(p) for p in BATCH], seen, list(seen), [seen[:3], seen[3:]]):
        result = prepare(form)
        assert torch.equal(result.tensor, seen)
        assert_shown(result, *BATCH)


def test_images_of_different_sizes_need_a_transform():
    with pytest.raises(ValueError, match=r"inputs: expected a list of inputs of one shape.*\(3, 6, 8\).*transform="):
        prepare([IMAGE, IMAGE[:, :8]])
    result = prepare([IMAGE, IMAGE[:, :8]], lambda a: torch.from_numpy(a[:6, :8].copy()).movedim(-1, 0) / 255)
    assert result.tensor.shape == (2, 3, 6, 8)
    assert_shown(result, IMAGE[:, :8], IMAGE[:, :8])


@each("make", [lambda: Image.fromarray(GRAY), lambda: GRAY, lambda: GRAY[..., None], lambda: GRAY[None]])
def test_grays_have_one_channel_and_are_shown_gray(make):
    result = prepare(make())
    assert torch.equal(result.tensor[0, 0], torch.from_numpy(GRAY) / 255)
    assert result.tensor.shape == (1, 1, 6, 9)
    assert_shown(result, np.repeat(GRAY[..., None], 3, 2))


@each("size", [(3, 5), (1, 1), (4, 4), (1, 9), (3, 3)])
@each("mode", ["RGB", "L"])
def test_tiny_images_are_not_mistaken_for_channels(size, mode):
    array = RNG.integers(0, 256, (*size, 3) if mode == "RGB" else size, dtype=np.uint8)
    result = prepare(Image.fromarray(array))
    colors = array if mode == "RGB" else np.repeat(array[..., None], 3, 2)
    assert result.tensor.shape == (1, 3 if mode == "RGB" else 1, *size)
    assert_shown(result, colors)


def test_rgba_loses_its_alpha_as_an_image_and_keeps_it_as_an_array():
    rgba = RNG.integers(0, 256, (6, 9, 4), dtype=np.uint8)
    image = prepare(Image.fromarray(rgba))
    assert image.tensor.shape == (1, 3, 6, 9)
    assert_shown(image, rgba[..., :3])
    array = prepare(rgba)
    assert array.tensor.shape == (1, 4, 6, 9)
    assert_shown(array, rgba[..., :3])


def test_palettes_and_black_and_white():
    colors = Image.fromarray(IMAGE).quantize(16)
    assert colors.mode == "P"
    assert_shown(prepare(colors), np.asarray(colors.convert("RGB")))
    bits = Image.fromarray(GRAY > 127)
    assert bits.mode == "1"
    result = prepare(bits)
    assert result.tensor.shape == (1, 1, 6, 9)
    assert torch.equal(result.tensor[0, 0], torch.from_numpy(GRAY > 127).float())
    for mode in ("CMYK", "YCbCr", "HSV", "LAB", "LA", "RGBX"):
        assert prepare(Image.new(mode, (9, 6))).tensor.shape == (1, 3, 6, 9)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bit_grays_are_scaled_not_clipped(tmp_path, suffix):
    deep = np.linspace(0, 65535, 54).reshape(6, 9).round().astype(np.uint16)
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(deep).save(path)
    result = prepare(path)
    assert result.tensor.shape == (1, 1, 6, 9)
    np.testing.assert_allclose(result.tensor[0, 0], deep / 65535, atol=1e-7)
    assert result.notes == ()
    assert_shown(result, np.repeat((deep / 65535 * 255).round().astype(np.uint8)[..., None], 3, 2))


def test_twelve_bit_grays_in_sixteen_bits_are_noted():
    deep = np.linspace(0, 4095, 54).reshape(6, 9).round().astype(np.uint16)
    result = prepare(Image.fromarray(deep))
    np.testing.assert_allclose(result.tensor[0, 0], deep / 65535, atol=1e-8)
    assert len(result.tensor.unique()) == 54  # 8 bits would leave 16 levels
    (note,) = result.notes
    assert note.startswith("Gray values were divided by 65535, and the largest is 4095")


@each(
    ("dtype", "top", "white"),
    [(np.int32, 65535, 65535), (np.int32, 255, 255), (np.float32, 1, 1), (np.float32, 255, 255)],
)
def test_grays_of_integers_and_floats(dtype, top, white):
    numbers = np.linspace(0, top, 54).reshape(6, 9).astype(dtype)
    image = Image.fromarray(numbers)
    assert image.mode in "IF"
    np.testing.assert_allclose(prepare(image).tensor[0, 0], numbers / white, atol=1e-7)


@each("shape", [(3, 6, 9), (1, 6, 9), (2, 3, 6, 9), (1, 5, 6, 9), (1, 3, 4, 6, 9)])
def test_a_tensor_of_bytes_is_scaled_with_a_note(shape):
    x = torch.from_numpy(RNG.integers(0, 256, shape, dtype=np.uint8))
    result = prepare(x)
    assert torch.equal(result.tensor, (x if x.ndim > 3 else x[None]) / 255)
    assert result.notes == ("Bytes were scaled to [0, 1]. Pass floats if the model scales them itself.",)
    assert prepare([x, x]).notes == result.notes
    assert prepare(x, lambda t: t / 255).notes == ()


def test_the_exif_orientation_is_applied(tmp_path):
    """Orientation 6, of a rotated camera: row 0 of the file is the right side of the scene."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.png"
    Image.fromarray(IMAGE).save(path, exif=exif)
    assert_shown(prepare(path), np.rot90(IMAGE, -1))


def test_bools_and_wide_integers():
    mask = RNG.integers(0, 2, (6, 9, 3)).astype(bool)
    result = prepare(mask)
    assert torch.equal(result.tensor[0], torch.from_numpy(mask).movedim(-1, 0).float())
    assert_shown(result, mask * np.uint8(255))
    deep = prepare(np.full((6, 9, 3), 65535, np.uint16) * mask)
    assert float(deep.tensor.max()) == 65535
    assert any("smallest is shown as black" in note for note in deep.notes)
    assert_shown(deep, mask * np.uint8(255))
    whole = prepare(torch.from_numpy(IMAGE).movedim(-1, 0).long())
    assert torch.equal(whole.tensor, 255 * SEEN)
    assert whole.notes


def test_a_normalized_tensor_is_shown_from_its_smallest_to_its_largest_number():
    normalized = (SEEN - 0.5) / 0.25
    result = prepare(normalized)
    assert torch.equal(result.tensor, normalized)
    (note,) = result.notes
    assert "Pass the image and transform=" in note
    low, high = float(normalized.min()), float(normalized.max())
    expected = ((normalized[0] - low) / (high - low) * 255).round().movedim(0, -1)
    assert np.abs(result.images[0].astype(int) - expected.numpy()).max() <= 1
    assert "for display only" in note
    assert result.kind.pixels is None  # the display range provides no black baseline
    assert float(result.kind.display.black.min()) == low


def test_a_constant_tensor_out_of_range_is_shown_black():
    result = prepare(torch.full((3, 4, 4), 7.0))
    assert not result.images.any()


@pytest.mark.parametrize("channels", [2, 5, 12])
def test_other_numbers_of_channels_are_shown_as_their_mean(channels):
    x = torch.rand(1, channels, 4, 5)
    result = prepare(x)
    expected = (x.mean(1)[0] * 255).round().numpy()
    assert np.abs(result.images[0, ..., 0] - expected).max() <= 1
    assert (result.images[..., :1] == result.images).all()


# ---- rows


@each(
    "form",
    [
        [1.0, 2.0, 3.0],
        (1, 2, 3),
        [np.float32(1), np.float32(2), np.int64(3)],
        np.array([1, 2, 3]),
        np.array([1, 2, 3], dtype=">i4"),
        torch.tensor([1, 2, 3]),
        torch.tensor([[1.0, 2.0, 3.0]]),
        [[1.0, 2.0, 3.0]],
        [torch.tensor([1.0, 2.0, 3.0])],
    ],
    ids=repr,
)
def test_one_row(form):
    result = prepare(form, dtype=torch.float64)
    assert torch.equal(result.tensor, torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64))
    assert result.kind.pixels is None
    assert result.images is None
    assert result.notes == ()


def test_many_rows_and_objects_that_convert_to_an_array():
    class Table:
        def __array__(self, dtype=None, copy=None):
            return np.arange(6.0).reshape(2, 3)

    for form in (Table(), np.arange(6.0).reshape(2, 3), [[0, 1, 2], [3, 4, 5]], [np.arange(3), np.arange(3, 6)]):
        assert torch.equal(prepare(form).tensor, torch.arange(6.0).view(2, 3))


def test_rows_of_bytes_are_numbers():
    assert torch.equal(prepare(torch.tensor([[0, 255]], dtype=torch.uint8)).tensor, torch.tensor([[0.0, 255.0]]))


# ---- copies


@each("form", [SEEN, SEEN[0], IMAGE / 255, torch.arange(3.0)], ids=["NCHW", "CHW", "array", "row"])
def test_the_prepared_tensor_is_a_copy(form):
    before = form.clone() if isinstance(form, torch.Tensor) else form.copy()
    prepare(form, dtype=torch.float32).tensor.zero_()
    prepare(form, dtype=torch.float64).tensor.zero_()
    assert (form == before).all()


def test_the_prepared_tensor_has_no_graph_and_is_no_inference_tensor():
    leaf = SEEN.clone().requires_grad_()
    result = prepare(leaf * 1)
    assert not result.tensor.requires_grad
    with torch.inference_mode():
        result = prepare(SEEN * 1)
    assert not result.tensor.is_inference()


@each(
    ("inputs", "error", "message"),
    [
        (torch.zeros(3, 0, 4), ValueError, r"inputs: they are empty, with shape \(1, 3, 0, 4\)"),
        (np.zeros((0, 5)), ValueError, r"inputs: they are empty"),
        ([], ValueError, r"inputs: they are empty"),
        (np.float64("nan") * np.ones((2, 3)), ValueError, r"inputs: 6 of 6 numbers are NaN or infinite"),
        ([IMAGE / 255, np.full((6, 9, 3), np.inf)], ValueError, r"inputs: 162 of 162 numbers"),
        (torch.tensor(1.0), ValueError, r"inputs: expected an array or a tensor, got a single number"),
        (np.array(["a"]), TypeError, r"inputs: expected numbers, got an array of <U1"),
        (np.array([object()]), TypeError, r"inputs: expected numbers, got an array of object"),
        (["a.png", "b.png"], ValueError, r"inputs: there is no file 'a\.png'"),
        (object(), TypeError, r"inputs: expected a PIL image, a path, an array or a tensor, got a object"),
        (torch.zeros(2, 3, dtype=torch.complex64), TypeError, r"inputs: complex numbers"),
        ([[1.0, 2.0], [3.0]], ValueError, r"inputs: expected a list of inputs of one shape"),
    ],
)
def test_invalid_inputs_are_refused(inputs, error, message):
    with pytest.raises(error, match=message):
        prepare(inputs)


def test_files_that_are_no_images_are_refused(tmp_path):
    path = tmp_path / "notes.png"
    path.write_text("not an image")
    with pytest.raises(ValueError, match=r"inputs: '.*notes\.png' is not an image that Pillow can read"):
        prepare(path)
    with pytest.raises(ValueError, match=r"inputs: there is no file"):
        prepare(tmp_path)


def test_numbers_too_large_for_the_models_type_are_refused():
    with pytest.raises(ValueError, match=r"inputs: some numbers are too large for the model's type, torch.float16"):
        prepare(torch.tensor([1e6]), dtype=torch.float16)


NOT_DENSE = {
    "sparse": (torch.Tensor.to_sparse, r"(Pass (inputs|mask)|it with )\.to_dense"),
    "quantized": (
        lambda x: torch.quantize_per_tensor(x.detach(), 0.1, 0, torch.quint8),
        r"(Pass (inputs|mask)|it with )\.dequantize",
    ),
    "meta": (lambda x: x.to("meta"), "meta"),
    "nested": (lambda x: torch.nested.nested_tensor(list(x)), "nested"),
    "float8": (lambda x: x.to(torch.float8_e5m2), r"of torch\.float8_e5m2, .*(Pass (inputs|mask)|it with )\.float\(\)"),
}


class WithOutput(torch.nn.Module):
    """A model that applies a function to its class scores."""

    def __init__(self, end):
        super().__init__()
        self.end = end

    def forward(self, x):
        return self.end(x.flatten(1)[:, :4])


@each("kind", NOT_DENSE)
def test_tensors_that_are_not_dense_are_refused_with_the_remedy(kind):
    change, message = NOT_DENSE[kind]
    x, model = torch.rand(1, 3, 8, 8), WithOutput(lambda scores: scores)
    row = {"background": np.eye(4), "transform": lambda frame: change(torch.tensor(frame.to_numpy()).float())}
    for argument, call in {
        "mask": lambda: sw.ablate(model, x, change(torch.zeros(8, 8))),
        "inputs": lambda: sw.attribute(model, change(x), method="gradient"),
        "transform": lambda: sw.attribute(model, x, transform=change, method="gradient"),
        "transform ": lambda: sw.attribute(model, np.ones(4), method="gradient", **row),
        "target": lambda: sw.attribute(model, x, target=lambda out: change(out[:, 0]), method="gradient"),
        "model": lambda: sw.attribute(WithOutput(change), x, method="gradient"),
        "model ": lambda: sw.attribute(WithOutput(change), x, target=(1,), method="gradient"),
    }.items():
        with pytest.raises(TypeError, match=rf"^{argument.strip()}: expected a dense tensor .*{message}"):
            call()


@pytest.mark.parametrize(
    ("end", "error", "message"),
    [
        (lambda scores: scores > 0, TypeError, "expected scores from it, got booleans"),
        (lambda scores: scores[:, :0], ValueError, r"expected scores of at least one class, got shape \(1, 0\)"),
    ],
)
def test_a_model_that_returns_no_scores_is_refused(end, error, message):
    with pytest.raises(error, match=f"^model: {message}"):
        sw.attribute(WithOutput(end), torch.rand(1, 3, 8, 8), method="gradient")


# ---- models without weights


class Quartic(nn.Module):
    def forward(self, x):
        return (x.flatten(1) ** 4).sum(1, keepdim=True)


class Product(nn.Module):
    """A model of two inputs."""

    def forward(self, a, b):
        return (a**3).sum(1, keepdim=True) * (b**2).sum(1, keepdim=True)


NUMBERS = torch.tensor([[0.1, -0.7, 1.3, 0.4]], dtype=torch.float64)
DOUBLES = {
    "tensor": NUMBERS,
    "array": NUMBERS.numpy(),
    "row": NUMBERS[0],
    "list": NUMBERS[0].tolist(),
    "table": pd.DataFrame(NUMBERS.numpy(), columns=list("abcd")),
    "named": {"x": NUMBERS},
}


@each("form", DOUBLES)
def test_a_model_without_weights_computes_in_the_type_of_its_inputs(form):
    result = sw.attribute(Quartic().eval(), DOUBLES[form], target=0, method="gradient")
    assert result.values.dtype == torch.float64
    assert float((result.values - 4 * NUMBERS**3).abs().max()) < 1e-15


@pytest.mark.parametrize(
    ("dtype", "settings"),
    [(torch.float32, {}), (torch.bfloat16, {}), (torch.float32, {"feature_names": list("abcd")})],
)
def test_a_model_without_weights_does_not_widen_narrower_types(dtype, settings):
    result = sw.attribute(Quartic().eval(), NUMBERS.to(dtype), target=0, method="gradient", **settings)
    assert result.values.dtype == dtype


def test_integers_and_bytes_take_torchs_default_type():
    values = sw.attribute(Quartic().eval(), torch.tensor([[1, 2, 3]]), target=0, method="gradient").values
    assert values.dtype == torch.float32
    assert values.tolist() == [[4.0, 32.0, 108.0]]
    assert sw.attribute(Quartic().eval(), IMAGE, target=0, method="gradient").values.dtype == torch.float32


def test_a_model_without_weights_computes_in_the_type_of_the_transforms_result():
    double = lambda array: torch.from_numpy(array.copy()).movedim(-1, 0).double() / 255  # noqa: E731
    values = sw.attribute(Quartic().eval(), IMAGE, target=0, method="gradient", transform=double).values
    assert float((values[0] - 4 * double(IMAGE) ** 3).abs().max()) < 1e-15


@pytest.mark.parametrize("explain", [None, "a"])
def test_several_inputs_of_a_model_without_weights(explain):
    a, b = NUMBERS, NUMBERS.flip(1)
    result = sw.attribute(Product().eval(), {"a": a, "b": b}, target=0, method="gradient", explain=explain)
    values = result.values[:, :4].double()
    assert float((values - 3 * a**2 * (b**2).sum()).abs().max()) < 1e-15


def hidden(kind):
    """Return a model whose weights are in no registered module, or packed, and the linear layer that has them."""
    torch.manual_seed(0)
    net = nn.Linear(4, 3)
    if kind == "list":
        model = nn.Module()
        model.nets = [net]
        model.forward = lambda x: model.nets[0](x)
        return model, net
    if kind == "closure":
        model = nn.Module()
        weight, bias = net.weight.detach(), net.bias.detach()
        model.forward = lambda x: x @ weight.T + bias
        return model, net
    return torch.jit.freeze(torch.jit.script(nn.Sequential(net).eval())), net


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("kind", ["list", "closure", "frozen"])
def test_a_model_whose_weights_are_hidden_computes_in_their_type(kind):
    """Such a model fails on a NumPy array's float64 in a trial pass; then torch's default type is used."""
    model, net = hidden(kind)
    for x in (NUMBERS.numpy(), NUMBERS.float(), pd.DataFrame(NUMBERS.numpy(), columns=list("abcd"))):
        values = sw.attribute(model, x, target=1, method="gradient").values
        assert torch.equal(values[0], net.weight[1].detach())
