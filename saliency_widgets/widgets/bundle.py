"""The front end: one script for all views, and its style sheet, as `make bundle` leaves them in the package."""

from __future__ import annotations

from pathlib import Path

import anywidget
import traitlets

_STATIC = Path(__file__).parent / "static"


def bundle(name: str) -> str:
    """A file of the front end, as text.

    Args:
        name: The file's name.

    Raises:
        ImportError: It was not built.
    """
    path = _STATIC / name
    if not path.is_file():
        raise ImportError(
            f"saliency_widgets: the front-end bundle {name} is missing from the package. In a checkout run "
            f"`make bundle`; an installed release that lacks it is broken: install it again."
        )
    # As text: anywidget would watch a file, and its watcher would keep every view alive.
    return path.read_text(encoding="utf-8")


class BundledView(anywidget.AnyWidget):
    """A view of the front end's script.

    Attributes:
        root: The model id of the widget that it is shown in. Once that is closed, the page forgets all its parts.
    """

    _esm = bundle("heatmap.js")
    _css = bundle("heatmap.css")

    root = traitlets.Unicode().tag(sync=True)
