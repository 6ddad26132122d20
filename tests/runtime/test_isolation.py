"""Whatever happens, nobody notices that a map was computed: not the model, not torch, not NumPy, on no thread."""

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


class Plan:
    """What is to happen in a model from its second pass on, beside it: what runs is a stand-in."""

    def __init__(self):
        self.error, self.at = None, None
        self.passes = 0

    def __copy__(self):
        """Shared, as all passes count."""
        return self

    def at_place(self, position):
        if position == 0:
            self.passes += 1
        if position == self.at and (self.passes >= 2 or self.at == "backward"):
            raise self.error


class Fuse(nn.Module):
    def __init__(self, plan, position):
        super().__init__()
        self.plan, self.position = plan, position

    def forward(self, x):
        self.plan.at_place(self.position)
        return x


class Fragile(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, plan):
        ctx.plan = plan
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        ctx.plan.at_place("backward")
        return g, None


class Glass(nn.Module):
    """All that a forward can write to, draw from or be bound to."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.plan = Plan()
        self.fuses = nn.ModuleList(Fuse(self.plan, position) for position in range(3))
        self.conv, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 5, 3, stride=2, padding=1, bias=False)
        self.drop, self.head = nn.Dropout2d(0.2), nn.Linear(5, 4)
        self.register_buffer("runs", torch.zeros((), dtype=torch.long))
        self.register_buffer("late", None)
        self.count, self.seen, self.by_name, self.shapes = 0, [], {"sums": [], "last": None}, set()
        self.stored = None
        self.activate = self.count_and_activate  # bound to this very module
        self.ways = {"relu": [self.count_and_activate]}
        self.fuses[0].owner = [self]  # and a way back up

    def count_and_activate(self, x):
        self.count += 1
        return F.relu(x)

    def noise(self, x):
        """Draws in eval mode too, in many ways."""
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
        self.fuses[0].owner[0].count += 1
        x = self.ways["relu"][0](self.norm(self.conv(self.fuses[0](self.noise(x)))))
        x = self.fuses[2](self.activate(self.conv2(self.fuses[1](self.drop(x))))).mean((2, 3))
        return self.head(Fragile.apply(x, self.plan) if x.requires_grad else x)


def glass(training=False, dtype=torch.float64):
    model = Glass().to(dtype).train(training)
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(2, 3, 8, 8, generator=generator, dtype=torch.float64).to(dtype)
    with torch.no_grad():
        model.norm.running_mean.uniform_(-0.1, 0.1, generator=generator)
    model.conv(x).sum().backward()  # gradients that somebody is collecting
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


# ---- what must be as it was


def frozen(value):
    """An image of a value, comparable with ==."""
    if isinstance(value, torch.Tensor):
        return id(value), value.detach().contiguous().view(-1).numpy().tobytes()
    if isinstance(value, dict):
        return id(value), [(key, frozen(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple, set)):
        return id(value), [frozen(item) for item in value]
    return value if isinstance(value, (bool, int, float, str, type(None))) else id(value)


def frozen_numpy():
    return [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()]  # noqa: NPY002


def hooks_of(parameter):
    return [
        list((getattr(parameter, name, None) or {}).items())
        for name in ("_backward_hooks", "_post_accumulate_grad_hooks")
    ]


def everything(model):
    """More than toys.state_of looks at: Python attributes, other random numbers, modes and defaults."""
    return state_of(model) | {
        "attributes": {path: frozen(vars(module)) for path, module in model.named_modules()},
        "hooks of parameters": {name: hooks_of(p) for name, p in model.named_parameters()},
        "CUDA's random state": [s.numpy().tobytes() for s in torch.cuda.get_rng_state_all()]
        if torch.cuda.is_available()
        else None,
        "NumPy's random state": frozen_numpy(),
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
def as_found(model, x):
    before, inputs = everything(model), x.clone()
    yield
    after = everything(model)
    for part, result in before.items():
        assert after[part] == result, part
    assert torch.equal(x, inputs)
    assert x.grad is None


def test_what_is_looked_at_would_show_a_plain_call():
    """Calling the model itself changes much of it: the comparison is not blind."""
    model, x = glass(training=True)
    before = everything(model)
    model(x).sum().backward()
    after = everything(model)
    changed = {part for part in before if before[part] != after[part]}
    assert changed >= {"parameters", "buffers", "attributes", "random state"}
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert everything(model)["autocast"] != before["autocast"]
        assert everything(model)["gradients"] != before["gradients"]
    random.random()
    np.random.rand()  # noqa: NPY002
    assert everything(model)["Python's random state"] != before["Python's random state"]
    assert everything(model)["NumPy's random state"] != before["NumPy's random state"]


# ---- whatever happens


def settings_of(method):
    return {param.name: SIZES[param.name] for param in METHODS[method].params if param.name in SIZES}


def explain(method, model, x, **more):
    return sw.attribute(model, x, method=method, **{"target": [1, 3], **settings_of(method), **more})


def on_main(work):
    work()


def on_a_worker(work):
    """Elsewhere, and what is raised there is raised here."""
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
    "cancelled inside": (1, Cancelled(), Cancelled),
    "cancelled in backward": ("backward", Cancelled(), Cancelled),
    "interrupted": (1, KeyboardInterrupt(), KeyboardInterrupt),
    "interrupted in backward": ("backward", KeyboardInterrupt(), KeyboardInterrupt),
    "out of memory": (1, torch.OutOfMemoryError("CUDA out of memory."), torch.OutOfMemoryError),
    "out of memory in backward": ("backward", torch.OutOfMemoryError("out of memory"), torch.OutOfMemoryError),
}


@pytest.mark.parametrize("thread", [on_main, on_a_worker])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("method", METHODS)
def test_success(method, training, thread):
    model, x = glass(training)

    def work():
        with as_found(model, x):
            result = explain(method, model, x)
        assert bool(result.values.any())

    thread(work)


# Isolation doesn't know the method: one that takes gradients and one that cuts at a layer stand for all in products.
TYPICAL = ("gradient", "grad_cam")


@pytest.mark.parametrize(
    ("method", "failure", "training", "thread"),
    [
        *itertools.product(TYPICAL, FAILURES, [False, True], [on_main, on_a_worker]),
        *itertools.product(sorted({*METHODS} - {*TYPICAL}), ["last layer fails", "interrupted"], [True], [on_a_worker]),
    ],
)
def test_failure(method, failure, training, thread):
    at, error, result = FAILURES[failure]
    model, x = glass(training)
    if result is torch.OutOfMemoryError:
        x = x[:1]
    model.plan.at, model.plan.error = at, error
    target = [1, 3][: len(x)]

    def work():
        with as_found(model, x), pytest.raises(result) as caught:
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
def test_the_threads_see_the_same_numbers(method):
    """What the model draws comes from a generator of ours: neither thread nor global state matter."""
    model, x = glass(training=True)
    expected = explain(method, model, x).values
    torch.manual_seed(1234)
    result = []
    on_a_worker(lambda: result.append(explain(method, model, x).values))
    assert torch.equal(result[0], expected)


# ---- attributes that are written to


class Writes(nn.Module):
    """Writes to an attribute of its own, in whatever way its kind allows."""

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
    "tensor that is no buffer": lambda: (torch.zeros(3), lambda stored: stored.add_(1)),
    "list of tensors": lambda: ([torch.zeros(3)], lambda stored: stored[0].add_(1)),
    "dict of tensors": lambda: ({"key": torch.zeros(2, 3)}, lambda stored: stored["key"][0].fill_(1)),
    "array": lambda: (np.zeros(3), lambda stored: np.add(stored, 1, out=stored)),
}


def written_down(value):
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return value.tolist()
    if isinstance(value, dict):
        return [(key, written_down(item)) for key, item in value.items()]
    return [written_down(item) for item in value] if isinstance(value, (list, tuple, set, deque)) else value


@each("kind", WRITTEN)
def test_what_forward_writes_to_is_not_the_callers(kind):
    stored, write = WRITTEN[kind]()
    model = Writes(stored, write)
    before = written_down(stored)
    sw.attribute(model, torch.rand(2, 4), method="gradient", target=0)
    assert model.stored is stored
    assert written_down(stored) == before
    model(torch.rand(2, 4))
    assert written_down(stored) != before


class Bound(nn.Module):
    """Counts, through one of its own methods that is kept somewhere."""

    def __init__(self, keep):
        super().__init__()
        self.net, self.child, self.count = nn.Linear(4, 3), nn.Identity(), 0
        self.step = keep(self)

    def counted(self, x):
        self.count += 1
        return 2 * x

    def forward(self, x):
        step = self.child.callback if hasattr(self.child, "callback") else self.step
        return self.net((step[0] if isinstance(step, list) else step)(x))


def give_to_child(model):
    model.child.callback = model.counted


BOUND = {
    "method": lambda model: model.counted,
    "method in a list": lambda model: [model.counted],
    "method that a child calls": give_to_child,
    "partial": lambda model: partial(model.counted),
    "partial with its module": lambda model: partial(Bound.counted, model),
}


@each("kind", BOUND)
def test_a_method_that_is_kept_writes_to_nothing_of_the_callers(kind):
    model = Bound(BOUND[kind])
    sw.attribute(model, torch.rand(2, 4), method="gradient", target=0)
    assert model.count == 0
    model(torch.rand(2, 4))
    assert model.count == 1


def test_a_hook_that_is_a_method_writes_to_nothing_of_the_callers():
    class Hooked(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.seen, self.turns = nn.Linear(4, 3), [], 0
            self.net.register_forward_hook(self.see)
            self.net.register_full_backward_hook(self.see)
            self.net.register_forward_pre_hook(lambda *_: None)

        def see(self, _module, _value, output):
            self.seen.append(output)
            self.turns += 1

        def forward(self, x):
            return self.net(x)

    model, x = Hooked(), torch.rand(2, 4)
    sw.attribute(model, x, method="integrated_gradients", target=0, n_steps=3)
    assert model.seen == []
    assert model.turns == 0
    model(x)
    assert model.turns == 1


class Draws(nn.Module):
    """Draws on its way, in one of the ways there are."""

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
    "a module made inside": lambda _m, x: nn.Linear(8, 8)(x),
    "a normal distribution": lambda _m, x: resampled(x),
    "a beta distribution": lambda _m, x: x * torch.distributions.Beta(torch.full((8,), 2.0), 3.0).rsample(),
    "a categorical distribution": lambda _m, x: (
        x + torch.distributions.Categorical(logits=x.detach()).sample()[:, None]
    ),
    "into a tensor": lambda _m, x: x * torch.randn(8, out=torch.empty(8)),
    "a permutation": lambda _m, x: x[:, torch.randperm(8)],
}


@each("thread", [on_main, on_a_worker])
@each("kind", DRAWS)
def test_what_a_model_draws_neither_reads_nor_moves_torchs_random_state(kind, thread):
    model, x = Draws(DRAWS[kind]), torch.rand(2, 4, generator=torch.Generator().manual_seed(1))
    result = []

    def work():
        for seed in (1, 2):
            torch.manual_seed(seed)
            with as_found(model, x):
                result.append(sw.attribute(model, x, method="gradient", target=[0, 2]).values)

    thread(work)
    assert torch.equal(*result)
    with torch.no_grad():
        torch.manual_seed(1)
        one = model(x)
        torch.manual_seed(2)
        assert not torch.equal(model(x), one), "it draws nothing"


def test_generators_of_the_models_own_are_as_found():
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
    """Keeps what it was shown, as language models keep keys and values."""

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
    """A list with a number of its own."""

    def __init__(self):
        super().__init__([0])
        self.turns = 0

    def update(self, k):
        self.turns += 1
        self.append(len(k))
        return k.sum(1) * self.turns * len(self)


class Memory(dict):
    def update(self, k):
        self["turns"] = self.get("turns", 0) + 1
        return k.sum(1) * self["turns"]


class Outer:
    """Holds such an object, and is held by it."""

    def __init__(self):
        self.inner, self.by_name = Cache(), {"me": [self]}

    def update(self, k):
        return self.by_name["me"][0].inner.update(k)


class Forwards:
    """Naive, as people write it: before it has its attributes, it asks itself for them without end."""

    def __init__(self):
        self.cache = Cache()

    def __getattr__(self, name):
        return getattr(self.cache, name)


def space_update(space, k):
    space.turns += 1
    space.log.append(k.detach())
    return k.sum(1) * space.turns * len(space.log)


def in_a_space():
    space = types.SimpleNamespace(turns=0, log=[])
    space.update = partial(space_update, space)
    return space


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
    "list of its own": Log,
    "dict of its own": Memory,
    "nested": Outer,
    "proxy": Forwards,
    "namespace": in_a_space,
}


def inside(value, depth=0):
    """What is in an object, comparable with ==."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if depth > 4 or isinstance(value, (int, float, str, type(None), partial)):
        return repr(type(value)) if depth > 4 or isinstance(value, partial) else value
    items = list(value.items()) if isinstance(value, dict) else list(value) if isinstance(value, (list, tuple)) else []
    local = {name: getattr(value, name) for name in getattr(type(value), "__slots__", ()) if hasattr(type(value), name)
           and name != "never"} | getattr(value, "__dict__", {})  # fmt: skip
    return [inside(item, depth + 1) for item in [*items, *local.items()]]


