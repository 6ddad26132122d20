"""Maps side by side."""

from saliency_widgets.widgets.comparing.comparison import Comparison, compare

__all__ = ["Comparison", "compare"]
