"""The embedded default: a real pretrained model and real pictures, all from packages of the index."""

from saliency_widgets.demos.imagenet import Classifier, classifier, picture
from saliency_widgets.demos.planted import Planted, planted
from saliency_widgets.demos.start import demo

__all__ = ["Classifier", "Planted", "classifier", "demo", "picture", "planted"]
