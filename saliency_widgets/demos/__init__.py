"""Demos with models, images and tables from installed packages, or with models trained on the spot."""

from saliency_widgets.demos.imagenet import Classifier, classifier, sample_image
from saliency_widgets.demos.planted import Planted, planted
from saliency_widgets.demos.signal import Heartbeats, heartbeats, real_ecg
from saliency_widgets.demos.start import demo
from saliency_widgets.demos.tables import TableModel, table_model
from saliency_widgets.demos.volume import Scans, scans

__all__ = [
    "Classifier",
    "Heartbeats",
    "Planted",
    "Scans",
    "TableModel",
    "classifier",
    "demo",
    "heartbeats",
    "planted",
    "real_ecg",
    "sample_image",
    "scans",
    "table_model",
]
