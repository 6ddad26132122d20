import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from toys import each

from saliency_widgets.render import LEVELS, ZERO, clip_limits, histogram, magnitude, strength

PERCENT = st.integers(0, 100)
CODES = st.integers(1, 60).flatmap(lambda n: arrays(np.uint16, n, elements=st.integers(0, LEVELS)))
# With a power of two, p / 100 * n and p * n / 100 round alike, so that numpy is an exact oracle.
POWER_OF_TWO = st.sampled_from([1, 2, 8, 64]).flatmap(lambda n: arrays(np.uint16, n, elements=st.integers(0, LEVELS)))


@given(POWER_OF_TWO, PERCENT, PERCENT)
def test_limits_are_numpys_inverted_cdf(codes, a, b):
    clip = sorted((a, b))
    assert clip_limits(codes, False, clip) == tuple(np.percentile(codes, clip, method="inverted_cdf"))
    levels = np.abs(codes.astype(int) - ZERO)
    assert clip_limits(codes, True, clip) == tuple(np.percentile(levels, clip, method="inverted_cdf"))


@given(CODES, PERCENT)
def test_limits_are_the_smallest_level_that_enough_pixels_do_not_exceed(codes, p):
    needed = max(1, math.ceil(Fraction(p * codes.size, 100)))
    assert clip_limits(codes, False, (p, p))[0] == np.sort(codes)[needed - 1]


@given(CODES)
def test_the_whole_range_ends_at_the_extremes(codes):
    assert clip_limits(codes, False, (0, 100)) == (codes.min(), codes.max())


@given(CODES, st.booleans())
def test_the_histogram_counts_every_pixel(codes, signed):
    counts = histogram(codes, signed)
    assert counts.sum() == codes.size
    assert counts.size == (ZERO if signed else LEVELS) + 1


@each("clip", [(-1, 99), (0, 101), (60, 40), (math.nan, 99)])
def test_percentiles_out_of_order_or_range_are_refused(clip):
    with pytest.raises(ValueError, match="clip"):
        clip_limits(np.zeros(4, np.uint16), False, clip)


def test_limits_need_at_least_one_pixel():
    with pytest.raises(ValueError, match="at least one pixel"):
        clip_limits(np.zeros(0, np.uint16), False, (0, 99))


limits = st.tuples(st.integers(0, ZERO), st.integers(0, ZERO)).map(lambda pair: tuple(sorted(pair)))


@given(CODES, limits)
def test_strength_rises_with_the_code_and_stays_in_range(codes, limits):
    for signed in (False, True):
        t = strength(np.sort(codes), signed, limits)
        assert ((t >= 0) & (t <= 1)).all()
        assert (np.diff(t) >= 0).all()


@given(CODES, limits)
def test_signed_strength_is_symmetrical_about_zero(codes, limits):
    mirrored = LEVELS - codes.astype(int)
    np.testing.assert_allclose(strength(mirrored, True, limits), 1 - strength(codes, True, limits), rtol=0, atol=1e-15)


@given(limits)
def test_zero_is_the_middle_of_a_signed_scale(limits):
    t = strength(ZERO, True, limits)
    assert t == 0.5
    assert magnitude(t, True) == 0


def test_strength_is_linear_between_its_limits():
    assert strength([50, 100, 150, 200, 250], False, (100, 200)).tolist() == [0, 0, 0.5, 1, 1]
    codes = ZERO + np.array([-300, -200, -150, -50, 0, 50, 150, 200])
    assert strength(codes, True, (100, 200)).tolist() == [0, 0, 0.25, 0.5, 0.5, 0.5, 0.75, 1]


def test_values_above_equal_limits_have_full_strength():
    assert strength([6, 7, 8], False, (7, 7)).tolist() == [0, 0, 1]
    assert strength(ZERO + np.array([-8, -7, 0, 7, 8]), True, (7, 7)).tolist() == [0, 0.5, 0.5, 0.5, 1]
