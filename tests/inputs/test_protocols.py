"""Models and transforms of other libraries: imitations of torchvision's and timm's, and real ones of Hugging Face."""

import enum
import pickle
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from toys import each

from saliency_widgets.inputs import prepare, short_names
from saliency_widgets.inputs.adapters import class_names_of, transform_of, unwrapped

RNG = np.random.default_rng(2)
PIXELS = np.asarray(
    Image.fromarray(RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)).resize((60, 40), Image.Resampling.BICUBIC)
)
IMAGE = Image.fromarray(PIXELS)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CONFIG = {
    "input_size": (3, 28, 28),
    "interpolation": "bicubic",
    "crop_pct": 0.875,
    "crop_mode": "center",
    "mean": MEAN,
    "std": STD,
}
NAMES = ["cat", "dog", "cow"]


def normalized(image, mean=MEAN, std=STD):
    """Return the normalized tensor (1, C, H, W) of an 8-bit image, in float64."""
    array = np.asarray(image, dtype=np.float64)
    array = array[..., None] if array.ndim == 2 else array
    return np.moveaxis((array / 255 - mean) / std, -1, 0)[None]


def resized(size, filter_=Image.Resampling.BICUBIC, image=IMAGE):
    return image.resize(size, filter_)


def padded(image, above, below, color):
    array = np.asarray(image)
    rows = [np.broadcast_to(np.uint8(color), (n, *array.shape[1:])) for n in (above, below)]
    return Image.fromarray(np.concatenate([rows[0], array, rows[1]]))


def resolved(transform=None, model=None, inputs=IMAGE):
    notes = []
    return transform_of(transform, model, inputs, notes), notes


def model_with(**attributes):
    model = nn.Identity()
    for name, value in attributes.items():
        setattr(model, name, value)
    return model


class Lightning(nn.Module):
    """Has the attribute by which Lightning modules are recognized."""

    def __init__(self, **inner):
        super().__init__()
        for name, module in inner.items():
            setattr(self, name, module)

    def training_step(self, batch):
        raise NotImplementedError


# ---- functions and invalid transforms


def test_no_transform_stays_none():
    assert resolved() == (None, [])
    assert resolved(model=nn.Identity()) == (None, [])
    assert resolved(model="not a model") == (None, [])


class Ambiguous:
    """A transform function with the attributes of other kinds of transforms."""

    mean, std, input_size, image_mean, image_std = MEAN, STD, (3, 8, 8), MEAN, STD
    image_processor = None

    def preprocess(self, image):
        return image

    def __call__(self, image):
        return torch.zeros(3, 4, 4)


@each("transform", [lambda p: p, Ambiguous(), nn.Identity(), np.asarray, torch.Tensor, max])
def test_the_callers_function_is_used_as_it_is(transform):
    assert resolved(transform, model_with(pretrained_cfg=CONFIG)) == (transform, [])


@each("transform", ["imagenet", 224, [lambda p: p], object()])
def test_invalid_transforms_are_refused(transform):
    message = r"transform: expected a function from an image to a tensor, torchvision weights, a Hugging Face image pro"
    with pytest.raises(TypeError, match=rf"{message}.*timm data config, got a {type(transform).__name__}\."):
        resolved(transform)


# ---- torchvision


class ImageClassification(nn.Module):
    """Like torchvision's preset: takes tensors or images of three channels, but no arrays."""

    def __init__(self, *, crop_size, resize_size=32, mean=MEAN, std=STD):
        super().__init__()
        self.crop_size, self.resize_size, self.mean, self.std = crop_size, resize_size, mean, std

    def forward(self, image):
        if isinstance(image, torch.Tensor):
            return image[:, : self.crop_size, : self.crop_size].float() / 255
        assert isinstance(image, Image.Image)
        assert image.mode == "RGB"
        small = image.resize((self.resize_size, self.resize_size), Image.Resampling.BILINEAR)
        left = (self.resize_size - self.crop_size) // 2
        crop = small.crop((left, left, left + self.crop_size, left + self.crop_size))
        return torch.from_numpy(normalized(crop, self.mean, self.std)[0]).float()


