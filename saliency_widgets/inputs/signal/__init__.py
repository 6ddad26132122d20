"""Signals: channels over time."""

from saliency_widgets.inputs.signal.kind import SignalKind

__all__ = ["SignalKind"]
