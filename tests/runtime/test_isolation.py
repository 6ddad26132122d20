"""Computing a map changes no state of the model, torch, NumPy or Python: on any thread, and also if it fails."""

import contextlib
import itertools
import logging
import random
import threading
import types
import weakref
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from functools import partial, wraps

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from toys import each, images, state_of

import saliency_widgets as sw
from saliency_widgets.attribution.errors import Cancelled
from saliency_widgets.runtime.model.isolation import isolated_copy
from saliency_widgets.session.problem import Problem
from saliency_widgets.session.request import Request
from saliency_widgets.session.session import Session

METHODS = sw.methods()
SIZES = {"n_steps": 4, "n_samples": 4, "chunk_size": 4}


class ErrorPlan:
    """An error to raise at a position in a model, from its second pass on or in its backward pass."""

    def __init__(self):
        self.error, self.at = None, None
        self.passes = 0

    def __copy__(self):
        """Return itself: passes run a copy of the model, and all of them count."""
        return self

    def reached(self, position):
        if position == 0:
            self.passes += 1
        if position == self.at and (self.passes >= 2 or self.at == "backward"):
            raise self.error


class ErrorPoint(nn.Module):
    def __init__(self, plan, position):
        super().__init__()
        self.plan, self.position = plan, position

    def forward(self, x):
        self.plan.reached(self.position)
        return x


class IdentityWithErrorPoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, plan):
        ctx.plan = plan
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        ctx.plan.reached("backward")
        return g, None