@each("kind", OBJECTS)
def test_an_object_that_keeps_state_is_the_passes_own(kind):
    x = torch.rand(2, 6, generator=torch.Generator().manual_seed(4))
    fresh, model = Keeps(OBJECTS[kind]()), Keeps(OBJECTS[kind]())
    (expected,) = torch.autograd.grad(fresh(leaf := x.clone().requires_grad_())[:, 0].sum(), leaf)
    before, stored = inside(model.stored), model.stored
    for _ in range(2):
        result = sw.attribute(model, x, method="gradient", target=0)
        assert float((result.values - expected).abs().max()) < 1e-6
    assert model.stored is stored
    assert inside(stored) == before
    model(x)
    assert inside(stored) != before


class Locked(Cache):
    def __init__(self):
        self.lock = threading.Lock()


class Owning(Cache):
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
HANDED_ON = {
    "lock": Locked,
    "many things": Owning,
    "its own way of being made": Singleton,
    "something to close": Closes,
    "shared by its own account": Shared,
    "not to be copied": Refuses,
    "known by name": lambda: MISSING,
    "class": lambda: Cache,
    "function": lambda: F.relu,
    "logger": lambda: logging.getLogger("somebody"),
    "plain object": object,
    "device": lambda: torch.device("cpu"),
}