@dataclass
class Weights:
    url: str
    transforms: Any
    meta: dict


class WeightsEnum(enum.Enum):
    @property
    def transforms(self):
        return self.value.transforms

    @property
    def meta(self):
        return self.value.meta


class ToyNet_Weights(WeightsEnum):  # noqa: N801
    IMAGENET1K_V1 = Weights("v1", partial(ImageClassification, crop_size=24), {"categories": NAMES, "num_params": 5})
    UNNAMED = Weights("v2", partial(ImageClassification, crop_size=20), {"num_params": 5})
    DEFAULT = IMAGENET1K_V1


@each("weights", [ToyNet_Weights.DEFAULT, ToyNet_Weights.DEFAULT.value], ids=["enum", "plain"])
@each("form", [IMAGE, PIXELS, PIXELS / 255], ids=["image", "bytes", "floats"])
def test_weights_provide_their_transform(weights, form):
    transform, notes = resolved(weights, inputs=form)
    result = prepare(form, transform)
    expected = resized((32, 32), Image.Resampling.BILINEAR).crop((4, 4, 28, 28))
    np.testing.assert_allclose(result.tensor, normalized(expected), atol=1e-6)
    np.testing.assert_array_equal(result.images[0], np.asarray(expected))
    assert notes == []
    assert result.notes == ()


def test_weights_take_tensors_and_grays():
    transform, _ = resolved(ToyNet_Weights.DEFAULT)
    tensor = torch.from_numpy(PIXELS.copy()).movedim(-1, 0)
    assert torch.equal(transform(tensor), tensor[:, :24, :24] / 255)
    gray = IMAGE.convert("L")
    assert torch.equal(prepare(gray, transform).tensor, transform(gray.convert("RGB")))
    batch = np.stack([PIXELS, PIXELS[::-1]])
    assert torch.equal(prepare(batch, transform).tensor, prepare(list(batch), transform).tensor)


def test_a_class_of_weights_is_refused_with_a_hint_at_a_member():
    with pytest.raises(TypeError, match=r"transform: ToyNet_Weights is a class of weights; .*ToyNet_Weights\.DEFAULT"):
        resolved(ToyNet_Weights)
    with pytest.raises(TypeError, match=r"class_names: ToyNet_Weights is a class of weights; .*\.DEFAULT"):
        class_names_of(ToyNet_Weights, None, None)


# ---- timm

GRAY = {"input_size": (1, 28, 28), "mean": (0.5,), "std": (0.25,)}
MEAN_COLOR = [124, 116, 104]  # 255 * MEAN, rounded
# Changes of CONFIG, each with the image that the model sees for one of 60 x 40, by hand.
EVALUATIONS = {
    "unchanged": ({}, lambda: resized((48, 32)).crop((10, 2, 38, 30))),
    "defaults": (
        {"interpolation": None, "crop_pct": None, "crop_mode": None},
        lambda: resized((48, 32)).crop((10, 2, 38, 30)),
    ),
    "sizes are rounded down": (  # 19 / 0.875 = 21.7, and 60 * 21 / 40 = 31.5
        {"input_size": (3, 19, 19)},
        lambda: resized((31, 21)).crop((6, 1, 25, 20)),
    ),
    "oblong": ({"input_size": (3, 24, 32), "crop_pct": 0.8}, lambda: resized((45, 30)).crop((6, 3, 38, 27))),
    "a number": ({"input_size": 28}, lambda: resized((48, 32)).crop((10, 2, 38, 30))),
    "height and width": ({"input_size": [28, 28]}, lambda: resized((48, 32)).crop((10, 2, 38, 30))),
    "squash": (
        {"input_size": (3, 24, 24), "crop_pct": 0.75, "crop_mode": "squash"},
        lambda: resized((32, 32)).crop((4, 4, 28, 28)),
    ),
    "squash whole": (
        {"input_size": (3, 24, 20), "crop_pct": 1.0, "crop_mode": "squash"},
        lambda: resized((20, 24)),
    ),
    "border": (
        {"input_size": (3, 24, 24), "crop_pct": 1, "crop_mode": "border"},
        lambda: padded(resized((24, 16)), 4, 4, MEAN_COLOR),
    ),
    "border and crop": (
        {"input_size": (3, 24, 24), "crop_pct": 0.8, "crop_mode": "border"},
        lambda: padded(resized((30, 20)), 2, 2, MEAN_COLOR).crop((3, 0, 27, 24)),
    ),
    "crop beyond the image": (
        {"input_size": (3, 30, 30), "crop_pct": 1.25},
        lambda: padded(resized((36, 24)), 3, 3, [0, 0, 0]).crop((3, 0, 33, 30)),
    ),
    **{
        name: (
            {"interpolation": name},
            partial(lambda f: resized((48, 32), f).crop((10, 2, 38, 30)), Image.Resampling[name.upper()]),
        )
        for name in ("bilinear", "nearest", "lanczos", "bicubic")
    },
    "random": ({"interpolation": "random"}, lambda: resized((48, 32)).crop((10, 2, 38, 30))),
    "one mean for all": (
        {"mean": [0.5], "std": 0.25},
        lambda: resized((48, 32)).crop((10, 2, 38, 30)),
    ),
    "gray": (GRAY, lambda: resized((48, 32), image=IMAGE.convert("L")).crop((10, 2, 38, 30))),
}