class ModelWithSideEffects(nn.Module):
    """A model whose forward writes to all kinds of state, draws random numbers and calls bound methods."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.plan = ErrorPlan()
        self.error_points = nn.ModuleList(ErrorPoint(self.plan, position) for position in range(3))
        self.conv, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 5, 3, stride=2, padding=1, bias=False)
        self.drop, self.head = nn.Dropout2d(0.2), nn.Linear(5, 4)
        self.register_buffer("runs", torch.zeros((), dtype=torch.long))
        self.register_buffer("late", None)
        self.count, self.seen, self.by_name, self.shapes = 0, [], {"sums": [], "last": None}, set()
        self.stored = None
        self.activate = self.count_and_activate  # bound to this module
        self.functions = {"relu": [self.count_and_activate]}
        self.error_points[0].owner = [self]  # a reference from a child to its parent

    def count_and_activate(self, x):
        self.count += 1
        return F.relu(x)

    def noise(self, x):
        """Add random numbers from many functions, also in eval mode."""
        drawn = (
            torch.rand(x.shape, dtype=x.dtype)
            + torch.rand_like(x)
            + torch.randn_like(x)
            + torch.empty_like(x).normal_()
        )
        drawn = drawn + torch.zeros_like(x).uniform_(-1, 1) + torch.bernoulli(torch.full_like(x, 0.5))
        drawn = drawn + torch.randperm(x.shape[-1]) + torch.randint(3, x.shape) + F.dropout(torch.ones_like(x), 0.5)
        return x + 0.001 * drawn.cos()

    def forward(self, x):
        self.seen.append(x.detach().sum())
        self.by_name["sums"].append(float(x.detach().sum()))
        self.by_name["last"] = x.detach()
        self.shapes.add((*x.shape, len(self.seen)))
        self.runs += 1
        self.late = x.detach()
        self.stored = x.detach()
        self.error_points[0].owner[0].count += 1
        x = self.functions["relu"][0](self.norm(self.conv(self.error_points[0](self.noise(x)))))
        x = self.error_points[2](self.activate(self.conv2(self.error_points[1](self.drop(x))))).mean((2, 3))
        return self.head(IdentityWithErrorPoint.apply(x, self.plan) if x.requires_grad else x)


def make_model(training=False, dtype=torch.float64):
    model = ModelWithSideEffects().to(dtype).train(training)
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(2, 3, 8, 8, generator=generator, dtype=torch.float64).to(dtype)
    with torch.no_grad():
        model.norm.running_mean.uniform_(-0.1, 0.1, generator=generator)
    model.conv(x).sum().backward()  # gradients that the caller accumulates
    model.conv2.requires_grad_(False)
    model.norm.weight.requires_grad_(False)
    hook, parameter = (lambda *_: None), model.conv.weight
    model.conv.register_forward_hook(hook)
    model.conv.register_forward_hook(lambda *_, **__: None, with_kwargs=True, always_call=True)
    model.conv.register_forward_pre_hook(hook)
    model.head.register_full_backward_hook(hook)
    model.head.register_full_backward_pre_hook(hook)
    model.register_state_dict_post_hook(hook)
    model.register_state_dict_pre_hook(hook)
    model.register_load_state_dict_post_hook(hook)
    parameter.register_hook(hook)
    parameter.register_post_accumulate_grad_hook(hook)
    torch.manual_seed(11)
    return model, x


# ---- state that must not change


def snapshot(value):
    """Return a snapshot of a value and of the identity of its parts, comparable with ==."""
    if isinstance(value, torch.Tensor):
        return id(value), value.detach().contiguous().view(-1).numpy().tobytes()
    if isinstance(value, dict):
        return id(value), [(key, snapshot(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple, set)):
        return id(value), [snapshot(item) for item in value]
    return value if isinstance(value, (bool, int, float, str, type(None))) else id(value)


def numpy_random_state():
    return [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()]  # noqa: NPY002


def hooks_of(parameter):
    return [
        list((getattr(parameter, name, None) or {}).items())
        for name in ("_backward_hooks", "_post_accumulate_grad_hooks")
    ]


def full_state(model):
    """Return the state in ``toys.state_of``, and Python attributes, other random states, modes and defaults."""
    return state_of(model) | {
        "attributes": {path: snapshot(vars(module)) for path, module in model.named_modules()},
        "hooks of parameters": {name: hooks_of(p) for name, p in model.named_parameters()},
        "CUDA's random state": [s.numpy().tobytes() for s in torch.cuda.get_rng_state_all()]
        if torch.cuda.is_available()
        else None,
        "NumPy's random state": numpy_random_state(),
        "Python's random state": random.getstate(),
        "autocast": [(torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda")],
        "autocast's cache": torch.is_autocast_cache_enabled(),
        "dispatch modes": torch._C._len_torch_dispatch_stack(),
        "default device": torch.get_default_device(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "flags": (torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()),
        "saved tensors": torch._C._autograd._saved_tensors_hooks_is_enabled(),
        "multithreaded backward": torch.autograd._is_multithreading_enabled()
        if hasattr(torch.autograd, "_is_multithreading_enabled")
        else None,
    }


@contextlib.contextmanager
def unchanged(model, x):
    before, inputs = full_state(model), x.clone()
    yield
    after = full_state(model)
    for part, result in before.items():
        assert after[part] == result, part
    assert torch.equal(x, inputs)
    assert x.grad is None


def test_the_comparison_detects_a_call_of_the_model_itself():
    """Calling the model itself changes much of the compared state: the comparison can fail."""
    model, x = make_model(training=True)
    before = full_state(model)
    model(x).sum().backward()
    after = full_state(model)
    changed = {part for part in before if before[part] != after[part]}
    assert changed >= {"parameters", "buffers", "attributes", "random state"}
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert full_state(model)["autocast"] != before["autocast"]
        assert full_state(model)["gradients"] != before["gradients"]
    random.random()
    np.random.rand()  # noqa: NPY002
    assert full_state(model)["Python's random state"] != before["Python's random state"]
    assert full_state(model)["NumPy's random state"] != before["NumPy's random state"]


# ---- success, errors, cancellation and interrupts


def settings_of(method):
    return {param.name: SIZES[param.name] for param in METHODS[method].params if param.name in SIZES}


def explain(method, model, x, **more):
    return sw.attribute(model, x, method=method, **{"target": [1, 3], **settings_of(method), **more})


def on_main_thread(work):
    work()


def on_another_thread(work):
    """Run a function on another thread, and re-raise its exception on this one."""
    raised = []

    def run():
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


FAILURES = {
    "first layer fails": (0, RuntimeError("no more"), ValueError),
    "middle layer fails": (1, KeyError("no more"), ValueError),
    "last layer fails": (2, RuntimeError("no more"), ValueError),
    "backward fails": ("backward", RuntimeError("no more"), ValueError),
    "cancelled in forward": (1, Cancelled(), Cancelled),
    "cancelled in backward": ("backward", Cancelled(), Cancelled),
    "interrupted": (1, KeyboardInterrupt(), KeyboardInterrupt),
    "interrupted in backward": ("backward", KeyboardInterrupt(), KeyboardInterrupt),
    "out of memory": (1, torch.OutOfMemoryError("CUDA out of memory."), torch.OutOfMemoryError),
    "out of memory in backward": ("backward", torch.OutOfMemoryError("out of memory"), torch.OutOfMemoryError),
}


@pytest.mark.parametrize("thread", [on_main_thread, on_another_thread])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("method", METHODS)
def test_computing_a_map_changes_nothing(method, training, thread):
    model, x = make_model(training)

    def work():
        with unchanged(model, x):
            result = explain(method, model, x)
        assert bool(result.values.any())

    thread(work)


# Isolation does not depend on the method: only a gradient method and a layer method are tested in all combinations.
TYPICAL = ("gradient", "grad_cam")


@pytest.mark.parametrize(
    ("method", "failure", "training", "thread"),
    [
        *itertools.product(TYPICAL, FAILURES, [False, True], [on_main_thread, on_another_thread]),
        *itertools.product(
            sorted({*METHODS} - {*TYPICAL}), ["last layer fails", "interrupted"], [True], [on_another_thread]
        ),
    ],
)
def test_a_failing_pass_changes_nothing(method, failure, training, thread):
    at, error, result = FAILURES[failure]
    model, x = make_model(training)
    if result is torch.OutOfMemoryError:
        x = x[:1]
    model.plan.at, model.plan.error = at, error
    target = [1, 3][: len(x)]

    def work():
        with unchanged(model, x), pytest.raises(result) as caught:
            explain(method, model, x, target=target, chunk_size=1) if "chunk_size" in settings_of(method) else explain(
                method, model, x, target=target
            )
        if result is ValueError:
            assert "no more" in str(caught.value)
        else:
            assert caught.value is error

    thread(work)
    error.__traceback__ = None


@pytest.mark.parametrize("method", METHODS)
def test_the_random_numbers_of_a_model_depend_on_neither_thread_nor_global_seed(method):
    """Its random numbers come from a private generator."""
    model, x = make_model(training=True)
    expected = explain(method, model, x).values
    torch.manual_seed(1234)
    result = []
    on_another_thread(lambda: result.append(explain(method, model, x).values))
    assert torch.equal(result[0], expected)


# ---- attributes that forward writes to


class Writes(nn.Module):
    """Writes to one of its attributes in forward."""

    def __init__(self, stored, write):
        super().__init__()
        self.net, self.stored, self.write = nn.Linear(4, 3), stored, write

    def forward(self, x):
        self.write(self.stored)
        return self.net(x)


WRITTEN = {
    "list": lambda: ([1], lambda stored: stored.append(2)),
    "list in a dict": lambda: ({"a": [1]}, lambda stored: stored["a"].append(2)),
    "list in a tuple": lambda: (([1],), lambda stored: stored[0].append(2)),
    "set": lambda: ({1}, lambda stored: stored.add(2)),
    "deque": lambda: (deque([1], maxlen=3), lambda stored: stored.append(2)),
    "Counter": lambda: (Counter(), lambda stored: stored.update("a")),
    "defaultdict": lambda: (defaultdict(list), lambda stored: stored["a"].append(1)),
    "OrderedDict": lambda: (OrderedDict(a=1), lambda stored: stored.update(b=2)),
    "tensor that is not a buffer": lambda: (torch.zeros(3), lambda stored: stored.add_(1)),
    "list of tensors": lambda: ([torch.zeros(3)], lambda stored: stored[0].add_(1)),
    "dict of tensors": lambda: ({"key": torch.zeros(2, 3)}, lambda stored: stored["key"][0].fill_(1)),
    "array": lambda: (np.zeros(3), lambda stored: np.add(stored, 1, out=stored)),
}


def as_lists(value):
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return value.tolist()
    if isinstance(value, dict):
        return [(key, as_lists(item)) for key, item in value.items()]
    return [as_lists(item) for item in value] if isinstance(value, (list, tuple, set, deque)) else value


@each("kind", WRITTEN)
def test_forward_writes_to_a_copy_of_the_callers_attribute(kind):
    stored, write = WRITTEN[kind]()
    model = Writes(stored, write)
    before = as_lists(stored)
    sw.attribute(model, torch.rand(2, 4), method="gradient", target=0)
    assert model.stored is stored
    assert as_lists(stored) == before
    model(torch.rand(2, 4))
    assert as_lists(stored) != before


class Bound(nn.Module):
    """Counts its passes in a method that forward calls through a stored reference."""

    def __init__(self, store):
        super().__init__()
        self.net, self.child, self.count = nn.Linear(4, 3), nn.Identity(), 0
        self.step = store(self)

    def counted(self, x):
        self.count += 1
        return 2 * x

    def forward(self, x):
        step = self.child.callback if hasattr(self.child, "callback") else self.step
        return self.net((step[0] if isinstance(step, list) else step)(x))


def store_in_child(model):
    model.child.callback = model.counted


BOUND = {
    "method": lambda model: model.counted,
    "method in a list": lambda model: [model.counted],
    "method stored in a child": store_in_child,
    "partial": lambda model: partial(model.counted),
    "partial with its module": lambda model: partial(Bound.counted, model),
}


@each("kind", BOUND)
def test_a_stored_method_writes_to_a_copy_of_the_model(kind):
    model = Bound(BOUND[kind])
    sw.attribute(model, torch.rand(2, 4), method="gradient", target=0)
    assert model.count == 0
    model(torch.rand(2, 4))
    assert model.count == 1


def test_a_hook_that_is_a_method_writes_to_a_copy_of_the_model():
    class Hooked(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.seen, self.calls = nn.Linear(4, 3), [], 0
            self.net.register_forward_hook(self.record)
            self.net.register_full_backward_hook(self.record)
            self.net.register_forward_pre_hook(lambda *_: None)

        def record(self, _module, _value, output):
            self.seen.append(output)
            self.calls += 1

        def forward(self, x):
            return self.net(x)

    model, x = Hooked(), torch.rand(2, 4)
    sw.attribute(model, x, method="integrated_gradients", target=0, n_steps=3)
    assert model.seen == []
    assert model.calls == 0
    model(x)
    assert model.calls == 1


class Draws(nn.Module):
    """Draws random numbers in forward."""

    def __init__(self, draw):
        super().__init__()
        torch.manual_seed(0)
        self.draw, self.enter, self.head = draw, nn.Linear(4, 8), nn.Linear(8, 3)
        self.rnn = nn.LSTM(8, 8, num_layers=2, dropout=0.5, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)
        self.alpha = nn.AlphaDropout(0.5)

    def forward(self, x):
        x = self.enter(x).tanh()
        return self.head(self.draw(self, x))


def resampled(x):
    return x * torch.distributions.Normal(x.detach(), 1.0).rsample()


DRAWS = {
    "F.dropout": lambda _m, x: F.dropout(x, 0.5),
    "torch.dropout": lambda _m, x: torch.dropout(x, 0.5, True),
    "torch.dropout in place": lambda _m, x: torch.dropout_(x * 1, 0.5, True),
    "F.alpha_dropout": lambda _m, x: F.alpha_dropout(x, 0.5, training=True),
    "nn.AlphaDropout": lambda m, x: m.alpha(x),
    "F.feature_alpha_dropout": lambda _m, x: F.feature_alpha_dropout(x, 0.5, training=True),
    "dropout inside an LSTM": lambda m, x: m.rnn(x[:, None])[0][:, 0],
    "dropout inside attention": lambda m, x: m.attention(x[:, None], x[:, None], x[:, None])[0][:, 0],
    "dropout of a fused attention": lambda _m, x: F.scaled_dot_product_attention(x[None], x[None], x[None], None, 0.5)[
        0
    ],
    "F.rrelu": lambda _m, x: F.rrelu(x, training=True),
    "F.gumbel_softmax": lambda _m, x: x * F.gumbel_softmax(x),
    "torch.poisson": lambda _m, x: x + torch.poisson(x.detach().abs() * 9),
    "torch.normal of tensors": lambda _m, x: x + torch.normal(x.detach(), x.detach().abs()),
    "torch.normal of a size": lambda _m, x: x + torch.normal(0.0, 1.0, x.shape),
    "torch.randint_like": lambda _m, x: x * torch.randint_like(x, 9),
    "torch.multinomial": lambda _m, x: x * torch.multinomial(x.detach().exp(), 1),
    "Tensor.new_empty": lambda _m, x: x * x.new_empty(8).normal_(),
    "nn.init": lambda _m, x: x * nn.init.xavier_normal_(torch.empty(1, 8)),
    "a module created in forward": lambda _m, x: nn.Linear(8, 8)(x),
    "a normal distribution": lambda _m, x: resampled(x),
    "a beta distribution": lambda _m, x: x * torch.distributions.Beta(torch.full((8,), 2.0), 3.0).rsample(),
    "a categorical distribution": lambda _m, x: (
        x + torch.distributions.Categorical(logits=x.detach()).sample()[:, None]
    ),
    "out=": lambda _m, x: x * torch.randn(8, out=torch.empty(8)),
    "a permutation": lambda _m, x: x[:, torch.randperm(8)],
}


@each("thread", [on_main_thread, on_another_thread])
@each("kind", DRAWS)
def test_random_draws_of_a_model_neither_depend_on_nor_change_torchs_random_state(kind, thread):
    model, x = Draws(DRAWS[kind]), torch.rand(2, 4, generator=torch.Generator().manual_seed(1))
    result = []

    def work():
        for seed in (1, 2):
            torch.manual_seed(seed)
            with unchanged(model, x):
                result.append(sw.attribute(model, x, method="gradient", target=[0, 2]).values)

    thread(work)
    assert torch.equal(*result)
    with torch.no_grad():
        torch.manual_seed(1)
        one = model(x)
        torch.manual_seed(2)
        assert not torch.equal(model(x), one), "the model drew no random numbers"


def test_generators_that_a_model_holds_are_not_advanced():
    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.generator = nn.Linear(4, 3), torch.Generator().manual_seed(3)

        def forward(self, x):
            return self.net(x + 0.1 * torch.randn(x.shape, generator=self.generator))

    model, x = Keeps(), torch.rand(2, 4)
    before = model.generator.get_state()
    first = sw.attribute(model, x, method="input_x_gradient", target=0)
    assert torch.equal(model.generator.get_state(), before)
    assert torch.equal(sw.attribute(model, x, method="input_x_gradient", target=0).values, first.values)


# ---- objects, closures and hooks that hold state


class Cache:
    """Concatenates its inputs, as language models do with keys and values."""

    k = None

    def update(self, k):
        self.k = k.detach() if self.k is None else torch.cat([self.k, k], 1).detach()
        return self.k.sum(1)


@dataclass
class Meter:
    seen: list = field(default_factory=list)
    mean: float = 0.0

    def update(self, k):
        self.seen.append(k.detach())
        self.mean += 1
        return k.sum(1) * self.mean + sum(self.seen).sum(1)


class Slotted:
    __slots__ = ("count", "never", "seen")

    def __init__(self):
        self.count, self.seen = 0, []

    def update(self, k):
        self.count += 1
        self.seen.append(float(k.detach().sum()))
        return k.sum(1) * self.count * len(self.seen)


class Log(list):
    """A list with an attribute."""

    def __init__(self):
        super().__init__([0])
        self.calls = 0

    def update(self, k):
        self.calls += 1
        self.append(len(k))
        return k.sum(1) * self.calls * len(self)


class Memory(dict):
    def update(self, k):
        self["calls"] = self.get("calls", 0) + 1
        return k.sum(1) * self["calls"]


class Outer:
    """Holds a cache, and a reference to itself in a dict."""

    def __init__(self):
        self.inner, self.by_name = Cache(), {"me": [self]}

    def update(self, k):
        return self.by_name["me"][0].inner.update(k)


class Proxy:
    """A naive proxy: before ``cache`` is set, ``__getattr__`` recurses without end."""

    def __init__(self):
        self.cache = Cache()

    def __getattr__(self, name):
        return getattr(self.cache, name)


def update_namespace(namespace, k):
    namespace.calls += 1
    namespace.log.append(k.detach())
    return k.sum(1) * namespace.calls * len(namespace.log)


def namespace_with_state():
    namespace = types.SimpleNamespace(calls=0, log=[])
    namespace.update = partial(update_namespace, namespace)
    return namespace


class Keeps(nn.Module):
    def __init__(self, stored):
        super().__init__()
        torch.manual_seed(3)
        self.enter, self.leave, self.stored = nn.Linear(6, 6), nn.Linear(6, 3), stored

    def forward(self, x):
        return self.leave(torch.tanh(self.enter(x) + self.stored.update(self.enter(x)[:, None])))


OBJECTS = {
    "cache": Cache,
    "dataclass": Meter,
    "slots": Slotted,
    "list subclass": Log,
    "dict subclass": Memory,
    "nested": Outer,
    "proxy": Proxy,
    "namespace": namespace_with_state,
}


def contents(value, depth=0):
    """Return the contents of an object, comparable with ==."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if depth > 4 or isinstance(value, (int, float, str, type(None), partial)):
        return repr(type(value)) if depth > 4 or isinstance(value, partial) else value
    items = list(value.items()) if isinstance(value, dict) else list(value) if isinstance(value, (list, tuple)) else []
    local = {name: getattr(value, name) for name in getattr(type(value), "__slots__", ()) if hasattr(type(value), name)
           and name != "never"} | getattr(value, "__dict__", {})  # fmt: skip
    return [contents(item, depth + 1) for item in [*items, *local.items()]]


