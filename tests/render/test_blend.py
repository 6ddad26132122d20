import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from toys import each

from saliency_widgets import render
from saliency_widgets.render import ZERO, blend, color_index, fit, lut, strength
from saliency_widgets.render import quantize as quantize

LOOK = {"opacity": 0.75, "clip": (0.0, 99.0), "threshold": 0.0, "blend": "by value"}
PLAIN = {"opacity": 1.0, "clip": (0.0, 100.0), "threshold": 0.0, "blend": "uniform"}
UNIT = st.floats(0, 1)


def scene(seed, signed, height=9, width=11):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    values = rng.standard_cauchy((height, width))
    return image, quantize(values if signed else np.abs(values), signed=signed)


scenes = st.builds(scene, st.integers(0, 2**32), st.booleans())
looks = st.fixed_dictionaries(
    {
        "opacity": UNIT,
        "threshold": UNIT,
        "clip": st.tuples(st.floats(0, 100), st.floats(0, 100)).map(lambda c: tuple(sorted(c))),
        "blend": st.sampled_from(["by value", "uniform"]),
    }
)


@given(scenes, looks)
def test_zero_opacity_gives_the_image(scene, look):
    image, q = scene
    np.testing.assert_array_equal(blend(image, q, lut=lut("hot"), **{**look, "opacity": 0.0}), image)


@given(scenes, looks)
def test_full_uniform_opacity_gives_pure_colors(scene, look):
    image, q = scene
    look = {**look, "opacity": 1.0, "blend": "uniform", "threshold": 0.0}
    limits = render.clip_limits(q.codes, q.signed, look["clip"])
    expected = lut("turbo")[color_index(strength(q.codes, q.signed, limits))]
    np.testing.assert_array_equal(blend(image, q, lut=lut("turbo"), **look), expected)


@given(scenes, looks)
def test_every_pixel_lies_between_image_and_color(scene, look):
    image, q = scene
    colors = blend(image, q, lut=lut("viridis"), **{**PLAIN, "clip": look["clip"]})
    out = blend(image, q, lut=lut("viridis"), **look)
    assert (out >= np.minimum(image, colors)).all()
    assert (out <= np.maximum(image, colors)).all()


@given(scenes, looks)
def test_more_opacity_is_never_closer_to_the_image(scene, look):
    image, q = scene
    distance = [
        np.abs(blend(image, q, lut=lut("gray"), **{**look, "opacity": o}).astype(int) - image) for o in (0.2, 0.5, 0.9)
    ]
    assert (distance[0] <= distance[1]).all()
    assert (distance[1] <= distance[2]).all()


@given(scenes, looks)
def test_pixels_below_the_threshold_show_the_image(scene, look):
    image, q = scene
    limits = render.clip_limits(q.codes, q.signed, look["clip"])
    weak = render.magnitude(strength(q.codes, q.signed, limits), q.signed) < look["threshold"]
    out = blend(image, q, lut=lut("magma"), **look)
    np.testing.assert_array_equal(out[weak], image[weak])


@pytest.mark.parametrize("signed", [False, True])
def test_a_map_of_zeros_leaves_the_image_unchanged_if_blended_by_value(signed):
    image, _ = scene(3, signed)
    zeros = quantize(np.zeros(image.shape[:2]), signed=signed)
    np.testing.assert_array_equal(blend(image, zeros, lut=lut("bwr"), **LOOK), image)


def test_scaling_the_map_changes_nothing():
    image, _ = scene(4, True)
    values = np.random.default_rng(4).normal(size=image.shape[:2])
    one, other = (quantize(values * k, signed=True) for k in (1.0, 2.0**-40))
    np.testing.assert_array_equal(*(blend(image, q, lut=lut("bwr"), **LOOK) for q in (one, other)))


def test_two_pixels_computed_by_hand():
    image = np.array([[[100, 0, 255], [10, 20, 30]]], np.uint8)
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    q = quantize([[0.5, 1.0]], signed=False)  # codes 32767 and 65534, t = 0.5 and 1
    out = blend(image, q, lut=ramp, **{**LOOK, "opacity": 0.5, "clip": (0, 100)})
    # lo is the smallest code: t = 0 and 1, so alpha = 0 and 0.5.
    assert out.tolist() == [[[100, 0, 255], [133, 138, 143]]]


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5))
def test_a_coarse_map_becomes_blocks(height, width, k):
    codes = np.arange(height * width, dtype=np.uint16).reshape(height, width)
    blocks = codes.repeat(k, axis=0).repeat(k, axis=1)
    np.testing.assert_array_equal(fit(codes, height * k, width * k), blocks)


def test_clip_limits_are_those_of_the_map_not_of_its_enlargement():
    image = np.zeros((9, 2, 3), np.uint8)
    q = quantize([[0.0, 1.0], [0.5, 0.25]], signed=False)
    out = blend(image, q, lut=lut("gray"), **{**PLAIN, "clip": (0, 50)})
    assert set(out[..., 0].ravel().tolist()) == {0, 255}


@each(
    ("change", "message"),
    [
        ({"opacity": 1.5}, "opacity"),
        ({"threshold": -0.1}, "threshold"),
        ({"blend": "overlay"}, "blend"),
        ({"clip": (99, 1)}, "clip"),
        ({"lut": np.zeros((10, 3), np.uint8)}, "lut"),
        ({"image": np.zeros((9, 11), np.uint8)}, "image"),
        ({"image": np.zeros((9, 11, 3))}, "image"),
    ],
)
def test_errors_name_the_invalid_argument(change, message):
    image, q = scene(5, False)
    arguments = {"image": image, "lut": lut("hot"), **LOOK, **change}
    with pytest.raises(ValueError, match=message):
        blend(arguments.pop("image"), q, **arguments)


@settings(max_examples=20, deadline=None)
@given(scenes, looks)
def test_the_file_holds_the_overlay_at_an_integer_scale(scene, look):
    image, q = scene
    file = io.BytesIO()
    render.overlay_png(file, image, q, lut=lut("bwr"), scale=30, title="A title", **look)
    page = np.asarray(Image.open(file).convert("RGB"))
    height, width = image.shape[0] * 30, image.shape[1] * 30
    left, top = (page.shape[1] - width) // 2, 12 + 26
    shown = page[top : top + height, left : left + width]
    overlay = blend(image, q, lut=lut("bwr"), **look)
    np.testing.assert_array_equal(shown, overlay.repeat(30, axis=0).repeat(30, axis=1))


def test_the_file_is_at_least_480_pixels_wide_and_a_scale_of_zero_is_an_error(tmp_path):
    image, q = scene(6, True)
    render.overlay_png(tmp_path / "map.png", image, q, lut=lut("bwr"), **LOOK)
    assert Image.open(tmp_path / "map.png").width >= 480
    with pytest.raises(ValueError, match="scale"):
        render.overlay_png(tmp_path / "map.png", image, q, lut=lut("bwr"), scale=0, **LOOK)


def test_zero_is_transparent_in_a_signed_map():
    image, q = scene(7, True)
    q.codes[0, 0] = ZERO
    np.testing.assert_array_equal(blend(image, q, lut=lut("berlin"), **LOOK)[0, 0], image[0, 0])