@each("kind", HANDED_ON)
def test_what_is_neither_small_nor_plain_is_handed_on_as_it_is(kind):
    model = nn.Linear(2, 2)
    model.stored = stored = HANDED_ON[kind]()
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
    """As in a notebook."""
    expected = {"__name__": "__main__", "original": net.forward, "net": net}
    exec("def doubled(z): return original(z) * 2\nnet.forward = lambda z: [doubled(z) for _ in '1'][0]", expected)


PATCHES = (
    *(by_closure, by_wrapping, by_a_bound_closure, by_default, by_keyword, by_compiling),
    *(by_wrapping_what_is_compiled, by_recursion, by_a_helper, by_global_name),
)


@each("patch", PATCHES)
def test_a_forward_that_was_replaced_runs_nothing_of_the_callers(patch):
    net, x = small_net(), torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(4))
    patch(net)
    times = 1 if patch is by_compiling else 2
    for settings in ({"method": "gradient"}, {"method": "grad_cam"}):
        with as_found(net, x):
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


def test_hooks_of_the_callers_write_to_nothing_of_the_callers():
    net, x, save, outputs, by_name = small_net(), torch.rand(2, 3, 8, 8), Save(), [], {}
    net[0].register_forward_hook(save)
    net[1].register_forward_hook(lambda _m, _i, output: outputs.append(output))
    net[2].register_forward_hook(lambda _m, _i, output: by_name.update(relu=output))
    net[2].register_full_backward_hook(lambda _m, _i, gradients: by_name.update(gradient=gradients))
    sw.attribute(net, x, target=0, method="integrated_gradients", n_steps=3)
    assert (save.outputs, outputs, by_name) == ([], [], {})
    net(x).sum().backward()
    assert (len(save.outputs), len(outputs), sorted(by_name)) == (1, 1, ["gradient", "relu"])


