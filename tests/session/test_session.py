"""The session: the newest request wins, one computation runs at a time, and no outdated result is delivered."""

from __future__ import annotations

import copy
import functools
import subprocess
import sys
import threading
import time
from collections import OrderedDict, deque
from itertools import pairwise
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from toys import Tally, conv_net, images, interrupt_once, tallied

from saliency_widgets.api.attribute import attribute
from saliency_widgets.attribution import Reduction
from saliency_widgets.session import Cache, Event, Problem, Request, Session, frame_of
from saliency_widgets.session.jobs import Jobs
from saliency_widgets.session.worker import ThreadExecutor


class Counting(nn.Module):
    """A small network that counts its passes and how many run at once, and can be blocked by a gate."""

    passes, alive, most_alive = tallied("passes"), tallied("alive"), tallied("most_alive")

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tally = Tally()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 5))
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self._lock = threading.Lock()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with self._lock:
            self.passes += 1
            self.alive += 1
            self.most_alive = max(self.most_alive, self.alive)
        self.entered.set()
        assert self.gate.wait(30)
        try:
            return self.body(x)
        finally:
            with self._lock:
                self.alive -= 1


@pytest.fixture
def model() -> Counting:
    return Counting().eval()


@pytest.fixture
def problem(model: Counting) -> Problem:
    return Problem(model, torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(1)))


def smooth(n_samples: int = 4, **params: object) -> Request:
    return Request.of("smoothgrad", {"n_samples": n_samples, **params}, target=0)


class Recorder(list):
    """A list of the delivered events."""

    def __call__(self, event: Event) -> None:
        self.append(event)


@pytest.mark.parametrize("executor", ["inline", "thread"])
def test_a_request_delivers_running_estimates_and_then_the_result(problem, executor, monkeypatch):
    monkeypatch.setattr("saliency_widgets.session.session._FRAME_SECONDS", 0.0)
    events = Recorder()
    session = Session(problem, events, executor=executor)
    generation = session.submit(smooth(40))
    assert session.wait(30)
    session.close()
    assert [e.state for e in events][:1] == ["running"]
    assert events[-1].state == "done"
    assert {e.generation for e in events} == {generation}
    done = [e.attribution.done for e in events if e.attribution is not None]
    assert done == sorted(set(done))
    assert done[-1] == 40
    assert len(done) > 3
    expected = attribute(problem.model, problem.tensor, **smooth(40).settings)
    assert torch.equal(events[-1].attribution.values, expected.values)


def test_event_indices_increase_and_generations_never_decrease(problem):
    events = Recorder()
    session = Session(problem, events)
    for n in range(2, 40):
        session.submit(smooth(n))
    assert session.wait(60)
    session.close()
    assert [e.index for e in events] == list(range(1, len(events) + 1))
    generations = [e.generation for e in events]
    assert generations == sorted(generations)
    assert events[-1].state == "done"
    assert events[-1].attribution.settings["n_samples"] == 39


def test_a_hundred_requests_during_one_pass_cost_that_pass_and_the_last_request(problem, model):
    events = Recorder()
    session = Session(problem, events)
    model.gate.clear()
    model.entered.clear()
    first = session.submit(smooth(64, chunk_size=4))
    assert model.entered.wait(30)
    before = model.passes
    for k in range(100):
        session.submit(smooth(8, noise_level=k / 100))
    model.gate.set()
    assert session.wait(60)
    session.close()
    # The running pass ends (if it is the prediction's, it is run twice: by the model as written and by the tuned one),
    # then only the last request is computed.
    fresh = Session(Problem(model, problem.tensor[0]), Recorder(), executor="inline")
    spent = model.passes - before
    model.passes = 0
    fresh.submit(smooth(8, noise_level=0.99))
    assert spent <= model.passes + 2
    assert model.most_alive == 1
    assert events[-1].state == "done"
    assert events[-1].attribution.settings["noise_level"] == 0.99
    assert not [e for e in events if e.generation not in (first, first + 100)]


