"""A least-recently-used cache of results, bounded in bytes.

It holds finished maps, results of single passes (samples of SmoothGrad, nodes of Integrated Gradients), and passes with
their graphs. All keys contain the version of the model and the inputs, so that outdated entries are never returned.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from torch import Tensor

DEFAULT_BYTES = 256 * 2**20
_LARGEST = 2  # one entry may take half of the bound


@dataclass(frozen=True)
class CacheInfo:
    """The contents of a cache, counted over all explorers, and its hits and misses.

    Attributes:
        bytes: The size of all entries, on the host and on devices.
        max_bytes: The bound on this size.
        entries: The number of entries by kind: "map" (finished maps), "chunk" (results of single passes), "pass"
            (passes of the inputs with their graphs, and the layers recorded in them).
        hits: The number of hits by kind.
        misses: The number of misses by kind.
    """

    bytes: int
    max_bytes: int
    entries: dict[str, int]
    hits: dict[str, int]
    misses: dict[str, int]


class Cache:
    """A cache of values under keys (owner, kind, version, ...).

    Args:
        max_bytes: The bound in bytes. Values larger than half of it are not stored, except for finished maps.
    """

    def __init__(self, max_bytes: int = DEFAULT_BYTES) -> None:
        self.max_bytes = max_bytes
        self._entries: OrderedDict[Hashable, tuple[Any, int, tuple[int, ...]]] = OrderedDict()
        self._bytes = 0
        self._hits: dict[str, int] = {}
        self._misses: dict[str, int] = {}
        self._lock = threading.Lock()
        self._released: deque[object] = deque()

    def owner_of(self, subject: object) -> object:
        """Return the first part of the keys of an object's results, which are dropped when the object is collected."""
        owner = object()
        weakref.finalize(subject, self._release, owner).atexit = False
        return owner

    def get(self, key: Hashable) -> Any:
        """Return the value stored under ``key`` and mark it as the most recently used, or return None.

        A value whose tensors were modified in place is dropped.
        """
        with self._lock:
            self._drop_released()
            entry = self._entries.get(key)
            if entry is not None and _versions(entry[0]) != entry[2]:
                self._drop(key)
                entry = None
            tally = self._misses if entry is None else self._hits
            tally[_kind(key)] = tally.get(_kind(key), 0) + 1
            if entry is None:
                return None
            self._entries.move_to_end(key)
            return entry[0]

    def put(self, key: Hashable, value: Any) -> None:
        """Store a value unless it is too large, and drop the least recently used ones beyond the bound."""
        size = _size(value)
        with self._lock:
            self._drop_released()
            if key in self._entries:
                self._drop(key)
            if size > self.max_bytes or (_kind(key) != "map" and size * _LARGEST > self.max_bytes):
                return
            self._entries[key] = (value, size, _versions(value))
            self._bytes += size
            while self._bytes > self.max_bytes:
                self._drop(next(iter(self._entries)))

    def forget(self, owner: object, version: Hashable = None) -> None:
        """Drop the entries of an owner, or only those of one version."""
        with self._lock:
            self._forget(owner, version)

    def _forget(self, owner: object, version: Hashable = None) -> None:
        def matches(key: Hashable) -> bool:
            if not isinstance(key, tuple) or not key or key[0] is not owner:
                return False
            return version is None or (len(key) > 2 and key[2] == version)

        for key in list(filter(matches, self._entries)):
            self._drop(key)

    def _release(self, owner: object) -> None:
        """Drop the entries of a collected owner. The garbage collector may call this on any thread at any time.

        It must not wait for the lock, because the same thread may hold it: the next holder then drops the entries.
        """
        self._released.append(owner)
        if self._lock.acquire(blocking=False):
            try:
                self._drop_released()
            finally:
                self._lock.release()

    def _drop_released(self) -> None:
        while self._released:
            self._forget(self._released.popleft())

    def _drop(self, key: Hashable) -> None:
        self._bytes -= self._entries.pop(key)[1]

    def info(self) -> CacheInfo:
        """Return the number of entries and bytes, and the hits and misses."""
        with self._lock:
            self._drop_released()
            entries: dict[str, int] = {}
            for key in self._entries:
                entries[_kind(key)] = entries.get(_kind(key), 0) + 1
            return CacheInfo(self._bytes, self.max_bytes, entries, dict(self._hits), dict(self._misses))

    @property
    def bytes(self) -> int:
        """The size of all entries in bytes."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._entries)


@dataclass(frozen=True)
class Scope:
    """The part of a cache that belongs to one request.

    Attributes:
        cache: The cache.
        prefix: The first items of all keys, beginning with owner and kind.
    """

    cache: Cache
    prefix: tuple

    def get(self, key: Hashable) -> Any:
        """Return the value stored under the key, or None."""
        return self.cache.get((*self.prefix, key))

    def put(self, key: Hashable, value: Any) -> None:
        """Store a value, if there is room."""
        self.cache.put((*self.prefix, key), value)


def _kind(key: Hashable) -> str:
    return key[1] if isinstance(key, tuple) and len(key) > 1 and isinstance(key[1], str) else "map"


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)
    elif is_dataclass(value):
        for field in fields(value):
            item = getattr(value, field.name)
            if isinstance(item, (Tensor, tuple)):
                yield from _tensors(item)


def _versions(value: Any) -> tuple[int, ...]:
    return tuple(tensor._version for tensor in _tensors(value) if not tensor.is_inference())


def _size(value: Any) -> int:
    nbytes = None if isinstance(value, Tensor) else getattr(value, "nbytes", None)
    if nbytes is not None:
        return int(nbytes)
    return sum(tensor.numel() * tensor.element_size() for tensor in _tensors(value))


SHARED = Cache()
"""The cache that all explorers of the process share."""
