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
    from saliency_widgets.api.attribute import attribute
    from saliency_widgets.api.checkup import checkup
    from saliency_widgets.api.evaluate import evaluate
    from saliency_widgets.api.tables import importance, shuffle
    from saliency_widgets.api.trust import ablate
    from saliency_widgets.attribution import Attribution
    from saliency_widgets.attribution.registry import methods
    from saliency_widgets.bridges.captum import from_captum
    from saliency_widgets.demos import demo
    from saliency_widgets.runtime.allocator import tune_allocator
    from saliency_widgets.widgets import (
        Comparison,
        Explorer,
        Lesson,
        Sweep,
        compare,
        explore,
        lesson,
        sweep,
    )
    from saliency_widgets.widgets.export.static_output import static_output
    from saliency_widgets.widgets.load import load

__all__ = [
    "Attribution",
    "Comparison",
    "Explorer",
    "Lesson",
    "Sweep",
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
    "ablate": "api.trust",
    "attribute": "api.attribute",
    "checkup": "api.checkup",
    "compare": "widgets",
    "demo": "demos",
    "evaluate": "api.evaluate",
    "explore": "widgets",
    "from_captum": "bridges.captum",
    "importance": "api.tables",
    "lesson": "widgets",
    "load": "widgets.load",
    "methods": "attribution.registry",
    "shuffle": "api.tables",
    "static_output": "widgets.export.static_output",
    "sweep": "widgets",
    "tune_allocator": "runtime.allocator",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'saliency_widgets' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"saliency_widgets.{_ROOMS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
