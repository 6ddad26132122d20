"""Pictures on their way to the page."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def png_bytes(picture: np.ndarray) -> bytes:
    """A picture as a PNG file.

    Args:
        picture: uint8, shape (H, W, 3), or (H, W) for grays.
    """
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()
