"""Trust checks: urgent ones run first, the newest of a name replaces older ones, and maps are never delayed."""

from __future__ import annotations

import threading

import pytest

from saliency_widgets.attribution.errors import Cancelled
from saliency_widgets.session.examiner import Check, Examiner
from saliency_widgets.session.jobs import Jobs


def counting(count: int, *, gate: threading.Event | None = None, begun: threading.Event | None = None):
    """Return a computation of ``count`` steps that can be cancelled before each step, and blocked by a gate."""

    def begin(check):
        for k in range(count):
            if begun is not None:
                begun.set()
            if gate is not None:
                assert gate.wait(20)
            check()
            yield k

    return begin


@pytest.fixture
def events():
    return []


def test_a_check_delivers_its_estimates_and_then_that_it_is_done(events):
    examiner = Examiner(events.append, executor="inline")
    examiner.submit(Check("curves", counting(3)))
    assert [(event.result, event.state) for event in events] == [
        (0, "running"),
        (1, "running"),
        (2, "running"),
        (2, "done"),
    ]
    examiner.close()


def test_a_newer_check_replaces_an_older_one_of_the_same_name(events):
    gate, begun = threading.Event(), threading.Event()
    examiner = Examiner(events.append)
    examiner.submit(Check("curves", counting(5, gate=gate, begun=begun)))
    assert begun.wait(20)
    second = Check("curves", counting(2))
    examiner.submit(second)
    gate.set()
    assert examiner.jobs.wait(20)
    assert {id(event.check) for event in events} == {id(second)}
    assert events[-1].state == "done"
    examiner.close()


def test_an_urgent_check_runs_first_and_the_interrupted_one_afterwards(events):
    gate, begun = threading.Event(), threading.Event()
    examiner = Examiner(events.append)
    examiner.submit(Check("curves", counting(3, gate=gate, begun=begun)))
    assert begun.wait(20)
    examiner.submit(Check("ablation", counting(1), urgent=True))
    gate.set()
    assert examiner.jobs.wait(20)
    assert [event.check.name for event in events if event.state == "done"] == ["ablation", "curves"]
    examiner.close()


def test_only_urgent_checks_run_while_a_map_is_computed(events):
    map_done, maps = threading.Event(), Jobs()
    maps.put("map", lambda _check: map_done.wait(20))
    examiner = Examiner(events.append, busy=maps.has)
    examiner.submit(Check("curves", counting(2)))
    examiner.submit(Check("ablation", counting(1), urgent=True))
    assert not examiner.jobs.wait(0.3)
    assert [event.check.name for event in events if event.state == "done"] == ["ablation"]
    map_done.set()
    assert examiner.jobs.wait(20)
    assert events[-1].check.name == "curves"
    examiner.close()
    maps.close()


def test_an_error_is_delivered_and_the_next_check_runs(events):
    def broken(_check):
        raise ValueError("no region")
        yield

    examiner = Examiner(events.append, executor="inline")
    examiner.submit(Check("ablation", broken))
    assert events[-1].state == "error"
    assert str(events[-1].error) == "no region"
    examiner.submit(Check("ablation", counting(1)))
    assert events[-1].state == "done"
    examiner.close()


def test_an_error_that_cannot_be_delivered_does_not_block_other_checks(monkeypatch):
    reported, events, both = [], [], threading.Event()
    monkeypatch.setattr(threading, "excepthook", reported.append)

    def broken(_check):
        assert both.wait(30)
        raise ValueError("no region")
        yield

    def deliver(event):
        if event.state == "error":
            raise SystemExit
        events.append(event)

    examiner = Examiner(deliver)
    examiner.submit(Check("ablation", broken))
    examiner.submit(Check("curves", counting(1)))
    both.set()
    assert examiner.jobs.wait(30)
    assert events[-1].state == "done"
    assert [type(one.exc_value) for one in reported] == [ValueError]
    examiner.close()


@pytest.mark.parametrize("how", ["drop", "close"])
def test_a_dropped_check_ends_and_delivers_nothing(events, how):
    gate, begun, ended = threading.Event(), threading.Event(), threading.Event()

    def begin(check):
        try:
            yield from counting(3, gate=gate, begun=begun)(check)
        except Cancelled:
            ended.set()
            raise

    threads = set(threading.enumerate())
    examiner = Examiner(events.append)
    examiner.submit(Check("curves", begin))
    assert begun.wait(20)
    if how == "drop":
        examiner.jobs.drop("curves")
        gate.set()
        assert examiner.jobs.wait(20)
    else:  # the gate opens while the executor is being closed, and not before
        executor = examiner.jobs._executor
        join, executor.close = executor.close, lambda: (gate.set(), join())
    examiner.close()
    assert ended.wait(20)
    assert events == []
    assert set(threading.enumerate()) <= threads
    examiner.submit(Check("curves", counting(1)))
    assert events == []
