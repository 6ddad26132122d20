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

from saliency_widgets.runtime.model.version import ModelVersion

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


class Broken(Mapping):
    """Can't be read at first."""

    __slots__ = ()
    raising: BaseException | None = None

    def __getitem__(self, key):
        return 1.0

    def __iter__(self):
        if self.raising is not None:
            raise self.raising
        return iter(("a",))

    def __len__(self):
        return 1


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
    model[0].odd = Broken()
    number = ModelVersion(model)
    monkeypatch.setattr(Broken, "raising", error())
    with pytest.raises(error):
        number()
    monkeypatch.setattr(Broken, "raising", None)
    first = number()
    with torch.no_grad():
        model[6].weight.mul_(2)
    assert number() != first


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
    settings = {"a": {"b": [1.0]}}

    def far(held=({"x": {"y": {"z": {"w": settings}}}},)):
        return held

    class Child(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.settings = settings

    model = nn.Sequential(conv_net(), Child())
    model.far = far
    number = ModelVersion(model)
    first = number()
    settings["a"]["b"][0] = 2.0
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
