"""Jobs of one worker: their order, the newest of each key, interruption, errors and idle work."""

from __future__ import annotations

import threading

import pytest

from saliency_widgets.attribution.errors import Cancelled
from saliency_widgets.session.jobs import Jobs

TIMEOUT = 30


class Worker:
    """Records the order of its jobs, which wait for ``go``."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.begun, self.go = threading.Event(), threading.Event()

    def work(self, name: str):
        def work(_check) -> None:
            self.order.append(name)
            self.begun.set()
            assert self.go.wait(TIMEOUT)

        return work


@pytest.fixture
def jobs():
    made = Jobs()
    yield made
    made.close()


def test_urgent_jobs_run_first_and_then_preferred_ones(jobs):
    worker = Worker()
    jobs.put("a", worker.work("a"))
    assert worker.begun.wait(TIMEOUT)
    for name in "bcdef":
        jobs.put(name, worker.work(name), urgent=name == "f")
    jobs.prefer("ec")
    worker.go.set()
    assert jobs.wait(TIMEOUT)
    assert "".join(worker.order) == "afecbd"


def test_only_the_newest_job_of_a_key_runs(jobs):
    worker = Worker()
    jobs.put("first", worker.work("first"))
    assert worker.begun.wait(TIMEOUT)
    for k in range(100):
        jobs.put("a", worker.work(f"a{k}"))
    jobs.put("b", worker.work("b"))
    jobs.drop("b")
    worker.go.set()
    assert jobs.wait(TIMEOUT)
    assert worker.order == ["first", "a99"]


@pytest.mark.parametrize("how", ["put", "drop", "close"])
def test_a_running_job_ends_at_its_check_and_is_not_repeated(how):
    jobs, begun, go, begins, ended = Jobs(), threading.Event(), threading.Event(), [], []

    def work(check) -> None:
        begins.append(1)
        begun.set()
        assert go.wait(TIMEOUT)
        try:
            check()
        except Cancelled:
            ended.append(1)
            raise

    jobs.put("a", work)
    assert begun.wait(TIMEOUT)
    newer = []
    if how == "put":
        jobs.put("a", lambda _check: newer.append(1))
    elif how == "drop":
        jobs.drop("a")
    else:  # the job continues while the executor is being closed, and not before
        executor = jobs._executor
        join, executor.close = executor.close, lambda: (go.set(), join())
        jobs.close()
    go.set()
    assert jobs.wait(TIMEOUT)
    assert (begins, ended, newer) == ([1], [1], [1] * (how == "put"))
    jobs.close()


def test_a_job_that_an_urgent_one_interrupts_starts_again(jobs):
    order, begun, go = [], threading.Event(), threading.Event()

    def work(check) -> None:
        order.append("begun")
        begun.set()
        assert go.wait(TIMEOUT)
        check()
        order.append("done")

    jobs.put("a", work)
    assert begun.wait(TIMEOUT)
    jobs.put("b", lambda _check: order.append("urgent"), urgent=True)
    go.set()
    assert jobs.wait(TIMEOUT)
    assert order == ["begun", "urgent", "begun", "done"]


def test_only_urgent_jobs_run_while_other_jobs_are_busy_and_the_rest_afterwards(jobs):
    worker, done = Worker(), []
    jobs.put("map", worker.work("map"))
    assert worker.begun.wait(TIMEOUT)
    others = Jobs(busy=jobs.has)
    others.put("a", lambda check: (check(), done.append("a")))
    others.put("b", lambda check: (check(), done.append("b")), urgent=True)
    assert others.wait(TIMEOUT, "b")
    assert done == ["b"]
    assert not others.wait(0.1)
    worker.go.set()
    assert others.wait(TIMEOUT)
    assert done == ["b", "a"]
    others.put("a", lambda check: (check(), done.append("a")))
    assert others.wait(TIMEOUT)
    others.close()


@pytest.mark.parametrize("hook", ["reports", "fails"])
def test_a_failing_job_does_not_block_others_even_if_its_report_fails(jobs, hook, monkeypatch, capsys):
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
    assert jobs.wait(TIMEOUT)
    assert done == ["a", "c"]
    assert [str(error) for error in reported] == ["not mine"]
    assert ("not mine" in capsys.readouterr().err) == (hook == "fails")


def test_no_job_is_lost_and_one_runs_at_a_time(jobs):
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
            assert jobs.wait(TIMEOUT)
            assert done == newest
    assert most == 1


def test_a_job_interrupts_idle_work():
    tried, done = [], threading.Event()
    order = []

    def idle(check) -> None:
        tried.append(1)
        if len(tried) == 1:
            jobs.put("late", lambda _check: order.append("late"))
        try:
            check()
        except Cancelled:
            tried.append("cancelled")
            raise
        done.set()

    jobs = Jobs(idle=idle)
    jobs.put("first", lambda _check: order.append("first"))
    assert done.wait(TIMEOUT)
    jobs.close()
    assert order == ["first", "late"]
    assert tried[:3] == [1, "cancelled", 1]


def test_inline_jobs_run_nested(jobs):
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


def test_no_job_runs_after_close():
    jobs, worked = Jobs("inline"), []
    jobs.put("a", lambda _check: worked.append(1))
    jobs.close()
    jobs.put("a", lambda _check: worked.append(2))
    assert worked == [1]
    assert jobs.wait(0)
