import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from toys import each

from saliency_widgets.render import LEVELS, ZERO, Quantized, dequantize, shares
from saliency_widgets.render import quantize as quantize

SHAPES = array_shapes(min_dims=2, max_dims=2, max_side=12)


def maps(low=-1e30, high=1e30):
    numbers = st.floats(low, high, allow_subnormal=False, allow_nan=False).filter(lambda v: v == 0 or abs(v) > 1e-200)
    return arrays(np.float64, SHAPES, elements=numbers)


@given(maps())
def test_signed_round_trip_is_within_half_a_level(values):
    q = quantize(values, signed=True)
    level = (q.high - q.low) / LEVELS
    assert q.codes.dtype == np.uint16
    assert q.codes.shape == values.shape
    assert q.low == -q.high == -np.abs(values).max()
    assert (np.abs(dequantize(q) - values) <= 0.5 * level * (1 + 1e-9)).all()


@given(maps(low=0))
def test_unsigned_round_trip_is_within_half_a_level(values):
    q = quantize(values, signed=False)
    assert (q.low, q.high) == (0, values.max())
    assert (np.abs(dequantize(q) - values) <= 0.5 * q.high / LEVELS * (1 + 1e-9)).all()


@given(maps())
def test_zero_is_exact_in_a_signed_map(values):
    values[0, 0] = 0
    q = quantize(values, signed=True)
    assert q.codes[0, 0] == ZERO
    assert dequantize(q)[0, 0] == 0


@given(maps())
def test_order_is_preserved(values):
    codes = quantize(values, signed=True).codes.ravel().astype(int)
    assert (np.diff(codes[np.argsort(values.ravel(), kind="stable")]) >= 0).all()


@given(maps())
def test_quantizing_again_changes_nothing(values):
    q = quantize(values, signed=True)
    again = quantize(dequantize(q), signed=True)
    np.testing.assert_array_equal(again.codes, q.codes)


def test_the_ends_of_the_range_have_the_extreme_codes():
    assert quantize([[0, 1, 2]], signed=False).codes.tolist() == [[0, ZERO, LEVELS]]
    assert quantize([[-2, 0, 2]], signed=True).codes.tolist() == [[0, ZERO, LEVELS]]


@pytest.mark.parametrize(("signed", "code"), [(False, 0), (True, ZERO)])
def test_a_map_of_zeros_has_only_the_code_of_zero(signed, code):
    q = quantize(np.zeros((3, 4)), signed=signed)
    assert (q.codes == code).all()
    assert (q.low, q.high) == (0, 0)
    assert not dequantize(q).any()
    assert not shares(q).any()


@given(maps())
def test_shares_add_up_to_one(values):
    q = quantize(values, signed=True)
    assert shares(q).min() >= 0
    assert shares(q).sum() == pytest.approx(1 if q.high > 0 else 0)


def test_shares_are_those_of_the_magnitudes():
    np.testing.assert_allclose(shares(quantize([[-3.0, 1.0]], signed=True)), [[0.75, 0.25]], atol=1e-4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_error_of_a_value_that_is_not_finite_names_row_and_column(bad):
    values = np.ones((3, 4))
    values[2, 1] = bad
    with pytest.raises(ValueError, match="row 2, column 1"):
        quantize(values, signed=True)


def test_the_error_of_a_negative_unsigned_map_suggests_signed():
    with pytest.raises(ValueError, match="signed=True"):
        quantize([[1.0, -1.0]], signed=False)


@each("shape", [(3,), (3, 4, 5), (1, 1, 4, 4), (0, 4)])
def test_arrays_that_are_not_one_map_are_refused(shape):
    with pytest.raises(ValueError, match="shape"):
        quantize(np.zeros(shape), signed=False)


def test_a_range_beyond_float_is_refused():
    with pytest.raises(ValueError, match="range"):
        quantize([[1.5e308, -1.5e308]], signed=True)


def test_a_quantized_map_cannot_be_reassigned():
    q = Quantized(np.zeros((1, 1), np.uint16), 0.0, 1.0, False)
    with pytest.raises(dataclasses.FrozenInstanceError):
        q.high = 2.0  # pyright: ignore[reportAttributeAccessIssue]
