"""Quadrature rules, the order in which nodes are visited, and the division into chunks."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from toys import each

from saliency_widgets.attribution import Score
from saliency_widgets.attribution.numerics.quadrature import RULES, coarse_to_fine, gauss_legendre, midpoint, trapezoid
from saliency_widgets.runtime.batching import chunks
from saliency_widgets.runtime.passes import Passes
from saliency_widgets.runtime.runner import Runner

STEPS = [1, 2, 3, 4, 5, 7, 8, 16, 33, 64, 100, 256, 1000, 1024, 2001, 5000]


@pytest.mark.parametrize("rule", RULES)
@each("n", sorted({*range(1, 40), *STEPS}))
def test_weights_sum_to_one_and_nodes_are_symmetric_in_the_interval(rule, n):
    nodes, weights = RULES[rule](n)
    assert nodes.dtype == weights.dtype == torch.float64
    assert len(nodes) == len(weights) == (n + 1 if rule in ("trapezoid", "clenshaw_curtis") else n)
    assert float(weights.sum()) == pytest.approx(1, abs=1e-12)
    assert bool((weights > 0).all())
    assert bool((nodes.diff() > 0).all())
    assert float(nodes[0]) >= 0
    assert float(nodes[-1]) <= 1
    assert torch.allclose(nodes + nodes.flip(0), torch.ones_like(nodes), rtol=0, atol=1e-14)
    assert torch.allclose(weights, weights.flip(0), rtol=0, atol=1e-14)


@each("n", STEPS[:-4])
def test_gauss_legendre_equals_numpys(n):
    nodes, weights = gauss_legendre(n)
    expected_nodes, expected_weights = np.polynomial.legendre.leggauss(n)
    np.testing.assert_allclose(nodes, (expected_nodes + 1) / 2, rtol=0, atol=1e-13)
    np.testing.assert_allclose(weights, expected_weights / 2, rtol=0, atol=1e-13)


@each("n", [1, 2, 3, 5, 8, 16, 64])
def test_gauss_legendre_is_exact_up_to_degree_2n_minus_1_and_no_further(n):
    nodes, weights = gauss_legendre(n)
    for degree in range(2 * n):
        assert float((weights * nodes**degree).sum()) == pytest.approx(1 / (degree + 1), rel=1e-12)
    if n <= 5:  # the error for t^2n is (n!)^4 / ((2n+1) ((2n)!)^2)
        f = torch.arange(1, n + 1, dtype=torch.float64).prod()
        g = torch.arange(1, 2 * n + 1, dtype=torch.float64).prod()
        error = 1 / (2 * n + 1) - float((weights * nodes ** (2 * n)).sum())
        assert error == pytest.approx(float(f**4 / ((2 * n + 1) * g**2)), rel=1e-5)


def test_gauss_legendre_is_exact_for_legendre_polynomials_up_to_degree_2n_minus_1():
    """Unlike powers, Legendre polynomials P_k differ clearly; for k > 0, their integral over [-1, 1] is 0."""
    for n in range(1, 65):
        nodes, weights = (part.numpy() for part in RULES["gauss_legendre"](n))
        values = np.polynomial.legendre.legvander(2 * nodes - 1, 2 * n)
        integrals = weights @ values
        assert integrals[0] == pytest.approx(1, abs=1e-12)
        np.testing.assert_allclose(integrals[1 : 2 * n], 0, atol=1e-12, err_msg=str(n))
        assert abs(integrals[2 * n]) > 1e-3, f"{n} nodes can't be exact for degree {2 * n}"


@settings(max_examples=25)
@given(n=st.integers(1, 200), coefficients=st.lists(st.floats(-1, 1), min_size=1, max_size=12))
def test_gauss_legendre_integrates_random_polynomials(n, coefficients):
    coefficients = coefficients[: 2 * n]  # degree 2n - 1 at most
    nodes, weights = RULES["gauss_legendre"](n)
    integral = float((weights * sum(c * nodes**k for k, c in enumerate(coefficients))).sum())
    assert integral == pytest.approx(math.fsum(c / (k + 1) for k, c in enumerate(coefficients)), abs=1e-13)


@each("n", [*range(1, 13), 31, 32, 64])
def test_clenshaw_curtis_is_exact_up_to_degree_n(n):
    """For Chebyshev polynomials, the integral over [0, 1] of T_k(2t - 1) is 1 / (1 - k^2), or 0 for odd k."""
    nodes, weights = (part.numpy() for part in RULES["clenshaw_curtis"](n))
    integrals = weights @ np.polynomial.chebyshev.chebvander(2 * nodes - 1, n)
    expected = [0.0 if k % 2 else 1 / (1 - k * k) for k in range(n + 1)]
    np.testing.assert_allclose(integrals, expected, rtol=0, atol=1e-14)


@each("n", [1, 2, 5, 64])
def test_errors_of_the_simple_rules_on_a_square(n):
    for rule, error in ((trapezoid, 1 / 6), (midpoint, -1 / 12)):
        nodes, weights = rule(n)
        assert float((weights * nodes**2).sum()) - 1 / 3 == pytest.approx(error / n**2, rel=1e-9, abs=1e-15)


def test_the_trapezoid_rule_has_nodes_exactly_at_0_and_1():
    for n in STEPS:
        nodes, _ = trapezoid(n)
        assert (float(nodes[0]), float(nodes[-1])) == (0.0, 1.0)


def test_doubling_the_steps_keeps_every_node():
    for n in (1, 2, 4, 8, 16, 32):
        assert torch.equal(trapezoid(2 * n)[0][::2], trapezoid(n)[0])


@given(st.integers(1, 1030))
def test_every_node_is_visited_once(count):
    order = coarse_to_fine(count)
    assert sorted(order) == list(range(count))
    assert order[0] == count - 1


@given(st.integers(2, 3000), st.integers(1, 300))
def test_no_more_gaps_are_open_than_allowed(count, most):
    order = coarse_to_fine(count, most)
    assert sorted(order) == list(range(count))
    assert order[: most // 2] == coarse_to_fine(count)[: most // 2]
    inner = np.array(order)
    when = np.empty(count, dtype=int)
    when[inner] = np.arange(count)
    for now in range(0, count, 1 + count // 20):
        visited = np.flatnonzero(when <= now)
        begun = np.diff(visited) > 1
        assert begun.sum() <= most + 2 + np.ceil(np.log2(count))


def test_clenshaw_curtis_integrates_cosines_and_needs_no_matrix():
    nodes, weights = RULES["clenshaw_curtis"](50_000)  # a matrix of cosines would take 10 GB
    for frequency in (1, 7, 500):
        assert float(weights @ torch.cos(frequency * nodes)) == pytest.approx(np.sin(frequency) / frequency, abs=1e-13)


@each("levels", range(1, 9))
def test_prefixes_of_the_order_are_the_coarser_rules(levels):
    n = 2**levels
    nodes, weights = trapezoid(n)
    order = coarse_to_fine(n + 1)
    for j in range(levels + 1):
        first = torch.tensor(sorted(order[: 2**j + 1]))
        coarse_nodes, coarse_weights = trapezoid(2**j)
        assert torch.equal(nodes[first], coarse_nodes)
        share = weights[first] / weights[first].sum()
        assert torch.allclose(share, coarse_weights, rtol=0, atol=1e-15)


@given(st.integers(2, 400), st.integers(2, 400))
def test_any_prefix_of_the_order_covers_the_interval(count, take):
    """No gap is more than twice as wide as another, up to rounding of midpoints."""
    visited = sorted(coarse_to_fine(count)[: max(2, take)])
    gaps = [b - a for a, b in pairwise(visited)]
    assert max(gaps) <= 2 * min(gaps) + 2


@given(total=st.integers(1, 600), size=st.integers(1, 200), batch=st.integers(1, 40))
def test_chunks_cover_everything_once_within_the_row_limit(total, size, batch):
    plan = chunks(total, size, batch)
    assert [k for chunk in plan for k in chunk] == list(range(total))
    assert plan == chunks(total, size, batch)
    for chunk in plan:
        assert len(chunk) >= 1
        assert len(chunk) * batch <= size or len(chunk) == 1
    assert len(plan[0]) == 1


@each("size", [8, 16, 32, 64])
def test_chunks_after_a_first_one_of_one_node_end_at_the_nested_levels(size):
    ends = {chunk.stop for chunk in chunks(257, size, first=(1,))}
    assert {size * 2**j + 1 for j in range(9) if size * 2**j <= 256} | {1} <= ends


def test_later_chunks_are_as_large_as_allowed():
    assert [len(chunk) for chunk in chunks(50, 16)] == [1, 3, 16, 16, 14]
    assert [len(chunk) for chunk in chunks(65, 16, first=(1,))] == [1, 16, 16, 16, 16]


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 32), st.integers(0, 4))
def test_a_larger_total_has_the_chunks_of_a_smaller_one_except_its_last(few, many, size, spare):
    few, many = (chunks(n, size, spare=spare) for n in sorted((few, many)))
    assert few[:-1] == many[: len(few) - 1]


def test_a_small_remainder_joins_the_last_chunk_unless_the_size_was_set():
    assert [len(chunk) for chunk in chunks(50, 16, first=(1,), spare=2)] == [1, 16, 16, 17]
    assert [len(chunk) for chunk in chunks(52, 16, first=(1,), spare=2)] == [1, 16, 16, 16, 3]
    runner = Runner(Passes(nn.Identity(), torch.ones(1, 3), Score("logit", torch.tensor([0]))))
    assert max(map(len, runner.chunks(50, None, first=(1,)))) == 17
    assert max(map(len, runner.chunks(50, 16, first=(1,)))) == 16
