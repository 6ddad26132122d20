"""The contract of every registered method, including future ones: this file names none of them.

The model has all the state that running it could change: BatchNorm statistics, dropout, a counter, a lazy buffer,
gradients, frozen parameters, hooks. After success, error or cancellation, all of it must be the same, byte by byte.
"""

import contextlib
import itertools

import numpy as np
import pytest
import torch
from torch import nn
from toys import Tally, estimates, state_of, tallied

import saliency_widgets as sw
from saliency_widgets.attribution.errors import Cancelled

METHODS = sw.methods()
# The code that runs the model doesn't depend on the method, so tests of many circumstances take two typical methods:
# one of input gradients and one of a layer.
TYPICAL = [
    next(name for name, entry in METHODS.items() if not entry.params),
    next(name for name, entry in METHODS.items() if "layer" in entry.needs),
]
OTHERS = [name for name in METHODS if name not in TYPICAL]
WORK = {"n_steps": 6, "n_samples": 6, "chunk_size": 4}  # several chunks, and quick


class Trap(nn.Module):
    """The identity, which raises ``error`` from pass ``springs_at`` on, if that is set."""

    passes = tallied("passes")

    def __init__(self):
        super().__init__()
        self.tally = Tally()
        self.springs_at, self.error = None, None

    def forward(self, x):
        self.passes += 1
        if self.springs_at is not None and self.passes >= self.springs_at:
            raise self.error
        return x


class Delicate(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.traps = nn.ModuleList([Trap(), Trap(), Trap()])
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 6, 3, stride=2, padding=1, bias=False)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(6, 4)
        self.register_buffer("runs", torch.zeros((), dtype=torch.long))
        self.register_buffer("momentum", torch.zeros(6))
        self.register_buffer("cache", None)

    def forward(self, x):
        x = self.norm(self.conv(self.traps[0](x))).relu()
        if self.training:
            self.runs += 1
            self.momentum.data.mul_(0.9).add_(x.detach().mean((0, 2, 3)))  # past the version counter
            self.cache = x.detach()
        x = self.drop(nn.functional.relu_(self.conv2(self.traps[1](x))))
        return self.head(self.traps[2](x).mean((2, 3)))


def make(dtype=torch.float64, training=False):
    model = Delicate().to(dtype).train(training)
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(2, 3, 8, 8, generator=generator, dtype=torch.float64).to(dtype)
    with torch.no_grad():
        model.norm.running_mean.uniform_(-0.1, 0.1, generator=generator)
    model.conv(x).sum().backward()  # gradients that the caller is accumulating
    model.conv2.requires_grad_(False)
    model.conv.register_forward_hook(lambda *_: None)
    model.conv.register_forward_pre_hook(lambda *_: None)
    model.norm.register_full_backward_hook(lambda *_: None)
    torch.manual_seed(11)
    return model, x


def settings_of(method):
    return {param.name: WORK[param.name] for param in METHODS[method].params if param.name in WORK}


def explain(method, model, x, **more):
    return list(estimates(model, x, method, **{"target": [1, 3], **settings_of(method), **more}))


def passes_of(method, **kind):
    """Return the number of model passes of a successful run."""
    model, x = make(**kind)
    explain(method, model, x)
    return model.traps[2].passes


@contextlib.contextmanager
def unchanged(model, x):
    """Check that the block changes neither the model nor its input."""
    before, inputs = state_of(model), x.clone()
    yield
    after = state_of(model)
    for part, result in before.items():
        assert after[part] == result, part
    assert torch.equal(x, inputs)
    assert not x.requires_grad
    assert x.grad is None


@pytest.fixture(params=[False, True], ids=["eval", "train"])
def training(request):
    return request.param


@pytest.fixture(params=[torch.float64, torch.float32], ids=["float64", "float32"])
def dtype(request):
    return request.param


