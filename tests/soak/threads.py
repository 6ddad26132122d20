"""Running threads and their stack traces."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Iterable


def running() -> set[threading.Thread]:
    """The threads of this process, without tqdm's monitor, which stays."""
    return {one for one in threading.enumerate() if not type(one).__module__.startswith("tqdm")}


def traces(threads: Iterable[threading.Thread]) -> list[str]:
    """The name and the stack trace of each thread."""
    frames = sys._current_frames()
    return [f"{one.name}:\n{''.join(traceback.format_stack(frames.get(one.ident or 0)))}" for one in threads]
