"""When passes are recorded and recordings used. Real CUDA graphs need a GPU: see benchmarks/."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from toys import conv_net, images

from saliency_widgets.attribution import Score
from saliency_widgets.runtime.passes import Passes
from saliency_widgets.runtime.relu_rules import ReLURule
from saliency_widgets.runtime.reuse.cuda_graphs import Replays
from saliency_widgets.runtime.runner import Runner


class Recorder:
    """Replaces CUDA graphs: runs the pass, and counts recordings and their uses."""

    made, used = 0, 0

    def __init__(self, run, rows) -> None:
        Recorder.made += 1
        self._run = run

    def __call__(self, rows, score):
        Recorder.used += 1
        leaf = rows.clone().requires_grad_(True)
        with torch.enable_grad():
            output = self._run(leaf)
            scores = score(output)
            return torch.autograd.grad(scores.sum(), leaf)[0], scores.detach()


class WrongGradients(Recorder):
    def __call__(self, rows, score):
        gradients, scores = super().__call__(rows, score)
        return gradients * 1.1, scores


class FailsToRecord(Recorder):
    def __init__(self, run, rows) -> None:
        super().__init__(run, rows)
        raise RuntimeError("operation not permitted when stream is capturing")


@pytest.fixture
def runner():
    Recorder.made = Recorder.used = 0
    replays = Replays()
    replays.record = Recorder
    return Runner(Passes(conv_net(), images(0, 1, 3, 8, 8), Score("logit", torch.tensor([1]))), replays=replays)


def compute_gradients(runner: Runner, count: int, rows: int = 4) -> None:
    """Compute ``count`` gradients and assert that each equals that of a pass without recordings."""
    for k in range(count):
        x = images(k, rows, 3, 8, 8)
        result = runner.gradient(x)
        expected = replace(runner, replays=None).gradient(x)
        assert all(torch.equal(a, b) for a, b in zip(result, expected, strict=True))


def test_a_shape_is_recorded_in_its_third_pass_and_the_recording_used_from_then_on(runner):
    compute_gradients(runner, 2)
    assert Recorder.made == 0
    compute_gradients(runner, 4)
    assert (Recorder.made, Recorder.used) == (1, 1 + 3)


def test_each_shape_has_its_own_recording_and_only_four_are_made(runner):
    for rows in range(1, 8):
        compute_gradients(runner, 4, rows)
    assert Recorder.made == 4


def test_another_class_uses_the_same_recording(runner):
    compute_gradients(runner, 4)
    compute_gradients(
        replace(
            runner, passes=replace(runner.passes, score=Score("probability", torch.tensor([0]), torch.tensor([2])))
        ),
        2,
    )
    assert (Recorder.made, Recorder.used) == (1, 1 + 1 + 2)


@pytest.mark.parametrize("kind", [WrongGradients, FailsToRecord])
def test_a_recording_that_fails_or_gives_other_gradients_is_not_used(runner, kind):
    runner.replays.record = kind
    compute_gradients(runner, 6)
    assert Recorder.made == 1
    assert Recorder.used <= 1


def test_passes_with_backward_rules_hooks_or_in_training_mode_use_no_recording(runner):
    compute_gradients(runner, 4)
    used = Recorder.used
    with ReLURule("guided"):
        runner.gradient(images(0, 4, 3, 8, 8))
    runner.passes.model[1].register_forward_hook(lambda *_: None)
    compute_gradients(runner, 2)
    runner.passes.model.train()
    compute_gradients(runner, 1)
    assert Recorder.used == used


def test_gradients_of_a_recording_that_are_not_finite_are_an_error(runner):
    compute_gradients(runner, 4)
    with torch.no_grad():
        runner.passes.model[6].weight[1, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        runner.gradient(images(0, 4, 3, 8, 8))