@each("case", EVALUATIONS)
def test_a_data_config_is_applied_as_by_timm(case):
    changed, seen = EVALUATIONS[case]
    config = CONFIG | changed
    transform, notes = resolved(config)
    result = prepare(IMAGE, transform)
    expected = normalized(seen(), config["mean"], config["std"])
    assert result.tensor.shape == expected.shape
    np.testing.assert_allclose(result.tensor, expected, atol=1e-6)
    assert notes == []
    colors = np.asarray(seen().convert("RGB"))
    assert np.abs(result.images[0].astype(int) - colors).max() <= 1
    assert result.notes == ()


@each("case", EVALUATIONS)
def test_mappings_and_objects_give_the_same_transform(case):
    config = CONFIG | EVALUATIONS[case][0]
    of_mapping, _ = resolved(config)
    of_object, _ = resolved(SimpleNamespace(**config))
    assert of_mapping == of_object
    assert torch.equal(of_mapping(IMAGE), of_object(IMAGE))


def test_black_and_white_are_found_by_probing():
    result = prepare(IMAGE, resolved(CONFIG)[0])
    for end, level in ((result.kind.pixels.black, 0), (result.kind.pixels.white, 1)):
        expected = (level - torch.tensor(MEAN)) / torch.tensor(STD)
        assert torch.allclose(end, expected.view(3, 1, 1).expand(3, 28, 28), atol=1e-6)


@each("size", [(1, 1), (7, 300), (300, 7), (28, 28), (64, 64), (1, 200)])
@each("mode", ["center", "squash", "border"])
def test_images_of_any_size(size, mode):
    transform, _ = resolved(CONFIG | {"crop_mode": mode})
    result = prepare(Image.new("RGB", size, (10, 200, 30)), transform)
    assert result.tensor.shape == (1, 3, 28, 28)
    middle = result.tensor[0, :, 13:15, 13:15].double().numpy()
    expected = np.broadcast_to(normalized(np.uint8([[[10, 200, 30]]]))[0], (3, 2, 2))
    if mode != "border" or size[0] == size[1]:
        np.testing.assert_allclose(middle, expected, atol=1e-5)