@each("kind", OBJECTS)
def test_a_pass_uses_a_copy_of_an_object_with_state(kind):
    x = torch.rand(2, 6, generator=torch.Generator().manual_seed(4))
    fresh, model = Keeps(OBJECTS[kind]()), Keeps(OBJECTS[kind]())
    (expected,) = torch.autograd.grad(fresh(leaf := x.clone().requires_grad_())[:, 0].sum(), leaf)
    before, stored = contents(model.stored), model.stored
    for _ in range(2):
        result = sw.attribute(model, x, method="gradient", target=0)
        assert float((result.values - expected).abs().max()) < 1e-6
    assert model.stored is stored
    assert contents(stored) == before
    model(x)
    assert contents(stored) != before


class Locked(Cache):
    def __init__(self):
        self.lock = threading.Lock()


class ManyValues(Cache):
    def __init__(self):
        self.many = [[i] for i in range(100)]


class Singleton(Cache):
    def __new__(cls):
        return object.__new__(cls)


class Closes(Cache):
    def __del__(self):
        pass


class Shared(Cache):
    def __copy__(self):
        return self


class Refuses(Cache):
    def __copy__(self):
        raise TypeError("there is one")


class Missing:
    pass


MISSING = Missing()
SHARED = {
    "lock": Locked,
    "too many values": ManyValues,
    "custom __new__": Singleton,
    "__del__": Closes,
    "__copy__ that returns itself": Shared,
    "__copy__ that raises": Refuses,
    "global of its module": lambda: MISSING,
    "class": lambda: Cache,
    "function": lambda: F.relu,
    "logger": lambda: logging.getLogger("somebody"),
    "plain object": object,
    "device": lambda: torch.device("cpu"),
}


