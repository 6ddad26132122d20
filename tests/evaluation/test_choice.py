"""The recommendation and the knee, beside tables gone through by brute force."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import each

from saliency_widgets.evaluation.choice import cheapest, front, knee, losses

numbers = st.one_of(st.floats(-5, 5, allow_nan=False), st.just(math.nan))
tables = st.lists(st.tuples(numbers, st.integers(1, 9)), min_size=1, max_size=8)
sides = st.sampled_from(["high", "low"])


@given(tables, sides, st.sampled_from([0.0, 0.02, 0.3]))
def test_the_choice_is_that_of_brute_force(table: list[tuple[float, int]], better: str, within: float) -> None:
    expected = [(q, c, k) for k, (q, c) in enumerate(table) if not math.isnan(q)]
    result = cheapest([q for q, _ in table], [c for _, c in table], better, within)  # type: ignore[arg-type]
    if not expected:
        assert result is None
        return
    best = (max if better == "high" else min)(q for q, _, _ in expected)
    lost = [(c, abs(q - best) / abs(best) if best else math.inf if q != best else 0.0, k) for q, c, k in expected]
    good = [(c, loss, k) for c, loss, k in lost if loss <= within]
    assert result == min(good)[2]


@given(tables, sides)
def test_nothing_is_cheaper_and_better_than_what_is_on_the_front(table: list[tuple[float, int]], better: str) -> None:
    quality, cost = [q for q, _ in table], [c for _, c in table]
    lost = losses(quality, better)  # type: ignore[arg-type]
    there = front(quality, cost, better)  # type: ignore[arg-type]
    for k in range(len(table)):
        if math.isnan(quality[k]):
            assert k not in there
            continue
        beaten = any(
            cost[j] <= cost[k] and lost[j] <= lost[k] and (cost[j], lost[j], j) < (cost[k], lost[k], k)
            for j in range(len(table))
            if not math.isnan(quality[j])
        )
        assert (k in there) == (not beaten)


def test_the_knee_of_a_curve_with_one() -> None:
    cost = [1, 2, 4, 8, 16, 32]
    assert knee([0.0, 0.5, 0.9, 0.92, 0.94, 0.95], cost, "high") == 2
    assert knee([1.0, 0.5, 0.1, 0.08, 0.06, 0.05], cost, "low") == 2


@each(
    ("quality", "cost"),
    [
        ([0.0, 1.0], [1, 2]),  # two ends
        ([0.0, 0.5, 1.0], [1, 2, 4]),  # a straight line
        ([0.0, 0.1, 1.0], [1, 2, 4]),  # it bends the other way
        ([0.0, 0.9, 1.0], [0, 2, 4]),  # no logarithm
        ([1.0, 0.5, 0.2], [1, 2, 4]),  # the cheapest is the best
        ([math.nan] * 3, [1, 2, 4]),
    ],
)
def test_where_there_is_no_bend_there_is_no_knee(quality: list[float], cost: list[float]) -> None:
    assert knee(quality, cost, "high") is None


def test_losses_compare_in_one_scale() -> None:
    assert losses([0.8, 0.784, 0.4], "high").tolist() == pytest.approx([0, 0.02, 0.5])
    assert losses([0.1, 0.106, 0.3], "low").tolist() == pytest.approx([0, 0.06, 2])
    assert losses([0.0, 0.0, 0.1], "low").tolist() == [0, 0, math.inf]
