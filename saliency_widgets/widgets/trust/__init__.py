"""The trust panel: tests of the map that is shown, beside it and as live as it is."""

from saliency_widgets.widgets.trust.panel import PictureTrust, TrustPanel

__all__ = ["PictureTrust", "TrustPanel"]
