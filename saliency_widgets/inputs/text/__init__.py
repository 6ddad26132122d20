"""Texts: their tokens, and the embeddings that are explained."""

from saliency_widgets.inputs.text.kind import TextKind

__all__ = ["TextKind"]
