"""If memory runs out, passes are split and the map is the same. The models here fail for batches that are too large."""

import itertools
import weakref

import pytest
import torch
from torch import nn
from toys import conv_net, each, far, images, rows

import saliency_widgets as sw
from saliency_widgets.attribution.errors import out_of_memory
from saliency_widgets.runtime.memory import Memory
from saliency_widgets.session.compute import compute
from saliency_widgets.session.problem import Problem
from saliency_widgets.session.request import Request

METHODS = sw.methods()
SIZES = {"n_steps": 9, "n_samples": 9, "chunk_size": 12}
CPU = (
    "[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "1099511627776 bytes. Error code 12 (Cannot allocate memory)"
)
ERRORS = {
    "CUDA": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "CPU": lambda: RuntimeError(CPU),
    "MPS": lambda: RuntimeError("MPS backend out of memory (MPS allocated: 5.00 GB)"),
    "Python": MemoryError,
}


class Log:
    """The rows of passes and the tensors of failed ones, shared by the model and the copies that run."""

    def __init__(self):
        self.passes, self.failed, self.stored = [], [], []

    def __copy__(self):
        return self


class FailsInBackward(torch.autograd.Function):
    """Runs out of memory in the backward pass."""

    @staticmethod
    def forward(ctx, x, model):
        ctx.model = model
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        ctx.model.allocate(g)
        return g, None


class LimitedMemory(nn.Module):
    """A small model that runs out of memory with more than ``room`` rows."""

    def __init__(self, room, error="CUDA", where="forward", net=None):
        super().__init__()
        self.net = conv_net() if net is None else net
        self.room, self.error, self.where, self.log = room, error, where, Log()

    def allocate(self, x):
        log = self.log.failed if len(x) > self.room else self.log.passes
        log.append(len(x))
        if len(x) > self.room:
            big = x * 2
            self.log.stored.append(weakref.ref(big))
            raise ERRORS[self.error]()

    def forward(self, x, shift=None):
        assert all(ref() is None for ref in self.log.stored), "the tensors of the failed pass are still alive"
        if self.where == "forward":
            self.allocate(x)
            y = x * 1
        else:
            y = FailsInBackward.apply(x, self) if x.requires_grad else x
        return self.net(y if shift is None else y + shift)


def request(method, **about):
    settings = {param.name: SIZES[param.name] for param in METHODS[method].params if param.name in SIZES}
    return Request.of(method, settings, **about)


def last_estimate(problem, requested):
    *_, last = compute(problem, requested)
    return last


# How passes are split does not depend on the method: only typical methods are tested in all combinations.
TYPICAL = ("gradient", "integrated_gradients", "grad_cam")
OTHERS = sorted({*METHODS} - {*TYPICAL})


@pytest.mark.parametrize(
    ("method", "room", "batch"),
    [*itertools.product(TYPICAL, [1, 2, 3, 5], [1, 3]), *itertools.product(OTHERS, [2], [3])],
)
def test_split_passes_give_the_same_map_and_the_limit_is_remembered(method, room, batch):
    x, requested = images(0, batch, 3, 8, 8), request(method, target=list(range(batch)))
    expected = last_estimate(Problem(LimitedMemory(10**6), x), requested)
    model = LimitedMemory(room)
    problem = Problem(model, x)
    first = last_estimate(problem, requested)
    assert far(first.values, expected.values) < 1e-12
    assert first.settings == expected.settings
    if not model.log.failed:
        assert problem.memory.limit is None
        assert not any("Memory" in note for note in first.notes)
        return
    limit = problem.memory.limit
    assert limit is not None
    assert limit <= room < 2 * limit, "not the largest power of two that fits"
    assert limit & (limit - 1) == 0
    plural = "s" * (limit > 1)
    assert any(f"Memory ran out: {limit} row{plural} per pass" in note for note in first.notes)
    model.log.failed.clear()
    model.log.passes.clear()
    second, passes = last_estimate(problem, requested), list(model.log.passes)
    assert model.log.failed == []
    assert problem.memory.limit == limit
    assert far(second.values, expected.values) < 1e-12
    model.log.passes.clear()
    third = last_estimate(problem, requested)
    assert model.log.passes == passes
    assert torch.equal(third.values, second.values)


@pytest.mark.parametrize(("method", "room"), [*itertools.product(TYPICAL, [1, 2, 4]), *itertools.product(OTHERS, [2])])
def test_the_map_has_the_same_bits_whether_the_limit_was_just_found_or_remembered(method, room):
    """With one sample and room for a power of two, no pass that ran before the limit was found exceeded it."""
    x, requested = images(0, 1, 3, 8, 8), request(method, target=1)
    problem = Problem(LimitedMemory(room), x)
    first = last_estimate(problem, requested)
    second = last_estimate(problem, requested)
    assert torch.equal(first.values, second.values)