@pytest.mark.parametrize("method", METHODS)
def test_success_changes_nothing_and_estimates_are_valid(method, training, dtype):
    model, x = make(dtype, training)
    with unchanged(model, x):
        result = explain(method, model, x)
    assert result
    for estimate in result:
        values = estimate.values
        if estimate.layer is None:
            assert values.shape == x.shape
        else:
            assert values.ndim == 4
            assert values.shape[:2] == (2, 1)
            assert isinstance(model.get_submodule(estimate.layer), nn.Module)
        assert estimate.input_shape == x.shape
        assert values.dtype == dtype
        assert bool(torch.isfinite(values).all())
        assert not values.requires_grad
        assert not values.is_inference()
        for per_sample in (estimate.score, estimate.delta):
            assert per_sample is None or (per_sample.shape == (2,) and bool(torch.isfinite(per_sample).all()))
        if estimate.standard_error is not None:
            assert estimate.standard_error.shape == values.shape
            assert bool((estimate.standard_error >= 0).all())
        assert estimate.settings["method"] == method
    done = [estimate.done for estimate in result]
    assert done == sorted(set(done)), "work done must increase"
    assert done[0] >= 1
    assert {estimate.total for estimate in result} == {done[-1]}
    assert [estimate.complete for estimate in result] == [False] * (len(result) - 1) + [True]
    spent = [estimate.evaluations for estimate in result]
    assert spent == sorted(spent)
    assert spent[0] >= 1
    assert bool(result[-1].values.any()), "the result is all zeros, so the test proves nothing"
    assert any("training mode" in note for note in result[-1].notes) == training


@pytest.mark.parametrize(
    ("method", "ambient"),
    [
        *itertools.product(TYPICAL, [contextlib.nullcontext, torch.no_grad, torch.enable_grad]),
        *itertools.product(METHODS, [torch.inference_mode]),
    ],
)
def test_the_callers_grad_mode_neither_matters_nor_changes(method, ambient):
    model, x = make()
    expected = explain(method, model, x)[-1].values
    with unchanged(model, x), ambient():
        modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        for estimate in estimates(model, x, method, target=[1, 3], **settings_of(method)):
            assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == modes
            last = estimate.values
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == modes
    assert torch.equal(last, expected)


@pytest.mark.parametrize(
    ("method", "dtype", "training"),
    [
        *itertools.product(TYPICAL, [torch.float64, torch.float32], [False, True]),
        *itertools.product(OTHERS, [torch.float32], [True]),
    ],
)
def test_the_same_call_gives_the_same_bits(method, training, dtype):
    model, x = make(dtype, training)
    first = explain(method, model, x)
    torch.manual_seed(99)  # the caller's random state doesn't matter
    torch.rand(5)
    second = explain(method, model, x)
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.values, b.values)
        assert a.settings == b.settings


@pytest.mark.parametrize(
    ("method", "trap", "when", "training"),
    [
        *itertools.product(TYPICAL, [0, 1, 2], ["first", "second", "last"], [False, True]),
        *itertools.product(OTHERS, [1], ["first", "last"], [True]),
    ],
)
def test_an_error_inside_the_model_is_reported_and_changes_nothing(method, trap, when, training):
    passes = passes_of(method, training=training)
    model, x = make(training=training)
    culprit = model.traps[trap]
    culprit.error = RuntimeError("no more")
    culprit.springs_at = {"first": 1, "second": min(2, passes), "last": passes}[when]
    with unchanged(model, x), pytest.raises(ValueError, match=rf"layer 'traps\.{trap}' \(Trap\).*no more") as caught:
        explain(method, model, x)
    assert caught.value.__cause__ is culprit.error
    culprit.springs_at = None
    with unchanged(model, x):
        assert explain(method, model, x)[-1].complete  # the next call works


@pytest.mark.parametrize(
    ("method", "interruption", "training"),
    [
        *itertools.product(TYPICAL, [KeyboardInterrupt(), SystemExit(), Cancelled()], [False, True]),
        *itertools.product(OTHERS, [KeyboardInterrupt()], [True]),
    ],
)
def test_an_interruption_inside_the_model_is_raised_unchanged(method, interruption, training):
    passes = passes_of(method, training=training)
    for springs_at in sorted({1, 2, passes}):
        model, x = make(training=training)
        trap = model.traps[1]
        trap.error, trap.springs_at = interruption, springs_at
        with unchanged(model, x), pytest.raises(type(interruption)) as caught:
            explain(method, model, x)
        assert caught.value is interruption
        trap.springs_at = None
        expected = explain(method, make(training=training)[0], x)[-1].values
        assert torch.equal(explain(method, model, x)[-1].values, expected)


