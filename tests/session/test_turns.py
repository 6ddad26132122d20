"""One worker for many sessions: order, brief work, and who gives way."""

from __future__ import annotations

import threading

import pytest

from saliency_widgets.attribution.errors import Cancelled
from saliency_widgets.session.turns import Turns

PATIENCE = 30


class Worker:
    """Notes who worked; the first to work waits for `go`."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.begun, self.go = threading.Event(), threading.Event()
        self.all = threading.Semaphore(0)

    def work(self, name: str):
        def work(brief: bool = False) -> None:
            self.order.append(name)
            self.begun.set()
            assert self.go.wait(PATIENCE)
            self.all.release()

        return work

    def finished(self, count: int) -> None:
        for _ in range(count):
            assert self.all.acquire(timeout=PATIENCE)


@pytest.fixture
def turns():
    made = Turns()
    yield made
    made.close()


def test_the_preferred_come_first_whenever_they_came(turns):
    worker = Worker()
    seats = {name: turns.seat(name)(worker.work(name)) for name in "abcdef"}
    seats["a"].kick()
    assert worker.begun.wait(PATIENCE)
    for name in "bcdef":
        seats[name].kick()
    turns.prefer("ec")
    worker.go.set()
    worker.finished(6)
    assert "".join(worker.order) == "aecbdf"


@pytest.mark.parametrize("hook", ["reports", "fails"])
def test_what_one_seat_cannot_report_keeps_no_other_waiting(turns, hook, monkeypatch, capsys):
    reported = []

    def report(failure):
        reported.append(failure.exc_value)
        if hook == "fails":
            raise SystemExit

    monkeypatch.setattr(threading, "excepthook", report)

    def fail():
        raise ValueError("not mine")

    worker = Worker()
    seats = [turns.seat("a")(worker.work("a")), turns.seat("b")(fail), turns.seat("c")(worker.work("c"))]
    for seat in seats:
        seat.kick()
    worker.go.set()
    worker.finished(2)
    assert [str(error) for error in reported] == ["not mine"]
    assert ("not mine" in capsys.readouterr().err) == (hook == "fails")


def test_brief_work_waits_for_nobody(turns):
    worker = Worker()
    long = turns.seat("long")(worker.work("long"))
    long.kick()
    assert worker.begun.wait(PATIENCE)
    drawn = threading.Event()
    turns.seat("brief")(lambda brief: drawn.set()).kick(brief=True)
    assert drawn.wait(PATIENCE)
    worker.go.set()
    worker.finished(1)


@pytest.mark.parametrize("brief", [False, True])
def test_work_that_raises_holds_up_nobody(turns, brief, monkeypatch):
    raised = threading.Semaphore(0)
    monkeypatch.setattr(threading, "excepthook", lambda _args: raised.release())
    worker = Worker()

    def failing(name: str):
        def work(brief: bool = False) -> None:
            worker.work(name)(brief)
            raise ArithmeticError

        return work

    works = {"a": worker.work("a"), "b": failing("b"), "c": failing("c"), "d": worker.work("d")}
    for name, work in works.items():
        turns.seat(name)(work).kick(brief=brief)
        assert worker.begun.wait(PATIENCE)  # the others come while the first is worked at
    worker.go.set()
    worker.finished(4)
    assert all(raised.acquire(timeout=PATIENCE) for _ in "bc")
    assert worker.order == [*works]


def test_one_seat_is_worked_at_by_one_thread_and_no_kick_is_lost(turns):
    inside, most, requested, done = 0, 0, 0, 0
    changed = threading.Condition()

    def work(brief: bool = False) -> None:
        nonlocal inside, most, done
        with changed:
            inside += 1
            most = max(most, inside)
            now = requested
        threading.Event().wait(0.001)
        with changed:
            inside -= 1
            done = now
            changed.notify_all()

    seat = turns.seat("one")(work)
    for k in range(100):
        with changed:
            requested = k + 1
        seat.kick(brief=k % 2 == 1)
        if k % 10 == 9:
            with changed:
                assert changed.wait_for(lambda want=k + 1: done == want, PATIENCE)
    assert most == 1


def test_what_is_done_while_nobody_waits_gives_way():
    tried, done, seats = [], threading.Event(), {}

    def idle(check) -> None:
        tried.append(1)
        if len(tried) == 1:
            seats["late"].kick()
        try:
            check()
        except Cancelled:
            tried.append("gave way")
            raise
        done.set()

    turns = Turns(idle=idle)
    order = []
    seats["late"] = turns.seat("late")(lambda: order.append("late"))
    turns.seat("first")(lambda: order.append("first")).kick()
    assert done.wait(PATIENCE)
    turns.close()
    assert order == ["first", "late"]
    assert tried[:3] == [1, "gave way", 1]


def test_closed_it_works_no_more():
    turns, worked = Turns("inline"), []
    seat = turns.seat("a")(lambda: worked.append(1))
    seat.kick()
    turns.close()
    seat.kick()
    seat.kick(brief=True)
    assert worked == [1]
