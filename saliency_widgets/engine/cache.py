"""Finished maps by request, bounded in bytes; the least recently used goes first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

from saliency_widgets.attribution import Attribution

DEFAULT_BYTES = 256 * 2**20


class MapCache:
    """Finished attributions.

    Args:
        max_bytes: The bound; one larger than it is not kept at all.
    """

    def __init__(self, max_bytes: int = DEFAULT_BYTES) -> None:
        self.max_bytes = max_bytes
        self._kept: OrderedDict[Hashable, tuple[Attribution, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Attribution | None:
        """The attribution kept under ``key``, now the most recently used, or None.

        One whose values were written to since is not given out again.
        """
        with self._lock:
            if key not in self._kept:
                return None
            found, version = self._kept[key]
            if found.values._version != version:
                self._drop(key)
                return None
            self._kept.move_to_end(key)
            return found

    def put(self, key: Hashable, attribution: Attribution) -> None:
        """Keep a finished attribution."""
        with self._lock:
            if key in self._kept:
                self._drop(key)
            self._kept[key] = (attribution, attribution.values._version)
            self._bytes += _size(attribution)
            while self._bytes > self.max_bytes:
                self._drop(next(iter(self._kept)))

    def forget(self, owner: object) -> None:
        """Forget what is kept under keys that begin with ``owner``."""
        with self._lock:
            for key in [key for key in self._kept if isinstance(key, tuple) and key and key[0] is owner]:
                self._drop(key)

    def _drop(self, key: Hashable) -> None:
        self._bytes -= _size(self._kept.pop(key)[0])

    @property
    def bytes(self) -> int:
        """Bytes of the tensors kept."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._kept)


def _size(attribution: Attribution) -> int:
    tensors = (attribution.values, attribution.standard_error)
    return sum(t.numel() * t.element_size() for t in tensors if t is not None)


SHARED = MapCache()
"""The cache of all explorers of the process: one bound, however many there are."""