@each(
    "form",
    [
        PIXELS,
        PIXELS / 255,
        (PIXELS / 255).astype(np.float32),
        torch.from_numpy(PIXELS.copy()).movedim(-1, 0),
        torch.from_numpy(PIXELS.copy()).movedim(-1, 0)[None] / 255,
        Image.fromarray(np.dstack([PIXELS, RNG.integers(0, 256, (40, 60), dtype=np.uint8)])),
        np.dstack([PIXELS, np.full((40, 60), 7, np.uint8)]),
    ],
    ids=["bytes", "floats", "32-bit", "tensor", "batch", "RGBA", "RGBA bytes"],
)
def test_all_forms_of_an_image_give_the_same_tensor(form):
    transform, _ = resolved(CONFIG)
    expected = prepare(IMAGE, transform)
    result = prepare(form, transform)
    assert torch.equal(result.tensor, expected.tensor)
    np.testing.assert_array_equal(result.images, expected.images)
    assert result.notes == ()


DEEP = (np.asarray(IMAGE.convert("L")).astype(np.uint16) * 257).astype(np.uint16)


@each(
    "image",
    [
        Image.fromarray(DEEP),
        Image.fromarray(DEEP.astype(np.int32)),
        Image.fromarray((DEEP / 65535).astype(np.float32)),
        IMAGE.convert("L"),
        IMAGE.convert("LA"),
    ],
    ids=["16 bits", "32 bits", "floats", "8 bits", "alpha"],
)
@each("make", [lambda: CONFIG, lambda: ToyNet_Weights.DEFAULT], ids=["config", "weights"])
def test_built_transforms_convert_images_to_eight_bits(make, image):
    transform, _ = resolved(make())
    expected, result = prepare(IMAGE.convert("L"), transform), prepare(image, transform)
    assert torch.equal(result.tensor, expected.tensor)
    assert torch.equal(result.kind.pixels.white, expected.kind.pixels.white)
    assert result.notes == expected.notes
    assert torch.equal(transform(image), result.tensor)


def test_images_are_converted_to_the_models_channels():
    gray = IMAGE.convert("L")
    assert torch.equal(resolved(CONFIG)[0](gray), resolved(CONFIG)[0](gray.convert("RGB")))
    assert resolved(CONFIG | GRAY)[0](IMAGE).shape == (1, 1, 28, 28)
    assert torch.equal(resolved(CONFIG)[0](np.asarray(gray)), resolved(CONFIG)[0](gray))


def test_a_batch_is_transformed_image_by_image():
    transform, _ = resolved(CONFIG)
    batch = RNG.integers(0, 256, (3, 40, 60, 3), dtype=np.uint8)
    expected = torch.cat([transform(one) for one in batch])
    assert torch.equal(prepare(batch, transform).tensor, expected)
    assert torch.equal(prepare(list(batch), transform).tensor, expected)


@each(
    ("inputs", "message"),
    [
        (PIXELS / 100, r"expected images in uint8 or in \[0, 1\]; omit transform="),
        (torch.randn(1, 3, 8, 8), r"expected images in uint8 or in \[0, 1\]"),
        (PIXELS.astype(np.int64), r"expected images in uint8 or in \[0, 1\]"),
        (np.full((40, 60, 3), np.nan), r"expected images in uint8 or in \[0, 1\]"),
        (torch.zeros(4), r"expected images of 1, 3 or 4 channels, got an array of shape \(4,\)"),
        (torch.zeros(1, 7, 4, 4), r"expected images of 1, 3 or 4 channels, got an array of shape \(1, 7, 4, 4\)"),
    ],
)
def test_arrays_that_are_no_images_are_refused(inputs, message):
    with pytest.raises(ValueError, match=message):
        prepare(inputs, resolved(CONFIG)[0])


