"""The user interface: controls, the heatmap view, the explorers."""

from saliency_widgets.widgets.base.display import DisplaySettings
from saliency_widgets.widgets.base.heatmap import HeatmapView
from saliency_widgets.widgets.compare.comparison import Comparison, compare
from saliency_widgets.widgets.image.explorer import Explorer, explore
from saliency_widgets.widgets.lesson import Lesson, lesson
from saliency_widgets.widgets.sweep import Sweep, sweep
from saliency_widgets.widgets.table import TableExplorer

__all__ = [
    "Comparison",
    "DisplaySettings",
    "Explorer",
    "HeatmapView",
    "Lesson",
    "Sweep",
    "TableExplorer",
    "compare",
    "explore",
    "lesson",
    "sweep",
]
