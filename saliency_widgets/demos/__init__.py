"""Demos with models, images and tables from installed packages, or with models trained on the spot."""

from saliency_widgets.demos.imagenet import Classifier, classifier, sample_image
from saliency_widgets.demos.planted import Planted, planted
from saliency_widgets.demos.signal import Heartbeats, heartbeats, real_ecg
from saliency_widgets.demos.start import demo
from saliency_widgets.demos.tables import TableModel, table_model

__all__ = [
    "Classifier",
    "Heartbeats",
    "Planted",
    "TableModel",
    "classifier",
    "demo",
    "heartbeats",
    "planted",
    "real_ecg",
    "sample_image",
    "table_model",
]
