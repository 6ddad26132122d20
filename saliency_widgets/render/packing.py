"""A map's codes as bytes that deflate well: for pages that are stored. ``js/src/core/packing.ts`` undoes it."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

PLANES, STEPS = "planes", "steps"
"""How codes are packed: as they are, or as the steps from each pixel to its right neighbor (of smooth maps)."""


def pack_codes(codes: NDArray[np.uint16]) -> tuple[str, bytes]:
    """Put codes into the form that deflates better: all high bytes first, then all low ones.

    Of a map of single pixels only the high bytes repeat; of a smooth one, enlarged from a layer, the steps are small.

    Args:
        codes: ``uint16 (H, W)``.

    Returns:
        ``PLANES`` or ``STEPS``, and as many bytes as the codes have.
    """
    steps = codes.copy()
    steps[:, 1:] -= codes[:, :-1]  # modulo 65536
    packed = {PLANES: _planes(codes), STEPS: _planes(steps)}
    best = min(packed, key=lambda name: len(zlib.compress(packed[name], 1)))
    return best, packed[best]


def unpack_codes(packing: str, packed: bytes, shape: tuple[int, int]) -> NDArray[np.uint16]:
    """Give the codes back, ``uint16`` of that shape, exactly.

    Raises:
        ValueError: ``packing`` is none of the two.
    """
    if packing not in (PLANES, STEPS):
        raise ValueError(f"packing: expected {PLANES!r} or {STEPS!r}, got {packing!r}.")
    high, low = np.frombuffer(packed, np.uint8).reshape(2, *shape).astype(np.uint16)
    codes = (high << 8 | low).astype(np.uint16)
    return codes if packing == PLANES else np.cumsum(codes, axis=1).astype(np.uint16)  # modulo 65536


def _planes(codes: NDArray[np.uint16]) -> bytes:
    return (codes >> 8).astype(np.uint8).tobytes() + (codes & 255).astype(np.uint8).tobytes()