@each("kind", SHARED)
def test_objects_that_are_not_small_and_plain_are_not_copied(kind):
    model = nn.Linear(2, 2)
    model.stored = stored = SHARED[kind]()
    with isolated_copy(model) as local:
        assert local.stored is stored


def small_net():
    torch.manual_seed(6)
    layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    return nn.Sequential(*layers).train()


def by_closure(net):
    original = net.forward
    net.forward = lambda z: original(z) * 2


def by_wrapping(net):
    def doubling(function):
        @wraps(function)
        def doubled(*args):
            return 2 * function(*args)

        return doubled

    net.forward = doubling(net.forward)


def by_a_bound_closure(net):
    original = net.forward
    net.forward = types.MethodType(lambda _self, z: original(z) * 2, net)


def by_default(net):
    net.forward = lambda z, original=net.forward: original(z) * 2


def by_keyword(net):
    def forward(z, *, original=net.forward):
        return original(z) * 2

    net.forward = forward


def by_compiling(net):
    net.forward = torch.compile(net.forward, backend="eager")


def by_wrapping_what_is_compiled(net):
    compiled = torch.compile(net.forward, backend="eager")
    net.forward = wraps(compiled)(lambda z: compiled(z) * 2)


def by_recursion(net):
    original = net.forward

    def forward(z, deep=2):
        return forward(z, deep - 1) if deep else 2 * original(z)

    net.forward = forward


