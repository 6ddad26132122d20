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
        self._kept: OrderedDict[Hashable, Attribution] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Attribution | None:
        """The attribution kept under ``key``, now the most recently used, or None."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def put(self, key: Hashable, attribution: Attribution) -> None:
        """Keep a finished attribution."""
        with self._lock:
            replaced = self._kept.pop(key, None)
            if replaced is not None:
                self._bytes -= _size(replaced)
            self._kept[key] = attribution
            self._bytes += _size(attribution)
            while self._bytes > self.max_bytes:
                _, gone = self._kept.popitem(last=False)
                self._bytes -= _size(gone)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0

    @property
    def bytes(self) -> int:
        """Bytes of the tensors kept."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._kept)


def _size(attribution: Attribution) -> int:
    tensors = (attribution.values, attribution.standard_error)
    return sum(t.numel() * t.element_size() for t in tensors if t is not None)