@each(
    ("changed", "message"),
    [
        ({"std": None}, r"must have input_size, mean, std; this one has no std\."),
        ({"mean": None, "input_size": None}, r"has no input_size and no mean\."),
        ({"interpolation": "bicubik"}, r"interpolation: 'bicubik' is not known\. Did you mean 'bicubic'"),
        ({"crop_mode": "corner"}, r"crop_mode: 'corner' is not known\. (Did you mean|Known: ).*'center'"),
        ({"crop_pct": -1}, r"crop_pct must be a positive number, got -1"),
        ({"crop_pct": "all"}, r"crop_pct must be a positive number, got 'all'"),
        ({"input_size": (4, 28, 28)}, r"input_size must be \(C, H, W\) with 1 or 3 channels, got \(4, 28, 28\)"),
        ({"input_size": (3, 0, 28)}, r"input_size must be"),
        ({"input_size": (1, 3, 28, 28)}, r"input_size must be"),
        ({"input_size": ()}, r"input_size must be"),
        ({"mean": (0.5, 0.5)}, r"mean must be one number per channel \(3\), got \(0\.5, 0\.5\)"),
        ({"std": (0.5, 0.0, 0.5)}, r"std must be one positive number per channel \(3\), got"),
    ],
    ids=str,
)
def test_invalid_configs_are_refused(changed, message):
    with pytest.raises(ValueError, match=rf"transform: a data config.*{message}"):
        resolved(CONFIG | changed)
    if None not in changed.values():
        with pytest.raises(ValueError, match=rf"model: a data config.*{message}.*Pass transform= instead\."):
            resolved(None, model_with(pretrained_cfg=CONFIG | changed))


def test_another_mapping_is_refused_with_the_missing_keys():
    with pytest.raises(ValueError, match=r"transform: a data config must have .* no input_size and no mean and no std"):
        resolved({"pixel_values": 1})


# ---- the model's own config

CARRIERS = {
    "pretrained_cfg": lambda: model_with(pretrained_cfg=CONFIG),
    "default_cfg": lambda: model_with(default_cfg=CONFIG),
    "an empty one first": lambda: model_with(pretrained_cfg={}, default_cfg=CONFIG),
    "an object": lambda: model_with(pretrained_cfg=SimpleNamespace(**CONFIG)),
    "compiled": lambda: torch.compile(model_with(pretrained_cfg=CONFIG)),
    "parallel": lambda: nn.DataParallel(model_with(pretrained_cfg=CONFIG)),
    **{
        f"Lightning's {name}": partial(lambda n: Lightning(**{n: model_with(pretrained_cfg=CONFIG)}), name)
        for name in ("model", "net", "backbone", "module")
    },
    "Lightning's compiled model": lambda: Lightning(model=torch.compile(model_with(pretrained_cfg=CONFIG))),
}


@each("carrier", CARRIERS)
def test_the_models_config_is_used_and_noted(carrier):
    transform, (note,) = resolved(None, CARRIERS[carrier]())
    assert torch.equal(transform(IMAGE), resolved(CONFIG)[0](IMAGE))
    assert note == (
        "The model's data config is used: resize the shorter side to 32 (bicubic), crop 28 x 28, mean 0.485, "
        "0.456, 0.406, std 0.229, 0.224, 0.225. Pass transform= to use another."
    )


def test_the_note_names_other_resize_modes():
    squash = CONFIG | {"input_size": (3, 24, 32), "crop_pct": 1.0, "crop_mode": "squash"}
    _, (note,) = resolved(None, model_with(pretrained_cfg=squash))
    assert "resize to 32 x 24 (squash) (bicubic), crop 32 x 24, mean" in note


IMAGE_INPUTS = {
    "PIL": IMAGE,
    "path": "image.png",
    "bytes": PIXELS,
    "bytes, channels first": np.moveaxis(PIXELS, -1, 0),
    "bytes of a batch": PIXELS[None],
    "gray bytes": PIXELS[..., 0],
    "tensor of bytes": torch.from_numpy(PIXELS.copy()).movedim(-1, 0),
    "list": [IMAGE, PIXELS],
}
MODEL_INPUTS = {
    "floats": PIXELS / 255,
    "tensor": torch.zeros(1, 3, 28, 28),
    "row": [1, 2, 3],
    "rows of bytes": torch.zeros(4, 7, dtype=torch.uint8),
    "bytes without channels": np.zeros((9, 8, 7), np.uint8),
    "list": [IMAGE, torch.zeros(3, 28, 28)],
    "nothing": [],
}


@each("form", IMAGE_INPUTS)
def test_images_go_through_the_models_config(form):
    transform, notes = resolved(None, model_with(pretrained_cfg=CONFIG), IMAGE_INPUTS[form])
    assert transform is not None
    assert len(notes) == 1