def by_a_helper(net):
    helper = types.SimpleNamespace(run=net.forward, me=None)
    helper.me = helper
    net.forward = lambda z: helper.me.run(z) * 2


def by_global_name(net):
    """Refer to the model by a global, as in a notebook."""
    expected = {"__name__": "__main__", "original": net.forward, "net": net}
    exec("def doubled(z): return original(z) * 2\nnet.forward = lambda z: [doubled(z) for _ in '1'][0]", expected)


PATCHES = (
    *(by_closure, by_wrapping, by_a_bound_closure, by_default, by_keyword, by_compiling),
    *(by_wrapping_what_is_compiled, by_recursion, by_a_helper, by_global_name),
)


@each("patch", PATCHES)
def test_a_replaced_forward_runs_on_a_copy_of_the_model(patch):
    net, x = small_net(), torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(4))
    patch(net)
    times = 1 if patch is by_compiling else 2
    for settings in ({"method": "gradient"}, {"method": "grad_cam"}):
        with unchanged(net, x):
            result = sw.attribute(net, x, target=0, **settings)
        expected = sw.attribute(small_net(), x, target=0, **settings)
        assert float((result.values - times * expected.values).abs().max()) < 1e-5
    assert result.layer == expected.layer == "2"
    net(x)
    assert net[1].num_batches_tracked == 1


