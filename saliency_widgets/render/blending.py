"""Blending of a map over an image. js/core computes the same numbers, which tests verify."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from saliency_widgets.render.clip import clip_limits, magnitude, strength
from saliency_widgets.render.display import check_display, colors
from saliency_widgets.render.quantize import Quantized


def color_index(t: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the row of the color table at strength ``t``: ``floor(t * 255 + 0.5)``."""
    return np.floor(t * 255 + 0.5).astype(np.intp)


def blend(
    image: NDArray[np.uint8],
    quantized: Quantized,
    *,
    lut: NDArray[np.uint8] | None = None,
    limits: tuple[float, float] | None = None,
    **settings: Any,
) -> NDArray[np.uint8]:
    """Blend a map over an image: ``out = floor(image (1 - alpha) + color alpha + 0.5)``.

    ``alpha`` is the opacity, multiplied by the magnitude ``s`` for blending ``"by value"``, and 0 where
    ``s < threshold``. The magnitude is the strength ``t``, or ``|2t - 1|`` in a signed map.

    Args:
        image: The image that the model saw, ``uint8 (H, W, 3)``.
        quantized: The map. If its size differs, each pixel takes the nearest value, without smoothing.
        lut: A color table, ``uint8 (256, 3)``, instead of the color map in the settings.
        limits: The limits of the color scale in code units, instead of the map's own percentiles: see `limits_of`.
        **settings: Settings of `DISPLAY`, such as ``opacity``; the others have their defaults.

    Returns:
        The blended image, ``uint8 (H, W, 3)``.

    Raises:
        TypeError: A setting is unknown, or its value is of the wrong type.
        ValueError: ``image`` or ``lut`` has the wrong shape, or a setting is out of its range.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image: expected uint8 (H, W, 3), got {image.dtype} {image.shape}.")
    display = check_display(settings)
    lut = colors(display, signed=quantized.signed) if lut is None else lut
    if lut.shape != (256, 3):
        raise ValueError(f"lut: expected 256 colors, (256, 3), got {lut.shape}.")
    limits = clip_limits(quantized.codes, quantized.signed, display["clip"]) if limits is None else limits
    codes = fit(quantized.codes, image.shape[0], image.shape[1])
    t = strength(codes, quantized.signed, limits)
    s = magnitude(t, quantized.signed)
    alpha = display["opacity"] * (s if display["blend"] == "by value" else np.ones_like(s))
    alpha = np.where(s < display["threshold"], 0.0, alpha)[..., None]
    color = lut[color_index(t)].astype(np.float64)
    return np.floor(image * (1.0 - alpha) + color * alpha + 0.5).astype(np.uint8)


def fit(codes: NDArray[np.uint16], height: int, width: int) -> NDArray[np.uint16]:
    """Resample a map to another size: pixel ``i`` of ``n`` reads row ``floor((2i + 1) h / (2n))`` of ``h``."""
    h, w = codes.shape
    if (h, w) == (height, width):
        return codes
    rows = (2 * np.arange(height) + 1) * h // (2 * height)
    columns = (2 * np.arange(width) + 1) * w // (2 * width)
    return codes[rows[:, None], columns[None, :]]
