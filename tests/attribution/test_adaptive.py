"""The adaptive rule: the trapezoid rule of its own nodes, nested, steered, and honest about its error."""

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
    """The rule on given functions of t, shape (B,), and what it asked for."""
    rule, requested = AdaptiveTrapezoid(path, n_steps), []
    while len(t := rule.ask()):
        requested.append(t.clone())
        rule.tell([torch.stack([gradient(row) for row in t])], torch.stack([score(row) for row in t]))
    return rule, requested


def kinked(t: Tensor) -> Tensor:
    """The integral of the gradient below, for 3 features: (B,)."""
    return 2 * (t - 0.3).clamp(min=0) + 5 * (t - 0.77).clamp(min=0) + t


def slopes(t: Tensor) -> Tensor:
    return torch.stack([2.0 * (t > 0.3), 5.0 * (t > 0.77), torch.ones_like(t)], 1).double()


PATH = torch.ones(1, 3, dtype=torch.float64)


@given(st.integers(1, 200))
def test_it_is_the_trapezoid_rule_of_the_nodes_it_asked_for(n_steps):
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


def test_beyond_512_nodes_a_round_is_a_64th_of_them():
    path = 5 * rows(1, 1, 3)
    rule, requested = run(lambda t: (t[:, None] * path).sin(), lambda t: -(t[:, None] * path).cos().sum(1), path, 3000)
    done = 9
    for nodes in requested[2:]:
        assert len(nodes) == min(max(8, done // 64), 3001 - done)
        done += len(nodes)
    assert rule.done == done == 3001
    assert float(rule.delta.abs().max()) < 1e-5


def test_it_looks_where_the_gradient_changes():
    _, requested = run(slopes, kinked, PATH, 64)
    nodes = torch.cat(requested)[:, 0].sort().values
    for kink in (0.3, 0.77):
        position = int(torch.searchsorted(nodes, kink))
        assert float(nodes[position] - nodes[position - 1]) < 1 / 500, "an even rule has gaps of 1 / 64"
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
def test_the_error_it_tells_is_near_the_true_one_on_a_real_model(pretrained64, cat):
    fine = sw.attribute(pretrained64, cat, target=285, n_steps=96, quadrature="trapezoid").values
    for result in estimates(pretrained64, cat, "integrated_gradients", target=285, n_steps=48, tolerance=0):
        if result.map_error is not None:
            true = float((result.values - fine).abs().sum() / fine.abs().sum())
            assert true / 2 < float(result.map_error) < 2 * true
    assert true < 0.05


def test_it_looks_first_where_completeness_is_missed_though_the_map_changes_evenly():
    """Two features change alike everywhere and cancel in the score, which jumps once besides: at 13/16, say."""

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


def test_a_round_beyond_the_tolerance_starts_the_count_again(monkeypatch):
    """Two rounds within it, but not running, don't end it."""
    errors = iter([0.01, 0.5, 0.01, 0.01, 0.01])

    def error(rule):
        return None if rule.done <= 9 else torch.tensor([next(errors)], dtype=torch.float64)

    monkeypatch.setattr(AdaptiveTrapezoid, "error", property(error))
    running = list(estimates(conv_net(), images()[:1], "integrated_gradients", target=1, n_steps=512, tolerance=0.02))
    result = [float(estimate.map_error) for estimate in running if estimate.map_error is not None]
    assert result == [0.01, 0.5, 0.01, 0.01]


def test_it_ends_when_the_tolerance_was_held_twice_and_says_so():
    model, x = conv_net(), images()
    result = list(estimates(model, x[:1], "integrated_gradients", target=1, n_steps=512, tolerance=0.02))
    last = result[-1]
    assert last.complete
    assert last.evaluations < 513
    errors = [float(e.map_error) for e in result if e.map_error is not None]
    assert max(errors[-2:]) <= 0.02 < max(errors[-3:])
    assert any("were enough" in note and "2.0%" in note for note in last.notes)
    describe_stop = sw.attribute(model, x[:1], target=1, n_steps=16, tolerance=1e-6)
    assert describe_stop.evaluations == 17
    assert any("was used up" in note for note in describe_stop.notes)
    silent = sw.attribute(model, x[:1], target=1, n_steps=16, tolerance=0)
    assert torch.equal(silent.values, describe_stop.values)
    assert not any("tolerance" in note for note in silent.notes)


class Jump(torch.nn.Module):
    """w . (x, or x + 3 where it is more than 0.3): the gradient sees w . x alone."""

    def __init__(self, path):
        super().__init__()
        self.w, self.path = torch.nn.Parameter(torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64)), path

    def forward(self, x):
        return {
            "jump": lambda: torch.where(x > 0.3, x + 3, x) @ self.w,
            "round": lambda: (x + torch.round(3 * x)) @ self.w,
            "cut": lambda: (x + 3 * x.detach()) @ self.w,
            "smooth": lambda: (x + torch.sin(3 * x)) @ self.w,
            "offset": lambda: 1e5 + x @ self.w,
        }[self.path]()[:, None]


IN = torch.tensor([[0.9, 0.5, 0.1]], dtype=torch.float64)


@each(("path", "missing"), [("jump", 9.0 / 10.8), ("round", 7.0 / 8.8), ("cut", 3 / 4)])
@each("value", [{}, {"n_steps": 16}, {"tolerance": 0.3}, {"quadrature": "gauss_legendre"}])
def test_what_no_gradient_accounts_for_is_said_with_its_figure(path, missing, value):
    """By hand: w . x = 1.8 is all the map can have; the score changes by 1.8 + 9, 1.8 + 7 and 4 * 1.8."""
    result = sw.attribute(Jump(path).eval(), IN, score="value", baseline="zero", **value)
    assert abs(float(result.delta)) == pytest.approx(missing / (1 - missing) * 1.8, rel=1e-9)
    (note,) = result.notes
    assert f"{missing:.1%} of the score's change is unaccounted for" in note
    assert "the values sum to 1.8, " in note
    assert "enough" not in note
    assert ("torch.where" in note) == ("quadrature" not in value)


@each("path", ["smooth", "offset"])
@each("dtype", [torch.float32, torch.float64])
def test_nothing_is_missing_of_a_smooth_score_however_large_its_offset(path, dtype):
    result = sw.attribute(Jump(path).to(dtype).eval(), IN.to(dtype), score="value", baseline="zero")
    (note,) = result.notes
    assert "were enough" in note
    assert "unaccounted" not in note


def test_where_values_cancel_the_change_counts_and_the_cause_is_another():
    """A net that is smooth but for its ReLUs: more steps do bring the delta down."""
    requested = {"target": 0, "baseline": "zero"}
    model, x = conv_net(), images()[:1]
    result = sw.attribute(model, x, **requested)
    change = float(result.values.sum() - result.delta)
    assert float(result.map_error) < 0.05
    assert float(result.values.abs().sum()) > 50 * abs(change)
    share = abs(float(result.delta)) / abs(change)
    assert share > 0.1
    (note,) = result.notes
    assert f"{share:.1%} of the score's change is unaccounted for" in note
    assert "enough" not in note
    assert "cancel" in note
    finer = sw.attribute(model, x, tolerance=1e-4, n_steps=1000, **requested)
    assert abs(float(finer.delta)) < 0.05 * abs(change)


def test_a_budget_that_ended_does_not_blame_an_error_within_the_tolerance():
    weights = rows(1, 4)
    (note,) = sw.attribute(linear(weights).eval(), rows(2), n_steps=8, score="value", baseline="zero").notes
    assert note.startswith("All 9 gradients were taken")
    assert "was used up" not in note
    rough = sw.attribute(conv_net(), images()[:1], target=1, n_steps=9, tolerance=1e-9, baseline="zero").notes[0]
    assert "was used up" in rough
    assert " 0.0%" not in rough


def test_small_shares_are_not_called_nothing():
    said = {0: "0%", 5e-5: "0.005%", 3e-9: "<0.0001%", 0.0234: "2.3%", 5.0: "500.0%", 1e9: "over 10000%"}
    assert {share: percent(share) for share in said} == said
    assert percent(float("nan")) == "unknown"
    assert "just above" in describe_stop(False, 9, "samples", "the error is", torch.tensor([0.05004]), 0.05)


def test_a_sample_ends_by_its_own_tolerance_whoever_is_beside_it():
    model, x = mlp(), rows(3, 5, 4)
    together = sw.attribute(model, x, target=1, n_steps=200, tolerance=0.01)
    for k in range(5):
        alone = sw.attribute(model, x[k : k + 1], target=1, n_steps=200, tolerance=0.01)
        assert far(together.values[k : k + 1], alone.values) < 1e-12
        assert torch.allclose(together.map_error[k], alone.map_error, rtol=1e-9, atol=0)


def test_nothing_is_rescaled_to_be_complete():
    model = Formula(lambda x: (3 * x).sin().sum(1))
    result = sw.attribute(model, rows(2), n_steps=9, score="value", tolerance=0, baseline="zero")
    assert float(result.delta.abs().max()) > 1e-6
    missing = result.values.sum(1) - (model(rows(2)) - model(torch.zeros_like(rows(2))))[:, 0]
    assert torch.allclose(result.delta, missing, rtol=0, atol=1e-13)
