"""``sw.demo()``: an explorer on a real model and real data, in one line."""

from __future__ import annotations

from typing import Any

from saliency_widgets.demos.imagenet import IMAGES, classifier, sample_image
from saliency_widgets.demos.tables import TABLES, table_model
from saliency_widgets.params import check_choice
from saliency_widgets.widgets import Explorer, Lesson, TableExplorer, explore, lesson

_LESSON = "lesson"


def demo(name: str = "chelsea", **settings: Any) -> Explorer | TableExplorer | Lesson:
    """The explorer on EfficientNet-Lite0 and an image of scikit-image, or on a network for a table of scikit-learn.

    Args:
        name: "chelsea", "coffee", "astronaut" or "rocket"; "tabular" for a network that tells malignant from benign
            tumours, trained on the spot, or "diabetes" for one that predicts a value; "lesson" for the steps of a
            saliency map of "chelsea".
        **settings: As for :func:`explore`, or :func:`lesson`: ``method``, ``target``, the method's parameters.

    Raises:
        ImportError: The packages of the extra ``demo`` are missing: ``pip install 'saliency-widgets[demo]'``.
        TypeError, ValueError: There is no such demo.
    """
    check_choice("name", name, [*IMAGES, *TABLES, _LESSON])
    if name in TABLES:
        table = table_model(name)
        about = {"background": table.background, "labels": table.labels, "class_names": table.class_names}
        given = {"transform": table.transform, "score": table.score, **about, **settings}
        return explore(table.model, table.rows.iloc[0], **given)
    found = classifier()
    about = {"transform": found.transform, "class_names": found.class_names}
    if name == _LESSON:
        return lesson(found.model, sample_image(), **about, **settings)
    return explore(found.model, sample_image(name), **about, **settings)
