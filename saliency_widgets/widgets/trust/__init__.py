"""The trust panel: tests of the map that is shown, beside it and as live as it is."""

from saliency_widgets.widgets.trust.panel import ImageTrust, TrustPanel

__all__ = ["ImageTrust", "TrustPanel"]
