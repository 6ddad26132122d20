"""Kernel interrupts: background computations end, the status says so, and the next request works."""

import threading
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import saliency_widgets as sw
from saliency_widgets.widgets.base import interrupts

NOTE = "Interrupted. Change a setting, or call .update(), to compute it again."


class Gate(nn.Module):
    """A linear model that runs ``free`` passes and then blocks until the gate is opened."""

    def __init__(self, free):
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))
        self.free, self.passes = free, 0

    def forward(self, x):
        Gate.count += 1
        if Gate.count > self.free:
            Gate.reached.set()
            Gate.opened.wait()
        return self.one * x[:, :3]


@pytest.fixture
def gate():
    Gate.count, Gate.reached, Gate.opened = 0, threading.Event(), threading.Event()
    yield Gate(free=6).eval()
    Gate.opened.set()


def open_gate(explorer):
    """Let the blocked pass finish, and wait for the worker."""
    Gate.opened.set()
    assert explorer.session.wait(60)
    explorer.view.flush()


X = torch.tensor([[1.0, 2.0, 3.0, 4.0]])


def interrupted(*_args, **_more):
    raise KeyboardInterrupt


def interrupt_of_wait(explorer, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(explorer.session._jobs.changed, "wait_for", interrupted)
        with pytest.raises(KeyboardInterrupt):
            explorer.wait()


def interrupt_of_another_cell(_explorer, _monkeypatch):
    interrupts._after_cell(SimpleNamespace(error_in_exec=KeyboardInterrupt()))


def interrupt_of_no_cell(_explorer, _monkeypatch):
    interrupts._stop_all(2, None)


@pytest.mark.parametrize("interrupt", [interrupt_of_wait, interrupt_of_another_cell, interrupt_of_no_cell])
def test_an_interrupt_stops_an_explorer_and_the_next_request_works(gate, interrupt, monkeypatch):
    explorer = sw.explore(gate, X, target=1, method="smoothgrad", n_samples=500, chunk_size=1)
    try:
        assert Gate.reached.wait(60)
        interrupt(explorer, monkeypatch)
        open_gate(explorer)
        assert explorer.view.status["done"] <= gate.free  # no pass begins after the interrupt
        assert explorer.view.status["state"] == "stopped"
        assert NOTE in explorer.view.status["notes"]
        with pytest.raises(RuntimeError, match="stopped"):
            explorer.wait()
        explorer.update(n_samples=4)
        assert torch.equal(explorer.wait(60).values, torch.tensor([[0.0, 1.0, 0.0, 0.0]]))
        explorer.view.flush()
        assert explorer.view.status["state"] == "done"
        assert NOTE not in explorer.view.status["notes"]
    finally:
        Gate.opened.set()
        explorer.close()


def test_cells_that_end_without_an_interrupt_stop_nothing(gate):
    explorer = sw.explore(gate, X, target=1, method="smoothgrad", n_samples=20, chunk_size=1)
    try:
        assert Gate.reached.wait(60)
        for error in (None, ValueError()):
            interrupts._after_cell(SimpleNamespace(error_in_exec=error))
        Gate.opened.set()
        assert explorer.wait(60).complete
    finally:
        explorer.close()


def test_an_interrupt_of_an_inline_computation_is_shown_and_raised():
    class Interrupted(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Parameter(torch.ones(()))

        def forward(self, x):
            if x.requires_grad and len(x) > 1:  # a noisy copy
                raise KeyboardInterrupt
            return self.one * x[:, :3]

    explorer = sw.explore(Interrupted(), X, target=1, method="gradient", executor="inline")
    with pytest.raises(KeyboardInterrupt):
        explorer.update(method="smoothgrad", n_samples=50)
    explorer.view.flush()
    assert explorer.view.status["state"] == "stopped"
    explorer.update(method="input_x_gradient")
    assert torch.equal(explorer.wait().values, torch.tensor([[0.0, 2.0, 0.0, 0.0]]))
    explorer.close()


def test_an_interrupted_wait_stops_a_comparison_and_go_resumes_it(monkeypatch):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    compared = sw.compare(model, torch.rand(1, 3, 8, 8), methods=["gradient", "smoothgrad"])
    stopped = []
    monkeypatch.setattr(compared, "stop", lambda: stopped.append(True))
    monkeypatch.setattr(compared._maps, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compared.wait(progress=False)
    monkeypatch.undo()
    assert stopped
    compared.stop()
    compared.go()
    assert len(compared.wait(60, progress=False)) == 2
    compared.close()


def test_an_interrupted_wait_stops_a_lesson(monkeypatch):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    lesson = sw.lesson(model, torch.rand(1, 3, 16, 16), steps=["input", "prediction"])
    lesson.wait(60)
    lesson._finished.discard("prediction")
    monkeypatch.setattr(lesson._examiner.jobs, "wait", interrupted)
    dropped = []
    monkeypatch.setattr(lesson._examiner.jobs, "drop", lambda: dropped.append(True))
    with pytest.raises(KeyboardInterrupt):
        lesson.wait()
    assert dropped
    lesson.close()