class Save:
    def __init__(self):
        self.outputs = []

    def __call__(self, _module, _inputs, output):
        self.outputs.append(output)


def test_hooks_write_to_copies_of_the_callers_objects():
    net, x, save, outputs, by_name = small_net(), torch.rand(2, 3, 8, 8), Save(), [], {}
    net[0].register_forward_hook(save)
    net[1].register_forward_hook(lambda _m, _i, output: outputs.append(output))
    net[2].register_forward_hook(lambda _m, _i, output: by_name.update(relu=output))
    net[2].register_full_backward_hook(lambda _m, _i, gradients: by_name.update(gradient=gradients))
    sw.attribute(net, x, target=0, method="integrated_gradients", n_steps=3)
    assert (save.outputs, outputs, by_name) == ([], [], {})
    net(x).sum().backward()
    assert (len(save.outputs), len(outputs), sorted(by_name)) == (1, 1, ["gradient", "relu"])


def test_functions_that_share_a_variable_share_its_copy_in_a_pass():
    """A hook writes what the forward of another layer reads."""
    net, stored, calls = small_net(), {}, 0

    def store(_module, _inputs, output):
        nonlocal calls
        calls += 1
        stored["mean"] = output.mean()

    net[0].register_forward_hook(store)
    net[4].forward = lambda z: z.flatten(1) * stored["mean"] * calls / calls
    x = torch.rand(2, 3, 8, 8)
    fresh = sw.attribute(net, x, target=0, method="gradient").values
    assert stored == {}
    (expected,) = torch.autograd.grad(net(leaf := x.clone().requires_grad_())[:, 0].sum(), leaf)
    assert float((fresh - expected).abs().max()) < 1e-5


# ---- random numbers of Python and NumPy


