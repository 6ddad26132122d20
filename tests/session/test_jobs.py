"""One worker for many jobs: order, newest of a key, who gives way, and what nobody waits for."""

from __future__ import annotations

import threading

import pytest

from saliency_widgets.attribution.errors import Cancelled
from saliency_widgets.session.jobs import Jobs

PATIENCE = 30


class Worker:
    """Notes who worked; the first to work waits for `go`."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.begun, self.go = threading.Event(), threading.Event()

    def work(self, name: str):
        def work(_check) -> None:
            self.order.append(name)
            self.begun.set()
            assert self.go.wait(PATIENCE)

        return work


@pytest.fixture
def jobs():
    made = Jobs()
    yield made
    made.close()


def test_the_preferred_come_first_whenever_they_came(jobs):
    worker = Worker()
    jobs.put("a", worker.work("a"))
    assert worker.begun.wait(PATIENCE)
    for name in "bcdef":
        jobs.put(name, worker.work(name), urgent=name == "f")
    jobs.prefer("ec")
    worker.go.set()
    assert jobs.wait(PATIENCE)
    assert "".join(worker.order) == "afecbd"


def test_of_each_key_only_the_newest_is_done(jobs):
    worker = Worker()
    jobs.put("first", worker.work("first"))
    assert worker.begun.wait(PATIENCE)
    for k in range(100):
        jobs.put("a", worker.work(f"a{k}"))
    jobs.put("b", worker.work("b"))
    jobs.drop("b")
    worker.go.set()
    assert jobs.wait(PATIENCE)
    assert worker.order == ["first", "a99"]


@pytest.mark.parametrize("how", ["put", "drop", "close"])
def test_a_running_job_ends_at_its_check_and_is_not_repeated(how):
    jobs, begun, go, begins, ended = Jobs(), threading.Event(), threading.Event(), [], []

    def work(check) -> None:
        begins.append(1)
        begun.set()
        assert go.wait(PATIENCE)
        try:
            check()
        except Cancelled:
            ended.append(1)
            raise

    jobs.put("a", work)
    assert begun.wait(PATIENCE)
    newer = []
    if how == "put":
        jobs.put("a", lambda _check: newer.append(1))
    elif how == "drop":
        jobs.drop("a")
    else:  # it goes on once they are closed, and not before
        executor = jobs._executor
        join, executor.close = executor.close, lambda: (go.set(), join())
        jobs.close()
    go.set()
    assert jobs.wait(PATIENCE)
    assert (begins, ended, newer) == ([1], [1], [1] * (how == "put"))
    jobs.close()


def test_a_job_that_gives_way_to_an_urgent_one_starts_again(jobs):
    order, begun, go = [], threading.Event(), threading.Event()

    def work(check) -> None:
        order.append("begun")
        begun.set()
        assert go.wait(PATIENCE)
        check()
        order.append("done")

    jobs.put("a", work)
    assert begun.wait(PATIENCE)
    jobs.put("b", lambda _check: order.append("urgent"), urgent=True)
    go.set()
    assert jobs.wait(PATIENCE)
    assert order == ["begun", "urgent", "begun", "done"]


def test_only_urgent_jobs_go_on_while_other_jobs_are_busy_and_the_rest_as_soon_as_they_end(jobs):
    worker, done = Worker(), []
    jobs.put("map", worker.work("map"))
    assert worker.begun.wait(PATIENCE)
    others = Jobs(busy=jobs.has)
    others.put("a", lambda check: (check(), done.append("a")))
    others.put("b", lambda check: (check(), done.append("b")), urgent=True)
    assert others.wait(PATIENCE, "b")
    assert done == ["b"]
    assert not others.wait(0.1)
    worker.go.set()
    assert others.wait(PATIENCE)
    assert done == ["b", "a"]
    others.put("a", lambda check: (check(), done.append("a")))
    assert others.wait(PATIENCE)
    others.close()


@pytest.mark.parametrize("hook", ["reports", "fails"])
def test_what_one_job_cannot_report_keeps_no_other_waiting(jobs, hook, monkeypatch, capsys):
    reported = []

    def report(failure):
        reported.append(failure.exc_value)
        if hook == "fails":
            raise SystemExit

    monkeypatch.setattr(threading, "excepthook", report)

    def fail(_check):
        raise ValueError("not mine")

    done = []
    for name, work in {"a": lambda _check: done.append("a"), "b": fail, "c": lambda _check: done.append("c")}.items():
        jobs.put(name, work)
    assert jobs.wait(PATIENCE)
    assert done == ["a", "c"]
    assert [str(error) for error in reported] == ["not mine"]
    assert ("not mine" in capsys.readouterr().err) == (hook == "fails")


def test_no_put_is_lost_and_one_thread_works(jobs):
    inside, most, newest, done = 0, 0, 0, 0

    def work(_check) -> None:
        nonlocal inside, most, done
        inside += 1
        most, now = max(most, inside), newest
        threading.Event().wait(0.001)
        inside, done = inside - 1, now

    for k in range(100):
        newest = k + 1
        jobs.put("a", work)
        if k % 10 == 9:
            assert jobs.wait(PATIENCE)
            assert done == newest
    assert most == 1


def test_what_is_done_while_there_is_no_job_gives_way():
    tried, done = [], threading.Event()
    order = []

    def idle(check) -> None:
        tried.append(1)
        if len(tried) == 1:
            jobs.put("late", lambda _check: order.append("late"))
        try:
            check()
        except Cancelled:
            tried.append("gave way")
            raise
        done.set()

    jobs = Jobs(idle=idle)
    jobs.put("first", lambda _check: order.append("first"))
    assert done.wait(PATIENCE)
    jobs.close()
    assert order == ["first", "late"]
    assert tried[:3] == [1, "gave way", 1]


def test_inline_jobs_are_done_inside_each_other(jobs):
    order = []
    inline = Jobs("inline", idle=lambda check: (check(), order.append("idle")))

    def outer(check) -> None:
        inline.put("b", lambda _check: order.append("inner"))
        check()
        inline.put("a", lambda _check: order.append("newer"))
        check()
        order.append("never")

    inline.put("a", outer)
    assert order == ["inner", "newer", "idle"]


def test_closed_they_do_no_more():
    jobs, worked = Jobs("inline"), []
    jobs.put("a", lambda _check: worked.append(1))
    jobs.close()
    jobs.put("a", lambda _check: worked.append(2))
    assert worked == [1]
    assert jobs.wait(0)
