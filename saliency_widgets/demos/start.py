"""``sw.demo()``: an explorer on a real model and real data, in one line."""

from __future__ import annotations

from typing import Any

from saliency_widgets.demos.imagenet import IMAGES, classifier, sample_image
from saliency_widgets.demos.tables import TABLES, table_model
from saliency_widgets.params import check_choice
from saliency_widgets.widgets import Explorer, Lesson, explore, lesson

_LESSON = "lesson"


def demo(name: str = "chelsea", **settings: Any) -> Explorer | Lesson:
    """Open an explorer for EfficientNet-Lite0 and a scikit-image photo, or for a network on a scikit-learn table.

    Args:
        name: "chelsea", "coffee", "astronaut" or "rocket"; "tabular" for a network that distinguishes malignant from
            benign tumors, trained on the spot, or "diabetes" for one that predicts a value; "lesson" for a lesson on
            "chelsea".
        **settings: Arguments of :func:`explore` or :func:`lesson`: ``method``, ``target``, the method's parameters.

    Raises:
        ImportError: The packages of the extra ``demo`` are missing: ``pip install 'saliency-widgets[demo]'``.
        TypeError, ValueError: The demo doesn't exist.
    """
    check_choice("name", name, [*IMAGES, *TABLES, _LESSON])
    if name in TABLES:
        table = table_model(name)
        data = {"background": table.background, "labels": table.labels, "class_names": table.class_names}
        options = {"transform": table.transform, "score": table.score, **data, **settings}
        return explore(table.model, table.rows.iloc[0], **options)
    pretrained = classifier()
    options = {"transform": pretrained.transform, "class_names": pretrained.class_names}
    if name == _LESSON:
        return lesson(pretrained.model, sample_image(), **options, **settings)
    return explore(pretrained.model, sample_image(name), **options, **settings)
