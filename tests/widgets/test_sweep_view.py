"""A sweep on the page: words, chart and maps are those of the numbers, and "Use these" moves the sliders."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image
from toys import conv_net, pictures

import saliency_widgets as sw
from saliency_widgets.widgets.charts import thumbnail

GRID = {"noise_level": [0.1, 0.4], "n_samples": [2, 8, 32]}


@pytest.fixture(scope="module")
def found() -> sw.Sweep:
    return sw.sweep(
        conv_net(), pictures(), "smoothgrad", GRID, ["similarity", "standard_error", "time"], progress=False
    )


def test_a_notebook_shows_it_as_a_widget(found: sw.Sweep) -> None:
    shown = found._repr_mimebundle_()
    assert shown["application/vnd.jupyter.widget-view+json"]["model_id"] == found.widget.model_id
    assert found.widget._words.value.count(found.words.replace("'", "&#x27;")) == 1


def test_the_lines_are_the_numbers_and_the_ring_is_the_choice(found: sw.Sweep) -> None:
    view = found.widget
    table = found.summary
    for line, noise in zip(view._lines, GRID["noise_level"], strict=True):
        own = table[table.noise_level == noise]
        assert np.array_equal(line.x, own.evaluations)
        assert np.array_equal(line.y, own.similarity)
    assert found.choice is not None
    assert (view._ring.x, view._ring.y) == (table.evaluations[found.choice], table.similarity[found.choice])
    assert found.bend is None or view._knee.x == table.evaluations[found.bend]


def test_another_metric_is_another_choice_of_the_same_numbers(found: sw.Sweep) -> None:
    view = found.widget
    view._quality.value = "standard_error"
    assert view.found.quality == "standard_error"
    assert view.found.words in view._words.value
    assert "sampling error" in view.found.words
    best = found.summary.standard_error.idxmin()
    assert view.found.recommended == {name: found.summary[name][best] for name in GRID}
    view._cost.value = "time"
    assert view._figure.axes[0].label == "Time (s)"
    view._quality.value, view._cost.value = "similarity", "evaluations"
    assert view.found.words == found.words


def test_each_setting_has_its_map_and_the_chosen_one_its_frame(found: sw.Sweep) -> None:
    view = found.widget
    assert view._maps.value.count("<img") == 1 + 6  # the input, too
    assert view._maps.value.count("border:2px solid var(") == 1
    first = view._maps.value
    view._input.value = 1
    assert view._maps.value != first
    sources = re.findall(r"base64,([^']+)'", view._maps.value)
    picture = np.array(Image.open(io.BytesIO(base64.b64decode(sources[0]))))
    assert np.array_equal(picture, found.pictures[1])
    assert sources[3] in thumbnail(found.map_of(1, noise_level=0.1, n_samples=32), "")


def test_use_these_moves_the_sliders_of_an_explorer(found: sw.Sweep) -> None:
    explorer = sw.explore(conv_net(), pictures()[:1], method="gradient", executor="inline")
    view = found.widget_for(explorer)
    view._use.click()
    assert explorer.settings["method"] == "smoothgrad"
    assert {name: explorer.settings[name] for name in GRID} == found.recommended
    explorer.close()
    assert not any(child is view._use for child in found.widget.children)


def test_rows_have_no_maps_but_all_the_rest() -> None:
    found = sw.sweep(
        conv_net()[-1], pictures(0, 1, 1, 4, 5).reshape(1, 20), "smoothgrad", {"n_samples": [2, 8]}, ["similarity"],
        progress=False,
    )  # fmt: skip
    assert "<img" not in found.widget._maps.value
    assert len(found.widget._lines) == 1


def test_what_was_not_measured_can_not_be_chosen_by(found: sw.Sweep) -> None:
    with pytest.raises(ValueError, match="quality: 'insertion' is not known"):
        found.by("insertion")
    with pytest.raises(ValueError, match="cost: 'similarity' is not known"):
        found.by(cost="similarity")
    with pytest.raises(ValueError, match="within"):
        found.by(within=3)
    assert found.by(within=1.0).choice == 0  # whatever is cheapest
