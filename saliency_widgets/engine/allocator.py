"""How the C library hands out the host's memory, for passes that come one after another."""

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


@functools.cache
def keep_memory() -> None:
    """Keep freed memory for the next pass, once in a process; nothing where the C library is another.

    By default glibc gives large blocks back to the system as they are freed, and the next pass pays a page fault for
    every 4 KiB: of 16 rows that is up to half of the time. A thread other than the main one gets an arena of its own,
    in pieces of 64 MiB that come and go likewise: new threads share the main one instead.
    """
    library = _glibc()
    if library is None:
        return
    library.mallopt(_M_MMAP_THRESHOLD, 32 * _MIB)  # the most that it takes
    library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    library.mallopt(_M_TOP_PAD, 64 * _MIB)
    library.mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Give what is kept and unused back to the system."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)