class Noisy(nn.Module):
    def __init__(self, draw):
        super().__init__()
        self.net, self.draw = nn.Linear(4, 3), draw

    def forward(self, x):
        return self.net(x * self.draw())


SOURCES = {
    "random.random": lambda: random.random,
    "np.random.rand": lambda: lambda: float(np.random.rand()),  # noqa: NPY002
    "random.Random": lambda: random.Random(3),
    "np.random.default_rng": lambda: np.random.default_rng(3),
}


@each("kind", SOURCES)
def test_random_numbers_of_python_and_numpy_are_reproducible(kind):
    made = SOURCES[kind]()
    model, x = Noisy(made if callable(made) else lambda: made.random()), torch.rand(2, 4)
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002
    with unchanged(model, x):
        first = sw.attribute(model, x, method="gradient", target=0).values
    random.seed(8)
    np.random.seed(8)  # noqa: NPY002
    with unchanged(model, x):
        assert torch.equal(sw.attribute(model, x, method="gradient", target=0).values, first)
    one = model(x)
    assert not torch.equal(model(x), one)


class Checkpointed(nn.Module):
    def __init__(self, p):
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.leave, self.drop = nn.Linear(4, 8), nn.Linear(8, 3), nn.Dropout(p)

    def forward(self, x):
        return self.leave(checkpoint(lambda h: self.drop(self.enter(h).tanh()), x, use_reentrant=False))


def test_random_numbers_inside_a_checkpoint_are_an_error():
    model, x = Checkpointed(0.5), torch.rand(2, 4)
    with pytest.raises(ValueError, match=r"^model: it draws random numbers .*checkpoint.*model\.eval\(\)"):
        sw.attribute(model, x, method="gradient", target=0)
    model.eval()
    result = sw.attribute(model, x, method="gradient", target=0)
    expected = torch.autograd.grad(
        model.leave(model.enter(leaf := x.clone().requires_grad_()).tanh())[:, 0].sum(), leaf
    )
    assert float((result.values - expected[0]).abs().max()) < 1e-6


def test_a_hook_may_draw_random_numbers_in_the_backward_pass():
    net, x = small_net().eval(), torch.rand(2, 3, 8, 8)
    net[2].register_full_backward_hook(lambda _m, value, _g: (value[0] * torch.rand_like(value[0]),))
    with unchanged(net, x):
        first = sw.attribute(net, x, method="gradient", target=0).values
    torch.manual_seed(77)
    assert torch.equal(sw.attribute(net, x, method="gradient", target=0).values, first)


# ---- the caller's modes and defaults


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


CONTEXTS = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast to float16": lambda: torch.autocast("cpu", torch.float16),
    "CUDA's autocast": lambda: torch.autocast("cuda", torch.float16) if torch.cuda.is_available() else torch.no_grad(),
    "float64 by default": lambda: default_dtype(torch.float64),
    "bfloat16 by default": lambda: default_dtype(torch.bfloat16),
    "anomaly detection": lambda: torch.autograd.set_detect_anomaly(True),
}


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
@pytest.mark.parametrize(
    ("method", "context"),
    [
        *itertools.product(TYPICAL, CONTEXTS),
        *itertools.product(sorted({*METHODS} - {*TYPICAL}), ["inference_mode", "autocast"]),
    ],
)
def test_a_map_has_the_same_bits_under_all_modes_and_defaults(method, context):
    model, x = plain(), torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    expected = explain(method, model, x)
    with CONTEXTS[context](), unchanged(model, x):
        result = explain(method, model, x)
    assert result.values.dtype == torch.float32
    assert torch.equal(result.values, expected.values)
    for name in ("score", "delta", "standard_error"):
        one, other = getattr(result, name), getattr(expected, name)
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other), name


@pytest.mark.parametrize(
    ("baseline", "context"),
    [
        *itertools.product(["blur", "noise"], CONTEXTS),
        *itertools.product(["black", "white", "mean", "zero"], ["inference_mode", "float64 by default"]),
    ],
)
@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
def test_baselines_are_the_same_under_all_modes_and_defaults(baseline, context):
    model, x = plain(), torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    expected = explain("integrated_gradients", model, x, baseline=baseline)
    with CONTEXTS[context]():
        result = explain("integrated_gradients", model, x, baseline=baseline)
    assert torch.equal(result.values, expected.values)


def plain():
    """Return a deterministic float32 model, whose result would change under the caller's autocast."""
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 5, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(45, 4),
    ).eval()


def inference_tensor(x):
    with torch.inference_mode():
        return x.clone()


INPUTS = {
    "inference tensor": inference_tensor,
    "requires grad": lambda x: x.clone().requires_grad_(),
    "part of a graph": lambda x: x.clone().requires_grad_() * 1,
    "a parameter": lambda x: nn.Parameter(x.clone()),
    "a view": lambda x: torch.cat([x, x])[: len(x)],
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
}


