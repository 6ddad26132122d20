"""The process of one attack: ``python -m soak.child MODULE SEED SECONDS LIMIT GRACE REPORT``; see ``running``."""

from __future__ import annotations

import faulthandler
import gc
import importlib
import json
import sys
import threading
import time
from pathlib import Path

import psutil

from soak.threads import running, traces

_IDLE = 20.0  # seconds: idle workers end by themselves after ten


def main(module: str, seed: str, seconds: str, limit: str, grace: str, report: str) -> None:
    # If the attack hangs, this prints the traces of all threads and exits, even if Python code can't run any more.
    faulthandler.dump_traceback_later(float(limit), exit=True)
    attack = importlib.import_module(module).attack
    process = psutil.Process()
    threads, descriptors, memory = running(), process.num_fds(), _megabytes(process)
    began = time.time()
    figures = attack(int(seed), float(seconds))
    ended = time.time()
    patience = min(_IDLE, float(grace))
    faulthandler.dump_traceback_later(patience + float(grace), exit=True)  # the interpreter must exit in time too
    left = _threads_left(threads, patience)
    gc.collect()
    usage = {
        "began": began,
        "ended": ended,
        "memory": (memory, _megabytes(process)),
        "threads": left,
        "descriptors": process.num_fds() - descriptors,
        "opened": [file.path for file in process.open_files()][:20],
    }
    Path(report).write_text(json.dumps({**vars(figures), **usage}))


def _megabytes(process: psutil.Process) -> float:
    return process.memory_info().rss / 2**20


def _threads_left(before: set[threading.Thread], patience: float) -> list[str]:
    """The stack traces of the threads that the attack has left running."""
    until = time.monotonic() + patience
    while (left := running() - before) and time.monotonic() < until:
        time.sleep(0.1)
    return traces(left)


if __name__ == "__main__":
    main(*sys.argv[1:])
