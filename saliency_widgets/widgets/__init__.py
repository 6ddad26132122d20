"""What people see and touch: controls, the heatmap view, the explorer."""

from saliency_widgets.widgets.display import DisplaySettings
from saliency_widgets.widgets.explorer import Explorer, explore
from saliency_widgets.widgets.heatmap import HeatmapView

__all__ = ["DisplaySettings", "Explorer", "HeatmapView", "explore"]