def test_functions_that_share_a_variable_share_it_in_a_pass():
    """A hook writes what the forward of another layer reads."""
    net, stored, turns = small_net(), {}, 0

    def keep(_module, _inputs, output):
        nonlocal turns
        turns += 1
        stored["mean"] = output.mean()

    net[0].register_forward_hook(keep)
    net[4].forward = lambda z: z.flatten(1) * stored["mean"] * turns / turns
    x = torch.rand(2, 3, 8, 8)
    fresh = sw.attribute(net, x, target=0, method="gradient").values
    assert stored == {}
    (expected,) = torch.autograd.grad(net(leaf := x.clone().requires_grad_())[:, 0].sum(), leaf)
    assert float((fresh - expected).abs().max()) < 1e-5


# ---- numbers that are drawn elsewhere


class Noisy(nn.Module):
    def __init__(self, draw):
        super().__init__()
        self.net, self.draw = nn.Linear(4, 3), draw

    def forward(self, x):
        return self.net(x * self.draw())


ELSEWHERE = {
    "random": lambda: random.random,
    "NumPy": lambda: lambda: float(np.random.rand()),  # noqa: NPY002
    "a generator of Python's": lambda: random.Random(3),
    "a generator of NumPy's": lambda: np.random.default_rng(3),
}


