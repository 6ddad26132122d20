"""Inputs and models as people have them, brought into the form the other rooms use."""

from saliency_widgets.inputs.pictures import recover
from saliency_widgets.inputs.prepared import Prepared, prepare
from saliency_widgets.inputs.protocols import class_names_of, unwrapped
from saliency_widgets.inputs.several import Explain, prepare_for

__all__ = ["Explain", "Prepared", "class_names_of", "prepare", "prepare_for", "recover", "unwrapped"]
