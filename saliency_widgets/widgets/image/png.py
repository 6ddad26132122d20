"""PNG encoding of images."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def png_bytes(image: np.ndarray) -> bytes:
    """Encode an image as PNG.

    Args:
        image: uint8, shape (H, W, 3), or (H, W) for grayscale.
    """
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()