@each("kind", ELSEWHERE)
def test_numbers_that_python_and_numpy_draw_repeat(kind):
    made = ELSEWHERE[kind]()
    model, x = Noisy(made if callable(made) else lambda: made.random()), torch.rand(2, 4)
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002
    with as_found(model, x):
        first = sw.attribute(model, x, method="gradient", target=0).values
    random.seed(8)
    np.random.seed(8)  # noqa: NPY002
    with as_found(model, x):
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


def test_what_is_drawn_again_in_the_backward_pass_is_told():
    model, x = Checkpointed(0.5), torch.rand(2, 4)
    with pytest.raises(ValueError, match=r"^model: it draws random numbers .*checkpoint.*model\.eval\(\)"):
        sw.attribute(model, x, method="gradient", target=0)
    model.eval()
    result = sw.attribute(model, x, method="gradient", target=0)
    expected = torch.autograd.grad(
        model.leave(model.enter(leaf := x.clone().requires_grad_()).tanh())[:, 0].sum(), leaf
    )
    assert float((result.values - expected[0]).abs().max()) < 1e-6


def test_a_hook_may_draw_in_the_backward_pass():
    net, x = small_net().eval(), torch.rand(2, 3, 8, 8)
    net[2].register_full_backward_hook(lambda _m, value, _g: (value[0] * torch.rand_like(value[0]),))
    with as_found(net, x):
        first = sw.attribute(net, x, method="gradient", target=0).values
    torch.manual_seed(77)
    assert torch.equal(sw.attribute(net, x, method="gradient", target=0).values, first)


# ---- the caller's surroundings


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


SURROUNDINGS = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast to float16": lambda: torch.autocast("cpu", torch.float16),
    "CUDA's autocast": lambda: torch.autocast("cuda", torch.float16) if torch.cuda.is_available() else torch.no_grad(),
    "float64 by default": lambda: default_dtype(torch.float64),
    "bfloat16 by default": lambda: default_dtype(torch.bfloat16),
    "anomalies": lambda: torch.autograd.set_detect_anomaly(True),
}


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
@pytest.mark.parametrize(
    ("method", "around"),
    [
        *itertools.product(TYPICAL, SURROUNDINGS),
        *itertools.product(sorted({*METHODS} - {*TYPICAL}), ["inference_mode", "autocast"]),
    ],
)
def test_the_same_bits_in_all_surroundings(method, around):
    model, x = plain(), torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    expected = explain(method, model, x)
    with SURROUNDINGS[around](), as_found(model, x):
        result = explain(method, model, x)
    assert result.values.dtype == torch.float32
    assert torch.equal(result.values, expected.values)
    for name in ("score", "delta", "standard_error"):
        one, other = getattr(result, name), getattr(expected, name)
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other), name