def test_a_repeated_request_returns_the_same_result_without_a_pass(problem, model):
    events = Recorder()
    session = Session(problem, events, executor="inline")
    session.submit(smooth(5))
    first = events[-1].attribution
    session.submit(smooth(6))
    model.passes = 0
    session.submit(smooth(5))
    assert model.passes == 0
    assert events[-1].state == "done"
    assert events[-1].attribution is first


def test_a_request_is_computed_again_if_the_model_changed(problem, model):
    events = Recorder()
    session = Session(problem, events, executor="inline")
    session.submit(smooth(3))
    before = events[-1].attribution.values
    with torch.no_grad():
        model.body[3].weight.mul_(2)
    session.submit(smooth(3))
    torch.testing.assert_close(events[-1].attribution.values, 2 * before)
    model.body[3].weight.data = model.body[3].weight.data / 2
    session.submit(smooth(3))
    torch.testing.assert_close(events[-1].attribution.values, before)


def test_stop_keeps_the_last_estimate_and_the_next_request_is_computed(problem, model):
    events = Recorder()
    session = Session(problem, events)
    seen = threading.Event()

    class Gate:
        def __call__(self, event: Event) -> None:
            events.append(event)
            if event.attribution is not None and not seen.is_set():
                session.stop()
                seen.set()

    session._deliver = Gate()
    session.submit(smooth(400))
    assert session.wait(30)
    assert events[-1].state == "stopped"
    assert 0 < events[-1].attribution.done < 400
    session.submit(smooth(3))
    assert session.wait(30)
    session.close()
    assert events[-1].state == "done"
    assert events[-1].attribution.done == 3


def test_an_error_is_delivered_and_the_next_request_is_computed(problem, model):
    events = Recorder()
    session = Session(problem, events)
    session.submit(Request.of("grad_cam", {"layer": "body.9"}, target=0))
    assert session.wait(30)
    assert events[-1].state == "error"
    assert "layer" in str(events[-1].error)
    session.submit(smooth(2))
    assert session.wait(30)
    session.close()
    assert events[-1].state == "done"


def test_another_reduction_delivers_a_new_frame_without_a_pass(problem, model):
    events = Recorder()
    session = Session(problem, events, executor="inline")
    session.submit(smooth(3))
    model.passes = 0
    session.reduce(Reduction("signed", "sum"))
    assert model.passes == 0
    assert events[-1].frame.signed
    assert events[-1].state == "done"
    count = len(events)
    session.reduce(Reduction("signed", "sum"))  # no change, no event
    assert len(events) == count


def test_a_reduction_chosen_while_computing_is_used_from_the_next_frame_on(problem):
    events = Recorder()
    session = Session(problem, events)
    changed = threading.Event()

    def deliver(event: Event) -> None:
        events.append(event)
        if event.frame is not None and not changed.is_set():
            session.reduce(Reduction("signed"))
            changed.set()

    session._deliver = deliver
    session.submit(smooth(30))
    assert session.wait(30)
    session.close()
    framed = [e for e in events if e.frame is not None]
    assert not framed[0].frame.signed
    assert all(e.frame.signed for e in framed[1:])
    assert {e.generation for e in events} == {1}


def test_a_reduction_is_delivered_while_another_session_computes(problem, model):
    lanes, events, others = (Jobs(), Jobs()), Recorder(), Recorder()
    session = Session(problem, events, lanes=lanes, key="a")
    other = Session(problem, others, lanes=lanes, key="b")
    session.submit(smooth(2))
    assert session.wait(30)
    model.gate.clear()
    model.entered.clear()
    other.submit(smooth(3))
    assert model.entered.wait(30)
    session.reduce(Reduction("signed"))
    assert session.wait(30)
    assert events[-1].frame.signed
    other.reduce(Reduction("signed"))
    model.gate.set()
    assert other.wait(30)
    assert others[-1].frame.signed
    for one in (session, other, *lanes):
        one.close()


