"""Color maps as tables of 256 RGB colors, from the `cmap` collection."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from cmap import Colormap
from numpy.typing import NDArray

from saliency_widgets.params import unknown

# Short names, which are ambiguous in the collection, and its full names.
_SEQUENTIAL = {
    "inferno": "bids:inferno",
    "magma": "bids:magma",
    "viridis": "bids:viridis",
    "plasma": "bids:plasma",
    "cividis": "cividis:cividis",
    "turbo": "google:turbo",
    "hot": "matlab:hot",
    "gray": "matlab:gray",
}
_DIVERGING = {
    "coolwarm": "matplotlib:coolwarm",
    "RdBu_r": "colorbrewer:RdBu_r",
    "bwr": "matplotlib:bwr",
    "berlin": "crameri:berlin",
    "vanimo": "crameri:vanimo",
}

SEQUENTIAL: tuple[str, ...] = tuple(_SEQUENTIAL)
"""Names of color maps for unsigned maps, weakest color first."""

DIVERGING: tuple[str, ...] = tuple(_DIVERGING)
"""Names of color maps for signed maps, with zero in the middle."""


@lru_cache(maxsize=64)
def lut(name: str) -> NDArray[np.uint8]:
    """Return the 256 colors of a color map.

    Args:
        name: One of `SEQUENTIAL` or `DIVERGING`, or any name in the ``cmap`` package ("crameri:batlow").

    Returns:
        ``uint8 (256, 3)`` sRGB, read-only; row ``floor(t * 255 + 0.5)`` is the color at strength ``t``.

    Raises:
        ValueError: The color map does not exist.
    """
    full = (_SEQUENTIAL | _DIVERGING).get(name, name)
    try:
        colors = Colormap(full).lut(256)
    except (ValueError, TypeError, FileNotFoundError, KeyError):
        raise ValueError(unknown("colormap", name, (*SEQUENTIAL, *DIVERGING))) from None
    table = np.floor(np.asarray(colors)[:, :3] * 255 + 0.5).astype(np.uint8)
    table.setflags(write=False)
    return table


def lut_bytes(names: Iterable[str]) -> bytes:
    """Return several tables in a row, 768 bytes each, in the order of the menu: the format for the front end."""
    return b"".join(lut(name).tobytes() for name in names)
