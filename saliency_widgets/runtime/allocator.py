"""Tuning of glibc's memory allocator, which stays unchanged unless the caller opts in."""

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
    """Return the C library if it is glibc, else None."""
    if sys.platform != "linux":
        return None
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 - others lack it
    except (OSError, AttributeError):
        return None
    return library


def tune_allocator() -> bool:
    """Let glibc retain freed memory for the next pass, which is faster on CPUs, until the process ends.

    Nothing in this package calls this function, because the setting applies to all code in your process. By default,
    glibc returns large blocks to the system when they are freed, and the next pass pays a page fault for every 4 KiB.
    After this call, blocks of up to 32 MiB are retained and reused. Passes with many rows run faster, and the process
    stays as large as its largest pass. By default, each thread other than the main one gets its own arena, in pieces
    of 64 MiB; after this call, new threads share the main arena.

    Call it once, before the first model runs; in worker processes with
    ``ProcessPoolExecutor(initializer=sw.tune_allocator)``.

    Returns:
        Whether the settings were applied: False, with no change, if the C library isn't glibc (macOS, Windows, Alpine).
    """
    library = _glibc()
    if library is None:
        return False
    settings = (
        (_M_MMAP_THRESHOLD, 32 * _MIB),  # the maximum that glibc accepts
        (_M_TRIM_THRESHOLD, 2**31 - 1),
        (_M_TOP_PAD, 64 * _MIB),
        (_M_ARENA_MAX, 1),
    )
    taken = [library.mallopt(option, value) for option, value in settings]
    return all(answer == 1 for answer in taken)


def give_back() -> None:
    """Return free memory to the system, without changing any setting."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)