def test_no_reduction_is_lost_while_maps_are_computed_and_one_event_is_delivered_at_a_time(problem, monkeypatch):
    monkeypatch.setattr("saliency_widgets.session.session._FRAME_SECONDS", 0.0)
    lanes, events, inside = (Jobs(), Jobs()), Recorder(), []

    def deliver(event: Event) -> None:
        inside.append(event)
        assert len(inside) == 1
        time.sleep(0.0005)
        events.append(event)
        inside.pop()

    session = Session(problem, deliver, lanes=lanes)
    for k in range(60):
        if k % 3 == 0:
            session.submit(smooth(2 + k % 7))
        session.reduce(Reduction(("signed", "absolute")[k % 2]))
        if k % 5 == 4:
            assert session.wait(30)
            assert events[-1].frame.signed == (k % 2 == 0)
    for one in (session, *lanes):
        one.close()


def test_wait_includes_a_pending_reduction(problem, monkeypatch):
    events = Recorder()
    session = Session(problem, events)
    session.submit(smooth(2))
    assert session.wait(30)
    with monkeypatch.context() as patched:
        patched.setattr(session._jobs._executor, "kick", lambda: None)
        session.reduce(Reduction("signed"))
        assert not session.wait(0)
    session._jobs.kick()
    assert session.wait(30)
    assert events[-1].frame.signed
    session.close()


def test_close_ends_the_thread_and_frees_the_cache(problem, model):
    before = set(threading.enumerate())
    session = Session(problem, Recorder())
    session.submit(smooth(400, chunk_size=1))
    assert model.entered.wait(30)
    session.close()
    assert set(threading.enumerate()) <= before
    assert not [key for key in session.cache._entries if key[0] is session]
    with pytest.raises(RuntimeError, match="closed"):
        session.submit(smooth(1))
    session.close()


def test_an_idle_worker_thread_ends_and_the_next_request_starts_a_new_one(problem, monkeypatch):
    monkeypatch.setattr(ThreadExecutor, "idle_seconds", 0.01)
    events = Recorder()
    session = Session(problem, events)
    for n in (2, 3, 4):
        session.submit(smooth(n))
        assert session.wait(30)
        worker = session._jobs._executor._thread
        if worker is not None:
            worker.join(30)
        assert session._jobs._executor._thread is None
    session.close()
    assert [e.attribution.done for e in events if e.state == "done"] == [2, 3, 4]


def test_a_failing_delivery_is_reported_and_ends_neither_the_worker_nor_the_wait(problem, monkeypatch):
    reported = []
    monkeypatch.setattr(threading, "excepthook", reported.append)
    events = Recorder()

    def broken(event: Event) -> None:
        raise OSError("the page is gone")

    session = Session(problem, broken)
    session.submit(smooth(2))
    assert session.wait(30)
    session._deliver = events
    session.submit(smooth(3))
    assert session.wait(30)
    session.close()
    assert [args.exc_type for args in reported] == [OSError]
    assert events[-1].state == "done"


def test_two_sessions_on_one_model_do_not_affect_each_other(model):
    images = [torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(k)) for k in range(2)]
    requests = [Request.of("grad_cam", {"layer": "body.0"}, target=1), smooth(40, chunk_size=2)]
    alone = [attribute(model, p, **r.settings).values for p, r in zip(images, requests, strict=True)]
    recorders = [Recorder(), Recorder()]
    sessions = [Session(Problem(model, p), r, cache=Cache(0)) for p, r in zip(images, recorders, strict=True)]
    for _ in range(10):
        for session, request in zip(sessions, requests, strict=True):
            session.submit(request)
        for session in sessions:
            assert session.wait(30)
        for recorder, expected in zip(recorders, alone, strict=True):
            assert recorder[-1].state == "done"
            assert torch.equal(recorder[-1].attribution.values, expected)
    for session in sessions:
        session.close()
    assert not any(len(m._forward_hooks) for m in model.modules())


def test_submit_does_not_wait_for_the_worker(problem, model):
    session = Session(problem, Recorder())
    model.gate.clear()
    model.entered.clear()
    session.submit(smooth(3))
    assert model.entered.wait(30)
    for k in range(50):
        session.submit(smooth(4 + k))  # would block here if it waited for the gate
    assert session.generation == 51
    assert not session.wait(0)
    model.gate.set()
    assert session.wait(30)
    session.close()


