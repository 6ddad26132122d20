"""Sweeps whose workers are killed at random: they can be resumed, give the right maps, and leave nothing running."""

from __future__ import annotations

import concurrent.futures as cf
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import resource_sharer
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from toys import conv_net, images

import saliency_widgets as sw
from saliency_widgets.api.sweep import ExecutorDiedError
from soak.checks import OTHER, UNFORESEEN
from soak.figures import Figures
from soak.pages import traced
from soak.threads import running, traces

UNFINISHED, LEFT = "not finished", "left running"
TRIES = 8  # attempts at a sweep whose workers are killed
PAUSE = 0.1  # seconds before each cell of a sweep whose process is to be killed


def attack(seed: int, seconds: float) -> Figures:
    """Run sweeps until the time is over; sweep k has the seed ``seed + k``."""
    figures = Figures()
    figures.expect_none_of(OTHER, UNFINISHED, LEFT, UNFORESEEN)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        Round(figures, seed).play()
        seed += 1
    return figures


class HarmfulExecutor(cf.Executor):
    """Forwards cells to an executor; before one of them it does harm, which may replace the cell's future."""

    def __init__(self, inner: cf.Executor, at: int, harm: Callable[[], cf.Future | None]) -> None:
        self._inner, self._left, self._harm = inner, at, harm

    def submit(self, fn: Any, /, *args: Any, **more: Any) -> cf.Future:
        self._left -= 1
        outcome = self._harm() if self._left == -1 else None
        return self._inner.submit(fn, *args, **more) if outcome is None else outcome


