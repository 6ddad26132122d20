"""The recommended cell, the front and the knee of a sweep, compared with brute force."""

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
def test_the_choice_equals_that_of_brute_force(table: list[tuple[float, int]], better: str, within: float) -> None:
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
def test_the_front_has_the_cells_that_no_other_cell_beats(table: list[tuple[float, int]], better: str) -> None:
    quality, cost = [q for q, _ in table], [c for _, c in table]
    lost = losses(quality, better)  # type: ignore[arg-type]
    on_front = front(quality, cost, better)  # type: ignore[arg-type]
    for k in range(len(table)):
        if math.isnan(quality[k]):
            assert k not in on_front
            continue
        beaten = any(
            cost[j] <= cost[k] and lost[j] <= lost[k] and (cost[j], lost[j], j) < (cost[k], lost[k], k)
            for j in range(len(table))
            if not math.isnan(quality[j])
        )
        assert (k in on_front) == (not beaten)


def test_the_knee_of_a_curve_with_a_bend() -> None:
    cost = [1, 2, 4, 8, 16, 32]
    assert knee([0.0, 0.5, 0.9, 0.92, 0.94, 0.95], cost, "high") == 2
    assert knee([1.0, 0.5, 0.1, 0.08, 0.06, 0.05], cost, "low") == 2


@each(
    ("quality", "cost"),
    [
        ([0.0, 1.0], [1, 2]),  # two points
        ([0.0, 0.5, 1.0], [1, 2, 4]),  # a straight line
        ([0.0, 0.1, 1.0], [1, 2, 4]),  # a bend in the other direction
        ([0.0, 0.9, 1.0], [0, 2, 4]),  # a cost without a logarithm
        ([1.0, 0.5, 0.2], [1, 2, 4]),  # the cheapest is the best
        ([math.nan] * 3, [1, 2, 4]),
    ],
)
def test_a_curve_without_a_bend_has_no_knee(quality: list[float], cost: list[float]) -> None:
    assert knee(quality, cost, "high") is None


def test_losses_are_relative_to_the_best_quality() -> None:
    assert losses([0.8, 0.784, 0.4], "high").tolist() == pytest.approx([0, 0.02, 0.5])
    assert losses([0.1, 0.106, 0.3], "low").tolist() == pytest.approx([0, 0.06, 2])
    assert losses([0.0, 0.0, 0.1], "low").tolist() == [0, 0, math.inf]
