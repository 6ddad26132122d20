"""The trust panel: live tests of the displayed map."""

from saliency_widgets.widgets.trust.panel import ImageTrust, TrustPanel

__all__ = ["ImageTrust", "TrustPanel"]
