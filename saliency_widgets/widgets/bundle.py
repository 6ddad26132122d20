"""The front end: one script for all views and its style sheet, written into the package by `make bundle`."""

from __future__ import annotations

from pathlib import Path

import anywidget
import traitlets

_STATIC = Path(__file__).parent / "static"


def bundle(name: str) -> str:
    """Read a front-end file as text.

    Args:
        name: The file's name.

    Raises:
        ImportError: The file was not built.
    """
    path = _STATIC / name
    if not path.is_file():
        raise ImportError(
            f"saliency_widgets: the front-end bundle {name} is missing from the package. In a checkout run "
            f"`make bundle`; an installed release that lacks it is broken: install it again."
        )
    # As text: anywidget would watch a file, and its watcher would keep every view alive.
    return path.read_text(encoding="utf-8")


# A browser never unloads a module, and anywidget loads one per widget. This one is small and loads the script once for
# all views of a page.
_LOADER = """
const scripts = (globalThis.saliencyWidgetsScripts ??= new Map());

function load(script) {
  if (!scripts.has(script)) {
    const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
    scripts.set(script, import(url).finally(() => URL.revokeObjectURL(url)));
  }
  return scripts.get(script);
}

export default {
  async render(context) {
    const { default: views } = await load(context.model.get("_script"));
    return views.render(context);
  },
};
"""


class BundledView(anywidget.AnyWidget):
    """A view of the front end's script.

    Attributes:
        root: The model id of the widget that contains this view. When that widget closes, the page drops all its parts.
    """

    _esm = _LOADER
    _css = bundle("views.css")

    _script = traitlets.Unicode(bundle("views.js")).tag(sync=True)
    root = traitlets.Unicode().tag(sync=True)
