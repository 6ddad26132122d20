"""The embedded default: real models, pictures and tables, all from packages of the index or trained on the spot."""

from saliency_widgets.demos.imagenet import Classifier, classifier, picture
from saliency_widgets.demos.planted import Planted, planted
from saliency_widgets.demos.start import demo
from saliency_widgets.demos.tables import TableModel, table_model

__all__ = ["Classifier", "Planted", "TableModel", "classifier", "demo", "picture", "planted", "table_model"]
