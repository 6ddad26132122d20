"""Signals as images: the color of each line is that of the map, and no extreme is lost."""

import numpy as np
import pytest

from saliency_widgets import render
from saliency_widgets.render.lanes import _INK, _LINE, _NAMES, _PAPER


def colored(image):
    """The colors of the line in each column of each of two lanes, from the left; one for each column."""
    pixels = np.asarray(image)[:, _NAMES:]
    lanes = []
    for lane in np.split(pixels, 2):
        line = (lane != _PAPER).any(2) & (lane != _LINE).any(2)
        assert line.any(0).all(), "the line has a gap"
        lanes.append(lane[line.argmax(0), np.arange(lane.shape[1])])
    return np.array(lanes)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("rows", [1, 2])
def test_each_sample_has_the_color_of_its_value(signed, rows):
    values = np.random.default_rng(0).normal(size=(rows, 30))
    quantized = render.quantize(values if signed else np.abs(values), signed=signed)
    image = render.lanes_image(np.array([[1.0], [2.0]]).repeat(30, 1), quantized, ["a", "b"], width=120)
    ground = np.broadcast_to(np.array(_INK, np.uint8), (rows, 30, 3))
    limits = render.clip_limits(quantized.codes, quantized.signed, (0.0, 99.0))
    expected = render.blend(np.ascontiguousarray(ground), quantized, limits=limits)
    assert np.array_equal(colored(image)[:, 2::4], np.broadcast_to(expected, (2, 30, 3)))


def test_the_strongest_value_of_a_column_is_shown():
    values = np.zeros((2, 1000))
    values[0, 503], values[1, 7] = -1.0, 0.5
    quantized = render.quantize(values, signed=True)
    settings = {"clip": (0.0, 100.0), "opacity": 1.0, "blend": "uniform"}
    image = render.lanes_image(np.zeros((2, 1000)), quantized, ["a", "b"], width=100, **settings)
    table = render.lut(render.check_display({})["diverging"])
    colors = colored(image)
    assert np.array_equal(colors[0, 50], table[0])
    assert np.array_equal(colors[1, 0], table[round(0.75 * 255)])
    rest = np.delete(colors.reshape(-1, 3), [50, 100], 0)
    assert (rest == table[128]).all() or (rest == table[127]).all()


def test_an_extreme_of_one_sample_reaches_the_top_of_its_lane():
    signal = np.zeros((2, 10_000))
    signal[0, 4321], signal[1, 99] = 1.0, -1.0
    image = render.lanes_image(signal, render.quantize(signal, signed=True), ["a", "b"], width=100)
    for lane, column, up in zip(np.split(np.asarray(image)[:, _NAMES:], 2), (43, 0), (True, False), strict=True):
        line = (lane != _PAPER).any(2) & (lane != _LINE).any(2)
        lengths = line.sum(0)
        assert lengths.argmax() in (column, column + 1)  # the next column joins this one
        assert lengths[column] > 100
        flat = line[:, 70].argmax()
        assert (flat > 100) == up


def test_many_channels_are_limited():
    signal = np.random.default_rng(0).normal(size=(100, 50))
    image = render.lanes_image(signal, render.quantize(signal, signed=True), [str(k) for k in range(100)], width=80)
    assert image.size == (_NAMES + 80, 32 * 40)
