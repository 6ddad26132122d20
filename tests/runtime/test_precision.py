"""The ``precision`` argument: faster, less exact passes, whose measured error is in a note."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import torch
from torch import nn
from toys import Shared, conv_net, each, images

import saliency_widgets as sw
from saliency_widgets.api.checkup import check_up
from saliency_widgets.attribution import Score
from saliency_widgets.runtime.passes import Passes
from saliency_widgets.runtime.precision import float32_as
from saliency_widgets.runtime.runner import Runner, imprecision
from saliency_widgets.session import Cache, Event, Problem, Request, Session


def precision_settings() -> tuple:
    """Return all of torch's settings for the precision of float32 products."""
    backends = torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn
    legacy = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    return *(backend.fp32_precision for backend in backends), *legacy, torch.get_float32_matmul_precision()


@pytest.fixture
def restored_precision():
    result = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(result)


def _fail(expected: str) -> None:
    assert torch.backends.cuda.matmul.fp32_precision == expected
    assert torch.backends.cudnn.conv.fp32_precision == expected
    raise ZeroDivisionError


@pytest.mark.usefixtures("restored_precision")
@each("before", ["highest", "high", "medium"])
@each(("kind", "expected"), [("ieee", "ieee"), ("tf32", "tf32")])
def test_torchs_precision_is_set_for_the_pass_and_restored(before, kind, expected):
    torch.set_float32_matmul_precision(before)
    result = precision_settings()
    with pytest.raises(ZeroDivisionError), float32_as(kind):
        _fail(expected)
    assert precision_settings() == result


def test_torchs_precision_settings_still_inherit_after_passes():
    """A setting that was inherited from ``torch.backends.fp32_precision`` still is after passes of every precision."""
    code = """
import torch, saliency_widgets as sw
for precision in ("full", "bfloat16"):
    sw.attribute(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2)), torch.ones(1, 3, 2, 2),
                 precision=precision, target=0)
torch.backends.fp32_precision = "tf32"
assert torch.backends.cuda.matmul.fp32_precision == "tf32"
"""
    subprocess.run([sys.executable, "-c", code], check=True)


class RecordsTypes(nn.Module):
    """Records the data types of its product and of the product's gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.types = nn.Parameter(torch.ones(192, 3)), Shared()

    def forward(self, x):
        product = x.flatten(1) @ self.weight
        self.types.append(product.dtype)
        if product.requires_grad:
            product.register_hook(lambda gradient: self.types.append(gradient.dtype))
        return product.tanh()


def test_the_precision_applies_to_forward_and_backward_and_is_in_the_settings():
    model, before = RecordsTypes(), precision_settings()
    result = sw.attribute(model, images(0, 1, 3, 8, 8).float(), method="gradient", precision="bfloat16")
    assert model.types.count(torch.bfloat16) == 4, "expected forward and backward, of the map and of its error"
    assert result.values.dtype == torch.float32
    assert result.settings["precision"] == "bfloat16"
    assert precision_settings() == before
    assert not torch.is_autocast_enabled("cpu")


def test_a_note_reports_the_measured_error_of_the_gradient():
    model, x = conv_net().float(), images(0, 1, 3, 8, 8).float()
    exact = sw.attribute(model, x, method="gradient", target=1)
    rough = sw.attribute(model, x, method="gradient", target=1, precision="bfloat16")
    error = float((rough.values - exact.values).abs().sum() / exact.values.abs().sum())
    assert 1e-4 < error < 0.2
    note = next(note for note in rough.notes if "bfloat16" in note)
    assert float(re.search(r"([\d.]+)%", note)[1]) == pytest.approx(100 * error, abs=0.06)
    assert not any("bfloat16" in note for note in exact.notes)
    repeated = sw.attribute(model, x, **rough.settings)
    assert torch.equal(repeated.values, rough.values)


def test_full_precision_is_exact_and_adds_no_note():
    model, x = conv_net().float(), images(0, 1, 3, 8, 8).float()
    full = sw.attribute(model, x, target=1, precision="full")
    assert torch.equal(full.values, sw.attribute(model, x, target=1).values)
    assert not any("Computed in" in note for note in full.notes)
    runner = Runner(Passes(model, x, Score("logit", torch.tensor([1])), precision="full"))
    assert imprecision(runner) == 0


def test_a_session_gives_the_same_bits_and_measures_the_error_once():
    model, x = conv_net().float(), images(0, 1, 3, 8, 8).float()
    events: list[Event] = []
    problem = Problem(model, x, precision="bfloat16")
    session = Session(problem, events.append, executor="inline", cache=Cache())
    for method in ("gradient", "grad_cam", "smoothgrad"):
        session.submit(Request.of(method, {}, target=1))
        result = events[-1].attribution
        fresh = sw.attribute(model, x, **result.settings)
        assert torch.equal(result.values, fresh.values)
        assert result.score.dtype == fresh.score.dtype == torch.float32
        assert any("bfloat16" in note for note in result.notes)
    passes = problem.memory.passes
    session.submit(Request.of("smoothgrad", {"n_samples": 20}, target=1))
    assert problem.memory.passes == passes
    session.close()


def test_the_check_up_reports_that_bfloat16_is_slow_on_a_cpu():
    model, x = conv_net().float(), images(0, 1, 3, 8, 8).float()
    for precision, slow in ((None, False), ("bfloat16", True)):
        result = check_up(Problem(model, x, precision=precision), Request.of("gradient", {}))
        assert any("bfloat16" in finding.what and finding.severity == "slow" for finding in result) == slow


@each(
    ("settings", "error", "message"),
    [
        ({"precision": 16}, TypeError, "precision"),
        ({"precision": "half"}, ValueError, "bfloat16"),
        ({"precision": "tf32"}, ValueError, "CUDA"),
        ({"cuda_graphs": True}, ValueError, "CUDA"),
        ({"cuda_graphs": "yes"}, TypeError, "cuda_graphs"),
        ({"fold": "no"}, TypeError, "fold"),
    ],
)
def test_unsupported_settings_are_errors(settings, error, message):
    with pytest.raises(error, match=message):
        sw.attribute(conv_net(), images(0, 1, 3, 8, 8), **settings)
