"""Images on their way to the page."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def png_bytes(image: np.ndarray) -> bytes:
    """An image as a PNG file.

    Args:
        image: uint8, shape (H, W, 3), or (H, W) for grays.
    """
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()
