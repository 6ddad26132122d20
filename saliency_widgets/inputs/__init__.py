"""Inputs and models as people have them, brought into the form the other rooms use."""

from saliency_widgets.inputs.class_names import read_class_names, short_names
from saliency_widgets.inputs.pictures import recover
from saliency_widgets.inputs.prepared import Prepared, prepare
from saliency_widgets.inputs.protocols import class_names_of, unwrapped
from saliency_widgets.inputs.several import Explain, prepare_for
from saliency_widgets.inputs.tables import Table, is_table, read_table

__all__ = [
    "Explain",
    "Prepared",
    "Table",
    "class_names_of",
    "is_table",
    "prepare",
    "prepare_for",
    "read_class_names",
    "read_table",
    "recover",
    "short_names",
    "unwrapped",
]
