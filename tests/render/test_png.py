"""The image file: its size, its text, and the layers on top."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from PIL import Image, ImageFont

from saliency_widgets import render
from saliency_widgets.render import fonts
from saliency_widgets.render.fonts import font_for, missing, wrapped

LOOK = {"opacity": 0.75, "clip": (0.0, 99.0), "threshold": 0.0, "blend": "by value"}
LONG = "The first of several sentences that nobody could read in one line of such a narrow image. " * 4


@pytest.fixture
def scene():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (10, 20, 3), dtype=np.uint8), render.quantize(rng.random((10, 20)), signed=False)


def page(scene, **value):
    file = io.BytesIO()
    image, quantized = scene
    render.overlay_png(file, image, quantized, lut=render.lut("hot"), **LOOK, **value)
    return np.asarray(Image.open(file).convert("RGB"))


def shown(result, width, height):
    """The overlay in the page, below the margin of 12 pixels."""
    left = (result.shape[1] - width) // 2
    return result[12 : 12 + height, left : left + width]


def overlay(scene):
    image, quantized = scene
    return render.blend(image, quantized, lut=render.lut("hot"), **LOOK)


@pytest.mark.parametrize("scale", [1, 3, 3.0, np.int64(7)])
def test_an_integer_scale_repeats_pixels(scene, scale):
    big = overlay(scene).repeat(int(scale), 0).repeat(int(scale), 1)
    assert np.array_equal(shown(page(scene, scale=scale), 20 * int(scale), 10 * int(scale)), big)


def test_half_the_size_averages_four_pixels(scene):
    means = overlay(scene).astype(float).reshape(5, 2, 10, 2, 3).mean((1, 3))
    assert np.abs(shown(page(scene, scale=0.5), 10, 5) - means).max() <= 1


def test_a_scale_that_is_no_integer_keeps_the_mean_of_the_image(scene):
    result = shown(page(scene, scale=1.5), 30, 15).astype(float)
    np.testing.assert_allclose(result.mean((0, 1)), overlay(scene).astype(float).mean((0, 1)), atol=0.5)


@pytest.mark.parametrize(
    ("scale", "error", "message"),
    [
        (0, ValueError, r"from 0.1 \(one pixel\) to 1e\+03 \(20000 pixels\) for an image of 20 by 10, got 0"),
        (0.09, ValueError, "from 0.1"),
        (1001, ValueError, "got 1001"),
        (float("nan"), ValueError, "got nan"),
        ("2", TypeError, r"expected a number such as 2 or 0.5, got '2' \(str\)"),
        (True, TypeError, "got True"),
    ],
)
def test_invalid_scales_are_errors(scene, scale, error, message):
    with pytest.raises(error, match=message):
        page(scene, scale=scale)


def test_a_long_caption_is_wrapped_and_not_cut_off(scene):
    short, long = page(scene, scale=4, caption="One line"), page(scene, scale=4, caption=LONG)
    assert long.shape[1] == short.shape[1]
    font = font_for(LONG, 14)
    lines = wrapped(LONG, font, long.shape[1] - 24)
    assert long.shape[0] - short.shape[0] == 20 * (len(lines) - 1)
    assert " ".join(lines) == LONG.strip()
    assert all(font.getlength(line) <= long.shape[1] - 24 for line in lines)
    below = long[short.shape[0] - 26 :]
    assert (below[:, :12] == 255).all()
    assert (below[:, -12:] == 255).all()
    assert (below[-20:] < 200).any(), "the last line is missing"
    assert (below[-4:] == 255).all(), "the last line touches the edge"


def test_words_wider_than_the_line_and_text_without_spaces_are_broken():
    font = ImageFont.load_default(size=14)
    for text in ("a" * 200, "aaa " + "b" * 90 + " ccc", "x\n\ny"):
        lines = wrapped(text, font, 120)
        assert "".join(lines).replace(" ", "") == "".join(text.split())
        assert all(font.getlength(line) <= 120 for line in lines)


def test_layers_are_drawn_on_top_and_resized_to_the_image(scene):
    drawn = Image.new("RGBA", (40, 20))
    drawn.paste((0, 255, 255, 255), (0, 0, 20, 20))
    result = shown(page(scene, scale=2, layers=[drawn]), 40, 20)
    assert (result[:, :18] == [0, 255, 255]).all()
    plain = shown(page(scene, scale=2), 40, 20)
    assert np.array_equal(result[:, 22:], plain[:, 22:])


def test_missing_returns_the_characters_that_a_font_lacks():
    local = ImageFont.load_default(size=14)
    assert missing("Egyptian cat, 0.79 (50 of 50)", local) == set()
    assert missing("cat 猫", local) == {"猫"}


def test_characters_that_no_font_has_give_a_warning(scene, monkeypatch):
    monkeypatch.setattr(fonts, "_FONTS", ())
    with pytest.warns(UserWarning, match=r"No installed font has the characters '猫'.*Install a font"):
        page(scene, caption="cat 猫")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page(scene, caption="cat")


def test_a_system_font_is_used_if_the_default_one_lacks_characters(monkeypatch):
    class Complete:
        def __init__(self, size):
            self.size = size

        def getmask(self, letter):
            return ImageFont.load_default(size=14).getmask("\U0010fffe" if letter == "\U0010fffe" else "x")

    monkeypatch.setattr(fonts, "_system", lambda _name, size: Complete(size))
    assert isinstance(font_for("cat 猫", 14), Complete)
    assert not isinstance(font_for("cat", 14), Complete)
