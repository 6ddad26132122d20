"""After any sequence of requests and changes, a session's result equals that of a fresh computation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from torch import nn

from saliency_widgets.api.attribute import attribute
from saliency_widgets.session import Cache, Event, Problem, Request, Session


class Net(nn.Module):
    """Two folded convolutions, a residual sum, an in-place activation, and dropout for training mode."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5), nn.ReLU(inplace=True))
        self.conv, self.norm = nn.Conv2d(5, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.drop, self.head = nn.Dropout(0.3), nn.Linear(5, 4)
        for norm in (self.stem[1], self.norm):
            norm.running_mean.uniform_(-0.2, 0.2)
            norm.running_var.uniform_(0.5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.stem(x)
        return self.head(self.drop(torch.relu(self.norm(self.conv(y)) + y).mean((2, 3))))


def then_compare(change: Callable[..., None]) -> Callable[..., None]:
    """Compare the result of the current request with a fresh computation before and after a change."""

    @wraps(change)
    def changed(self: Changes, **drawn: Any) -> None:
        self._compare()
        change(self, **drawn)
        self._compare()

    return changed


METHODS = {
    "gradient": {},
    "input_x_gradient": {},
    "guided_backprop": {},
    "grad_cam": {"layer": [None, "stem", "stem.0", "conv", "norm"]},
    "layer_cam": {"layer": [None, "stem.1"]},
    "smoothgrad": {
        "n_samples": [1, 4, 9, 20, 23, 40],
        "noise_level": [0.0, 0.1, 0.3],
        "base": ["gradient", "guided_backprop"],
        "statistic": ["mean", "squared"],
        "tolerance": [0.0, 0.3],
        "seed": [0, 1],
    },
    "integrated_gradients": {
        "n_steps": [4, 16, 24, 32, 40],
        "quadrature": ["adaptive", "adaptive", "trapezoid", "midpoint"],
        "tolerance": [0.0, 0.05],
        "baseline": ["zero", "mean", "noise"],
        "seed": [0, 1],
    },
    "expected_gradients": {"n_samples": [5, 12]},
}


@st.composite
def requests(draw: st.DrawFn) -> Request:
    # Methods of many passes have the most parts to cache, and are drawn more often.
    method = draw(st.sampled_from([*METHODS, *["smoothgrad", "integrated_gradients"] * 3]))
    params = {name: draw(st.sampled_from(values)) for name, values in METHODS[method].items()}
    score = draw(st.sampled_from(["logit", "logit", "probability"]))
    return Request.of(method, params, target=draw(st.integers(0, 3)), score=score)


class Changes(RuleBasedStateMachine):
    """Changes of settings, the model and the inputs, in any order."""

    requested: Request | None = None

    @initialize(max_bytes=st.sampled_from([2**28, 2**28, 40_000, 0]))
    def begin(self, max_bytes: int) -> None:
        self.model = Net().double().eval()
        self.spare = copy.deepcopy(self.model)
        with torch.no_grad():
            self.spare.head.weight.add_(0.5)
        self.inputs = np.random.default_rng(0).uniform(size=(3, 6, 6))
        self.events: list[Event] = []
        self.cache = Cache(max_bytes)
        self.session = Session(
            Problem(self.model, self.inputs), self.events.append, executor="inline", cache=self.cache
        )

    @rule(request=requests())
    def submit_request(self, request: Request) -> None:
        self.requested = request
        self._compare()

    @rule(data=st.data())
    @precondition(lambda self: self.requested is not None)
    def change_one_setting(self, data: st.DataObject) -> None:
        """Change one setting of the request, which users do most often."""
        requested = self.requested
        assert requested is not None
        choices = METHODS[requested.method]
        name = data.draw(st.sampled_from(["target", "target", "score", *choices]))
        if name == "target":
            self.requested = replace(requested, target=data.draw(st.integers(0, 3)))
        elif name == "score":
            self.requested = replace(requested, score=data.draw(st.sampled_from(["logit", "probability"])))
        else:
            value = data.draw(st.sampled_from(choices[name]))
            self.requested = replace(
                requested, params=tuple((n, value if n == name else v) for n, v in requested.params)
            )
        self._compare()

    def _compare(self) -> None:
        if self.requested is None:
            return
        self.session.submit(self.requested)
        event = self.events[-1]
        assert event.error is None, event.error
        assert event.state == "done"
        result = event.attribution
        assert result is not None
        fresh = attribute(self.model, self.inputs, **self.requested.settings)
        assert torch.equal(result.values, fresh.values), "not bit-identical to a fresh computation"
        for name in ("delta", "standard_error", "agreement", "map_error", "score"):
            one, other = getattr(result, name), getattr(fresh, name)
            assert (one is None) == (other is None), name
            assert one is None or torch.equal(one, other), name
        assert (result.evaluations, result.notes, result.layer) == (fresh.evaluations, fresh.notes, fresh.layer)
        size = result.values.abs().max()
        plain = attribute(self.model, self.inputs, fold=False, **self.requested.settings)
        assert torch.allclose(result.values, plain.values, rtol=0, atol=1e-9 * float(size) + 1e-15)

    # ---- changes of the model

    @rule(name=st.sampled_from(["stem.0.weight", "conv.bias", "norm.weight", "head.weight"]))
    @then_compare
    def step_of_an_optimizer(self, name: str) -> None:
        with torch.no_grad():
            self.model.get_parameter(name).mul_(0.9)

    @rule()
    @then_compare
    def fused_optimizer(self) -> None:
        """Fused optimizers don't change version counters."""
        self.model.zero_grad()
        training = self.model.training
        self.model.eval()
        self.model(torch.from_numpy(self.inputs)[None]).square().sum().backward()
        torch.optim.AdamW(self.model.parameters(), lr=0.01, fused=True).step()
        self.model.train(training)

    @rule(name=st.sampled_from(["stem.0.weight", "conv.weight", "head.bias"]), reverse=st.booleans())
    @then_compare
    def data_replaced(self, name: str, reverse: bool) -> None:
        weight = self.model.get_parameter(name)
        weight.data = weight.data.flip(0).clone() if reverse else weight.data * 1.1

    @rule(name=st.sampled_from(["stem.0.weight", "conv.weight", "head.weight"]))
    @then_compare
    def one_weight_changed_without_version_counters(self, name: str) -> None:
        self.model.get_parameter(name).data.view(-1)[0] += 0.1

    @rule()
    @then_compare
    def state_loaded(self) -> None:
        current = copy.deepcopy(self.model.state_dict())
        self.model.load_state_dict(self.spare.state_dict())
        self.spare.load_state_dict(current)

    @rule(training=st.booleans())
    @then_compare
    def mode(self, training: bool) -> None:
        self.model.train(training)

    @rule()
    @then_compare
    def statistics(self) -> None:
        self.model.norm.running_mean += 0.05

    @rule()
    @then_compare
    def another_module(self) -> None:
        norm = nn.BatchNorm2d(5).double().train(self.model.training)
        norm.running_mean += 0.1
        self.model.norm = norm

    # ---- changes of the inputs

    @rule(reverse=st.booleans())
    @then_compare
    def inputs_changed_in_place(self, reverse: bool) -> None:
        if reverse:  # the same values in another order
            self.inputs[:] = self.inputs[:, ::-1].copy()
        else:
            self.inputs[0, 0, 0] = 0.5 * self.inputs[0, 0, 0] + 0.1

    @invariant()
    def bound(self) -> None:
        if hasattr(self, "cache"):
            assert self.cache.info().bytes <= self.cache.max_bytes

    def teardown(self) -> None:
        if hasattr(self, "session"):
            self.session.close()
            assert self.cache.info().bytes == 0


class ManyChanges(Changes):
    """The same with more examples."""


for machine, examples in ((Changes, 10), (ManyChanges, 24)):
    machine.TestCase.settings = settings(
        max_examples=examples, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
    )
TestChanges = pytest.mark.filterwarnings("ignore")(Changes.TestCase)
TestManyChanges = pytest.mark.soak(pytest.mark.filterwarnings("ignore")(ManyChanges.TestCase))
