"""``sw.ablate`` and ``sw.evaluate``: forms of arguments, errors, and known results on the pretrained model."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from toys import conv_net, each, images, linear, state_of

import saliency_widgets as sw
from saliency_widgets.attribution import Reduction, Score, get_method
from saliency_widgets.demos import Classifier, sample_image
from saliency_widgets.evaluation.curves import curve
from saliency_widgets.evaluation.explanation import map_of
from saliency_widgets.evaluation.fills import filling
from saliency_widgets.evaluation.randomization import randomization
from saliency_widgets.evaluation.ranking import by_chance
from saliency_widgets.session import Problem

NAMES = ["ant", "bee", "cat", "dog"]
KINDS = ("deletion", "insertion")


@pytest.fixture
def mask():
    result = np.zeros((8, 8), bool)
    result[2:5, 3:6] = True
    return result


@pytest.mark.parametrize("form", ["bool", "bytes", "ones", "tensor", "image", "list"])
def test_a_mask_may_come_in_any_form(mask, form):
    settings = {
        "bool": mask,
        "bytes": mask.astype(np.uint8) * 255,
        "ones": mask.astype(float),
        "tensor": torch.from_numpy(mask),
        "image": Image.fromarray(mask),
        "list": mask.tolist(),
    }[form]
    model, x = conv_net(), images(0, 1, 3, 8, 8)
    before = state_of(model)
    result = sw.ablate(model, x, settings, target=1, class_names=NAMES)
    assert state_of(model) == before
    assert torch.equal(result.mask, torch.from_numpy(mask))
    assert result.after == pytest.approx(float(model(result.inputs)[0, 1].detach()))
    assert result.image.shape == (8, 8, 3)
    assert len(result.elsewhere) == 8
    assert "14.1% removed" in repr(result)


def test_the_strongest_part_of_an_attribution_is_ablated():
    model, x = conv_net(), images(0, 1, 3, 8, 8)
    attribution = sw.attribute(model, x, target=0)
    result = sw.ablate(model, x, attribution, top=0.25, target=0, fill="mean")
    shown = torch.from_numpy(attribution.values[0].abs().amax(0).numpy())
    assert int(result.mask.sum()) == 16
    assert float(shown[result.mask].min()) >= float(shown[~result.mask].max())


def test_predictions_are_a_table_of_before_and_after(mask):
    model, x = conv_net(), images(0, 1, 3, 8, 8)
    result = sw.ablate(model, x, mask, class_names=NAMES).predictions(top=2)
    assert isinstance(result, pd.DataFrame)
    assert list(result.columns) == ["before", "after", "change"]
    assert set(result.index) <= set(NAMES)
    assert result["before"].iloc[0] == pytest.approx(float(model(x).softmax(1).max().detach()))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"mask": np.zeros((8, 8), bool)}, ValueError, "it is empty"),
        ({"mask": np.ones((9, 8), bool)}, ValueError, r"\(8, 8\), got \(9, 8\)"),
        ({"mask": np.full((8, 8), 0.3)}, ValueError, "expected booleans"),
        ({"mask": "here"}, TypeError, "mask"),
        ({"top": 0.1}, ValueError, "attribution"),
        ({"top": 7}, ValueError, "at most 1"),
        ({"fill": "gray"}, ValueError, "fill"),
        ({"fill": torch.ones(5)}, ValueError, "broadcast"),
        ({"draws": -1}, ValueError, "draws"),
        ({"target": "bee"}, ValueError, "class_names"),
        ({"inputs": images(0, 2, 3, 8, 8)}, ValueError, "one input"),
        ({"color": 1}, TypeError, "color"),
    ],
)
def test_invalid_arguments_of_ablate_are_refused(mask, change, error, message):
    arguments = {"model": conv_net(), "inputs": images(0, 1, 3, 8, 8), "mask": mask} | change
    with pytest.raises(error, match=message):
        sw.ablate(**arguments)


def test_ablating_an_attribution_requires_top(mask):
    model, x = conv_net(), images(0, 1, 3, 8, 8)
    with pytest.raises(ValueError, match=r"top=0\.05"):
        sw.ablate(model, x, sw.attribute(model, x))


def test_all_checks_of_some_methods_are_one_table():
    model, x = conv_net(), images(0, 1, 3, 8, 8)
    before = state_of(model)
    requested = ["gradient", "smoothgrad", "grad_cam"]
    result = sw.evaluate(model, x, requested, params={"n_samples": 4}, steps=8, turns=2, stages=3, progress=False)
    assert state_of(model) == before
    assert list(result.index) == requested
    assert list(result.columns) == [
        "deletion", "deletion_chance", "insertion", "insertion_chance", "randomized_half", "randomized", "seeds",
        "noises", "max_sensitivity", "settled", "slope_left", *(f"like {name}" for name in requested),
    ]  # fmt: skip
    assert np.isnan(result.loc["gradient", "seeds"])
    assert not np.isnan(result.loc["smoothgrad", "seeds"])
    assert np.allclose(np.diag(result[[f"like {name}" for name in requested]]), 1)
    again = sw.evaluate(model, x, requested, params={"n_samples": 4}, steps=8, turns=2, stages=3, progress=False)
    pd.testing.assert_frame_equal(result, again)


def test_rows_of_numbers_are_evaluated_too():
    result = sw.evaluate(linear(torch.tensor([3.0, 2.0, 1.0])), torch.ones(3), "input_x_gradient", fill="zero",
                        score="value", progress=False)  # fmt: skip
    row = result.loc["input_x_gradient"]
    assert row["deletion"] < row["deletion_chance"] + 1e-6
    assert row["insertion"] > row["insertion_chance"] - 1e-6


@each(
    ("change", "error", "message"),
    [
        ({"methods": []}, ValueError, "methods"),
        ({"methods": ["magic"]}, ValueError, "magic"),
        ({"params": {"n_stepz": 3}}, TypeError, "n_steps"),
        ({"chance": "none"}, ValueError, "chance"),
        ({"steps": 1}, ValueError, "steps"),
    ],
)
def test_invalid_arguments_of_evaluate_are_refused(change, error, message):
    arguments = {"methods": ["gradient", "integrated_gradients"], "progress": False} | change
    with pytest.raises(error, match=message):
        sw.evaluate(conv_net(), images(0, 1, 3, 8, 8), **arguments)


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
def test_a_greedy_ranking_of_the_cat_beats_random_ones(pretrained: Classifier, kind):
    """Nine blocks in the order that a greedy search finds, against the same blocks in random orders."""
    problem = Problem(pretrained.model, sample_image("chelsea"), transform=pretrained.transform)
    runner = problem.runner(Score("logit", problem.logits.argmax(1)))
    block_of = torch.arange(9).view(3, 3).repeat_interleave(75, 0).repeat_interleave(75, 1)[:224, :224]

    def without(blocks: list[int]) -> torch.Tensor:
        gone = torch.isin(block_of, torch.tensor(blocks))
        return gone if kind == "deletion" else ~gone

    order: list[int] = []
    while len(order) < 9:
        left = [block for block in range(9) if block not in order]
        masks = torch.stack([without([*order, block]) for block in left])
        scores = runner.outcomes(filling(runner, "blur")(masks))[0]
        order.append(left[int(scores.argmin() if kind == "deletion" else scores.argmax())])

    def area(order: list[int]) -> float:
        values = torch.empty(9)
        values[order] = torch.arange(9.0).flip(0)
        return list(curve(runner, values[block_of], kind, steps=9, fill="blur"))[-1].area

    drawn = [area(torch.randperm(9, generator=torch.Generator().manual_seed(k)).tolist()) for k in range(4)]
    if kind == "deletion":
        assert area(order) < min(drawn)
    else:
        assert area(order) > max(drawn)


@pytest.mark.soak
def test_grad_cam_of_the_cat_beats_the_same_map_moved_elsewhere(pretrained: Classifier):
    problem = Problem(pretrained.model, sample_image("chelsea"), transform=pretrained.transform)
    target = int(problem.logits.argmax())
    runner = problem.runner(Score("logit", torch.tensor([target])))
    shown = Reduction("positive")(
        sw.attribute(pretrained.model, sample_image("chelsea"), method="grad_cam", target=target,
                     transform=pretrained.transform).values, runner.passes.size,
    )[0]  # fmt: skip

    def area(values: torch.Tensor, kind: str) -> float:
        *_, result = curve(runner, values, kind, steps=16, fill="blur")
        return result.area

    draws = [by_chance(shown, draw) for draw in range(4)]
    assert area(shown, "deletion") < min(area(values, "deletion") for values in draws)
    assert area(shown, "insertion") > max(area(values, "insertion") for values in draws)


def test_the_gradient_reacts_to_randomization_and_guided_backprop_does_not(pretrained: Classifier):
    """Adebayo et al. 2018: Guided Backprop hardly depends on the layers near the output."""
    problem = Problem(pretrained.model, sample_image("chelsea"), transform=pretrained.transform)
    runner = problem.runner(Score("logit", problem.logits.argmax(1)))
    result = {}
    for name in ("guided_backprop", "gradient"):
        entry = get_method(name)
        explain = partial(map_of, entry, entry.check_params({}), Reduction(entry.sign))
        *_, result[name] = randomization(runner, explain, stages=4)
    assert result["guided_backprop"].reacts is False
    assert result["gradient"].reacts is True
    assert result["guided_backprop"].halfway > result["gradient"].halfway + 0.3