@each("form", MODEL_INPUTS)
def test_inputs_that_may_be_ready_for_the_model_are_not_transformed(form):
    assert resolved(None, model_with(pretrained_cfg=CONFIG), MODEL_INPUTS[form]) == (None, [])


@each(
    "model",
    [
        model_with(pretrained_cfg={"url": "", "num_classes": 3}),
        model_with(pretrained_cfg=CONFIG | {"std": None}),
        nn.Sequential(model_with(pretrained_cfg=CONFIG)),
        Lightning(encoder=model_with(pretrained_cfg=CONFIG)),
        Lightning(model=nn.Sequential(model_with(pretrained_cfg=CONFIG))),
        # The wrapper may normalize before it calls the inner model.
        model_with(model=model_with(pretrained_cfg=CONFIG)),
    ],
    ids=["no numbers", "no std", "sequential", "another name", "too deep", "a wrapper of the caller's"],
)
def test_no_config_is_guessed(model):
    assert resolved(None, model) == (None, [])


# ---- Hugging Face


@pytest.fixture(scope="module")
def hugging_face():
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.set_verbosity_error()  # no warning at each processor that torchvision is missing
    return transformers


def vit(transformers, **config):
    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return transformers.ViTForImageClassification(
        transformers.ViTConfig(image_size=16, patch_size=8, **small, **config)
    ).eval()


def resnet(transformers, **config):
    torch.manual_seed(0)
    return transformers.ResNetForImageClassification(
        transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", **config)
    ).eval()


PROCESSORS = {
    "squashed": (
        "ViTImageProcessor",
        {"size": {"height": 16, "width": 12}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.25, 0.2]},
        lambda: resized((12, 16), Image.Resampling.BILINEAR),
    ),
    "cropped": (
        "CLIPImageProcessor",
        {"size": {"shortest_edge": 32}, "crop_size": 28, "image_mean": list(MEAN), "image_std": list(STD)},
        lambda: resized((48, 32)).crop((10, 2, 38, 30)),
    ),
}


@pytest.mark.parametrize("case", PROCESSORS)
@pytest.mark.parametrize("form", [IMAGE, PIXELS, PIXELS / 255, np.moveaxis(PIXELS, -1, 0)], ids=range(4))
def test_a_processor_is_a_transform(hugging_face, case, form):
    kind, settings, seen = PROCESSORS[case]
    transform, notes = resolved(getattr(hugging_face, kind)(**settings), inputs=form)
    result = prepare(form, transform)
    expected = normalized(seen(), settings["image_mean"], settings["image_std"])
    np.testing.assert_allclose(result.tensor, expected, atol=1e-5)
    assert np.abs(result.images[0].astype(int) - np.asarray(seen())).max() <= 1
    assert notes == []
    assert result.notes == ()
    black = -np.divide(settings["image_mean"], settings["image_std"])
    np.testing.assert_allclose(result.kind.pixels.black.mean((1, 2)), black, atol=1e-5)


def test_a_processor_takes_grays_transparency_and_batches(hugging_face):
    transform, _ = resolved(hugging_face.ViTImageProcessor(size={"height": 16, "width": 16}))
    gray = IMAGE.convert("L")
    assert torch.equal(prepare(gray, transform).tensor, transform(gray.convert("RGB")))
    assert torch.equal(prepare(IMAGE.convert("RGBA"), transform).tensor, transform(IMAGE))
    batch = np.stack([PIXELS, PIXELS[::-1]])
    assert torch.equal(prepare(batch, transform).tensor, torch.cat([transform(one) for one in batch]))


def test_a_processors_result_fits_the_models(hugging_face):
    transform, _ = resolved(hugging_face.ViTImageProcessor(size={"height": 16, "width": 16}))
    result = prepare(IMAGE, transform)
    with torch.no_grad():
        for make in (vit, resnet):
            assert make(hugging_face, num_labels=5)(result.tensor).logits.shape == (1, 5)


