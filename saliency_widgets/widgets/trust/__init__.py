"""The trust panel, which runs live tests of the displayed map."""

from saliency_widgets.widgets.trust.panel import TrustPanel
from saliency_widgets.widgets.trust.section import Context

__all__ = ["Context", "TrustPanel"]
