"""Attribution methods, scores, baselines and quadrature. Computes on torch tensors; neither reads nor draws images."""

from saliency_widgets.attribution.baselines import BASELINE, PixelRange
from saliency_widgets.attribution.kind import Kind, baseline_of
from saliency_widgets.attribution.reduction import Reduction
from saliency_widgets.attribution.registry import Estimate, Method, Methods, get_method
from saliency_widgets.attribution.result import Attribution
from saliency_widgets.attribution.score import Score

__all__ = [
    "BASELINE",
    "Attribution",
    "Estimate",
    "Kind",
    "Method",
    "Methods",
    "PixelRange",
    "Reduction",
    "Score",
    "baseline_of",
    "get_method",
]
