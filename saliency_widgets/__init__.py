"""Live saliency maps for any PyTorch model: see which inputs moved its output.

    import saliency_widgets as sw
    sw.explore(model, image, class_names=names)

Names are imported when first used, so that ``import saliency_widgets`` is quick.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saliency_widgets.attribution import Attribution
    from saliency_widgets.attribution.captum_bridge import from_captum
    from saliency_widgets.attribution.method import methods
    from saliency_widgets.demos import demo
    from saliency_widgets.engine import attribute
    from saliency_widgets.engine.allocator import tune_allocator
    from saliency_widgets.engine.checkup import checkup
    from saliency_widgets.engine.evaluation import evaluate
    from saliency_widgets.engine.tables import importance, shuffle
    from saliency_widgets.engine.trust import ablate
    from saliency_widgets.widgets import (
        Comparison,
        Explorer,
        Lesson,
        Sweep,
        TableExplorer,
        compare,
        explore,
        lesson,
        sweep,
    )
    from saliency_widgets.widgets.state import load
    from saliency_widgets.widgets.static_output import static_output

__all__ = [
    "Attribution",
    "Comparison",
    "Explorer",
    "Lesson",
    "Sweep",
    "TableExplorer",
    "ablate",
    "attribute",
    "checkup",
    "compare",
    "demo",
    "evaluate",
    "explore",
    "from_captum",
    "importance",
    "lesson",
    "load",
    "methods",
    "shuffle",
    "static_output",
    "sweep",
    "tune_allocator",
]

__version__ = _version("saliency-widgets")

_ROOMS = {
    "Attribution": "attribution",
    "Comparison": "widgets",
    "Explorer": "widgets",
    "Lesson": "widgets",
    "Sweep": "widgets",
    "TableExplorer": "widgets",
    "ablate": "engine.trust",
    "attribute": "engine",
    "checkup": "engine.checkup",
    "compare": "widgets",
    "demo": "demos",
    "evaluate": "engine.evaluation",
    "explore": "widgets",
    "from_captum": "attribution.captum_bridge",
    "importance": "engine.tables",
    "lesson": "widgets",
    "load": "widgets.state",
    "methods": "attribution.method",
    "shuffle": "engine.tables",
    "static_output": "widgets.static_output",
    "sweep": "widgets",
    "tune_allocator": "engine.allocator",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'saliency_widgets' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"saliency_widgets.{_ROOMS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
