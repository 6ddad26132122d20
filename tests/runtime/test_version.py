"""A model's version number: it changes with the model, and only then; an interrupted reading is discarded."""

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
from toys import conv_net

from saliency_widgets.attribution.errors import Cancelled
from saliency_widgets.runtime.model import version
from saliency_widgets.runtime.model.version import ModelVersion
from saliency_widgets.runtime.model.walker import parts

exp = [1.0]  # a global, as in a notebook, with the name of a tensor method that forward calls


class Helper:
    scale = 1.0

    def __call__(self, x):
        return x * self.scale


class Slots:
    __slots__ = ("k", "other")


class SlotsAndDict(Slots):
    """Has a ``__dict__`` in addition to the slots of its base class."""


class DictWithAttributes(dict):
    """A dict with attributes, as many configuration objects are."""


class Options:
    scale = 1.0


class Unreadable(Mapping):
    """A mapping whose methods raise."""

    __slots__ = ()

    def __getitem__(self, key):
        raise RuntimeError

    def __iter__(self):
        raise RuntimeError

    def __len__(self):
        raise RuntimeError


class ModelWithObjects(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = conv_net()
        self.helper, self.empty, self.based, self.named = Helper(), Slots(), SlotsAndDict(), DictWithAttributes(a=1.0)
        self.numpy_rng = np.random.RandomState(0)
        self.masked = np.ma.MaskedArray(np.ones(3), mask=[False, True, False])
        self.python_rng, self.unset = random.Random(0), None

    def forward(self, x):
        return self.net(x).exp() * Options.scale


CHANGES = {
    "a slot that was empty": lambda m: setattr(m.empty, "k", 1.0),
    "a slot of a base class": lambda m: setattr(m.based, "other", 1.0),
    "the code of a helper's class": lambda m: setattr(Helper, "__call__", lambda self, x: x + 1),
    "an attribute of a helper's class": lambda m: setattr(Helper, "scale", 2.0),
    "an attribute of a global class": lambda m: setattr(Options, "scale", 2.0),
    "an attribute of a dict subclass": lambda m: setattr(m.named, "rate", 2.0),
    "an item of a dict subclass": lambda m: m.named.__setitem__("a", 2.0),
    "NumPy's legacy generator": lambda m: m.numpy_rng.rand(),
    "Python's generator": lambda m: m.python_rng.random(),
    "the mask of an array": lambda m: m.masked.mask.__setitem__(0, True),
    "an attribute": lambda m: setattr(m, "nothing", 0),
    "the class of a helper": lambda m: setattr(m.helper, "__class__", type("Other", (Helper,), {})),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_gives_another_version(change, monkeypatch):
    monkeypatch.setattr(Helper, "scale", 1.0)
    monkeypatch.setattr(Helper, "__call__", Helper.__call__)
    monkeypatch.setattr(Options, "scale", 1.0)
    model = ModelWithObjects()
    number = ModelVersion(model)
    first = number()
    assert number() == first
    CHANGES[change](model)
    assert number() != first
    assert number() == number()


def test_a_global_with_the_name_of_a_method_does_not_matter():
    model = ModelWithObjects()
    number = ModelVersion(model)
    first = number()
    exp.append(1.0)
    assert number() == first


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_reading_is_discarded(error, monkeypatch):
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


def test_reading_runs_no_code_of_the_models_objects():
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
def test_attributes_are_read_two_levels_deep(change):
    model = conv_net()
    model.settings, model.helper = {"rate": 1.0, "deep": {"rate": 1.0, "deeper": {"rate": 1.0}}}, Helper()
    model.helpers, model.helper.held = [Helper()], [1.0]
    number = ModelVersion(model)
    first = number()
    model.settings["deep"]["deeper"]["rate"] = 2.0
    assert number() == first
    LEVELS[change](model)
    assert number() != first


def test_a_restored_state_has_its_former_version_until_it_is_renewed():
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


def test_verify_detects_the_change_of_one_weight_that_the_sample_misses():
    """The edit changes no version counter, and the weight is not in the sample of weights."""
    model = wide()
    number = ModelVersion(model)
    first = number()
    assert not number.verify(lambda: None)
    model[0].weight.data[3, 100] += 1.0
    assert number() == first
    assert number.verify(lambda: None)
    assert number() != first
    assert not number.verify(lambda: None)


def test_verify_can_be_cancelled_and_continues_where_it_stopped():
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


def test_an_unchanged_model_is_not_read_again():
    model = ModelWithObjects()
    number = ModelVersion(model)
    number()
    state = number._state
    number()
    assert number._state is state


def test_verify_does_not_report_a_change_that_the_version_shows():
    model = wide()
    number = ModelVersion(model)
    assert not number.verify(lambda: None)
    with torch.no_grad():
        model[0].weight.mul_(2)
    assert not number.verify(lambda: None)


def test_a_weak_proxy_of_another_object_gives_another_version():
    model, one, two = conv_net(), Helper(), Helper()
    model.trainer = weakref.proxy(one)
    number = ModelVersion(model)
    first = number()
    model.trainer = weakref.proxy(two)
    del one
    assert number() != first
    assert number() == number()


def test_an_object_reachable_at_two_depths_is_read_from_the_smaller_one():
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


def test_an_object_that_copies_share_is_not_part_of_the_version():
    model = conv_net()

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


def test_the_order_of_an_ordered_dict_is_part_of_the_version():
    model = conv_net()
    model.order = OrderedDict(a=1.0, b=2.0)
    number = ModelVersion(model)
    first = number()
    model.order.move_to_end("a")
    assert number() != first


def test_objects_that_refer_to_each_other_are_read_once():
    """The time is compared with that of a chain of as many objects; quadratic time would be a hundred times that."""

    def linked(count: int, complete: bool) -> nn.Module:
        objects = [SlotsAndDict() for _ in range(count)]
        for k, item in enumerate(objects):
            item.k, item.other = objects if complete else float(k), objects[k - 1]
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

    assert seconds(linked(300, complete=True)) < 25 * seconds(linked(300, complete=False))
