"""Where memory is short, passes are split, and the map is the same: a model here refuses batches that are too large."""

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
    """What happened, beside the model, whose stand-in runs."""

    def __init__(self):
        self.passes, self.failed, self.stored = [], [], []

    def __copy__(self):
        return self


class Late(torch.autograd.Function):
    """Runs out of memory on the way back."""

    @staticmethod
    def forward(ctx, x, model):
        ctx.model = model
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        ctx.model.allot(g)
        return g, None


class Cramped(nn.Module):
    """A small net that has room for so many rows."""

    def __init__(self, room, error="CUDA", where="forward", net=None):
        super().__init__()
        self.net = conv_net() if net is None else net
        self.room, self.error, self.where, self.log = room, error, where, Log()

    def allot(self, x):
        log = self.log.failed if len(x) > self.room else self.log.passes
        log.append(len(x))
        if len(x) > self.room:
            big = x * 2
            self.log.stored.append(weakref.ref(big))
            raise ERRORS[self.error]()

    def forward(self, x, shift=None):
        assert all(ref() is None for ref in self.log.stored), "the pass that failed still holds its tensors"
        if self.where == "forward":
            self.allot(x)
            y = x * 1
        else:
            y = Late.apply(x, self) if x.requires_grad else x
        return self.net(y if shift is None else y + shift)


def request(method, **about):
    settings = {param.name: SIZES[param.name] for param in METHODS[method].params if param.name in SIZES}
    return Request.of(method, settings, **about)


def answer(problem, requested):
    *_, last = compute(problem, requested)
    return last


# Passes are split by rows whatever the method: some in all circumstances, each in one.
TYPICAL = ("gradient", "integrated_gradients", "grad_cam")
OTHERS = sorted({*METHODS} - {*TYPICAL})


@pytest.mark.parametrize(
    ("method", "room", "batch"),
    [*itertools.product(TYPICAL, [1, 2, 3, 5], [1, 3]), *itertools.product(OTHERS, [2], [3])],
)
def test_the_map_is_the_one_with_memory_enough_and_the_next_request_knows(method, room, batch):
    x, requested = images(0, batch, 3, 8, 8), request(method, target=list(range(batch)))
    expected = answer(Problem(Cramped(10**6), x), requested)
    model = Cramped(room)
    problem = Problem(model, x)
    first = answer(problem, requested)
    assert far(first.values, expected.values) < 1e-12
    assert first.settings == expected.settings
    if not model.log.failed:
        assert problem.memory.limit is None
        assert not any("Memory" in note for note in first.notes)
        return
    limit = problem.memory.limit
    assert limit is not None
    assert limit <= room < 2 * limit, "the largest power of two that fits"
    assert limit & (limit - 1) == 0
    plural = "s" * (limit > 1)
    assert any(f"Memory ran out: {limit} row{plural} per pass" in note for note in first.notes)
    model.log.failed.clear()
    model.log.passes.clear()
    second, passes = answer(problem, requested), list(model.log.passes)
    assert model.log.failed == []
    assert problem.memory.limit == limit
    assert far(second.values, expected.values) < 1e-12
    model.log.passes.clear()
    third = answer(problem, requested)
    assert model.log.passes == passes
    assert torch.equal(third.values, second.values)


@pytest.mark.parametrize(("method", "room"), [*itertools.product(TYPICAL, [1, 2, 4]), *itertools.product(OTHERS, [2])])
def test_the_bits_are_the_same_whether_the_limit_was_just_found_or_remembered(method, room):
    """One sample and room for a power of two: no pass was larger than the limit before it was found."""
    x, requested = images(0, 1, 3, 8, 8), request(method, target=1)
    problem = Problem(Cramped(room), x)
    first = answer(problem, requested)
    second = answer(problem, requested)
    assert torch.equal(first.values, second.values)


@each("error", ERRORS)
@each("where", ["forward", "backward"])
@pytest.mark.parametrize("method", ["gradient", "integrated_gradients", "smoothgrad"])
def test_every_way_of_saying_so_on_the_way_there_and_back(method, where, error):
    x, requested = images(), request(method, target=[1, 3])
    expected = answer(Problem(Cramped(10**6), x), requested)
    model = Cramped(1, error, where)
    result = answer(Problem(model, x), requested)
    assert far(result.values, expected.values) < 1e-12
    assert model.log.failed
    assert any("1 row per pass" in note for note in result.notes)


@pytest.mark.parametrize("method", METHODS)
@each("batch", [1, 2])
def test_a_single_row_that_is_too_much_is_told_as_it_is(method, batch):
    for error, kind in {"CUDA": torch.OutOfMemoryError, "CPU": RuntimeError, "Python": MemoryError}.items():
        model = Cramped(0, error)
        with pytest.raises(kind) as caught:
            answer(Problem(model, images(0, batch, 3, 8, 8)), request(method, target=0))
        assert out_of_memory(caught.value)
        assert "model:" not in str(caught.value)
        assert model.log.failed[-1] == 1


@each("room", [1, 2])
@pytest.mark.parametrize("method", ["gradient", "integrated_gradients", "smoothgrad", "expected_gradients", "grad_cam"])
def test_what_is_held_is_split_along(method, room):
    """Each sample has a shift of its own: rows that met another's would give another map."""
    x, shift = images(0, 3, 3, 8, 8), images(1, 3, 1, 8, 8) * torch.tensor([0.0, 2.0, -3.0]).view(3, 1, 1, 1)
    requested = request(method, target=[1, 3, 0])

    def problem(room):
        return Problem(Cramped(room), {"x": x, "shift": shift}, explain="x")

    expected = answer(problem(10**6), requested)
    assert far(answer(problem(room), requested).values, expected.values) < 1e-12


@pytest.mark.parametrize("room", [1, 2, 3])
def test_inputs_that_are_explained_together_are_split_together(room):
    x, shift = images(0, 3, 3, 8, 8), images(1, 3, 1, 8, 8)
    requested = request("integrated_gradients", target=[1, 3, 0])
    result = [answer(Problem(Cramped(r), {"x": x, "shift": shift}), requested) for r in (10**6, room)]
    for part in ("x", "shift"):
        assert far(result[1].part(part).values, result[0].part(part).values) < 1e-12


@each(("requested", "room", "tried"), [(8, 5, [8]), (8, 3, [8, 4]), (7, 1, [7, 4, 2]), (9, 8, [9])])
def test_the_limit_goes_down_by_powers_of_two_and_stays(requested, room, tried):
    model, x = Cramped(room), images(0, 1, 3, 8, 8)
    problem = Problem(model, x)
    runner = problem.runner(sw.attribution.Score("logit", torch.tensor([1])))
    runner.passes.sharing.apart = ""  # without the look at whether copies may share a pass
    runner.gradient(x.repeat(requested, 1, 1, 1))
    assert model.log.failed == tried
    assert problem.memory.limit == 1 << ((tried[-1] - 1).bit_length() - 1)
    assert sum(model.log.passes) == requested
    assert max(model.log.passes) == problem.memory.limit
    model.room = 10**6  # never tried larger again
    runner.gradient(x.repeat(requested, 1, 1, 1))
    assert max(model.log.passes) == problem.memory.limit


def test_another_question_about_another_input_begins_anew():
    model = Cramped(1)
    problem = Problem(model, images())
    answer(problem, request("gradient", target=1))
    assert problem.memory.limit == 1
    assert Problem(model, images()).memory.limit is None
    assert str(Memory()) == ""


def test_what_is_no_lack_of_memory_is_no_reason_to_try_again():
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
