"""Inputs and models as people have them, brought into the form the other rooms use."""

from saliency_widgets.inputs.prepared import Prepared, prepare

__all__ = ["Prepared", "prepare"]
