"""Read and prepare inputs and models in all forms that callers may pass."""

from saliency_widgets.inputs.adapters import class_names_of, unwrapped
from saliency_widgets.inputs.image import ImageKind
from saliency_widgets.inputs.kinds import as_explored
from saliency_widgets.inputs.multi_input import prepare_for
from saliency_widgets.inputs.nested import Explain
from saliency_widgets.inputs.options import Options, split_options
from saliency_widgets.inputs.prepared import Prepared, prepare
from saliency_widgets.inputs.table import Table, TableKind, is_table, read_table
from saliency_widgets.inputs.text import TextKind
from saliency_widgets.outputs.class_names import read_class_names, short_names

__all__ = [
    "Explain",
    "ImageKind",
    "Options",
    "Prepared",
    "Table",
    "TableKind",
    "TextKind",
    "as_explored",
    "class_names_of",
    "is_table",
    "prepare",
    "prepare_for",
    "read_class_names",
    "read_table",
    "short_names",
    "split_options",
    "unwrapped",
]
