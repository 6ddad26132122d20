"""Gradients stored in 16 bits: their rounding errors stay within the documented bounds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import conv_net, images

import saliency_widgets as sw
from saliency_widgets.attribution.numerics import float16_store
from saliency_widgets.attribution.numerics.float16_store import Half, full_precision_count
from saliency_widgets.session import Cache, Event, Problem, Request, Session


@given(st.integers(0, 2**32 - 1), st.floats(-40, 38), st.floats(0, 12))
def test_the_rounding_error_of_a_value_is_within_the_bound(seed, size, spread):
    """The samples differ in scale, and their values spread over many orders of magnitude."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(3, 2, 50, generator=generator)
    values *= 10 ** (-spread * torch.rand(3, 2, 50, generator=generator))
    values[0] *= 10.0**size / values[0].abs().max()
    largest = values.abs().amax(2, keepdim=True)
    result = Half.of(values)
    assert result.codes.dtype == torch.float16
    off = (result.full().double() - values.double()).abs()
    least = torch.finfo(torch.float32).smallest_normal
    assert bool((off <= 2.0**-11 * values.abs().double() + 2.0**-39 * largest.double() + least).all())
    for k, one in enumerate(result.unbind()):
        assert torch.equal(one[1], result.full()[k, 1])


def test_zeros_stay_zero_and_the_largest_numbers_finite():
    values = torch.tensor([[[0.0, 0.0]], [[3e38, -1e30]]])
    result = Half.of(values).full()
    assert bool(result.isfinite().all())
    assert torch.equal(result[0], values[0])


def test_small_inputs_and_float64_are_stored_in_full_precision():
    assert full_precision_count(torch.ones(1, 3, 224, 224)) == 69
    assert full_precision_count(torch.ones(1, 30)) > 90_000
    assert full_precision_count(torch.ones(1, 3, 224, 224).double()) is None
    assert full_precision_count(torch.ones(1, 3, 224, 224).half()) is None


@pytest.fixture
def only_16_in_full(monkeypatch):
    """Store all but the first 16 gradients in 16 bits."""
    monkeypatch.setattr(float16_store, "WHOLE_BYTES", 0)


@pytest.mark.parametrize("quadrature", ["adaptive", "trapezoid", "gauss_legendre"])
def test_the_rounding_error_of_a_map_is_within_the_bound(quadrature, monkeypatch):
    model, x = conv_net().float(), images(0, 2, 3, 8, 8).float()
    settings = {"target": 1, "n_steps": 64, "tolerance": 0, "quadrature": quadrature}
    whole = sw.attribute(model, x, **settings)
    monkeypatch.setattr(float16_store, "WHOLE_BYTES", 0)
    half = sw.attribute(model, x, **settings)
    off = (half.values - whole.values).flatten(1).abs().sum(1) / whole.values.flatten(1).abs().sum(1)
    assert bool((off > 0).all())
    assert bool((off < 5e-4).all())


@pytest.mark.parametrize("quadrature", ["adaptive", "trapezoid"])
def test_stored_gradients_are_reused_bit_for_bit_in_half_the_memory(quadrature, only_16_in_full):
    model, x = conv_net().float(), images(0, 1, 3, 8, 8).float()
    events: list[Event] = []
    session = Session(Problem(model, x), events.append, executor="inline", cache=Cache())

    def stored_bytes(n_steps: int) -> int:
        params = {"n_steps": n_steps, "tolerance": 0.0, "quadrature": quadrature}
        session.submit(Request.of("integrated_gradients", params, target=1))
        assert events[-1].error is None
        result = events[-1].attribution
        assert torch.equal(result.values, sw.attribute(model, x, **result.settings).values)
        stored = session.cache._entries.items()
        return sum(size for key, (_, size, _) in stored if key[1] == "chunk")

    before, after = stored_bytes(32), stored_bytes(64)
    gradient = x.numel() * 4
    assert 32 * gradient * 0.5 < after - before < 32 * gradient * 0.6
    session.close()