class Processor:
    """Has the attributes by which Hugging Face's image processors are recognized."""

    image_mean, image_std = [0.5], [0.5]

    def __init__(self, result):
        self.result = result

    def __call__(self, images, **kwargs):
        assert kwargs == {"return_tensors": "pt"}
        return self.result(images) if callable(self.result) else self.result


def test_only_the_pixel_values_are_used():
    result = {"input_ids": torch.ones(1, 5), "pixel_values": torch.ones(1, 3, 4, 6), "pixel_mask": torch.ones(1, 4, 6)}
    assert torch.equal(resolved(Processor(result))[0](IMAGE), torch.ones(1, 3, 4, 6))
    assert torch.equal(resolved(Processor({"pixel_values": torch.ones(3, 4, 6)}))[0](IMAGE), torch.ones(1, 3, 4, 6))


def test_a_processor_with_one_mean_gets_grays():
    def pixels(image):
        assert image.mode == "L"
        return {"pixel_values": torch.from_numpy(np.asarray(image) / 127.5 - 1)[None, None]}

    result = prepare(IMAGE, resolved(Processor(pixels))[0])
    np.testing.assert_allclose(result.tensor, normalized(IMAGE.convert("L"), 0.5, 0.5), atol=1e-6)


def test_the_image_processor_inside_a_processor_of_texts_and_images_is_used():
    class Both:
        image_processor = Processor({"pixel_values": torch.ones(1, 3, 4, 6)})

        def __call__(self, images=None, text=None, **kwargs):
            raise ValueError("You need to specify text.")

    assert torch.equal(resolved(Both())[0](IMAGE), torch.ones(1, 3, 4, 6))


@each(
    ("result", "got"),
    [
        ({"input_ids": torch.ones(1, 5)}, r"a dict of \['input_ids'\]"),
        ({"pixel_values": [1.0]}, r"a dict of \['pixel_values'\]"),
        ({"pixel_values": torch.ones(1, 2, 3, 4, 4)}, r"\(1, 2, 3, 4, 4\)"),
        ({"pixel_values": torch.ones(2, 3, 4, 4)}, r"\(2, 3, 4, 4\)"),
        (torch.ones(3), "a Tensor"),
        (None, "a NoneType"),
    ],
)
def test_a_processor_with_an_invalid_result_is_refused(result, got):
    message = rf"the image processor must return pixel_values of shape \(1, C, H, W\), got {got}"
    with pytest.raises(ValueError, match=message):
        prepare(IMAGE, resolved(Processor(result))[0])


@pytest.mark.parametrize(
    "make", [lambda: CONFIG, lambda: ToyNet_Weights.DEFAULT, lambda: Processor(None)], ids=range(3)
)
def test_built_transforms_can_be_pickled(make):
    assert pickle.loads(pickle.dumps(resolved(make())[0])) is not None


# ---- class names


@each("value", [NAMES, tuple(NAMES), {0: "a", 1: "b"}, "one string", []], ids=repr)
def test_the_callers_class_names_come_first(value):
    assert class_names_of(value, ToyNet_Weights.DEFAULT, model_with(class_names=["x"])) == (value, True)


def test_weights_name_the_classes():
    assert class_names_of(ToyNet_Weights.DEFAULT, None, None) == (NAMES, True)
    assert class_names_of(None, ToyNet_Weights.DEFAULT, nn.Identity()) == (NAMES, False)
    assert class_names_of(None, ToyNet_Weights.UNNAMED, nn.Identity()) == (None, False)
    with pytest.raises(
        ValueError, match=r"class_names: the weights ToyNet_Weights\.UNNAMED have no class names\. Pass a"
    ):
        class_names_of(ToyNet_Weights.UNNAMED, None, None)


