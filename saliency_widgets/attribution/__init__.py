"""What is computed: methods, targets, baselines, quadrature. Torch only; no pictures in, no pixels out."""

from saliency_widgets.attribution.baselines import BASELINE, PixelRange, baseline_of
from saliency_widgets.attribution.call import Call
from saliency_widgets.attribution.errors import Cancelled, ModelChanged
from saliency_widgets.attribution.method import Estimate, Method, Methods, get_method
from saliency_widgets.attribution.reduction import Reduction
from saliency_widgets.attribution.result import Attribution
from saliency_widgets.attribution.targets import Score

__all__ = [
    "BASELINE",
    "Attribution",
    "Call",
    "Cancelled",
    "Estimate",
    "Method",
    "Methods",
    "ModelChanged",
    "PixelRange",
    "Reduction",
    "Score",
    "baseline_of",
    "get_method",
]
