"""What threads are at."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Iterable
from multiprocessing import resource_sharer


def running() -> set[threading.Thread]:
    """The threads of this process, without those that libraries start once and keep."""
    return {one for one in threading.enumerate() if not _of_library(one)}


def _of_library(thread: threading.Thread) -> bool:
    """tqdm's monitor, and what multiprocessing hands tensors to other processes with."""
    work = getattr(thread, "_target", None)
    return type(thread).__module__.startswith("tqdm") or getattr(work, "__module__", "") == resource_sharer.__name__


def traces(threads: Iterable[threading.Thread]) -> list[str]:
    """The name of each thread, and where it is."""
    frames = sys._current_frames()
    return [f"{one.name}:\n{''.join(traceback.format_stack(frames.get(one.ident or 0)))}" for one in threads]
