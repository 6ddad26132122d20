"""Timing in interleaved rounds, and in separate processes for other libraries."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from statistics import median
from typing import Any, TypeVar

import torch

Name = TypeVar("Name")


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        model: Which model.
        what: What is compared with what.
        value: The figure.
        limit: What it should not exceed; None if it is only for comparison.
        unit: "ratio", "frames", "calls".
        note: Details.
    """

    model: str
    what: str
    value: float
    limit: float | None = None
    unit: str = "ratio"
    note: str = ""

    @property
    def held(self) -> bool | None:
        """Whether the value is within the limit; None without one."""
        return None if self.limit is None else self.value <= self.limit

    def as_dict(self) -> dict[str, Any]:
        """The row as JSON."""
        return {**asdict(self), "held": self.held}


def seconds(work: Callable[[], Any]) -> float:
    """CPU seconds of this process; with a GPU, wall time until it has finished."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        torch.cuda.synchronize()
        return time.perf_counter() - began
    began = time.process_time()
    work()
    return time.process_time() - began


def interleaved(timers: Mapping[Name, Callable[[], float]], rounds: int) -> dict[Name, float]:
    """The median of each timer's seconds over rounds of all timers, after a warm-up round."""
    seconds: dict[Name, list[float]] = {name: [] for name in timers}
    for turn in range(rounds + 1):
        for name, timer in timers.items():
            spent = timer()
            if turn:
                seconds[name].append(spent)
    return {name: median(times) for name, times in seconds.items()}


class Elsewhere:
    """A process in which work is timed, with none of the settings that saliency_widgets makes.

    Args:
        build: A module-level function that is called there and returns the pieces of work by name.
        args: Its arguments.
    """

    def __init__(self, build: Callable[..., Mapping[str, Callable[[], Any]]], *args: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._line, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, build, args), daemon=True)
        self._process.start()
        self.names: list[str] = self._line.recv()

    def timer(self, name: str) -> Callable[[], float]:
        """Return a timer that runs one piece of work there."""

        def timed() -> float:
            self._line.send(name)
            return self._line.recv()

        return timed

    def close(self) -> None:
        """End the process."""
        self._line.send(None)
        self._process.join(30)


def _serve(line: Connection, build: Callable[..., Mapping[str, Callable[[], Any]]], args: tuple) -> None:
    torch.set_num_threads(1)
    works = build(*args)
    line.send(list(works))
    while (name := line.recv()) is not None:
        line.send(seconds(works[name]))
