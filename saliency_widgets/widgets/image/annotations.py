"""A canvas over the image and its map, in the image's pixel coordinates."""

from __future__ import annotations

from ipycanvas import Canvas
from ipycanvas import canvas as _ipycanvas

_SHARP = 1024


def annotation_canvas(width: int, height: int) -> Canvas:
    """Create a canvas whose unit is one pixel of the image, with enough real pixels for sharp lines.

    Args:
        width: The image's width.
        height: The image's height.
    """
    if _ipycanvas._CANVAS_MANAGER.comm is None:  # closed with all other widgets, by Widget.close_all()
        _ipycanvas._CANVAS_MANAGER.open()
    scale = max(1, round(_SHARP / max(width, height)))
    # The page sends back what was drawn: it goes into saved pages and images, and is restored after a reload.
    canvas = Canvas(width=width * scale, height=height * scale)

    def prepare() -> None:
        # A new page has a new drawing manager, for which Python's current canvas is stale; one command to an unknown
        # canvas would end all drawing.
        _ipycanvas._CANVAS_MANAGER._current_canvas = None
        canvas.set_transform(scale, 0, 0, scale, 0, 0)

    canvas.on_client_ready(prepare)
    canvas.set_transform(scale, 0, 0, scale, 0, 0)
    _ipycanvas._CANVAS_MANAGER._current_canvas = None  # the manager would keep it
    return canvas
