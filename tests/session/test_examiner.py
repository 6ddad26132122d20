"""Checks beside the image: urgent ones first, the newest of a name, and never in the way of a map."""

from __future__ import annotations

import threading

import pytest

from saliency_widgets.attribution.errors import Cancelled
from saliency_widgets.session.examiner import Check, Examiner
from saliency_widgets.session.jobs import Jobs


def counting(count: int, *, gate: threading.Event | None = None, begun: threading.Event | None = None):
    """A check that asks before each step, and is held at a gate."""

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
def message():
    return []


def test_a_check_tells_its_estimates_and_then_that_it_is_done(message):
    examiner = Examiner(message.append, executor="inline")
    examiner.submit(Check("curves", counting(3)))
    assert [(t.result, t.state) for t in message] == [(0, "running"), (1, "running"), (2, "running"), (2, "done")]
    examiner.close()


def test_the_newest_of_a_name_counts(message):
    gate, begun = threading.Event(), threading.Event()
    examiner = Examiner(message.append)
    examiner.submit(Check("curves", counting(5, gate=gate, begun=begun)))
    assert begun.wait(20)
    second = Check("curves", counting(2))
    examiner.submit(second)
    gate.set()
    assert examiner.jobs.wait(20)
    assert {id(t.check) for t in message} == {id(second)}
    assert message[-1].state == "done"
    examiner.close()


def test_what_is_urgent_goes_first_and_what_it_interrupts_is_done_afterwards(message):
    gate, begun = threading.Event(), threading.Event()
    examiner = Examiner(message.append)
    examiner.submit(Check("curves", counting(3, gate=gate, begun=begun)))
    assert begun.wait(20)
    examiner.submit(Check("ablation", counting(1), urgent=True))
    gate.set()
    assert examiner.jobs.wait(20)
    assert [t.check.name for t in message if t.state == "done"] == ["ablation", "curves"]
    examiner.close()


def test_nothing_but_what_is_urgent_goes_on_while_a_map_is_computed(message):
    map_done, maps = threading.Event(), Jobs()
    maps.put("map", lambda _check: map_done.wait(20))
    examiner = Examiner(message.append, busy=maps.has)
    examiner.submit(Check("curves", counting(2)))
    examiner.submit(Check("ablation", counting(1), urgent=True))
    assert not examiner.jobs.wait(0.3)
    assert [t.check.name for t in message if t.state == "done"] == ["ablation"]
    map_done.set()
    assert examiner.jobs.wait(20)
    assert message[-1].check.name == "curves"
    examiner.close()
    maps.close()


def test_an_error_is_told_and_the_next_check_is_answered(message):
    def broken(_check):
        raise ValueError("no region")
        yield

    examiner = Examiner(message.append, executor="inline")
    examiner.submit(Check("ablation", broken))
    assert message[-1].state == "error"
    assert str(message[-1].error) == "no region"
    examiner.submit(Check("ablation", counting(1)))
    assert message[-1].state == "done"
    examiner.close()


def test_an_error_that_cannot_be_told_keeps_no_other_check_waiting(monkeypatch):
    reported, message, both = [], [], threading.Event()
    monkeypatch.setattr(threading, "excepthook", reported.append)

    def broken(_check):
        assert both.wait(30)
        raise ValueError("no region")
        yield

    def deliver(news):
        if news.state == "error":
            raise SystemExit
        message.append(news)

    examiner = Examiner(deliver)
    examiner.submit(Check("ablation", broken))
    examiner.submit(Check("curves", counting(1)))
    both.set()
    assert examiner.jobs.wait(30)
    assert message[-1].state == "done"
    assert [type(one.exc_value) for one in reported] == [ValueError]
    examiner.close()


@pytest.mark.parametrize("how", ["drop", "close"])
def test_what_is_dropped_ends_and_tells_nothing_more(message, how):
    gate, begun, ended = threading.Event(), threading.Event(), threading.Event()

    def begin(check):
        try:
            yield from counting(3, gate=gate, begun=begun)(check)
        except Cancelled:
            ended.set()
            raise

    threads = set(threading.enumerate())
    examiner = Examiner(message.append)
    examiner.submit(Check("curves", begin))
    assert begun.wait(20)
    if how == "drop":
        examiner.jobs.drop("curves")
        gate.set()
        assert examiner.jobs.wait(20)
    else:  # it goes on once it is closed, and not before
        executor = examiner.jobs._executor
        join, executor.close = executor.close, lambda: (gate.set(), join())
    examiner.close()
    assert ended.wait(20)
    assert message == []
    assert set(threading.enumerate()) <= threads
    examiner.submit(Check("curves", counting(1)))
    assert message == []
