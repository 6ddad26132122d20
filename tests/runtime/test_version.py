"""A model's number: another when anything is, the same when nothing is, and never half of it."""

from __future__ import annotations

import random
import time
import weakref
from collections import OrderedDict
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import nn
from toys import Shared, conv_net

from saliency_widgets.attribution.errors import Cancelled
from saliency_widgets.runtime.model import version
from saliency_widgets.runtime.model.version import ModelVersion
from saliency_widgets.runtime.model.walker import parts

exp = [1.0]  # a global of a notebook that is called like a method


class Helper:
    scale = 1.0

    def __call__(self, x):
        return x * self.scale


class Slots:
    __slots__ = ("k", "other")


class Based(Slots):
    """Has a ``__dict__`` besides."""


class Named(dict):
    """With attributes, as many configurations are."""


class Options:
    scale = 1.0


class Unreadable(Mapping):
    """Of a kind that computes what it holds."""

    __slots__ = ()

    def __getitem__(self, key):
        raise RuntimeError

    def __iter__(self):
        raise RuntimeError

    def __len__(self):
        raise RuntimeError


class Holding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = conv_net()
        self.helper, self.empty, self.based, self.named = Helper(), Slots(), Based(), Named(a=1.0)
        self.old = np.random.RandomState(0)
        self.masked = np.ma.MaskedArray(np.ones(3), mask=[False, True, False])
        self.mine, self.nothing = random.Random(0), None

    def forward(self, x):
        return self.net(x).exp() * Options.scale


CHANGES = {
    "a slot that was empty": lambda m: setattr(m.empty, "k", 1.0),
    "a slot of a base": lambda m: setattr(m.based, "other", 1.0),
    "the code of a helper's class": lambda m: setattr(Helper, "__call__", lambda self, x: x + 1),
    "an attribute of a helper's class": lambda m: setattr(Helper, "scale", 2.0),
    "an attribute of a global class": lambda m: setattr(Options, "scale", 2.0),
    "an attribute on a dict": lambda m: setattr(m.named, "rate", 2.0),
    "an item of a dict of a kind of its own": lambda m: m.named.__setitem__("a", 2.0),
    "NumPy's old generator": lambda m: m.old.rand(),
    "Python's generator": lambda m: m.mine.random(),
    "the mask of an array": lambda m: m.masked.mask.__setitem__(0, True),
    "an attribute": lambda m: setattr(m, "nothing", 0),
    "a type": lambda m: setattr(m.helper, "__class__", type("Other", (Helper,), {})),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_gives_another_number(change, monkeypatch):
    monkeypatch.setattr(Helper, "scale", 1.0)
    monkeypatch.setattr(Helper, "__call__", Helper.__call__)
    monkeypatch.setattr(Options, "scale", 1.0)
    model = Holding()
    number = ModelVersion(model)
    first = number()
    assert number() == first
    CHANGES[change](model)
    assert number() != first
    assert number() == number()


def test_a_global_with_the_name_of_a_method_does_not_matter():
    model = Holding()
    number = ModelVersion(model)
    first = number()
    exp.append(1.0)
    assert number() == first


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_half_a_reading_is_none(error, monkeypatch):
    model = conv_net()
    number = ModelVersion(model)

    def fail(value):
        if value is model[6]._parameters:
            raise error
        return parts(value)

    monkeypatch.setattr(version, "parts", fail)
    with pytest.raises(error):
        number()
    monkeypatch.undo()
    first = number()
    with torch.no_grad():
        model[6].weight.mul_(2)
    assert number() != first


def test_no_code_of_the_callers_runs():
    model = conv_net()
    model[0].odd = Unreadable()
    number = ModelVersion(model)
    assert number() == number()


LEVELS = {
    "an attribute": lambda m: setattr(m, "settings", 0),
    "one level": lambda m: m.settings.__setitem__("rate", 2.0),
    "two levels": lambda m: m.settings["deep"].__setitem__("rate", 2.0),
    "an object in a list": lambda m: setattr(m.helpers[0], "scale", 2.0),
    "a list in an object": lambda m: m.helper.held.append(2.0),
}


@pytest.mark.parametrize("change", LEVELS)
def test_attributes_are_seen_two_levels_deep(change):
    model = conv_net()
    model.settings, model.helper = {"rate": 1.0, "deep": {"rate": 1.0, "deeper": {"rate": 1.0}}}, Helper()
    model.helpers, model.helper.held = [Helper()], [1.0]
    number = ModelVersion(model)
    first = number()
    model.settings["deep"]["deeper"]["rate"] = 2.0
    assert number() == first
    LEVELS[change](model)
    assert number() != first


def test_a_state_that_comes_back_has_its_number():
    model = conv_net()
    number = ModelVersion(model)
    first = number()
    model.train()
    assert number() != first
    model.eval()
    assert number() == first
    number.renew()
    assert number() != first


def wide() -> nn.Module:
    return nn.Sequential(nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 512))