@pytest.mark.parametrize("method", METHODS)
def test_it_can_be_cancelled_anywhere_in_a_pass(method, training):
    model, x = make(training=training)
    checks = []
    before = model.traps[2].passes
    expected = explain(method, model, x, check=lambda: checks.append(1))[-1].values
    passes = model.traps[2].passes - before
    # The check is called inside the forward and backward pass, not only between passes.
    assert len(checks) > 4 * passes
    begun = []
    for turn in sorted({1, 2, len(checks), *range(1, len(checks), max(1, len(checks) // 5))}):
        count = []

        def check(turn=turn, count=count):
            count.append(1)
            if len(count) == turn:
                raise Cancelled

        before = model.traps[2].passes
        with unchanged(model, x), pytest.raises(Cancelled):
            explain(method, model, x, check=check)
        begun.append(model.traps[2].passes - before)
    assert begun == sorted(begun)
    assert begun[-1] <= passes
    assert torch.equal(explain(method, model, x)[-1].values, expected), "the cancellation checks changed the result"


@pytest.mark.parametrize("method", METHODS)
def test_closing_the_generator_between_two_estimates_changes_nothing(method, training):
    model, x = make(training=training)
    running = estimates(model, x, method, target=[1, 3], **settings_of(method))
    with unchanged(model, x):
        for _ in running:
            with unchanged(model, x):
                pass
            break
        running.close()


@pytest.mark.parametrize("method", METHODS)
def test_between_two_estimates_the_caller_can_use_the_model(method):
    """A generator that was suspended inside a context manager would impose that context on the caller."""
    model, x = make()
    with unchanged(model, x):
        for _ in estimates(model, x, method, target=[1, 3], **settings_of(method)):
            leaf = x.clone().requires_grad_()
            plain = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)[0]
            assert torch.equal(plain, torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)[0])
            with unchanged(model, x):
                pass


@pytest.mark.parametrize("method", METHODS)
def test_a_methods_description_is_complete(method):
    entry = METHODS[method]
    assert entry.name == method
    assert entry.title
    assert entry.help.endswith(".") or ":" in entry.help
    assert "Yields:" in entry.doc or entry.doc == entry.help
    names = [param.name for param in entry.params]
    assert len(set(names)) == len(names)
    for param in entry.params:
        assert param.check(param.default) == param.default
        assert param.help
    assert entry.check_params({}) == {param.name: param.default for param in entry.params}
    assert f"{method}: {entry.help}" in repr(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_the_settings_reproduce_the_result(method, dtype):
    model, x = make(dtype)
    result = sw.attribute(model, x, method=method, score="probability", contrast=[0, 1], **settings_of(method))
    again = sw.attribute(model, x, **result.settings)
    assert torch.equal(again.values, result.values)
    assert again.settings == result.settings


@pytest.mark.parametrize(
    ("method", "baseline"),
    [
        (name, baseline)
        for name, entry in METHODS.items()
        for baseline in ("black", "noise", "blur")
        if baseline == "black" or any(param.name == "baseline" for param in entry.params)
    ],
)
def test_the_callers_default_device_is_not_used(method, baseline):
    """Users may set a GPU as torch's default device; "meta", whose tensors hold no values, stands in for it here."""
    model = Delicate().eval()
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    settings = {name: value for name, value in WORK.items() if name in {p.name for p in METHODS[method].params}}
    if any(param.name == "baseline" for param in METHODS[method].params):
        settings |= {"baseline": baseline, "quadrature": "gauss_legendre"}
    expected = sw.attribute(model, image, method=method, **settings)
    with torch.device("meta"):
        result = sw.attribute(model, image, method=method, **settings)
    assert torch.equal(result.values, expected.values)
