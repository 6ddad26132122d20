"""Run one attack in a separate process: its figures, what it left behind, and how it ended if it failed."""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from soak.figures import Figures

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent
GRACE = 300.0  # seconds beyond twice an attack's time after which it hangs

ENDED, GROWS, THREADS, PROCESSES, DESCRIPTORS = (
    "did not end", "memory grows", "threads left", "processes left", "descriptors left",
)  # fmt: skip

_LOOK = 0.25  # seconds between samples
_GROWTH = 64.0  # MB that the floor of memory may rise after the warm-up
_LEAVING = 5.0  # seconds that its child processes have to end after it
_OPEN = 16  # descriptors that libraries may leave open
_TRACE = 6000  # characters of a failed process's last output to report


@dataclass
class Run:
    """The result of one run of an attack.

    Attributes:
        name: The name of its module.
        seed: The seed.
        seconds: The time that it took, including preparation.
        figures: Its figures, with the faults that were observed from outside.
        memory: MB at the beginning and the end, and the rise of the minimum in MB per minute after the warm-up.
    """

    name: str
    seed: int
    seconds: float
    figures: Figures
    memory: tuple[float, float, float] | None = None


def attacks(folder: Path = HERE) -> dict[str, str]:
    """The modules of a folder that have an attack, with the first lines of their docstrings."""
    lines = {}
    for path in sorted(folder.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "attack" for node in tree.body):
            lines[path.stem] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return lines


def run(name: str, seed: int, seconds: float, *, folder: Path = HERE, grace: float = GRACE) -> Run:
    """Run one attack, and kill it if it hangs.

    Args:
        name: The name of its module.
        seed: The seed of its moves.
        seconds: How long it attacks.
        folder: The folder of the module.
        grace: Seconds beyond twice that time after which it hangs.
    """
    began = time.monotonic()
    work = Path(tempfile.mkdtemp(prefix=f"soak-{name}-"))
    try:
        (work / "cwd").mkdir()
        samples, status = _watched(name, seed, seconds, folder, grace, work)
        figures, memory = _figures(work, samples)
        if status != 0:
            figures.fault(ENDED, f"seed {seed}: {_ending(status)}\n{_tail(work / 'output')}")
        if stray := _end_all(int((work / "pid").read_text())):
            figures.fault(PROCESSES, f"seed {seed}: {', '.join(stray)}")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    figures.expect_none_of(ENDED, GROWS, THREADS, PROCESSES, DESCRIPTORS)
    return Run(name, seed, time.monotonic() - began, figures, memory)


def _watched(
    name: str, seed: int, seconds: float, folder: Path, grace: float, work: Path
) -> tuple[list[tuple[float, float]], int | None]:
    """The attack's memory while it ran, and its exit status; None if it had to be killed."""
    limit = 2 * seconds + grace
    paths = [TESTS.parent, TESTS, TESTS / "browser", TESTS.parent / "tools", folder.parent]
    environ = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "TQDM_DISABLE": "1",
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
    }
    command = [sys.executable, "-X", "faulthandler", "-m", "soak.child"]
    with (work / "output").open("wb") as output:
        child = subprocess.Popen(
            [*command, f"{folder.name}.{name}", str(seed), str(seconds), str(limit), str(grace), str(work / "report")],
            cwd=work / "cwd", env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    (work / "pid").write_text(str(child.pid))
    samples: list[tuple[float, float]] = []
    until = time.monotonic() + limit + 2 * grace + 10  # the child exits by itself, unless it can't
    try:
        while (status := child.poll()) is None and time.monotonic() < until:
            samples.append((time.time(), _memory(child.pid)))
            time.sleep(_LOOK)
    except BaseException:
        _end_all(child.pid)
        raise
    if status is None:
        child.kill()
        child.wait()
    return samples, status


def _memory(pid: int) -> float:
    try:
        return psutil.Process(pid).memory_info().rss / 2**20
    except psutil.Error:  # the process has just ended
        return 0.0


def _figures(work: Path, samples: list[tuple[float, float]]) -> tuple[Figures, tuple[float, float, float] | None]:
    """The attack's figures, with what it left behind as faults, and its memory."""
    report = work / "report"
    if not report.is_file():
        return Figures(), None
    result: dict[str, Any] = json.loads(report.read_text())
    figures = Figures(Counter(result["counts"]), Counter(result["faults"]), result["examples"])
    for thread in result["threads"]:
        figures.fault(THREADS, thread)
    if result["descriptors"] > _OPEN:
        figures.fault(DESCRIPTORS, f"{result['descriptors']} more than before: {result['opened']}")
    begin, end = result["memory"]
    inside = [(at, size) for at, size in samples if result["began"] <= at <= result["ended"] and size]
    grown, pace = _rise(inside)
    if grown > _GROWTH:
        figures.fault(GROWS, f"by {grown:.0f} MB after the warm-up, {pace:+.1f} MB a minute")
    return figures, (begin, end, pace)


def _rise(samples: list[tuple[float, float]]) -> tuple[float, float]:
    """By how many MB the minimum of memory rose after the first third of the time, in all and per minute."""
    steady = samples[len(samples) // 3 :]
    quarter = len(steady) // 4
    if not quarter:
        return 0.0, 0.0
    first, last = steady[:quarter], steady[-quarter:]
    grown = min(size for _, size in last) - min(size for _, size in first)
    minutes = (last[0][0] - first[0][0]) / 60
    return grown, grown / minutes if minutes else 0.0


def _ending(status: int | None) -> str:
    if status is None:
        return "had to be killed"
    if status >= 0:
        return f"ended with status {status}"
    return f"ended by {signal.Signals(-status).name}"


def _tail(output: Path) -> str:
    text = output.read_text(errors="replace")
    return text if len(text) <= _TRACE else f"... {text[-_TRACE:]}"


def _end_all(group: int) -> list[str]:
    """End what still runs in an attack's process group after a while; return its names."""
    until = time.monotonic() + _LEAVING
    while (left := _members(group)) and time.monotonic() < until:
        time.sleep(_LOOK)
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=_LEAVING)
    return [f"{process.info['name']} ({process.pid})" for process in left]


def _members(group: int) -> list[psutil.Process]:
    members = []
    for process in psutil.process_iter(["name"]):
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process)
        except (ProcessLookupError, psutil.Error):
            continue
    return members
