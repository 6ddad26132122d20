"""A canvas over the image and its map, in pixel coordinates of the image."""

from __future__ import annotations

from ipycanvas import Canvas
from ipycanvas import canvas as _ipycanvas

_SHARP = 1024


def annotation_canvas(width: int, height: int) -> Canvas:
    """Create a canvas whose unit is one pixel of the image, with enough physical pixels for sharp lines.

    Args:
        width: The image's width.
        height: The image's height.
    """
    if _ipycanvas._CANVAS_MANAGER.comm is None:  # closed by Widget.close_all()
        _ipycanvas._CANVAS_MANAGER.open()
    scale = max(1, round(_SHARP / max(width, height)))
    # The page sends back the drawing, which is included in saved pages and images and restored after a reload.
    canvas = Canvas(width=width * scale, height=height * scale)

    def prepare() -> None:
        # A new page has a new drawing manager that does not have Python's current canvas, and a command to an unknown
        # canvas stops all drawing.
        _ipycanvas._CANVAS_MANAGER._current_canvas = None
        canvas.set_transform(scale, 0, 0, scale, 0, 0)

    canvas.on_client_ready(prepare)
    canvas.set_transform(scale, 0, 0, scale, 0, 0)
    _ipycanvas._CANVAS_MANAGER._current_canvas = None  # the manager would keep the canvas alive
    return canvas