def test_the_cache_is_bounded_in_bytes_and_drops_the_least_recently_used(problem):
    result = [attribute(problem.model, problem.tensor, **smooth(n).settings) for n in (2, 3, 4)]
    whole = Cache()
    whole.put("a", result[0])
    size = whole.bytes
    assert result[0].values.nbytes + result[0].standard_error.nbytes <= size < 1.1 * 2 * result[0].values.nbytes
    cache = Cache(2 * size)
    for key, attribution in zip("abc", result, strict=True):
        cache.put(key, attribution)
        cache.get("a")
    assert cache.get("a") is result[0]
    assert cache.get("b") is None
    assert cache.get("c") is result[2]
    assert cache.bytes == 2 * size
    cache.put("d", attribute(problem.model, problem.tensor.expand(9, -1, -1, -1), **smooth(2).settings))
    assert cache.bytes <= 2 * size
    cache.forget("a")
    for key in "abcd":
        cache.put((key, 1), result[0])
        cache.forget(key)
    assert cache.get(("a", 1)) is None


def test_a_cached_attribution_that_was_modified_is_not_returned(problem, model):
    events = Recorder()
    session = Session(problem, events, executor="inline")
    session.submit(smooth(3))
    before = events[-1].attribution.values.clone()
    events[-1].attribution.values.zero_()
    session.submit(smooth(3))
    assert torch.equal(events[-1].attribution.values, before)
    session.close()


def test_weight_changes_that_bypass_the_version_counters_are_noticed(problem, model):
    events = Recorder()
    session = Session(problem, events, executor="inline")
    session.submit(smooth(3))
    before = events[-1].attribution.values
    model.body[3].weight.data.mul_(2)
    session.submit(smooth(3))
    torch.testing.assert_close(events[-1].attribution.values, 2 * before)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    model(problem.tensor).sum().backward()
    optimizer.step()
    session.submit(smooth(3))
    expected = attribute(model, problem.tensor, **smooth(3).settings)
    assert torch.equal(events[-1].attribution.values, expected.values)
    model.body[1] = nn.Identity()
    session.submit(smooth(3))
    assert not torch.equal(events[-1].attribution.values, expected.values)
    session.close()


def test_training_on_another_thread_and_a_session_do_not_affect_each_other(problem, model):
    model.body.insert(1, nn.BatchNorm2d(4))
    model.body.insert(3, nn.Dropout(0.3))
    alone, other = copy.deepcopy(model.body), model.body
    x = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(3))

    def train(net: nn.Module, steps: int) -> list[float]:
        net.train()
        torch.manual_seed(7)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
        losses = []
        for _ in range(steps):
            optimizer.zero_grad()
            loss = net(x).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        return losses

    expected = train(alone, 60)
    events = Recorder()
    session = Session(Problem(other, problem.tensor[0]), events)
    stop = threading.Event()

    def submit_repeatedly() -> None:
        k = 0
        while not stop.is_set():
            k += 1
            session.submit(smooth(60, chunk_size=2, noise_level=(k % 97) / 100))
            stop.wait(0.01)

    submitting = threading.Thread(target=submit_repeatedly)
    submitting.start()
    try:
        losses = train(other, 60)
    finally:
        stop.set()
        submitting.join()
    other.eval()
    session.submit(smooth(5))
    assert session.wait(60)
    session.close()
    assert losses == expected
    for name, tensor in alone.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    assert events[-1].state == "done"
    result = attribute(other, problem.tensor[0], **smooth(5).settings)
    assert torch.equal(events[-1].attribution.values, result.values)


