"""Malformed messages from a page: they raise nothing and change nothing, and the next valid one works."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from toys import conv_net, each, images, mlp
from traitlets import TraitError

import saliency_widgets as sw
from saliency_widgets.widgets import Explorer
from saliency_widgets.widgets.base.heatmap import HeatmapView

WRONG = [None, "x", "3", True, 0.5, float("nan"), -1, 10**30, [], [None], {}, {"index": None}]


@pytest.fixture
def explorer() -> Iterator[Explorer]:
    made = Explorer(conv_net(), images()[:1], executor="inline", method="gradient")
    yield made
    made.close()


def malformed(message: dict[str, Any]) -> list[Any]:
    """Return values that are no message, and the message with each of its values missing or wrong."""
    without = [{name: value for name, value in message.items() if name != left} for left in message]
    return [*WRONG, *without, *[{**message, name: wrong} for name in message if name != "type" for wrong in WRONG]]


@each("message", malformed({"type": "painted", "generation": 1, "index": 1}), ids=str)
def test_a_malformed_acknowledgement_is_ignored_and_the_next_one_counts(message: Any) -> None:
    view = HeatmapView(b"", None)
    view.offer({"generation": 1, "index": 2}, {})
    view.offer({"generation": 1, "index": 3}, {})
    view._on_message(view, message, [])
    newer = isinstance(message, dict) and 10**30 in message.values()  # acknowledging a later frame includes this one
    assert view.frame["index"] == (3 if newer else 2)
    view._on_message(view, {"type": "painted", "generation": 1, "index": 2}, [])
    assert view.frame["index"] == 3
    view.retire()
    view.close()


def test_a_malformed_region_is_ignored(explorer: Explorer) -> None:
    masks: list[np.ndarray] = []
    explorer.view.on_region(masks.append)
    for message in malformed({"type": "region", "height": 8, "width": 8}):
        explorer.view._on_message(explorer.view, message, [b"\xff" * 8])
        explorer.view._on_message(explorer.view, message, [])
        assert masks == [], message
    explorer.view._on_message(explorer.view, {"type": "region", "height": 8, "width": 8}, [b"\xff" * 8])
    assert [mask.shape for mask in masks] == [(8, 8)]


def test_a_grid_ignores_malformed_messages() -> None:
    grid = sw.compare(conv_net(), images(), methods=["gradient", "input_x_gradient"])
    grid.wait(60, progress=False)
    for message in [*malformed({"type": "open", "cell": 9}), *malformed({"type": "visible", "cells": [0]})]:
        grid.view._on_message(grid.view, message, [])
    assert grid._detail_pane._explorer is None
    grid.view._on_message(grid.view, {"type": "open", "cell": 0}, [])
    assert grid._detail_pane._explorer is not None
    grid.close()


def test_a_lesson_ignores_malformed_messages() -> None:
    lesson = sw.lesson(conv_net(), images()[:1], n_samples=2, steps=["input", "gradient"])
    for message in malformed({"type": "try", "step": "no such step", "shot": 0}):
        lesson.view._on_message(lesson.view, message, [])
    assert lesson.explorer is None
    lesson.close()


def test_a_click_on_a_bar_that_does_not_exist_is_ignored(explorer: Explorer) -> None:
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(9, 4)), columns=list("abcd"))
    table = sw.explore(mlp(), rows.iloc[[0]], background=rows)
    before = explorer.panel.selection["target"], table.kind_view.what_if._feature.value
    for clicked in (explorer.panel._bars._rows, table.kind_view.bars._rows):
        for event in [*WRONG, *[{"data": wrong} for wrong in WRONG], *[{"data": {"index": wrong}} for wrong in WRONG]]:
            (on_click,) = clicked._element_click_handlers.callbacks
            on_click(clicked, event)
    assert (explorer.panel.selection["target"], table.kind_view.what_if._feature.value) == before
    table.close()


def test_a_menu_keeps_its_value_after_an_invalid_one(explorer: Explorer) -> None:
    menu = explorer.panel._method.widget
    with pytest.raises(TraitError):
        menu.set_state({"index": None})
    assert explorer.settings["method"] == menu.value == "gradient"
    menu.set_state({"index": [value for _, value in menu.options].index("smoothgrad")})
    assert explorer.attribution is not None
    assert explorer.attribution.settings["method"] == "smoothgrad"
