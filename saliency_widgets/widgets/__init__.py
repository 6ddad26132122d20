"""The user interface: explorers, comparisons, sweeps, lessons, and their views and controls."""

from saliency_widgets.widgets.base.display import DisplaySettings
from saliency_widgets.widgets.base.heatmap import HeatmapView
from saliency_widgets.widgets.compare.comparison import Comparison, compare
from saliency_widgets.widgets.explore import explore
from saliency_widgets.widgets.explorer import Explorer
from saliency_widgets.widgets.lesson import Lesson, lesson
from saliency_widgets.widgets.sweep import Sweep, sweep

__all__ = [
    "Comparison",
    "DisplaySettings",
    "Explorer",
    "HeatmapView",
    "Lesson",
    "Sweep",
    "compare",
    "explore",
    "lesson",
    "sweep",
]
