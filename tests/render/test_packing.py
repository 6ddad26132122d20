"""Packing of codes for storage: it is lossless."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saliency_widgets.render import pack_codes, unpack_codes


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1), st.sampled_from([1, 40, 65535]))
def test_packing_is_lossless(height, width, seed, high):
    codes = np.random.default_rng(seed).integers(0, high, (height, width)).astype(np.uint16)
    packing, packed = pack_codes(codes)
    assert len(packed) == codes.nbytes
    assert np.array_equal(unpack_codes(packing, packed, codes.shape), codes)


def test_a_smooth_map_is_packed_by_its_steps_and_a_noisy_one_is_not():
    noise = np.random.default_rng(0).integers(0, 65535, (60, 60)).astype(np.uint16)
    smooth = (np.add.outer(np.arange(60), np.arange(60)) * 500).astype(np.uint16)
    assert pack_codes(smooth)[0] == "steps"
    assert pack_codes(noise)[0] == "planes"
    assert np.array_equal(unpack_codes(*pack_codes(smooth), smooth.shape), smooth)


def test_an_unknown_packing_is_an_error():
    with pytest.raises(ValueError, match="packing: expected 'planes' or 'steps', got 'raw'"):
        unpack_codes("raw", b"12", (1, 1))
