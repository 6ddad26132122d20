"""The adaptive quadrature rule: values, nested nodes, refinement, error estimate and stopping."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from toys import Formula, conv_net, each, estimates, far, images, linear, mlp, rows

import saliency_widgets as sw
from saliency_widgets.attribution.numerics.adaptive import AdaptiveTrapezoid
from saliency_widgets.attribution.numerics.stopping import describe_stop, percent


def run(gradient, score, path: Tensor, n_steps: int) -> tuple[AdaptiveTrapezoid, list[Tensor]]:
    """Run the rule on functions of t, shape (B,), and return it with the nodes of each round."""
    rule, requested = AdaptiveTrapezoid(path, n_steps), []
    while len(t := rule.ask()):
        requested.append(t.clone())
        rule.tell([torch.stack([gradient(row) for row in t])], torch.stack([score(row) for row in t]))
    return rule, requested


def kinked(t: Tensor) -> Tensor:
    """The score, shape (B,): the integral of :func:`slopes`, summed over its 3 features."""
    return 2 * (t - 0.3).clamp(min=0) + 5 * (t - 0.77).clamp(min=0) + t


def slopes(t: Tensor) -> Tensor:
    return torch.stack([2.0 * (t > 0.3), 5.0 * (t > 0.77), torch.ones_like(t)], 1).double()


PATH = torch.ones(1, 3, dtype=torch.float64)


@given(st.integers(1, 200))
def test_values_are_the_trapezoid_rule_on_the_requested_nodes(n_steps):
    rule, requested = run(slopes, kinked, PATH, n_steps)
    nodes = torch.cat(requested)[:, 0].sort().values
    assert len(nodes) == n_steps + 1 == rule.done
    assert len(set(nodes.tolist())) == len(nodes)
    expected = torch.trapezoid(slopes(nodes), nodes, dim=0)
    assert torch.allclose(rule.values[0], expected, rtol=0, atol=1e-12)
    assert torch.allclose(rule.delta, rule.values.sum(1) - (kinked(nodes[-1:]) - kinked(nodes[:1])), rtol=0, atol=1e-12)


@given(st.integers(8, 100), st.integers(8, 100))
def test_a_larger_budget_continues_a_smaller_one(few, many):
    few, many = sorted((few, many))
    short = torch.cat(run(slopes, kinked, PATH, few)[1])
    long = torch.cat(run(slopes, kinked, PATH, many)[1])
    assert torch.equal(long[: len(short)], short)


def test_beyond_512_nodes_a_round_adds_a_64th_of_them():
    path = 5 * rows(1, 1, 3)
    rule, requested = run(lambda t: (t[:, None] * path).sin(), lambda t: -(t[:, None] * path).cos().sum(1), path, 3000)
    done = 9
    for nodes in requested[2:]:
        assert len(nodes) == min(max(8, done // 64), 3001 - done)
        done += len(nodes)
    assert rule.done == done == 3001
    assert float(rule.delta.abs().max()) < 1e-5


def test_nodes_concentrate_where_the_gradient_changes():
    _, requested = run(slopes, kinked, PATH, 64)
    nodes = torch.cat(requested)[:, 0].sort().values
    for kink in (0.3, 0.77):
        position = int(torch.searchsorted(nodes, kink))
        assert float(nodes[position] - nodes[position - 1]) < 1 / 500, "evenly spaced nodes have gaps of 1 / 64"
    rule, _ = run(slopes, kinked, PATH, 64)
    exact = torch.tensor([1.4, 1.15, 1.0], dtype=torch.float64)
    even = torch.linspace(0, 1, 65, dtype=torch.float64)
    worse = (torch.trapezoid(slopes(even), even, dim=0) - exact).abs().sum()
    assert (rule.values[0] - exact).abs().sum() < worse / 10


@each("n_steps", [1, 3, 7, 8, 9, 40])
def test_a_linear_model_is_exact_and_its_error_zero(n_steps):
    weights = rows(1, 4)
    result = sw.attribute(linear(weights), rows(2), n_steps=n_steps, score="value", baseline="zero")
    assert far(result.values, weights * rows(2)) < 1e-13
    if n_steps >= 8:
        assert bool((result.map_error < 1e-12).all())


@pytest.mark.soak
def test_the_error_estimate_is_near_the_true_error_on_a_real_model(pretrained64, cat):
    fine = sw.attribute(pretrained64, cat, target=285, n_steps=96, quadrature="trapezoid").values
    for result in estimates(pretrained64, cat, "integrated_gradients", target=285, n_steps=48, tolerance=0):
        if result.map_error is not None:
            true = float((result.values - fine).abs().sum() / fine.abs().sum())
            assert true / 2 < float(result.map_error) < 2 * true
    assert true < 0.05


def test_a_jump_of_the_score_is_refined_first_even_if_the_gradient_is_smooth():
    """The gradients of two features cancel in the score, which jumps once, just after 13/16."""

    def gradient(t):
        return torch.stack([t**2, -(t**2), torch.full_like(t, 5.0)], 1)

    def score(t):
        return 5 * t + 0.1 * (t > 13 / 16)

    rule = AdaptiveTrapezoid(torch.ones(1, 3, dtype=torch.float64), 64, per_round=1)
    for _ in range(2):
        nodes = rule.ask()
        rule.tell([torch.stack([gradient(row) for row in nodes])], torch.stack([score(row) for row in nodes]))
    assert rule.done == 9
    assert rule.ask().tolist() == [[13 / 16]]


def test_a_round_beyond_the_tolerance_restarts_the_count(monkeypatch):
    """Two rounds within the tolerance end the computation only if they are consecutive."""
    errors = iter([0.01, 0.5, 0.01, 0.01, 0.01])

    def error(rule):
        return None if rule.done <= 9 else torch.tensor([next(errors)], dtype=torch.float64)

    monkeypatch.setattr(AdaptiveTrapezoid, "error", property(error))
    running = list(estimates(conv_net(), images()[:1], "integrated_gradients", target=1, n_steps=512, tolerance=0.02))
    result = [float(estimate.map_error) for estimate in running if estimate.map_error is not None]
    assert result == [0.01, 0.5, 0.01, 0.01]


def test_two_rounds_within_the_tolerance_end_the_computation_with_a_note():
    model, x = conv_net(), images()
    result = list(estimates(model, x[:1], "integrated_gradients", target=1, n_steps=512, tolerance=0.02))
    last = result[-1]
    assert last.complete
    assert last.evaluations < 513
    errors = [float(e.map_error) for e in result if e.map_error is not None]
    assert max(errors[-2:]) <= 0.02 < max(errors[-3:])
    assert any("were enough" in note and "2.0%" in note for note in last.notes)
    exhausted = sw.attribute(model, x[:1], target=1, n_steps=16, tolerance=1e-6)
    assert exhausted.evaluations == 17
    assert any("was used up" in note for note in exhausted.notes)
    silent = sw.attribute(model, x[:1], target=1, n_steps=16, tolerance=0)
    assert torch.equal(silent.values, exhausted.values)
    assert not any("tolerance" in note for note in silent.notes)


class Jump(torch.nn.Module):
    """w . x plus another term, which has no gradient in the variants "jump", "round" and "cut"."""

    def __init__(self, variant):
        super().__init__()
        self.w, self.variant = torch.nn.Parameter(torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64)), variant

    def forward(self, x):
        return {
            "jump": lambda: torch.where(x > 0.3, x + 3, x) @ self.w,
            "round": lambda: (x + torch.round(3 * x)) @ self.w,
            "cut": lambda: (x + 3 * x.detach()) @ self.w,
            "smooth": lambda: (x + torch.sin(3 * x)) @ self.w,
            "offset": lambda: 1e5 + x @ self.w,
        }[self.variant]()[:, None]


IN = torch.tensor([[0.9, 0.5, 0.1]], dtype=torch.float64)


@each(("variant", "missing"), [("jump", 9.0 / 10.8), ("round", 7.0 / 8.8), ("cut", 3 / 4)])
@each("settings", [{}, {"n_steps": 16}, {"tolerance": 0.3}, {"quadrature": "gauss_legendre"}])
def test_a_change_of_the_score_without_gradient_is_reported_with_its_share(variant, missing, settings):
    """The map can sum to w . x = 1.8 only, while the score changes by 1.8 + 9, 1.8 + 7 and 4 * 1.8."""
    result = sw.attribute(Jump(variant).eval(), IN, score="value", baseline="zero", **settings)
    assert abs(float(result.delta)) == pytest.approx(missing / (1 - missing) * 1.8, rel=1e-9)
    (note,) = result.notes
    assert f"{missing:.1%} of the score's change is unaccounted for" in note
    assert "the values sum to 1.8, " in note
    assert "enough" not in note
    assert ("torch.where" in note) == ("quadrature" not in settings)


@each("variant", ["smooth", "offset"])
@each("dtype", [torch.float32, torch.float64])
def test_a_smooth_score_is_fully_accounted_for_despite_a_large_offset(variant, dtype):
    result = sw.attribute(Jump(variant).to(dtype).eval(), IN.to(dtype), score="value", baseline="zero")
    (note,) = result.notes
    assert "were enough" in note
    assert "unaccounted" not in note


def test_if_values_cancel_the_delta_is_compared_with_the_change_of_the_score():
    """The note blames cancellation, because this net is smooth except at its ReLUs: more steps reduce the delta."""
    settings = {"target": 0, "baseline": "zero"}
    model, x = conv_net(), images()[:1]
    result = sw.attribute(model, x, **settings)
    change = float(result.values.sum() - result.delta)
    assert float(result.map_error) < 0.05
    assert float(result.values.abs().sum()) > 50 * abs(change)
    share = abs(float(result.delta)) / abs(change)
    assert share > 0.1
    (note,) = result.notes
    assert f"{share:.1%} of the score's change is unaccounted for" in note
    assert "enough" not in note
    assert "cancel" in note
    finer = sw.attribute(model, x, tolerance=1e-4, n_steps=1000, **settings)
    assert abs(float(finer.delta)) < 0.05 * abs(change)


def test_an_exhausted_budget_is_not_reported_if_the_error_is_within_the_tolerance():
    weights = rows(1, 4)
    (note,) = sw.attribute(linear(weights).eval(), rows(2), n_steps=8, score="value", baseline="zero").notes
    assert note.startswith("All 9 gradients were taken")
    assert "was used up" not in note
    rough = sw.attribute(conv_net(), images()[:1], target=1, n_steps=9, tolerance=1e-9, baseline="zero").notes[0]
    assert "was used up" in rough
    assert " 0.0%" not in rough


def test_small_shares_are_not_rounded_to_zero():
    expected_texts = {0: "0%", 5e-5: "0.005%", 3e-9: "<0.0001%", 0.0234: "2.3%", 5.0: "500.0%", 1e9: "over 10000%"}
    assert {share: percent(share) for share in expected_texts} == expected_texts
    assert percent(float("nan")) == "unknown"
    assert "just above" in describe_stop(False, 9, "samples", "the error is", torch.tensor([0.05004]), 0.05)


def test_a_sample_stops_by_its_error_alone_regardless_of_the_batch():
    model, x = mlp(), rows(3, 5, 4)
    together = sw.attribute(model, x, target=1, n_steps=200, tolerance=0.01)
    for k in range(5):
        alone = sw.attribute(model, x[k : k + 1], target=1, n_steps=200, tolerance=0.01)
        assert far(together.values[k : k + 1], alone.values) < 1e-12
        assert torch.allclose(together.map_error[k], alone.map_error, rtol=1e-9, atol=0)


def test_values_are_not_rescaled_for_completeness():
    model = Formula(lambda x: (3 * x).sin().sum(1))
    result = sw.attribute(model, rows(2), n_steps=9, score="value", tolerance=0, baseline="zero")
    assert float(result.delta.abs().max()) > 1e-6
    missing = result.values.sum(1) - (model(rows(2)) - model(torch.zeros_like(rows(2))))[:, 0]
    assert torch.allclose(result.delta, missing, rtol=0, atol=1e-13)