def test_python_exits_cleanly_while_a_map_is_computed():
    code = """
import threading, torch
from torch import nn
from saliency_widgets.session import Request, Session, Problem
started = threading.Event()
net = nn.Sequential(nn.Conv2d(3, 16, 5), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 60 * 60, 5)).eval()
session = Session(Problem(net, torch.rand(3, 64, 64)), lambda event: started.set())
session.submit(Request.of("smoothgrad", {"n_samples": 500}, target=0))
started.wait(60)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_request_keys_are_equal_only_for_equal_requests():
    assert smooth(3).key == smooth(3).key
    assert smooth(3).key != smooth(4).key
    assert smooth(3).key != smooth(3, seed=1).key
    baseline = torch.zeros(3, 8, 8)
    requested = Request.of("integrated_gradients", {"baseline": baseline}, target=0)
    key = requested.key
    assert key == requested.key
    baseline += 1
    assert key != requested.key
    hash(requested.key)


def test_remaining_time_is_estimated_from_the_last_chunk(problem, monkeypatch):
    """Every frame is delivered, so that the time of each chunk can be read from the events."""
    monkeypatch.setattr("saliency_widgets.session.session._FRAME_SECONDS", 0.0)
    events: list[Event] = []
    session = Session(problem, events.append, executor="inline", cache=Cache())
    session.submit(Request.of("smoothgrad", {"n_samples": 60, "chunk_size": 8}, target=0))
    session.close()
    running = [(0.0, 0, None)]
    running += [
        (e.elapsed, e.attribution.done, e.remaining)
        for e in events
        if e.state == "running" and e.attribution is not None
    ]
    assert len(running) > 5
    for (before, had, _), (elapsed, done, remaining) in pairwise(running):
        assert remaining == pytest.approx((elapsed - before) / (done - had) * (60 - done))
    assert events[-1].remaining == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sign", ["absolute", "signed", "positive", "squared"])
def test_a_frame_equals_the_quantization_of_render(problem, model, dtype, sign):
    from saliency_widgets import render

    result = attribute(model.to(dtype), problem.tensor, method="gradient", target=0)
    frame = frame_of(result, Reduction(sign))
    values = Reduction(sign)(result.values, (8, 8))[0].double().numpy()
    expected = render.quantize(values, signed=sign == "signed")
    assert frame.codes.dtype == "uint16"
    assert abs(frame.codes.astype(int) - expected.codes.astype(int)).max() <= (0 if dtype == torch.float64 else 1)
    assert frame.low == pytest.approx(expected.low)
    assert frame.high == pytest.approx(expected.high)
    assert frame.signed == expected.signed


# ---- idle work


def test_a_request_interrupts_idle_work():
    """A new request cancels idle work at its check; the work starts again afterwards."""
    began, requested, finished, ended = threading.Event(), threading.Event(), threading.Event(), []

    def idle(check):
        began.set()
        if not ended:
            assert requested.wait(20)
        ended.append("begun")
        check()
        ended.append("finished")
        finished.set()

    result = []
    session = Session(Problem(conv_net(), images()), result.append, cache=Cache(), idle=idle)
    first = Request.of("gradient", {}, target=0)
    session.submit(first)
    assert began.wait(20)
    assert session.wait(20), "wait() waits for idle work"
    session.submit(Request.of("gradient", {}, target=1))
    requested.set()
    assert finished.wait(60)
    assert ended[:3] == ["begun", "begun", "finished"]
    assert [e.request.target for e in result if e.state == "done"] == [0, 1]
    session.close()


def test_close_ends_idle_work():
    began, over = threading.Event(), threading.Event()

    def idle(check):
        began.set()
        try:
            while True:
                check()
                time.sleep(0.005)
        finally:
            over.set()

    session = Session(Problem(conv_net(), images()), lambda _event: None, cache=Cache(), idle=idle)
    session.submit(Request.of("gradient", {}, target=0))
    assert began.wait(20)
    session.close()
    assert over.is_set()


# ---- changes that neither version counters nor the sample of weights show


def deep_edit(model: nn.Module) -> None:
    model[1].weight.data[3, 110] += 1.0


def wait_until_done(session: Session, events: list[Event], count: int) -> None:
    """Wait until ``count`` maps are done."""
    deadline = time.monotonic() + 20
    while sum(event.state == "done" for event in events) < count:
        assert time.monotonic() < deadline, [event.state for event in events]
        time.sleep(0.01)
    assert session.wait(20)


def test_an_unnoticed_edit_is_detected_when_idle_and_the_shown_map_corrected():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2048).double(), nn.Tanh(), nn.Linear(2048, 4).double())
    x = images(0, 1, 3, 8, 8)
    events, verified = [], threading.Event()
    problem = Problem(model, x)
    verify = problem.verify

    def watched(check):
        result = verify(check)
        verified.set()
        return result

    problem.verify = watched
    session = Session(problem, events.append, cache=Cache())
    request = Request.of("gradient", {}, target=0)
    session.submit(request)
    assert session.wait(20)
    assert verified.wait(20)
    before = events[-1].attribution.values
    deep_edit(model)
    session.submit(request)
    wait_until_done(session, events, 3)  # the first, one from the cache, and the correction
    assert [event.corrected for event in events if event.state == "done"] == [False, False, True]
    after = events[-1].attribution.values
    assert torch.equal(after, attribute(model, x, method="gradient", target=0).values)
    assert not torch.equal(after, before)
    session.close()


@pytest.mark.parametrize("stopped", [False, True])
def test_a_change_detected_when_idle_restarts_the_computation_unless_the_user_stopped_it(problem, stopped):
    events = []

    def deliver(event: Event) -> None:
        events.append(event)
        if stopped and event.attribution is not None:
            session.stop()

    session = Session(problem, deliver, executor="inline", cache=Cache())
    session.submit(smooth(40))
    assert events[-1].state == ("stopped" if stopped else "done")
    problem.verify = lambda _check: True
    session._verify(lambda: None)
    assert session.busy is not stopped
    session.close()


def test_an_error_of_the_idle_verification_is_not_reported(problem, monkeypatch):
    raised, failed = [], threading.Event()
    monkeypatch.setattr(threading, "excepthook", raised.append)

    def verify(_check):
        failed.set()
        raise RuntimeError("a weight can't be read")

    problem.verify = verify
    events = []
    session = Session(problem, events.append, cache=Cache())
    session.submit(smooth(3))
    assert session.wait(20)
    assert failed.wait(20)
    session.submit(smooth(4))
    assert session.wait(20)
    assert events[-1].state == "done"
    session.close()
    assert not raised


def test_forget_recomputes_after_a_change_that_is_not_in_the_version():
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.held = conv_net(), {"a": {"b": {"c": 1.0}}}

        def forward(self, x):
            return self.net(x) * self.held["a"]["b"]["c"]

    model, events = Deep().eval(), []
    session = Session(Problem(model, images(0, 1, 3, 8, 8)), events.append, executor="inline", cache=Cache())
    request = Request.of("gradient", {}, target=0)
    session.submit(request)
    before = events[-1].attribution.values
    model.held["a"]["b"]["c"] = 2.0
    session.submit(request)
    assert events[-1].cached, "attributes more than two levels deep are not read"
    session.forget()
    session.submit(request)
    assert not events[-1].cached
    assert torch.allclose(events[-1].attribution.values, 2 * before)


# ---- what a model can depend on apart from its weights


class Holder:
    def __init__(self) -> None:
        self.k = 1.0


class Once:
    def __call__(self) -> float:
        return 1.0


class Twice(Once):
    def __call__(self) -> float:
        return 2.0


def marked() -> float:
    """A function with an attribute."""
    return getattr(marked, "k", 1.0)


FACTOR = [1.0]
Chosen = Once


class Slotted:
    __slots__ = ("k",)

    def __init__(self) -> None:
        self.k = 1.0


class Various(nn.Module):
    """Scales its output by values that are not parameters: lists, tensors, objects, arrays, functions."""

    factor = 1.0
    shared: ClassVar = {"k": 1.0}
    rule = property(lambda _self: 1.0)

    def __init__(self) -> None:
        super().__init__()
        self.net = conv_net()
        self.listed, self.named, self.held = [1.0], {"a": [1.0]}, Holder()
        self.loose, self.array = torch.ones(1, dtype=torch.float64), np.ones(1)
        self.register_buffer("never", torch.tensor(float("nan")))
        self.register_buffer("sparse", torch.eye(2).to_sparse())
        self.register_buffer("small", torch.ones(2).to(torch.float8_e4m3fn))
        self.register_buffer("mask", torch.full((3, 3), -torch.inf).triu(1))
        self.register_buffer("whole", torch.quantize_per_tensor(torch.rand(3), 0.1, 0, torch.quint8))
        self.register_buffer("wave", torch.ones(2, dtype=torch.complex64))
        self.register_buffer("large", torch.ones(64, 64, dtype=torch.float64))
        self.register_parameter("none", None)
        self.parts, self.active = nn.ModuleList([nn.Tanh(), nn.ReLU()]), self.net
        self.hidden = [nn.Linear(4, 4).double()]
        self.wide, self.slotted, self.queue = np.ones((80, 80)), Slotted(), deque([1.0])
        self.rate, self.power = functools.partial(pow, exp=1), lambda x, k=[1.0]: x * k[0]
        self.unused, self.ordered, self.choice = True, OrderedDict(a=1.0, b=5.0), {1.0}
        self.left, self.right, self.long = {"k": 1.0}, {}, [1.0] * 3000

    def forward(self, x):
        scale = self.listed[0] * self.named["a"][0] * self.held.k * self.loose * float(self.array[0])
        scale = scale * float(self.wide[0, 0]) * self.slotted.k * self.queue[0] * self.power(1.0) * self.large[0, 0]
        scale = scale * self.factor * FACTOR[0] * self.wave.real.mean() * (2 if hasattr(self, "renamed") else 1)
        scale = scale * (3 if self.none is not None else 1) * self.rate.keywords["exp"]
        scale = scale * Chosen()() * marked() * self.shared["k"] * self.rule * self.long[-1] * sum(self.choice)
        scale = scale * next(iter(self.ordered.values())) * self.left.get("k", 3.0)
        return self.hidden[0](self.parts[-1](self.active(x))) * scale


def _code(x):
    return x[:, :4] * 7


CHANGES = {
    "one number of many": lambda m: m.large.data[0, 0].mul_(1 + 1e-6),
    "a NumPy view": lambda m: m.large.numpy().__setitem__((0, 0), 5.0),
    "a complex number": lambda m: m.wave.data[0].mul_(1j),
    "the conjugate": lambda m: setattr(m.wave, "data", m.wave.data.conj()),
    "a large array": lambda m: m.wide.__setitem__((0, 0), 5.0),
    "a slot": lambda m: setattr(m.slotted, "k", 5.0),
    "a queue": lambda m: m.queue.__setitem__(0, 5.0),
    "a default of a function": lambda m: m.power.__defaults__[0].__setitem__(0, 5.0),
    "keywords of a partial": lambda m: m.rate.keywords.__setitem__("exp", 5),
    "weights in a plain list": lambda m: m.hidden[0].weight.data.mul_(5),
    "which module is active": lambda m: setattr(m, "active", nn.Sequential(m.net, nn.Tanh())),
    "the order of modules": lambda m: m.parts.insert(1, m.parts[0]) or m.parts.__delitem__(-1),
    "an attribute's name": lambda m: setattr(m, "renamed", m.__dict__.pop("unused")),
    "a parameter that was None": lambda m: setattr(m, "none", nn.Parameter(torch.ones(1))),
    "an attribute of the class": lambda _m: setattr(Various, "factor", 5.0),
    "a global variable": lambda _m: FACTOR.__setitem__(0, 5.0),
    "the code of a function": lambda m: m.net[6].__dict__.__setitem__("forward", _code),
    "a list": lambda m: m.listed.__setitem__(0, 5.0),
    "a nested list": lambda m: m.named["a"].__setitem__(0, 5.0),
    "an object": lambda m: setattr(m.held, "k", 5.0),
    "a loose tensor": lambda m: m.loose.mul_(5),
    "a loose tensor's data": lambda m: m.loose.data.mul_(5),
    "an array": lambda m: m.array.__setitem__(0, 5.0),
    "a weight's data": lambda m: m.net[6].weight.data.mul_(5),
    "another forward": lambda m: setattr(m.net[6], "forward", lambda z: z[:, :4] * 5),
    "a global class": lambda _m: globals().__setitem__("Chosen", Twice),
    "an attribute of a function": lambda _m: setattr(marked, "k", 5.0),
    "a dict of the class": lambda _m: Various.shared.__setitem__("k", 5.0),
    "a property": lambda _m: setattr(Various, "rule", property(lambda _self: 5.0)),
    "the end of a long list": lambda m: m.long.__setitem__(-1, 5.0),
    "a set": lambda m: m.choice.add(5.0),
    "the order of a dict": lambda m: m.ordered.move_to_end("a"),
    "an item moved to another dict": lambda m: m.right.__setitem__("k", m.left.pop("k")),
    "all attributes at once": lambda m: setattr(m, "__dict__", {**vars(m), "listed": [5.0]}),
    "a sparse buffer": lambda m: setattr(m, "sparse", torch.eye(2).mul(3).to_sparse()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_of_the_model_is_noticed(change, monkeypatch):
    model, x = Various().eval(), images(0, 1, 3, 8, 8)
    monkeypatch.setattr(Various, "factor", 1.0)
    monkeypatch.setattr(Various, "shared", {"k": 1.0})
    monkeypatch.setattr(Various, "rule", property(lambda _self: 1.0))
    monkeypatch.setitem(globals(), "FACTOR", [1.0])
    monkeypatch.setitem(globals(), "Chosen", Once)
    monkeypatch.setattr(marked, "k", 1.0, raising=False)
    result = []
    session = Session(Problem(model, x), result.append, executor="inline", cache=Cache())
    requested = Request.of("gradient", {}, target=0)
    session.submit(requested)
    session.submit(requested)
    assert result[-1].cached, "NaN in a buffer does not equal itself"
    CHANGES[change](model)
    session.submit(requested)
    assert not result[-1].cached
    expected = attribute(model, x, method="gradient", target=0)
    assert torch.equal(result[-1].attribution.values, expected.values)
    session.close()


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_changed_attribute_of_a_scripted_module_is_noticed():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.k = 1.0

        def forward(self, x):
            return x * self.k

    model, x, result = nn.Sequential(conv_net(), torch.jit.script(Scaled())).eval(), images(0, 1, 3, 8, 8), []
    session = Session(Problem(model, x), result.append, executor="inline", cache=Cache())
    requested = Request.of("gradient", {}, target=0)
    session.submit(requested)
    session.submit(requested)
    assert result[-1].cached
    model[1].k = 3.0
    session.submit(requested)
    assert not result[-1].cached
    assert torch.equal(result[-1].attribution.values, attribute(model, x, method="gradient", target=0).values)
    session.close()


def test_a_new_object_with_the_id_of_a_deleted_one_is_noticed():
    """Ids of deleted objects are reused: a cached map of a deleted object must not be returned for a new one."""

    class Acting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.act = conv_net(), None

        def forward(self, x):
            return self.act(self.net(x))

    def times(k: float):
        return lambda y: y * k

    model, x, result = Acting().eval(), images(0, 1, 3, 8, 8), []
    session = Session(Problem(model, x), result.append, executor="inline", cache=Cache())
    for k in range(1, 25):
        model.act = times(k)
        session.submit(Request.of("gradient", {}, target=0))
        assert not result[-1].cached
        assert torch.equal(result[-1].attribution.values, attribute(model, x, method="gradient", target=0).values)
    session.close()


def test_inputs_are_converted_if_the_model_changes_its_type(problem, model):
    result = []
    session = Session(problem, result.append, executor="inline", cache=Cache())
    session.submit(smooth(4))
    model.double()
    session.submit(smooth(4))
    assert result[-1].error is None
    assert result[-1].attribution.values.dtype == torch.float64
    session.close()


def test_wait_computes_a_request_whose_submission_was_interrupted(problem, monkeypatch):
    events = Recorder()
    session = Session(problem, events)
    interrupt_once(monkeypatch, ThreadExecutor, "kick")
    with pytest.raises(KeyboardInterrupt):
        session.submit(smooth())
    assert session.wait(60)
    assert events[-1].state == "done"
    session.close()


@pytest.mark.parametrize("executor", ["inline", "thread"])
def test_wait_on_the_workers_own_thread_is_an_error_while_a_request_runs(problem, executor):
    waited = []

    def deliver(event: Event) -> None:
        try:
            waited.append((event.state, session.wait(60)))
        except RuntimeError as error:
            waited.append((event.state, str(error).partition(",")[0]))

    session = Session(problem, deliver, executor=executor)
    session.submit(smooth())
    assert session.wait(60)
    assert set(waited) == {
        ("running", "wait: called by an observer on the worker's own thread"),
        ("done", True),
    }
    session.close()
