"""The display settings, defined in one place: how a map is colored and laid over its image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saliency_widgets.params import Param
from saliency_widgets.render.color import DIVERGING, SEQUENTIAL, lut

DISPLAY: tuple[Param, ...] = (
    Param(
        "colormap",
        "inferno",
        kind="choice",
        choices=SEQUENTIAL,
        label="Color map",
        help="The colors from zero to the strongest attribution, for maps without a sign.",
    ),
    Param(
        "diverging",
        "coolwarm",
        kind="choice",
        choices=DIVERGING,
        label="Signed colors",
        help="The colors from negative to positive attribution, with zero in the middle, for signed maps.",
    ),
    Param(
        "opacity",
        0.75,
        low=0.0,
        high=1.0,
        help="How much the map covers the image: 0 shows the image alone, 1 hides it where the map is strongest.",
    ),
    Param(
        "clip",
        (0.0, 99.0),
        low=0.0,
        high=100.0,
        unit="%",
        kind="range",
        label="Clip range",
        help="The percentiles that get the weakest and the strongest color. "
        "Lower the upper end if a few extreme pixels leave everything else dark.",
    ),
    Param(
        "threshold",
        0.0,
        low=0.0,
        high=1.0,
        help="Hides everything weaker than this share of the color scale, so that only the strongest regions remain.",
    ),
    Param(
        "blend",
        "by value",
        kind="choice",
        # The front end identifies these by their position in the list.
        choices=("by value", "uniform"),
        label="Blending",
        help="'by value' lets the image show through where the map is weak; 'uniform' covers it evenly.",
    ),
)


def check_display(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return all display settings by name: ``settings``, checked, and the defaults of the others.

    Raises:
        TypeError: A setting is unknown, or a value is of the wrong type.
        ValueError: A value is out of range, or is not one of the choices.
    """
    params = {param.name: param for param in DISPLAY}
    if unknown := settings.keys() - params.keys():
        raise TypeError(f"display: unknown settings {sorted(unknown)}; known: {sorted(params)}.")
    return {name: param.check(settings.get(name, param.default)) for name, param in params.items()}


def colors(settings: Mapping[str, Any], *, signed: bool) -> NDArray[np.uint8]:
    """Return the color table in the settings for a signed or an unsigned map: see `lut`."""
    return lut(settings["diverging" if signed else "colormap"])
