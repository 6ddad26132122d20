"""Rendering of maps as images: codes, clip limits, colors, blending. This is the reference for js/core."""

from saliency_widgets.render.bar import Tick, bar_colors, bar_ends, bar_ticks, format_number
from saliency_widgets.render.blending import blend, color_index, fit
from saliency_widgets.render.clip import clip_limits, histogram, magnitude, strength
from saliency_widgets.render.color import DIVERGING, SEQUENTIAL, lut, lut_bytes
from saliency_widgets.render.display import DISPLAY, check_display
from saliency_widgets.render.lanes import lanes_image
from saliency_widgets.render.packing import pack_codes, unpack_codes
from saliency_widgets.render.png import overlay_image, overlay_png
from saliency_widgets.render.quantize import LEVELS, ZERO, Quantized, dequantize, quantize, shares
from saliency_widgets.render.shared_scale import difference, limits_of, shared_ends
from saliency_widgets.render.sheet import draw_bars, draw_curve, draw_grid

__all__ = [
    "DISPLAY",
    "DIVERGING",
    "LEVELS",
    "SEQUENTIAL",
    "ZERO",
    "Quantized",
    "Tick",
    "bar_colors",
    "bar_ends",
    "bar_ticks",
    "blend",
    "check_display",
    "clip_limits",
    "color_index",
    "dequantize",
    "difference",
    "draw_bars",
    "draw_curve",
    "draw_grid",
    "fit",
    "format_number",
    "histogram",
    "lanes_image",
    "limits_of",
    "lut",
    "lut_bytes",
    "magnitude",
    "overlay_image",
    "overlay_png",
    "pack_codes",
    "quantize",
    "shared_ends",
    "shares",
    "strength",
    "unpack_codes",
]