@each("error", ERRORS)
@each("where", ["forward", "backward"])
@pytest.mark.parametrize("method", ["gradient", "integrated_gradients", "smoothgrad"])
def test_every_kind_of_memory_error_in_either_pass_is_recognized(method, where, error):
    x, requested = images(), request(method, target=[1, 3])
    expected = last_estimate(Problem(LimitedMemory(10**6), x), requested)
    model = LimitedMemory(1, error, where)
    result = last_estimate(Problem(model, x), requested)
    assert far(result.values, expected.values) < 1e-12
    assert model.log.failed
    assert any("1 row per pass" in note for note in result.notes)


@pytest.mark.parametrize("method", METHODS)
@each("batch", [1, 2])
def test_the_memory_error_is_raised_unchanged_if_a_single_row_does_not_fit(method, batch):
    for error, kind in {"CUDA": torch.OutOfMemoryError, "CPU": RuntimeError, "Python": MemoryError}.items():
        model = LimitedMemory(0, error)
        with pytest.raises(kind) as caught:
            last_estimate(Problem(model, images(0, batch, 3, 8, 8)), request(method, target=0))
        assert out_of_memory(caught.value)
        assert "model:" not in str(caught.value)
        assert model.log.failed[-1] == 1


@each("room", [1, 2])
@pytest.mark.parametrize("method", ["gradient", "integrated_gradients", "smoothgrad", "expected_gradients", "grad_cam"])
def test_inputs_that_are_not_explained_are_split_too(method, room):
    """Each sample has a different shift: rows combined with the shift of another sample would change the map."""
    x, shift = images(0, 3, 3, 8, 8), images(1, 3, 1, 8, 8) * torch.tensor([0.0, 2.0, -3.0]).view(3, 1, 1, 1)
    requested = request(method, target=[1, 3, 0])

    def problem(room):
        return Problem(LimitedMemory(room), {"x": x, "shift": shift}, explain="x")

    expected = last_estimate(problem(10**6), requested)
    assert far(last_estimate(problem(room), requested).values, expected.values) < 1e-12


@pytest.mark.parametrize("room", [1, 2, 3])
def test_inputs_that_are_explained_together_are_split_together(room):
    x, shift = images(0, 3, 3, 8, 8), images(1, 3, 1, 8, 8)
    requested = request("integrated_gradients", target=[1, 3, 0])
    result = [last_estimate(Problem(LimitedMemory(r), {"x": x, "shift": shift}), requested) for r in (10**6, room)]
    for part in ("x", "shift"):
        assert far(result[1].part(part).values, result[0].part(part).values) < 1e-12


@each(("requested", "room", "tried"), [(8, 5, [8]), (8, 3, [8, 4]), (7, 1, [7, 4, 2]), (9, 8, [9])])
def test_the_limit_goes_down_by_powers_of_two_and_stays(requested, room, tried):
    model, x = LimitedMemory(room), images(0, 1, 3, 8, 8)
    problem = Problem(model, x)
    runner = problem.runner(sw.attribution.Score("logit", torch.tensor([1])))
    runner.passes.sharing.apart = ""  # skip the check whether copies may share a pass
    runner.gradient(x.repeat(requested, 1, 1, 1))
    assert model.log.failed == tried
    assert problem.memory.limit == 1 << ((tried[-1] - 1).bit_length() - 1)
    assert sum(model.log.passes) == requested
    assert max(model.log.passes) == problem.memory.limit
    model.room = 10**6  # larger passes are not tried again
    runner.gradient(x.repeat(requested, 1, 1, 1))
    assert max(model.log.passes) == problem.memory.limit


def test_each_problem_has_its_own_limit():
    model = LimitedMemory(1)
    problem = Problem(model, images())
    last_estimate(problem, request("gradient", target=1))
    assert problem.memory.limit == 1
    assert Problem(model, images()).memory.limit is None
    assert str(Memory()) == ""


def test_other_errors_are_not_retried():
    class Faulty(nn.Module):
        def __init__(self):
            super().__init__()
            self.log, self.net = Log(), nn.Linear(4, 3).double()

        def forward(self, x):
            self.log.passes.append(len(x))
            if len(x) > 1:
                raise RuntimeError("shape '[1, 4]' is invalid for input of size 8")
            return self.net(x)

    model = Faulty()
    with pytest.raises(ValueError, match=r"model: it raised RuntimeError.*shape '\[1, 4\]' is invalid"):
        sw.attribute(model, rows(), method="gradient", target=0)
    assert model.log.passes == [2]
