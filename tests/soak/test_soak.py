"""Short runs of all attacks (`make soak` runs them for an hour), and checks that they and the runner detect faults."""

from __future__ import annotations

import inspect
import json
import random
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from toys import conv_net, images

import saliency_widgets as sw
from saliency_widgets.widgets import Explorer
from soak import calls, running
from soak.__main__ import main
from soak.figures import Figures
from soak.pages import Page, movable

SECONDS = 6.0
ATTACKS = [name for name in running.attacks() if not name.startswith("browser")]  # tests/browser runs that one

Plant = Callable[[str, str], None]


@pytest.fixture(scope="module")
def runs() -> Iterator[dict[str, Future[running.Run]]]:
    """All attacks, two at a time: each runs in a separate process with one busy thread."""
    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(running.run, name, 1, SECONDS) for name in ATTACKS}


@pytest.mark.soak
@pytest.mark.parametrize("name", ATTACKS)
def test_a_short_attack_finds_no_faults(name: str, runs: dict[str, Future[running.Run]]) -> None:
    figures = runs[name].result().figures
    assert figures.counts.total() > 0
    assert {name: count for name, count in figures.faults.items() if count} == {}, figures.examples


@pytest.mark.parametrize("seed", range(3))
def test_a_seed_reproduces_the_messages_of_the_page(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the page may press "Save"
    messages: list[list[str]] = []
    for _ in range(2):
        with Page(Figures(), seed) as page:
            explorer = Explorer(conv_net(), images()[:1], executor="inline", method="gradient")
            draw, trails = random.Random(seed), []
            for _ in range(20):
                page.move(draw, explorer)
                page.nonsense(draw, explorer)
                trails += page._trail
            messages.append([*trails, *[type(widget).__name__ for widget in movable(explorer)]])
            explorer.close()
    assert messages[0] == messages[1]


OWNERS = {
    "Explorer": ("explorer", "rows"),
    "Attribution": ("attribution", "tokens"),
}  # the names of a class's objects in the calls
RESULTS = {"Attribution", "Sweep"}  # callers don't construct them


def test_everything_public_that_takes_arguments_is_attacked() -> None:
    called = {one.name.partition(" ")[0] for one in calls.every()}
    called |= {"attribution.part", "attribution.settings_from_json"}  # called under other names
    called |= {"explorer.submit", "explorer.refuse", "explorer.status_of"}  # for the explorer's parts: Explored
    missing: list[tuple[str, ...]] = []
    for name in sw.__all__:
        public = getattr(sw, name)
        if inspect.isclass(public):
            for method, function in inspect.getmembers(public, inspect.isfunction):
                ours = function.__module__.startswith("saliency_widgets") and not method.startswith("_")
                if ours and len(inspect.signature(function).parameters) > 1:
                    missing += [tuple(f"{owner}.{method}" for owner in OWNERS.get(name, (name.lower(),)))]
        if name not in RESULTS and inspect.signature(public).parameters:
            missing.append((name,))
    assert [names for names in missing if not called & {*names}] == []


# ---- the runner detects attacks that go wrong


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "planted"
    made.mkdir()
    return made


@pytest.fixture
def plant(folder: Path) -> Plant:
    """Write a module whose attack consists of the given lines."""

    def write(name: str, lines: str) -> None:
        begin = "import os, re, signal, subprocess, sys, threading, time\nfrom soak.figures import Figures\n\n"
        body = textwrap.indent(textwrap.dedent(lines).strip(), "    ")
        text = (
            f'"""Planted."""\n{begin}def attack(seed, seconds):\n    figures = Figures()\n{body}\n    return figures\n'
        )
        (folder / f"{name}.py").write_text(text)

    return write


ENDINGS = {
    "raises": ("raise ValueError('planted')", "ValueError: planted"),
    "crashes": ("os.kill(os.getpid(), signal.SIGSEGV)", "Fatal Python error: Segmentation fault"),
    "exits": ("os._exit(3)", "ended with status 3"),
    "is killed": ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
    "hangs": ("threading.Event().wait()", "in attack"),
    "hangs in C": ("re.match(r'(a+)+$', 'a' * 60 + 'b')", "in attack"),
    "hangs at its end": ("threading.Thread(target=threading.Event().wait).start()", "Timeout"),
}


@pytest.mark.soak
@pytest.mark.parametrize("ending", ENDINGS)
def test_an_attack_that_does_not_end_well_is_reported_with_a_trace(plant: Plant, folder: Path, ending: str) -> None:
    lines, trace = ENDINGS[ending]
    plant("bad", lines)
    figures = running.run("bad", 7, 0.1, folder=folder, grace=6).figures
    assert figures.faults[running.ENDED] == 1
    (example,) = figures.examples[running.ENDED]
    assert example.startswith("seed 7: ")
    assert trace in example


@pytest.mark.soak
def test_a_leak_is_reported_and_constant_high_memory_is_not(plant: Plant, folder: Path) -> None:
    plant("leaks", "global held; held = [time.sleep(0.05) or bytearray(b'x' * 2**22) for _ in range(120)]")
    plant("large", "held = bytearray(b'x' * 2**28); [time.sleep(0.05) for _ in range(120)]")
    assert running.run("leaks", 0, 6, folder=folder).figures.faults[running.GROWS] == 1
    large = running.run("large", 0, 6, folder=folder)
    assert large.figures.faults.total() == 0
    assert large.memory is not None


@pytest.mark.soak
def test_leftover_threads_processes_and_descriptors_are_reported(plant: Plant, folder: Path, tmp_path: Path) -> None:
    plant(
        "forgets",
        f"""
        threading.Thread(target=threading.Event().wait, name="forgotten", daemon=True).start()
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        open({str(tmp_path / "pid")!r}, "w").write(str(child.pid))
        global held
        held = [os.open(os.devnull, os.O_RDONLY) for _ in range(50)]
        """,
    )
    figures = running.run("forgets", 0, 0.1, folder=folder, grace=2).figures
    assert {name for name, count in figures.faults.items() if count} == {
        running.THREADS, running.PROCESSES, running.DESCRIPTORS,
    }  # fmt: skip
    assert "forgotten" in figures.examples[running.THREADS][0]
    child = int((tmp_path / "pid").read_text())
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_the_results_are_printed_as_a_table_and_the_exit_status_reports_faults(
    plant: Plant, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant("clean", "figures.counts['moves'] = 1234; figures.expect_none_of('wrong map')")
    plant("wrong", "figures.fault('wrong map', f'seed {seed} step 3')")
    file = tmp_path / "figures.json"
    some = ["--seed", "5", "--minutes", "0.002", "--json", str(file)]
    assert main(["--only", "clean", *some], folder) == 0
    assert main(some, folder) == 1
    printed = capsys.readouterr().out
    assert "done: moves 1,234" in printed
    assert "wrong map: seed 5 step 3" in printed
    first, second = json.loads(file.read_text())
    assert (first["name"], first["figures"]["counts"], first["seed"]) == ("clean", {"moves": 1234}, 5)
    assert second["figures"]["faults"]["wrong map"] == 1
    assert main(["--list"], folder) == 0
    assert "clean        Planted." in capsys.readouterr().out


# ---- the attacks detect faults of the package

PLANTED = {
    # The model's version never changes, so cached maps of the changed model are used.
    "wrong map": """
        from soak import checks, models
        from saliency_widgets.session.problem import Problem
        checks.PATIENCE, checks.LEAVING = 30.0, 0.0
        Problem.version = lambda self: (0, 0)
        return models.attack(seed, seconds)
    """,
    # A worker ends at its first job, so waiting for a result never ends.
    "dead worker": """
        from soak import checks, moves
        from saliency_widgets.session.worker import ThreadExecutor
        checks.PATIENCE, checks.LEAVING = 1.0, 0.0
        ThreadExecutor.work = lambda self: False
        return moves.attack(seed, seconds)
    """,
    # Frames are sent out of order.
    "frame out of order": """
        from soak import checks, moves
        from saliency_widgets.widgets.base.frame_stream import FrameStream
        checks.LEAVING = 0.0
        publish, held = FrameStream._publish, []
        def later(view, frame, status):
            held.append((frame, status))
            if len(held) > 1:
                publish(view, *held.pop(-1))
                publish(view, *held.pop(0))
        FrameStream._publish = later
        return moves.attack(seed, seconds)
    """,
    # Parameters accept any value.
    "invalid value accepted": """
        from soak import calls
        from saliency_widgets.params import Param
        cases = calls.cases
        calls.cases = lambda stage: [case for case in cases(stage) if str(case) == "explore(opacity=5)"]
        Param.check = lambda self, value: value
        return calls.attack(seed, 60)
    """,
    "raw traceback": """
        from soak import calls
        from saliency_widgets.params import Param
        cases = calls.cases
        calls.cases = lambda stage: [case for case in cases(stage) if str(case) == "attribute(n_samples=module)"]
        Param.check = lambda self, value: value
        return calls.attack(seed, 60)
    """,
    "unbounded work": """
        from soak import calls
        from saliency_widgets.outputs import selection
        cases = calls.cases
        calls.cases = lambda stage: [case for case in cases(stage) if str(case) == "attribute(target=range)"]
        indices = selection._indices
        def patient(target, *about):
            return sum(1 for _ in target) if isinstance(target, range) else indices(target, *about)
        selection._indices = patient
        calls.bounded.__wrapped__.__defaults__ = (1.0, 60.0)
        return calls.attack(seed, 60)
    """,
    "widgets left": """
        from soak import calls
        from saliency_widgets.widgets.compare import comparison
        cases = calls.cases
        calls.cases = lambda stage: [case for case in cases(stage) if str(case) == "compare(rows='x')"]
        comparison.close_whole = lambda widget: None
        return calls.attack(seed, 60)
    """,
    # An explorer changes a setting before it checks the arguments.
    "broken widget": """
        from soak import calls
        from saliency_widgets.widgets.explorer import Explorer
        cases, update = calls.cases, Explorer.update
        calls.cases = lambda stage: [case for case in cases(stage) if str(case) == "explorer.update(seed=-1)"]
        def hasty(explorer, /, **settings):
            update(explorer, n_samples=3)
            update(explorer, **settings)
        Explorer.update = hasty
        return calls.attack(seed, 60)
    """,
    "changed model": """
        from soak import calls
        from saliency_widgets.outputs import selection
        cases, index = calls.cases, selection.class_index
        calls.cases = lambda stage: [case for case in cases(stage) if str(case) == "attribute(target=5)"]
        def careless(*about):
            import torch
            torch.rand(1)
            return index(*about)
        selection.class_index = careless
        return calls.attack(seed, 60)
    """,
    "left after closing": """
        from soak import checks, moves
        from saliency_widgets.widgets import Explorer
        checks.LEAVING = 1.0
        Explorer.close = lambda self: None
        return moves.attack(seed, seconds)
    """,
}


@pytest.mark.soak
@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_detected(plant: Plant, folder: Path, fault: str) -> None:
    plant("mutant", PLANTED[fault])
    assert running.run("mutant", 1, 5, folder=folder).figures.faults[fault] > 0