@pytest.mark.parametrize(
    ("baseline", "around"),
    [
        *itertools.product(["blur", "noise"], SURROUNDINGS),
        *itertools.product(["black", "white", "mean", "zero"], ["inference_mode", "float64 by default"]),
    ],
)
@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
def test_the_same_baselines_in_all_surroundings(baseline, around):
    model, x = plain(), torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    expected = explain("integrated_gradients", model, x, baseline=baseline)
    with SURROUNDINGS[around]():
        result = explain("integrated_gradients", model, x, baseline=baseline)
    assert torch.equal(result.values, expected.values)


def plain():
    """A net in float32 without noise of its own, which a caller's autocast would disturb."""
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
def test_inputs_of_every_form_are_only_read(method, form):
    model, x = glass()
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
def test_two_sessions_at_once_give_what_one_after_the_other_gives(training):
    model, x = glass(training)
    requests = [Request.of(method, settings_of(method), target=[1, 3]) for method in METHODS]
    expected = {request.method: explain(request.method, model, x).values for request in requests}
    with as_found(model, x):
        for one, other in zip(requests, requests[1:] + requests[:1], strict=True):
            sessions = [Session(Problem(model, x), lambda _event: None) for _ in range(2)]
            for session, request in zip(sessions, (one, other), strict=True):
                session.submit(request)
            for session, request in zip(sessions, (one, other), strict=True):
                assert session.wait(60)
                assert session.last.state == "done", session.last.error
                assert torch.equal(session.last.attribution.values, expected[request.method])
                session.close()


class Tied(nn.Module):
    """Buffers that lie in one memory: what is written to one is read from the other."""

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
def test_what_lies_in_one_memory_does_so_in_the_stand_in(kind):
    model, x = Tied(kind).eval(), images(0, 1, 3, 2, 2)
    result = sw.attribute(model, x, method="gradient", target=1)
    again = sw.attribute(model, x, method="smoothgrad", target=1, noise_level=0.0, n_samples=4)
    assert torch.equal(model.buf, torch.ones_like(model.buf))
    leaf = x.clone().requires_grad_(True)
    score = model(leaf)[0, 1]
    (expected,) = torch.autograd.grad(score, leaf)
    assert torch.equal(result.score, score.detach()[None])
    assert torch.allclose(result.values, expected, rtol=1e-13, atol=0)
    assert torch.allclose(again.values, expected, rtol=1e-13, atol=0)


def test_a_part_of_a_buffer_without_numbers_is_no_obstacle():
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).double().eval(), images(0, 1, 3, 2, 2)
    expected = sw.attribute(model, x, method="gradient", target=1)
    with FakeTensorMode():
        shapes = torch.zeros(4, 4)
    model.register_buffer("shapes", shapes[:2])
    assert torch.equal(sw.attribute(model, x, method="gradient", target=1).values, expected.values)


class Knowing(nn.Module):
    """Reaches itself by weak references, and exchanges the data of its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.runs = nn.Parameter(torch.ones(3, 12, dtype=torch.float64)), 0
        self.__dict__.update(me=weakref.ref(self), there=weakref.proxy(self))

    def forward(self, x):
        self.me().runs += 1
        self.weight.data = torch.renorm(self.weight.data, 2, 0, 0.5)
        return x.flatten(1) @ self.weight.T * self.runs + self.there.weight.sum() * 0


@pytest.mark.parametrize("method", ["gradient", "integrated_gradients", "smoothgrad"])
def test_weak_references_and_exchanged_data_lead_to_nothing_of_the_callers(method):
    model, x = Knowing().eval(), images(0, 1, 3, 2, 2)
    sw.attribute(model, x, method=method, target=1)
    sw.checkup(model, x)
    assert model.runs == 0
    assert torch.equal(model.weight, torch.ones_like(model.weight))