@pytest.mark.parametrize(
    ("method", "form"),
    [
        *itertools.product(TYPICAL, INPUTS),
        *itertools.product(sorted({*METHODS} - {*TYPICAL}), ["part of a graph", "channels last"]),
    ],
)
def test_inputs_of_every_form_are_not_changed(method, form):
    model, x = make_model()
    expected = explain(method, model, x).values
    value = INPUTS[form](x)
    function = value.grad_fn
    with torch.no_grad():
        before = value.clone()
    requires_grad = value.requires_grad
    result = explain(method, model, value).values
    assert float((result - expected).abs().max()) <= 1e-12 * float(expected.abs().max())
    assert value.requires_grad == requires_grad
    assert value.grad_fn is function
    assert not value.is_leaf or value.grad is None
    with torch.no_grad():
        assert torch.equal(value, before)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_two_concurrent_sessions_give_the_maps_of_sequential_calls(training):
    model, x = make_model(training)
    requests = [Request.of(method, settings_of(method), target=[1, 3]) for method in METHODS]
    expected = {request.method: explain(request.method, model, x).values for request in requests}
    with unchanged(model, x):
        for one, other in zip(requests, requests[1:] + requests[:1], strict=True):
            sessions = [Session(Problem(model, x), lambda _event: None) for _ in range(2)]
            for session, request in zip(sessions, (one, other), strict=True):
                session.submit(request)
            for session, request in zip(sessions, (one, other), strict=True):
                assert session.wait(60)
                assert session.last.state == "done", session.last.error
                assert torch.equal(session.last.attribution.values, expected[request.method])
                session.close()


class SharedMemory(nn.Module):
    """Tensors that share memory: forward writes to one and reads the other."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.register_buffer("buf", torch.ones(4, dtype=torch.float64))
        self.inner = nn.Module()
        if kind == "the same buffer in two modules":
            self.inner.register_buffer("seen", self.buf)
        elif kind == "a buffer that is a view":
            self.inner.register_buffer("seen", self.buf[1:3])
        elif kind == "an attribute that is a view":
            self.inner.seen = self.buf.view(2, 2)[0]
        else:
            self.inner.listed = [self.buf]
        self.head = nn.Linear(12, 3).double()

    def forward(self, x):
        self.buf.mul_(2)
        seen = self.inner.listed[0] if hasattr(self.inner, "listed") else self.inner.seen
        return self.head(x.flatten(1)) * seen.sum()


@each(
    "kind",
    ["the same buffer in two modules", "a buffer that is a view", "an attribute that is a view", "a buffer in a list"],
)
def test_tensors_that_share_memory_share_it_in_the_copy(kind):
    model, x = SharedMemory(kind).eval(), images(0, 1, 3, 2, 2)
    result = sw.attribute(model, x, method="gradient", target=1)
    again = sw.attribute(model, x, method="smoothgrad", target=1, noise_level=0.0, n_samples=4)
    assert torch.equal(model.buf, torch.ones_like(model.buf))
    leaf = x.clone().requires_grad_(True)
    score = model(leaf)[0, 1]
    (expected,) = torch.autograd.grad(score, leaf)
    assert torch.equal(result.score, score.detach()[None])
    assert torch.allclose(result.values, expected, rtol=1e-13, atol=0)
    assert torch.allclose(again.values, expected, rtol=1e-13, atol=0)


def test_a_buffer_that_is_a_view_of_a_fake_tensor_is_allowed():
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).double().eval(), images(0, 1, 3, 2, 2)
    expected = sw.attribute(model, x, method="gradient", target=1)
    with FakeTensorMode():
        shapes = torch.zeros(4, 4)
    model.register_buffer("shapes", shapes[:2])
    assert torch.equal(sw.attribute(model, x, method="gradient", target=1).values, expected.values)


class ReferencesItself(nn.Module):
    """Accesses itself by weak references, and replaces the data of its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.runs = nn.Parameter(torch.ones(3, 12, dtype=torch.float64)), 0
        self.__dict__.update(me=weakref.ref(self), there=weakref.proxy(self))

    def forward(self, x):
        self.me().runs += 1
        self.weight.data = torch.renorm(self.weight.data, 2, 0, 0.5)
        return x.flatten(1) @ self.weight.T * self.runs + self.there.weight.sum() * 0


@pytest.mark.parametrize("method", ["gradient", "integrated_gradients", "smoothgrad"])
def test_weak_references_and_replaced_data_do_not_reach_the_callers_model(method):
    model, x = ReferencesItself().eval(), images(0, 1, 3, 2, 2)
    sw.attribute(model, x, method=method, target=1)
    sw.checkup(model, x)
    assert model.runs == 0
    assert torch.equal(model.weight, torch.ones_like(model.weight))