class Round:
    """One sweep whose workers are killed, repeated until it finishes."""

    def __init__(self, figures: Figures, seed: int) -> None:
        self.figures, self.seed = figures, seed
        self.draw = random.Random(seed)
        self.model = conv_net(seed % 5)
        self.inputs = images(seed, 2, 3, 8, 8)
        values = [self.draw.uniform(0.05, 0.4) for _ in range(4)]
        self.grid = {"noise_level": sorted(values), "n_samples": [2, 4, 8]}
        self.cells = 2 * 4 * 3
        self.store = Path(f"cells-{seed}.sqlite") if self.draw.random() < 0.6 else None
        self.name = ""

    def play(self) -> None:
        expected = self._sweep()
        threads, children = running(), _children()
        harm = self.draw.choice([self.processes, self.threads, self.futures, self.whole])
        self.name = harm.__name__
        self.figures.counts[f"sweeps with {self.name} killed"] += 1
        try:
            self._compare(harm(), expected)
        except Exception as error:
            self._fault(UNFORESEEN, traced(error))
        finally:
            self._check_released(threads, children)
            for path in Path().glob(f"cells-{self.seed}.sqlite*"):
                path.unlink()

    def _sweep(self, **more: Any) -> sw.Sweep:
        return sw.sweep(self.model, self.inputs, "smoothgrad", self.grid, ["similarity"], progress=False, **more)

    def _fault(self, name: str, what: str) -> None:
        self.figures.fault(name, f"seed {self.seed}, {self.name}, store {self.store}: {what}")

    def _compare(self, sweep: sw.Sweep | None, expected: sw.Sweep) -> None:
        if sweep is None:
            self._fault(UNFINISHED, f"after {TRIES} tries")
            return
        self.figures.counts["maps compared"] += len(expected.cells)
        wrong = [
            spot for spot, cell in expected.cells.items()
            if sweep.cells[spot].error or not np.array_equal(sweep.cells[spot].values, cell.values)
        ]  # fmt: skip
        if wrong:
            self._fault(OTHER, f"{[(spot, sweep.cells[spot].error) for spot in wrong]}")

    def _check_released(self, threads: set[Any], children: set[int]) -> None:
        resource_sharer.stop(timeout=20)  # it keeps tensors for workers that will never fetch them
        until = time.monotonic() + 20
        while (left := _children() - children) | (busy := running() - threads) and time.monotonic() < until:
            time.sleep(0.05)
        if left or busy:
            names = [psutil.Process(pid).cmdline()[-3:] for pid in left if psutil.pid_exists(pid)]
            self._fault(LEFT, f"processes {names}, threads {traces(busy)}")

    def _until_done(self, attempt: Callable[[int], sw.Sweep]) -> sw.Sweep | None:
        """Repeat the sweep until it finishes; nothing is killed after the first attempts."""
        for k in range(TRIES):
            try:
                return attempt(k)
            except ExecutorDiedError:
                self.figures.counts["executors that died"] += 1
        return None

    # ---- kinds of harm

    def processes(self) -> sw.Sweep | None:
        return self._until_done(self._with_processes)

    def _with_processes(self, k: int) -> sw.Sweep:
        context = multiprocessing.get_context("spawn")
        pool = cf.ProcessPoolExecutor(2, mp_context=context, initializer=torch.set_num_threads, initargs=(1,))

        def harm() -> None:
            workers = list(pool._processes)
            for pid in self.draw.sample(workers, self.draw.randint(1, len(workers))):
                self.figures.counts["processes killed"] += 1
                os.kill(pid, self.draw.choice([signal.SIGKILL, signal.SIGTERM]))

        at = self.draw.randrange(self.cells) if k < 2 else -9
        try:
            return self._sweep(executor=HarmfulExecutor(pool, at, harm), store=self.store)
        finally:
            # In CPython 3.11 a broken pool may wait forever for a worker that it has just started.
            for process in list((pool._processes or {}).values()):
                process.kill()
            pool.shutdown()

    def threads(self) -> sw.Sweep | None:
        return self._until_done(self._with_threads)

    def _with_threads(self, k: int) -> sw.Sweep:
        with cf.ThreadPoolExecutor(2) as pool:

            def harm() -> None:
                self.figures.counts["pools shut down"] += 1
                pool.shutdown(wait=False, cancel_futures=self.draw.random() < 0.5)

            at = self.draw.randrange(self.cells) if k < 3 else -9
            return self._sweep(executor=HarmfulExecutor(pool, at, harm), store=self.store)

    def futures(self) -> sw.Sweep | None:
        """The future of a cell raises any error."""
        errors = [
            SystemExit(1), KeyboardInterrupt(), GeneratorExit(), MemoryError(), OSError(5, "no"), EOFError(),
            cf.CancelledError(), cf.BrokenExecutor("no"), pickle.PicklingError("no"), StopIteration(),
        ]  # fmt: skip

        def harm() -> cf.Future:
            self.figures.counts["cells that raised"] += 1
            outcome: cf.Future = cf.Future()
            outcome.set_exception(self.draw.choice(errors))
            return outcome

        for k in range(4):
            with cf.ThreadPoolExecutor(2) as pool:
                at = self.draw.randrange(self.cells) if k < 3 else -9
                try:
                    return self._sweep(executor=HarmfulExecutor(pool, at, harm), store=self.store)
                except BaseException as error:
                    self.figures.counts[f"raised {type(error).__name__}"] += 1
        return None

    def whole(self) -> sw.Sweep | None:
        """The whole sweeping process is killed at a random time, so only the store's file remains."""
        self.store = self.store or Path(f"cells-{self.seed}.sqlite")
        command = [sys.executable, "-m", "soak.workers", str(self.seed), str(self.store)]
        for _ in range(2):
            with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
                assert child.stdout is not None
                child.stdout.readline()  # wait until it begins
                time.sleep(self.draw.uniform(0, self.cells * PAUSE))
                self.figures.counts["sweeping processes killed"] += child.poll() is None
                child.kill()
        return self._sweep(store=self.store)

    def slowly(self, store: str) -> None:
        """Run this round's sweep slowly enough to be killed in the middle."""
        with cf.ThreadPoolExecutor(1) as pool:
            submit = pool.submit
            pool.submit = lambda *args: (time.sleep(PAUSE), submit(*args))[1]  # type: ignore[method-assign]
            print("begins", flush=True)
            self._sweep(executor=pool, store=store)


def _children() -> set[int]:
    """This process's children, without multiprocessing's resource tracker."""
    mine = psutil.Process().children(recursive=True)
    return {child.pid for child in mine if not any("resource_tracker" in word for word in _command(child))}


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


if __name__ == "__main__":
    torch.set_num_threads(1)
    Round(Figures(), int(sys.argv[1])).slowly(sys.argv[2])
