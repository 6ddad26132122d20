"""What was computed before, by what it was asked: one bound in bytes, the least recently used goes first.

Kept are finished maps, what single passes gave (samples of SmoothGrad, nodes of Integrated Gradients), and passes with
their graphs. All of it is under keys that hold the version of the model and of the inputs: what has changed is not
found any more.
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
_LARGEST = 2  # one thing may take half of the bound


@dataclass(frozen=True)
class CacheInfo:
    """What a cache holds, of all explorers together, and how often it helped.

    Attributes:
        bytes: Bytes of what is kept, on the host and on devices.
        max_bytes: The bound.
        entries: How many things are kept, by kind: "map" (finished maps), "chunk" (what single passes gave), "pass"
            (passes of the inputs with their graphs, and what they told of the layers).
        hits: How often something was found, by kind.
        misses: How often it was not, by kind.
    """

    bytes: int
    max_bytes: int
    entries: dict[str, int]
    hits: dict[str, int]
    misses: dict[str, int]


class Cache:
    """Values by keys (owner, kind, version, ...).

    Args:
        max_bytes: The bound; what is larger than half of it is not kept, but for finished maps.
    """

    def __init__(self, max_bytes: int = DEFAULT_BYTES) -> None:
        self.max_bytes = max_bytes
        self._kept: OrderedDict[Hashable, tuple[Any, int, tuple[int, ...]]] = OrderedDict()
        self._bytes = 0
        self._hits: dict[str, int] = {}
        self._misses: dict[str, int] = {}
        self._lock = threading.Lock()
        self._released: deque[object] = deque()

    def owner_of(self, thing: object) -> object:
        """What keys begin with that hold what is computed about a thing; all of it is forgotten when the thing dies."""
        owner = object()
        weakref.finalize(thing, self._release, owner).atexit = False
        return owner

    def get(self, key: Hashable) -> Any:
        """What is kept under ``key``, now the most recently used, or None.

        What was written to since is not given out again.
        """
        with self._lock:
            self._drop_released()
            found = self._kept.get(key)
            if found is not None and _versions(found[0]) != found[2]:
                self._drop(key)
                found = None
            tally = self._misses if found is None else self._hits
            tally[_kind(key)] = tally.get(_kind(key), 0) + 1
            if found is None:
                return None
            self._kept.move_to_end(key)
            return found[0]

    def put(self, key: Hashable, value: Any) -> None:
        """Keep a value."""
        size = _size(value)
        with self._lock:
            self._drop_released()
            if key in self._kept:
                self._drop(key)
            if size > self.max_bytes or (_kind(key) != "map" and size * _LARGEST > self.max_bytes):
                return
            self._kept[key] = (value, size, _versions(value))
            self._bytes += size
            while self._bytes > self.max_bytes:
                self._drop(next(iter(self._kept)))

    def forget(self, owner: object, version: Hashable = None) -> None:
        """Forget what is kept under keys that begin with ``owner``; with a version, what is kept of that one alone."""
        with self._lock:
            self._forget(owner, version)

    def _forget(self, owner: object, version: Hashable = None) -> None:
        def meant(key: Hashable) -> bool:
            if not isinstance(key, tuple) or not key or key[0] is not owner:
                return False
            return version is None or (len(key) > 2 and key[2] == version)

        for key in list(filter(meant, self._kept)):
            self._drop(key)

    def _release(self, owner: object) -> None:
        """Forget what an owner that died has left. The garbage collector calls it, whatever its thread is at.

        It doesn't wait for the lock, which that very thread may hold: whoever takes it next does it then.
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
        self._bytes -= self._kept.pop(key)[1]

    def info(self) -> CacheInfo:
        """What is kept, and how often it helped."""
        with self._lock:
            self._drop_released()
            entries: dict[str, int] = {}
            for key in self._kept:
                entries[_kind(key)] = entries.get(_kind(key), 0) + 1
            return CacheInfo(self._bytes, self.max_bytes, entries, dict(self._hits), dict(self._misses))

    @property
    def bytes(self) -> int:
        """Bytes of what is kept."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._kept)


@dataclass(frozen=True)
class Scope:
    """A part of a cache: what belongs to one question.

    Attributes:
        cache: The cache.
        prefix: What all keys begin with: owner and kind first.
    """

    cache: Cache
    prefix: tuple

    def get(self, key: Hashable) -> Any:
        """What is kept under the key; None where nothing is."""
        return self.cache.get((*self.prefix, key))

    def put(self, key: Hashable, value: Any) -> None:
        """Keep it, if there is room."""
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
    told = None if isinstance(value, Tensor) else getattr(value, "nbytes", None)
    if told is not None:
        return int(told)
    return sum(tensor.numel() * tensor.element_size() for tensor in _tensors(value))


SHARED = Cache()
"""The cache of all explorers of the process: one bound, however many there are."""
