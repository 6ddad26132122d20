"""Color tables, the color bar, numbers as text, and the declarations of the display settings."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import each

from saliency_widgets import render
from saliency_widgets.render import LEVELS, ZERO, Quantized, bar_colors, bar_ends, bar_ticks, format_number


@each("name", [*render.SEQUENTIAL, *render.DIVERGING])
def test_every_color_map_is_a_read_only_table(name):
    table = render.lut(name)
    assert table.shape == (256, 3)
    assert table.dtype == np.uint8
    assert len(np.unique(table, axis=0)) > 100
    with pytest.raises(ValueError):
        table[0] = 0


def test_colors_at_the_ends_of_color_maps():
    assert render.lut("gray")[[0, 128, 255]].tolist() == [[0] * 3, [128] * 3, [255] * 3]
    assert render.lut("bwr")[0].tolist() == [0, 0, 255]
    assert render.lut("bwr")[255].tolist() == [255, 0, 0]


@each("name", ["magma", "viridis", "inferno", "cividis", "hot", "gray"])
def test_sequential_maps_grow_lighter(name):
    lightness = render.lut(name) @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(np.convolve(lightness, np.ones(8) / 8, "valid")) > -0.1).all()


def test_the_error_of_a_misspelled_color_map_suggests_the_right_one():
    with pytest.raises(ValueError, match="viridis"):
        render.lut("virids")


def test_the_front_end_gets_the_tables_in_the_order_of_the_menu():
    tables = render.lut_bytes(render.SEQUENTIAL)
    assert len(tables) == 768 * len(render.SEQUENTIAL)
    assert tables[768:1536] == render.lut(render.SEQUENTIAL[1]).tobytes()


def test_every_display_default_is_allowed_and_explained():
    assert len({p.name for p in render.DISPLAY}) == len(render.DISPLAY) >= 6
    for p in render.DISPLAY:
        assert p.check(p.default) == p.default
        assert p.help.endswith(".")


limits = st.tuples(st.integers(0, ZERO), st.integers(0, ZERO)).map(lambda pair: tuple(sorted(pair)))


@given(limits, st.booleans())
def test_the_bar_runs_from_the_weakest_to_the_strongest_color(limits, signed):
    table = render.lut("coolwarm" if signed else "inferno")
    row = bar_colors(signed, limits, lut=table)
    if min(limits) < ZERO or not signed:  # otherwise no value lies above the limits
        np.testing.assert_array_equal(row[[0, -1], :3], table[[0, 255]])
    assert (row[:, 3] == 255).all()


def test_the_bar_is_transparent_below_the_threshold():
    row = bar_colors(False, (0, LEVELS), lut=render.lut("hot"), threshold=0.5, width=101)
    assert (row[:50, 3] == 0).all()
    assert (row[50:, 3] == 255).all()
    both = bar_colors(True, (0, ZERO), lut=render.lut("bwr"), threshold=0.5, width=101)
    assert np.flatnonzero(both[:, 3] == 0).tolist() == list(range(26, 75))


@given(limits, st.floats(1e-6, 1e6), st.booleans(), st.sampled_from([3, 5]))
def test_labels_are_evenly_spaced_from_limit_to_limit(limits, high, signed, count):
    q = Quantized(np.zeros((1, 1), np.uint16), -high if signed else 0.0, high, signed)
    ticks = bar_ticks(q, limits, count)
    start, end = (q.low + c / LEVELS * (q.high - q.low) for c in bar_ends(signed, limits))
    assert [t.position for t in ticks] == pytest.approx(np.linspace(0, 1, count))
    assert [t.value for t in ticks] == pytest.approx(np.linspace(start, end, count), abs=1e-9 * high)
    if signed:
        assert ticks[count // 2].label == "0"
        assert [t.value for t in ticks] == [-t.value for t in reversed(ticks)]


@pytest.mark.parametrize("signed", [False, True])
def test_a_map_of_zeros_has_one_label(signed):
    q = render.quantize(np.zeros((2, 2)), signed=signed)
    ticks = bar_ticks(q, render.clip_limits(q.codes, signed, (0, 99)))
    assert [t.label for t in ticks] == ["0"]


@each(
    ("value", "text"),
    [
        (0, "0"),
        (1, "1"),
        (-0.5, "-0.5"),
        (0.012345, "0.0123"),
        (0.001, "0.001"),
        (0.00099949, "9.99e-4"),
        (0.0009996, "0.001"),
        (1.125, "1.13"),
        (123.4, "123"),
        (9994.9, "9990"),
        (9995, "1e4"),
        (-12345, "-1.23e4"),
        (1e300, "1e300"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        (math.nan, "NaN"),
    ],
)
def test_numbers_as_text(value, text):
    assert format_number(value) == text


@given(st.floats(-1e308, 1e308, allow_subnormal=False))
def test_numbers_keep_three_digits(value):
    text = format_number(value)
    assert float(text) == pytest.approx(value, rel=0.00501)
    digits = re.sub(r"e.*|[-.]", "", text).strip("0")
    assert len(digits) <= 3