NAMED = {
    "class_names": lambda: model_with(class_names=NAMES),
    "classes": lambda: model_with(classes=tuple(NAMES)),
    "names by number": lambda: model_with(names={2: "cow", 0: "cat", 1: "dog"}),
    "a list of numbers is skipped": lambda: model_with(classes=[0, 1, 2], names=NAMES),
    "id2label": lambda: model_with(config=SimpleNamespace(id2label={0: "cat", 1: "dog", 2: "cow"})),
    "id2label, string keys": lambda: model_with(config=SimpleNamespace(id2label={"0": "cat", "1": "dog", "2": "cow"})),
    "timm's": lambda: model_with(pretrained_cfg={"label_names": NAMES}),
    "timm's object": lambda: model_with(default_cfg=SimpleNamespace(label_names=tuple(NAMES))),
    "the model's before the library's": lambda: model_with(
        class_names=NAMES, config=SimpleNamespace(id2label={0: "x"}), pretrained_cfg={"label_names": ["y"]}
    ),
    "compiled": lambda: torch.compile(model_with(names=NAMES)),
    "Lightning's": lambda: Lightning(model=model_with(names=NAMES)),
}


@each("case", NAMED)
def test_names_are_found_on_the_model(case):
    assert class_names_of(None, None, NAMED[case]()) == (NAMES, False)
    unfit = Weights("", list, {"categories": ["tench"]})
    assert class_names_of(None, unfit, NAMED[case]()) == (NAMES, False)


@each(
    "model",
    [
        None,
        nn.Identity(),
        model_with(classes=10, names="cat", class_names=[]),
        model_with(classes=lambda: NAMES),
        model_with(names={0: "cat", 2: "cow"}),
        model_with(names={"cat": "a", "dog": "b"}),
        model_with(names={0: 1, 1: 2}),
        model_with(config=SimpleNamespace(id2label={0: "LABEL_0", 1: "LABEL_1"})),
        model_with(config={"id2label": None}, pretrained_cfg={"label_names": None}),
        model_with(model=model_with(names=NAMES)),
    ],
)
def test_attributes_that_are_no_class_names_are_ignored(model):
    assert class_names_of(None, None, model) == (None, False)


def test_hugging_face_models_name_their_classes(hugging_face):
    named = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}
    for make in (vit, resnet):
        assert class_names_of(None, None, make(hugging_face, **named)) == (NAMES, False)
        assert class_names_of(None, None, make(hugging_face, num_labels=4)) == (None, False)


# ---- wrapped models


def test_models_that_are_not_wrapped():
    for model in (nn.Identity(), Lightning(model=nn.Identity()), model_with(module=nn.Identity()), None, "text"):
        assert unwrapped(model) == (model, [])


class Parallel(nn.DataParallel):
    """A subclass of the caller, which may do more."""


def test_wrappers_are_removed_in_any_order():
    model = nn.Linear(2, 2)
    compiled, parallel = "torch.compile hides", "wrapped in DataParallel is used, on one device"
    for wrapped, expected in (
        (torch.compile(model), [compiled]),
        (nn.DataParallel(model), [parallel]),
        (nn.DataParallel(torch.compile(model)), [parallel, compiled]),
        (torch.compile(nn.DataParallel(torch.compile(model))), [compiled, parallel]),
    ):
        result, notes = unwrapped(wrapped)
        assert result is model
        assert len(notes) == len(expected)
        assert all(part in note for part, note in zip(expected, notes, strict=True))
    mine = Parallel(model)
    assert unwrapped(torch.compile(mine))[0] is mine


def test_distributed_models():
    if not torch.distributed.is_available() or torch.distributed.is_initialized():
        pytest.skip("no process group can be created here")
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        model = nn.Linear(2, 2)
        result, (note,) = unwrapped(nn.parallel.DistributedDataParallel(model))
        assert result is model
        assert "wrapped in DistributedDataParallel" in note
    finally:
        torch.distributed.destroy_process_group()


@each(
    ("names", "short"),
    [
        (["tabby, tabby cat", "crane, lift", "crane"], ["tabby", "crane, lift", "crane"]),
        (["scratch, deep", "scratch, shallow"], ["scratch, deep", "scratch, shallow"]),
        (["a", "a"], ["a", "a"]),
        ([", odd", ""], [", odd", ""]),
    ],
)
def test_a_name_is_shortened_unless_another_class_has_the_short_name(names, short):
    assert short_names(names) == short
