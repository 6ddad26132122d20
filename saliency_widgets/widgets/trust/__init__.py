"""The trust panel: tests beside the picture, each with a chart and a sentence that says how to read it."""

from saliency_widgets.widgets.trust.panel import TrustPanel

__all__ = ["TrustPanel"]
