"""Packing of a map's codes into bytes that deflate well, for saved pages. ``js/src/core/packing.ts`` unpacks them."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

PLANES, STEPS = "planes", "steps"
"""The two packings: the codes themselves, or steps from each pixel to its right neighbor (for smooth maps)."""


def pack_codes(codes: NDArray[np.uint16]) -> tuple[str, bytes]:
    """Pack codes or steps, whichever deflates better: all high bytes first, then all low ones.

    In a map of single pixels only the high bytes repeat; in a smooth map, enlarged from a layer, the steps are small.

    Args:
        codes: The codes, ``uint16 (H, W)``.

    Returns:
        ``PLANES`` or ``STEPS``, and the packed bytes, as many as the codes have.
    """
    steps = codes.copy()
    steps[:, 1:] -= codes[:, :-1]  # modulo 65536
    packed = {PLANES: _planes(codes), STEPS: _planes(steps)}
    best = min(packed, key=lambda name: len(zlib.compress(packed[name], 1)))
    return best, packed[best]


def unpack_codes(packing: str, packed: bytes, shape: tuple[int, int]) -> NDArray[np.uint16]:
    """Restore the exact codes, ``uint16`` of the shape ``shape``.

    Raises:
        ValueError: ``packing`` is neither ``PLANES`` nor ``STEPS``.
    """
    if packing not in (PLANES, STEPS):
        raise ValueError(f"packing: expected {PLANES!r} or {STEPS!r}, got {packing!r}.")
    high, low = np.frombuffer(packed, np.uint8).reshape(2, *shape).astype(np.uint16)
    codes = (high << 8 | low).astype(np.uint16)
    return codes if packing == PLANES else np.cumsum(codes, axis=1).astype(np.uint16)  # modulo 65536


def _planes(codes: NDArray[np.uint16]) -> bytes:
    return (codes >> 8).astype(np.uint8).tobytes() + (codes & 255).astype(np.uint8).tobytes()
