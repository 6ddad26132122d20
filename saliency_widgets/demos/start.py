"""``sw.demo()``: the explorer on the pretrained model, in one line."""

from __future__ import annotations

from typing import Any

from saliency_widgets.demos.imagenet import classifier, picture
from saliency_widgets.widgets import Explorer, explore


def demo(name: str = "chelsea", **settings: Any) -> Explorer:
    """The explorer on EfficientNet-Lite0 and a picture of scikit-image.

    Args:
        name: "chelsea", "coffee", "astronaut" or "rocket".
        **settings: As for :func:`explore`: ``method``, ``target``, the method's parameters.

    Raises:
        ImportError: The packages of the extra ``demo`` are missing: ``pip install 'saliency-widgets[demo]'``.
    """
    found = classifier()
    return explore(found.model, picture(name), transform=found.transform, class_names=found.class_names, **settings)
