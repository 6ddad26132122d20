"""What people see and touch: controls, the heatmap view, the explorers."""

from saliency_widgets.widgets.comparing.comparison import Comparison, compare
from saliency_widgets.widgets.display import DisplaySettings
from saliency_widgets.widgets.explorer import Explorer, explore
from saliency_widgets.widgets.heatmap import HeatmapView
from saliency_widgets.widgets.lessons import Lesson, lesson
from saliency_widgets.widgets.sweeps import Sweep, sweep
from saliency_widgets.widgets.tables import TableExplorer

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