def test_one_number_deep_inside_is_found_by_hashing_all():
    """No counter moves, and the sample misses it."""
    model = wide()
    number = ModelVersion(model)
    first = number()
    assert not number.verify(lambda: None)
    model[0].weight.data[3, 100] += 1.0
    assert number() == first
    assert number.verify(lambda: None)
    assert number() != first
    assert not number.verify(lambda: None)


def test_hashing_all_gives_way_and_goes_on():
    model, done = wide(), []
    number = ModelVersion(model)

    def check():
        done.append(None)
        if len(done) % 2 == 0:
            raise Cancelled

    assert not number.verify(lambda: None)
    model[2].weight.data[100, 100] += 1.0
    with pytest.raises(Cancelled):
        number.verify(check)
    assert number.verify(check)
    assert len(done) == 3


def test_a_model_that_rests_is_not_read_again():
    model = Holding()
    number = ModelVersion(model)
    number()
    state = number._state
    number()
    assert number._state is state


def test_what_changes_while_all_is_hashed_is_no_surprise():
    model = wide()
    number = ModelVersion(model)
    assert not number.verify(lambda: None)
    with torch.no_grad():
        model[0].weight.mul_(2)
    assert not number.verify(lambda: None)


def test_what_is_gone_is_read_anew():
    model, one, two = conv_net(), Helper(), Helper()
    model.trainer = weakref.proxy(one)
    number = ModelVersion(model)
    first = number()
    model.trainer = weakref.proxy(two)
    del one
    assert number() != first
    assert number() == number()


def test_what_was_met_far_away_is_looked_into_where_it_is_near():
    settings = {"a": [1.0]}

    def far(held=({"x": settings},)):
        return held

    class Child(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.settings = settings

    model = nn.Sequential(conv_net(), Child())
    model.far = far
    number = ModelVersion(model)
    first = number()
    settings["a"][0] = 2.0
    assert number() != first


def test_what_counts_passes_by_itself_does_not_matter():
    model, result = conv_net(), Shared()

    class Counter:
        def __init__(self) -> None:
            self.passes = 0

        def __copy__(self):
            return self

    model.counter = Counter()
    number = ModelVersion(model)
    first = number()
    model.counter.passes += 1
    assert number() == first
    assert result == []


def test_the_order_of_a_dict_of_a_kind_of_its_own():
    model = conv_net()
    model.order = OrderedDict(a=1.0, b=2.0)
    number = ModelVersion(model)
    first = number()
    model.order.move_to_end("a")
    assert number() != first


def test_objects_that_know_each_other_are_read_once():
    """Compared with a chain of as many: what grows with the square would be a hundred times slower."""

    def linked(count: int, every: bool) -> nn.Module:
        objects = [Based() for _ in range(count)]
        for k, item in enumerate(objects):
            item.k, item.other = objects if every else float(k), objects[k - 1]
        model = conv_net()
        model.objects = objects
        return model

    def seconds(model: nn.Module) -> float:
        number = ModelVersion(model)
        number()
        times = []
        for _ in range(7):
            began = time.process_time()
            number()
            times.append(time.process_time() - began)
        return min(times)

    assert seconds(linked(300, every=True)) < 25 * seconds(linked(300, every=False))
