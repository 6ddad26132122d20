"""How the C library hands out the host's memory: left as it is, unless the caller opts in."""

from __future__ import annotations

import ctypes
import functools
import sys
from typing import Any

# From <malloc.h>.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8
_MIB = 2**20


@functools.cache
def _glibc() -> Any:
    """The C library, where it is GNU's; None elsewhere."""
    if sys.platform != "linux":
        return None
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 - others lack it
    except (OSError, AttributeError):
        return None
    return library


def tune_allocator() -> bool:
    """Let the C library keep freed memory for the next pass: faster on CPUs, for the whole process and until it ends.

    Nothing in this package calls it: it is a setting of your process, which holds for all code in it. By default glibc
    returns large blocks to the system as they are freed, and the next pass pays a page fault for every 4 KiB. After
    this call up to 32 MiB a block are kept and reused, which is faster where passes have many rows, and the process
    stays as large as its largest pass. A thread other than the main one gets an arena of its own by default, in pieces
    of 64 MiB; after this call new threads share the main one.

    Call it once, before the first model runs; in worker processes with
    ``ProcessPoolExecutor(initializer=sw.tune_allocator)``.

    Returns:
        Whether it was done: False where the C library is not GNU's (macOS, Windows, Alpine), and nothing is changed.
    """
    library = _glibc()
    if library is None:
        return False
    settings = (
        (_M_MMAP_THRESHOLD, 32 * _MIB),  # the most that it takes
        (_M_TRIM_THRESHOLD, 2**31 - 1),
        (_M_TOP_PAD, 64 * _MIB),
        (_M_ARENA_MAX, 1),
    )
    taken = [library.mallopt(option, value) for option, value in settings]
    return all(answer == 1 for answer in taken)


def give_back() -> None:
    """Return what is free to the system; it changes no setting."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)
