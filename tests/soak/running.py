"""One attack in a process of its own: its figures, what it left behind, and how it ended where it didn't end well."""

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
GRACE = 300.0  # seconds beyond twice its time, after which an attack hangs

ENDED, GROWS, THREADS, PROCESSES, DESCRIPTORS = (
    "did not end", "memory grows", "threads left", "processes left", "descriptors left",
)  # fmt: skip

_LOOK = 0.25  # seconds between samples
_GROWTH = 64.0  # MB that the floor of memory may rise after the warm-up
_LEAVING = 5.0  # seconds in which its processes may end after it
_OPEN = 16  # descriptors that libraries may leave open for themselves
_TRACE = 6000  # characters of what a process that didn't end said last


@dataclass
class Run:
    """An attack that was run.

    Attributes:
        name: Of its module.
        seed: As it was called.
        seconds: That it took, preparation included.
        figures: Its own, and what was seen from outside.
        memory: MB at the beginning and the end, and by how much the floor rose in a minute after the warm-up.
    """

    name: str
    seed: int
    seconds: float
    figures: Figures
    memory: tuple[float, float, float] | None = None


def attacks(folder: Path = HERE) -> dict[str, str]:
    """The modules of a folder that have an attack, with the first line of what each says of itself."""
    lines = {}
    for path in sorted(folder.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "attack" for node in tree.body):
            lines[path.stem] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return lines


def run(name: str, seed: int, seconds: float, *, folder: Path = HERE, grace: float = GRACE) -> Run:
    """Run one attack to its end, or end it.

    Args:
        name: Of its module.
        seed: Of its moves.
        seconds: For which it attacks.
        folder: Where the module is.
        grace: Seconds beyond twice that, after which it hangs.
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
    """The attack's memory while it ran, and its exit status; None where it had to be ended."""
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
    until = time.monotonic() + limit + 2 * grace + 10  # the child ends itself, unless it can't
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
    except psutil.Error:  # it has just ended
        return 0.0


def _figures(work: Path, samples: list[tuple[float, float]]) -> tuple[Figures, tuple[float, float, float] | None]:
    """What the attack counted, and what it left behind."""
    report = work / "report"
    if not report.is_file():
        return Figures(), None
    said: dict[str, Any] = json.loads(report.read_text())
    figures = Figures(Counter(said["counts"]), Counter(said["faults"]), said["examples"])
    for thread in said["threads"]:
        figures.fault(THREADS, thread)
    if said["descriptors"] > _OPEN:
        figures.fault(DESCRIPTORS, f"{said['descriptors']} more than before: {said['opened']}")
    begin, end = said["memory"]
    inside = [(at, size) for at, size in samples if said["began"] <= at <= said["ended"] and size]
    grown, pace = _rise(inside)
    if grown > _GROWTH:
        figures.fault(GROWS, f"by {grown:.0f} MB after the warm-up, {pace:+.1f} MB a minute")
    return figures, (begin, end, pace)


def _rise(samples: list[tuple[float, float]]) -> tuple[float, float]:
    """By how many MB the floor of memory rose after the first third, and in a minute of that time."""
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
    """End what runs in an attack's process group; what was still there after a while, by name."""
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
