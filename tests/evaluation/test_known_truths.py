"""Evaluation checks against closed forms, identities and other libraries."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from skimage.metrics import structural_similarity
from torch import Tensor, nn
from toys import Formula, conv_net, each, images, linear, rows, runner, state_of

from saliency_widgets.attribution import Reduction, Score, get_method
from saliency_widgets.attribution.errors import Cancelled
from saliency_widgets.evaluation import randomization as randomizing
from saliency_widgets.evaluation.ablation import ablate
from saliency_widgets.evaluation.curves import Curve, curve
from saliency_widgets.evaluation.explanation import map_of
from saliency_widgets.evaluation.fills import filling, noisy_linear
from saliency_widgets.evaluation.randomization import randomization
from saliency_widgets.evaluation.ranking import by_chance, ranks_of, top
from saliency_widgets.evaluation.saturation import saturation
from saliency_widgets.evaluation.similarity import spearman, ssim
from saliency_widgets.evaluation.stability import agreement, stability
from saliency_widgets.runtime.runner import Runner


def last(estimates):
    *_, result = estimates
    return result


def map_function(method: str, **params):
    entry = get_method(method)
    params = entry.check_params(params)
    return lambda requested, seed=None: map_of(entry, params, Reduction(entry.sign), requested, seed)


# ---- deletion and insertion

WEIGHTS, X = torch.tensor([2.0, -1.0, 0.5, 3.0], dtype=torch.float64), torch.tensor([[1.0, -2.0, 4.0, 0.5]]).double()


def area(order: tuple[int, ...], parts: list[float], kind: str) -> float:
    """Return the area under the curve of a sum whose parts are removed or added one by one."""
    gone = np.concatenate([[0.0], np.cumsum([parts[k] for k in order])]) / sum(parts)
    heights = 1 - gone if kind == "deletion" else gone
    return float(np.trapezoid(heights, dx=1 / len(parts)))


@pytest.mark.parametrize("kind", ["deletion", "insertion"])
def test_areas_of_a_linear_scorer_are_exact_and_the_exact_ranking_has_the_extreme(kind):
    parts = [3.0, 0.5, 2.0, 1.0]
    weights = torch.tensor(parts, dtype=torch.float64)
    requested = runner(linear(weights, bias=7.0), torch.ones(1, 4, dtype=torch.float64))
    areas = {}
    for order in permutations(range(4)):
        values = torch.zeros(4)
        for rank, position in enumerate(order):
            values[position] = 4 - rank
        result = last(curve(requested, values, kind, fill="zero"))
        assert result.shares.tolist() == [0, 0.25, 0.5, 0.75, 1]
        assert result.area == pytest.approx(area(order, parts, kind), abs=1e-12)
        areas[order] = result.area
    exact = tuple(np.argsort(parts)[::-1])
    extreme = min if kind == "deletion" else max
    assert areas[exact] == extreme(areas.values())


def test_the_area_of_a_curve_of_three_points():
    scores = torch.tensor([1.0, 0.3, 0.0], dtype=torch.float64)
    shares = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    assert Curve("deletion", shares, scores, scores[:, None]).area == pytest.approx(0.4)
    assert Curve("insertion", shares, scores.flip(0), scores[:, None]).area == pytest.approx(0.4)


def test_a_constant_score_has_no_area():
    requested = runner(Formula(lambda x: 0 * x.sum(1) + 1), torch.ones(1, 3, dtype=torch.float64))
    assert np.isnan(last(curve(requested, torch.arange(3.0), "deletion", fill="zero")).area)


def test_running_curves_start_with_both_ends_and_become_the_whole_curve():
    requested = runner(conv_net(), images(0, 1, 3, 8, 8), 1)
    values = torch.rand(8, 8, generator=torch.Generator().manual_seed(1))
    running = list(curve(requested, values, "deletion", steps=16, fill="mean", chunk_size=4))
    assert len(running) > 3
    assert running[0].shares[0] == 0
    assert running[0].shares[-1] == 1
    whole = running[-1]
    assert whole.complete
    assert len(whole.scores) == 17
    for part in running:
        where = torch.isin(whole.shares, part.shares)
        assert torch.equal(whole.scores[where], part.scores)
    at_once = last(curve(requested, values, "deletion", steps=16, fill="mean", chunk_size=64))
    assert torch.allclose(at_once.scores, whole.scores, rtol=1e-12)


def test_both_curves_have_the_input_at_one_end_and_the_fill_at_the_other():
    model, x = conv_net(), images(0, 1, 3, 8, 8)
    requested = runner(model, x, 2)
    blank = filling(requested, "mean")(torch.ones(8, 8, dtype=torch.bool))
    with torch.no_grad():
        ends = float(model(x)[0, 2]), float(model(blank)[0, 2])
    values = torch.rand(8, 8, generator=torch.Generator().manual_seed(1))
    deleted, inserted = (last(curve(requested, values, kind, fill="mean")) for kind in ("deletion", "insertion"))
    assert [float(deleted.scores[k]) for k in (0, -1)] == pytest.approx(ends)
    assert [float(inserted.scores[k]) for k in (-1, 0)] == pytest.approx(ends)


def test_the_curve_of_another_class_is_read_from_the_same_passes():
    model, x = conv_net(), images(0, 1, 3, 8, 8)
    values = torch.rand(8, 8, generator=torch.Generator().manual_seed(1))
    result = last(curve(runner(model, x, 0), values, "insertion", fill="blur", seed=3))
    for target in range(4):
        local = last(curve(runner(model, x, target), values, "insertion", fill="blur", seed=3))
        read = result.of(Score("logit", torch.tensor([target])))
        assert torch.equal(read.scores, local.scores)


# ---- rankings and similarities


@given(st.lists(st.integers(-3, 3), min_size=3, max_size=40), st.lists(st.integers(-3, 3), min_size=40, max_size=40))
@settings(max_examples=60, deadline=None)
def test_rank_correlation_equals_scipys_also_with_ties(a, b):
    b = b[: len(a)]
    expected = np.nan if len(set(a)) == 1 or len(set(b)) == 1 else stats.spearmanr(a, b).statistic
    assert spearman(torch.tensor(a), torch.tensor(b)) == pytest.approx(expected, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("size", [(7, 7), (20, 31)])
def test_structural_similarity_equals_scikit_images(size):
    a, b = (torch.rand(size, generator=torch.Generator().manual_seed(k)) for k in (1, 2))
    b = 0.7 * a + 0.3 * b

    def scaled(values: Tensor) -> np.ndarray:
        values = values.double()
        return ((values - values.min()) / (values.max() - values.min())).numpy()

    expected = structural_similarity(scaled(a), scaled(b), data_range=1.0)
    assert ssim(a, b) == pytest.approx(expected, abs=1e-9)
    assert ssim(a, a) == pytest.approx(1)
    assert np.isnan(ssim(a, torch.ones(size)))


def test_ranks_are_a_permutation_and_ties_are_drawn_at_random():
    values = torch.tensor([[1.0, 5.0], [5.0, -2.0]])
    ranks = ranks_of(values)
    assert sorted(ranks.flatten().tolist()) == [0, 1, 2, 3]
    assert ranks[0, 0] == 2
    assert ranks[1, 1] == 3
    constant = {tuple(ranks_of(torch.zeros(6), seed).tolist()) for seed in range(20)}
    assert len(constant) > 10
    assert torch.equal(top(values, 0.5), torch.tensor([[False, True], [True, False]]))


@pytest.mark.parametrize("chance", ["moved", "scattered"])
def test_chance_maps_are_permutations_of_the_map(chance):
    values = torch.arange(35.0).view(5, 7)
    draws = [by_chance(values, k, seed=1, chance=chance) for k in range(5)]
    for result in draws:
        assert torch.equal(result.flatten().sort().values, values.flatten())
    assert len({tuple(result.flatten().tolist()) for result in draws}) == 5
    assert torch.equal(draws[2], by_chance(values, 2, seed=1, chance=chance))


# ---- fills


def test_the_fill_neighbors_solves_its_linear_system():
    torch.manual_seed(0)
    image, mask = torch.rand(1, 2, 6, 7, dtype=torch.float64), torch.rand(6, 7) < 0.5
    weights = {(dy, dx): 1 / 6 if 0 in (dy, dx) else 1 / 12 for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx}
    pixels = [tuple(p) for p in mask.nonzero().tolist()]
    for channel in range(2):
        matrix, side = np.zeros((len(pixels), len(pixels))), np.zeros(len(pixels))
        for k, (y, x) in enumerate(pixels):
            for (dy, dx), w in weights.items():
                if 0 <= y + dy < 6 and 0 <= x + dx < 7:
                    matrix[k, k] += w
                    if mask[y + dy, x + dx]:
                        matrix[k, pixels.index((y + dy, x + dx))] -= w
                    else:
                        side[k] += w * float(image[0, channel, y + dy, x + dx])
        expected = np.linalg.solve(matrix, side)
        one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
        result = noisy_linear(image, mask[None], one * 1e-9, noise=0.0)[0, channel]
        assert np.allclose(result[mask].numpy(), expected, atol=1e-8)
        assert torch.equal(result[~mask], image[0, channel][~mask])


def test_the_fill_neighbors_continues_a_ramp_and_is_the_mean_if_all_is_masked():
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(20.0), indexing="ij")
    ramp = (2 * x + y)[None, None] / 60
    hole = torch.zeros(2, 20, 20, dtype=torch.bool)
    hole[0, 5:15, 3:12], hole[1] = True, True
    result = noisy_linear(ramp, hole, torch.full((1, 1, 1, 1), 1.0), noise=0.0)
    assert float((result[0] - ramp[0]).abs().max()) < 5e-3
    assert torch.allclose(result[1], ramp.mean().expand(20, 20))
    assert float((noisy_linear(ramp, hole, torch.ones(1, 1, 1, 1))[0] - result[0]).std()) > 1e-3


@each("fill", ["mean", "blur", "noise", "zero", "neighbors"])
def test_only_masked_pixels_are_filled(fill):
    x, mask = images(0, 1, 3, 8, 8), torch.zeros(8, 8, dtype=torch.bool)
    mask[2:5, 3:7] = True
    result = filling(runner(conv_net(), x), fill, seed=1)(mask)
    assert result.shape == x.shape
    assert torch.equal(result[..., ~mask], x[..., ~mask])
    assert not torch.equal(result[..., mask], x[..., mask])


# ---- ablation


def test_ablating_a_region_of_a_linear_scorer_removes_the_sum_of_its_parts():
    x = images(0, 1, 1, 6, 6)
    weights = rows(1, 36)
    model = nn.Sequential(nn.Flatten(), linear(weights, 2.0))
    mask = torch.zeros(6, 6, dtype=torch.bool)
    mask[1:3, 2:5] = True
    result = last(ablate(runner(model, x), mask, fill="zero", draws=12, seed=4))
    assert result.change == pytest.approx(-float((weights.view(6, 6) * x[0, 0])[mask].sum()))
    assert result.share == pytest.approx(6 / 36)
    assert len(result.elsewhere) == 12
    for k, score in enumerate(result.elsewhere, 1):
        moved = by_chance(mask, k, seed=4)
        assert int(moved.sum()) == 6
        assert float(score) == pytest.approx(result.before - float((weights.view(6, 6) * x[0, 0])[moved].sum()))


def test_the_rank_of_an_ablation_is_the_p_value_of_a_permutation_test():
    result = last(ablate(runner(linear(torch.ones(4).double()), torch.ones(1, 4).double()), torch.eye(4)[0] > 0,
                        fill="zero", draws=4))  # fmt: skip
    assert result.rank == 1.0  # every feature has the same effect
    falls = torch.tensor([-0.5, -2.0, -3.0]) + result.before
    outcome = replace(result, after=result.before - 2.5, elsewhere=falls)
    assert outcome.rank == pytest.approx(2 / 4)


def test_an_empty_mask_and_one_of_another_size_are_refused():
    requested = runner(conv_net(), images(0, 1, 3, 8, 8))
    with pytest.raises(ValueError, match="it is empty"):
        last(ablate(requested, torch.zeros(8, 8, dtype=torch.bool), fill="mean"))
    with pytest.raises(ValueError, match=r"mask: expected one value for each pixel .*\(8, 8\), got \(9, 8\)"):
        last(ablate(requested, torch.ones(9, 8, dtype=torch.bool), fill="mean"))


# ---- randomization


def test_the_same_weights_give_similarity_one(monkeypatch):
    monkeypatch.setattr(randomizing, "_randomize", lambda *_: None)
    result = last(randomization(runner(conv_net(), images(0, 1, 3, 8, 8)), map_function("gradient")))
    assert result.complete
    assert all(value == pytest.approx(1, abs=1e-12) for value in (*result.similarity, *result.structure))
    assert result.reacts is False


def test_layers_are_randomized_from_the_output_on_and_the_model_is_unchanged():
    model, x = conv_net(), images(0, 1, 3, 8, 8)
    before = state_of(model)
    result = last(randomization(runner(model, x), map_function("gradient"), stages=3))
    assert result.layers == ("", "6", "2", "0")
    assert result.similarity[0] == 1
    assert min(abs(s) for s in result.similarity[1:]) < 0.9
    assert state_of(model) == before


def test_a_map_of_the_image_alone_does_not_react_to_randomization():
    def edges(requested: Runner, _seed: object = None) -> Tensor:
        return requested.inputs[0].diff(dim=2, append=requested.inputs[0, :, :, :1]).abs().sum(0)

    result = last(randomization(runner(conv_net(), images(0, 1, 3, 8, 8)), edges))
    assert result.reacts is False
    assert result.similarity[-1] == pytest.approx(1)


def test_a_constant_map_gives_no_verdict_on_randomization_and_a_red_light_on_stability():
    requested = runner(conv_net(), images(0, 1, 3, 8, 8))
    result = last(randomization(requested, lambda _call: torch.ones(8, 8)))
    assert np.isnan(result.similarity[0])
    assert result.reacts is None
    stays = last(stability(requested, lambda _call, _seed: torch.ones(8, 8), seeded_method=False))
    assert stays.light == "red"
    assert np.isnan(stays.worst)


# ---- saturation


def test_saturation_is_found_where_the_score_levels_off():
    model = Formula(lambda x: (4 * x.sum(1)).clamp(max=1))  # constant after a quarter of the path
    result = last(saturation(runner(model, torch.tensor([[1.0]]).double()), points=17))
    assert result.settled == pytest.approx(0.25)
    assert result.slope_left == 0
    assert result.saturated
    straight = last(saturation(runner(linear(torch.ones(1).double()), torch.ones(1, 1).double()), points=17))
    assert straight.settled == 1
    assert straight.slope_left == 1
    assert not straight.saturated


def test_the_path_ends_at_the_input_and_its_slopes_are_gradients():
    model, x = Formula(lambda x: (x**3).sum(1)), torch.tensor([[1.0, 2.0]]).double()
    result = last(saturation(runner(model, x), points=5))
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    assert torch.allclose(result.scores, 9 * t**3)
    assert torch.allclose(result.slopes, 3 * t**2 * (1 + 16) ** 0.5)


# ---- stability and agreement


def test_the_gradient_of_a_linear_model_is_stable():
    requested = runner(linear(WEIGHTS), X)
    result = last(stability(requested, map_function("gradient"), seeded_method=False, turns=4))
    assert result.seeds == ()
    assert result.noises == (pytest.approx(1),) * 4
    assert result.sensitivity == 0
    assert result.light == "green"


def test_the_sensitivity_of_a_square_is_the_relative_noise():
    """The gradient of sum x² is 2x, so its relative change is that of the input."""
    x = torch.tensor([[3.0, 4.0]]).double()
    result = last(stability(runner(Formula(lambda x: (x**2).sum(1)), x), map_function("gradient"), seeded_method=False,
                           radius=0.1, turns=20))  # fmt: skip
    assert 0 < result.sensitivity <= 0.1 * 1 * 2**0.5 / 5 + 1e-12
    assert result.sensitivity > 0.3 * 0.1 * 2**0.5 / 5


def test_a_method_with_a_seed_is_compared_between_seeds():
    requested = runner(conv_net(), images(0, 1, 3, 8, 8))
    rough = last(stability(requested, map_function("smoothgrad", n_samples=1, noise_level=1.0), seeded_method=True))
    fine = last(stability(requested, map_function("smoothgrad", n_samples=64, noise_level=0.05), seeded_method=True))
    assert len(rough.seeds) == 3
    assert min(fine.seeds) > max(rough.seeds)


def test_agreement_is_a_matrix_of_rank_correlations():
    maps = {name: rows(k, 5, 6) for k, name in enumerate("abc")}
    result = agreement(maps)
    assert torch.allclose(result, result.T)
    assert torch.allclose(result.diag(), torch.ones(3, dtype=torch.float64))
    flat = np.stack([values.flatten().numpy() for values in maps.values()], 1)
    assert np.allclose(result.numpy(), stats.spearmanr(flat).statistic)


# ---- all checks


@each("work", ["ablate", "curve", "randomization", "saturation", "stability"])
def test_every_check_stops_when_it_is_cancelled_and_leaves_the_model_unchanged(work):
    model, x = conv_net(), images(0, 1, 3, 8, 8)
    before = state_of(model)
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls > 20:
            raise Cancelled

    requested = replace(runner(model, x), passes=replace(runner(model, x).passes, check=check))
    values = torch.rand(8, 8, generator=torch.Generator().manual_seed(0))
    begun = {
        "ablate": lambda: ablate(requested, values > 0.5, fill="mean", draws=64),
        "curve": lambda: curve(requested, values, "deletion", steps=64, fill="mean"),
        "randomization": lambda: randomization(requested, map_function("gradient")),
        "saturation": lambda: saturation(requested, points=65, chunk_size=2),
        "stability": lambda: stability(requested, map_function("gradient"), seeded_method=False, turns=20),
    }[work]()
    with pytest.raises(Cancelled):
        list(begun)
    assert state_of(model) == before
