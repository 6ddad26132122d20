"""A common color scale for several maps, compared with sorted values, and differences of maps."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_widgets import render

RNG = np.random.default_rng(3)


def maps(*scales: float, signed: bool = False, size: tuple[int, int] = (6, 7)) -> list[render.Quantized]:
    values = [RNG.normal(size=size) * scale for scale in scales]
    return [render.quantize(v if signed else np.abs(v), signed=signed) for v in values]


@pytest.mark.parametrize("signed", [False, True])
def test_the_limits_of_one_map_are_those_of_its_own_percentiles(signed):
    (one,) = maps(3.0, signed=signed)
    for clip in ((0, 99), (5, 50), (0, 100)):
        ends = render.shared_ends([one], clip)
        assert render.limits_of(one, ends) == pytest.approx(render.clip_limits(one.codes, signed, clip), rel=1e-12)


def test_equal_values_have_equal_strength_in_all_maps_of_a_scale():
    small, large = maps(1.0, 40.0)
    ends = render.shared_ends([small, large], (0, 100))
    assert ends[1] == large.high
    for one in (small, large):
        strength = render.strength(one.codes, False, render.limits_of(one, ends))
        np.testing.assert_allclose(strength, (render.dequantize(one) - ends[0]) / (ends[1] - ends[0]), atol=1e-12)


def test_the_ends_are_percentiles_of_all_pixels_together():
    some = maps(1.0, 2.0, 0.1)
    pooled = np.sort(np.concatenate([render.dequantize(one).ravel() for one in some]))
    lo, hi = render.shared_ends(some, (10, 90))
    assert lo == pytest.approx(pooled[int(np.ceil(0.1 * len(pooled))) - 1], rel=1e-12)
    assert hi == pytest.approx(pooled[int(np.ceil(0.9 * len(pooled))) - 1], rel=1e-12)


def test_a_map_of_zeros_stays_at_zero():
    zero, one = render.quantize(np.zeros((2, 2)), signed=False), render.quantize(np.ones((2, 2)), signed=False)
    ends = render.shared_ends([zero, one], (0, 100))
    assert render.limits_of(zero, ends) == (0, 0)
    assert not render.strength(zero.codes, False, render.limits_of(zero, ends)).any()


def test_a_difference_is_the_difference_of_the_values():
    a, b = maps(1.0, 5.0)
    expected = render.dequantize(a) / 2.0 - render.dequantize(b) / 3.0
    result = render.difference(a, b, (2.0, 3.0))
    assert result.signed
    np.testing.assert_allclose(render.dequantize(result), expected, atol=result.high / render.LEVELS * 1.0001)
    assert not render.dequantize(render.difference(a, a)).any()


def test_incompatible_maps_are_errors():
    a, b = maps(1.0), maps(1.0, size=(3, 3))
    with pytest.raises(ValueError, match="6 x 7 and the other 3 x 3"):
        render.difference(a[0], b[0])
    with pytest.raises(ValueError, match="all unsigned"):
        render.shared_ends([*a, *maps(1.0, signed=True)], (0, 99))
    with pytest.raises(ValueError, match="at least one"):
        render.shared_ends([], (0, 99))
    with pytest.raises(ValueError, match="rising percentiles"):
        render.shared_ends(a, (50, 20))
