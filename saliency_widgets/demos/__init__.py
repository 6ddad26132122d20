"""Demos with models, images, tables and texts from installed packages, or with models trained on the spot."""

from saliency_widgets.demos.imagenet import Classifier, classifier, sample_image
from saliency_widgets.demos.planted import Planted, planted
from saliency_widgets.demos.signal import Heartbeats, heartbeats, real_ecg
from saliency_widgets.demos.start import demo
from saliency_widgets.demos.tables import TableModel, table_model
from saliency_widgets.demos.text import TopicClassifier, Topics, topics
from saliency_widgets.demos.volume import Scans, scans

__all__ = [
    "Classifier",
    "Heartbeats",
    "Planted",
    "Scans",
    "TableModel",
    "TopicClassifier",
    "Topics",
    "classifier",
    "demo",
    "heartbeats",
    "planted",
    "real_ecg",
    "sample_image",
    "scans",
    "table_model",
    "topics",
]
