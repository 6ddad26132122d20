"""The front end: one script and style sheet for all views, which ``make bundle`` writes into the package."""

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
        ImportError: The file is missing, because it was not built.
    """
    path = _STATIC / name
    if not path.is_file():
        raise ImportError(
            f"saliency_widgets: the front-end bundle {name} is missing from the package. In a checkout run "
            f"`make bundle`; an installed release without it is broken: reinstall it."
        )
    # Return text, because anywidget would watch a path and its watcher would keep every view alive.
    return path.read_text(encoding="utf-8")


# A browser never unloads a module, and anywidget loads one per widget. This module is small and loads the script once
# for all views of a page.
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
    """A widget whose view is implemented in the front end's script.

    Attributes:
        root: The model id of the widget that contains this view. When that widget closes, the page removes its parts.
    """

    _esm = _LOADER
    _css = bundle("views.css")

    _script = traitlets.Unicode(bundle("views.js")).tag(sync=True)
    root = traitlets.Unicode().tag(sync=True)
