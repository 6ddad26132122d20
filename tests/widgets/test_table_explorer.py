"""The explorer of table rows: ranked bars, what-if edits, and trust tests."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for

import numpy as np
import pandas as pd
import pytest
import torch
from ipywidgets.widgets import widget as registry
from sklearn.compose import ColumnTransformer
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch import nn
from toys import Tally, conv_net, each, images, linear, mlp, state_of, tallied

import saliency_widgets as sw
from saliency_widgets.attribution.baselines import BASELINE
from saliency_widgets.evaluation.registry import trust_tests
from saliency_widgets.widgets import Explorer
from saliency_widgets.widgets.base.bars import FeatureBars, label_of, size_text, value_text

NAMES = ["age", "income", "job", "owns", "debt"]
TABS = [
    name for name, test in trust_tests().items() if "table" in (test.kinds or ("table",)) and "map" not in test.needs
]


@pytest.fixture(scope="module")
def people():
    generator = np.random.default_rng(0)
    return pd.DataFrame({
        "age": generator.integers(18, 90, 50),
        "income": generator.normal(3000, 800, 50).round(2),
        "job": generator.choice(["baker", "judge", "pilot"], 50),
        "owns": generator.choice([True, False], 50),
        "debt": generator.normal(0, 5, 50).round(3),
    })  # fmt: skip


@pytest.fixture(scope="module")
def encoder(people):
    numbers = ["age", "income", "debt"]
    return ColumnTransformer([("numbers", StandardScaler(), numbers), ("words", OneHotEncoder(), ["job", "owns"])]).fit(
        people
    )


@pytest.fixture
def argument(people, encoder):
    return {"background": people, "transform": encoder, "class_names": ["no", "yes"], "executor": "inline"}


@pytest.fixture
def explorer(people, argument):
    made = Explorer(mlp(features=8, classes=1), people.iloc[3], target="yes", **argument)
    yield made
    made.close()


def shown(bars):
    """Return the values on the chart by label, from top to bottom."""
    assert list(bars._bars.x) == list(bars._position.domain)[::-1]
    assert list(bars._names_axis.tick_labels.values()) == bars.labels
    return dict(zip(bars.labels, bars._bars.y.tolist(), strict=True))


def open_tab(explorer, tab):
    explorer.trust._choice.value = TABS.index(tab)
    explorer.trust._fold.selected_index = 0
    return explorer.trust._sections[TABS.index(tab)]


def baseline(explorer):
    return explorer.panel._params[BASELINE]


def test_bars_are_ranked_with_their_values_and_the_rest_is_summed(explorer, people):
    by_name = explorer.attribution.by_feature().iloc[0]
    explorer.kind_view.bars.top.value = 3
    result = shown(explorer.kind_view.bars)
    order = by_name.sort_values(key=abs, ascending=False)
    values = {name: value_text(people.loc[3, name]) for name in NAMES}
    assert list(result) == [*(f"{name} = {values[name]}" for name in order.index[:3]), "2 others, summed"]
    assert list(result.values()) == pytest.approx([*order.iloc[:3], order.iloc[3:].sum()])
    assert sum(result.values()) == pytest.approx(float(explorer.attribution.values.sum()))
    colors = {True: "#f37726", False: "#6b9bc8"}
    assert explorer.kind_view.bars._bars.colors[:3] == [colors[value >= 0] for value in order.iloc[:3]]
    texts = [text for mark in explorer.kind_view.bars._numbers for text in mark.text]
    assert sorted(texts) == sorted(size_text(value, signed=True) for value in result.values())
    explorer.kind_view.bars.top.value = 5
    assert len(shown(explorer.kind_view.bars)) == 5
    assert explorer.by_feature().index.tolist() == order.index.tolist()


def test_the_map_shown_equals_that_of_attribute_and_of_the_code(explorer, people, encoder):
    row = people.iloc[[3]]
    attribution = sw.attribute(
        explorer.settings["model"], row, transform=encoder, background=people, baseline="mean", target=0
    )
    assert torch.equal(attribution.values, explorer.attribution.values)
    explorer.update(method="expected_gradients", n_samples=9)
    explorer.edit(age=60, job="judge")
    explorer.update(method="integrated_gradients", baseline=people.iloc[[8]])
    assert torch.equal(sw.attribute(**explorer.settings).values, explorer.attribution.values)
    code = explorer.to_code()
    assert "# inputs with 'age' = 60, 'job' = 'judge'\n" in code
    names = {
        "model": explorer.settings["model"], "inputs": row.assign(age=60, job="judge"), "transform": encoder,
        "background": people, "baseline": people.iloc[[8]],
    }  # fmt: skip
    exec(code, names)
    assert torch.equal(names["attribution"].values, explorer.attribution.values)


def test_edits_of_two_threads_are_both_applied(people, argument):
    made = Explorer(mlp(features=8, classes=1), people.iloc[[3]], **(argument | {"executor": "thread"}))

    def edit(name):
        for k in range(20):
            made.edit(**{name: 20 + k})

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(edit, ["age", "debt"]))
    finally:
        sys.setswitchinterval(interval)
    assert made.row[["age", "debt"]].to_numpy().tolist() == [[39, 39]]
    assert made.wait(60) is not None
    made.close()


def test_the_row_is_a_copy_and_the_callers_objects_are_unchanged(people, argument):
    model, row, rows = mlp(features=8, classes=1), people.iloc[[3]].copy(), people.copy(deep=True)
    before = state_of(model)
    made = Explorer(model, row, **argument)
    made.edit(age=20)
    open_tab(made, "shuffle")
    row.loc[3, "age"] = 99
    made.update(method="gradient")
    assert made.row["age"].tolist() == [20]
    assert state_of(model) == before
    pd.testing.assert_frame_equal(people, rows)
    made.close()


def test_sliders_change_the_bars(explorer):
    before = shown(explorer.kind_view.bars)
    explorer.panel._params[next(p for p in explorer.panel._params if p.name == "n_steps")].value = 8
    explorer.panel._params[next(p for p in explorer.panel._params if p.name == "tolerance")].value = 0.0
    assert explorer.attribution.evaluations == 9
    explorer.update(method="smoothgrad", n_samples=7, noise_level=0.3)
    assert explorer.attribution.settings["n_samples"] == 7
    assert shown(explorer.kind_view.bars) != before
    assert "add up to the score: each value is a slope per unit" in explorer.kind_view.bars._sum.value


def test_only_methods_for_rows_are_in_the_menu(people, argument, explorer):
    assert set(explorer.panel.titles) >= {"gradient", "smoothgrad", "integrated_gradients", "expected_gradients"}
    assert not {"grad_cam", "layer_cam", "guided_grad_cam", "blur_ig"} & set(explorer.panel.titles)
    with pytest.raises(ValueError, match="Grad-CAM needs a layer"):
        Explorer(mlp(features=8, classes=1), people.iloc[3], method="grad_cam", **argument)


@pytest.mark.parametrize("name", ["mean", "median", "zero", "noise"])
def test_baselines_by_name(explorer, people, encoder, name):
    explorer.update(baseline=name)
    attribution = sw.attribute(
        explorer.settings["model"], people.iloc[3], transform=encoder, background=people, baseline=name, target=0
    )
    assert torch.equal(attribution.values, explorer.attribution.values)


def test_a_row_of_the_background_can_be_chosen_as_baseline(explorer, people, encoder):
    control = baseline(explorer)
    assert control._row.layout.display == "none"
    control._holder.value = "row"
    assert control._row.layout.display is None
    control._row.value = 17
    attribution = sw.attribute(
        explorer.settings["model"], people.iloc[3], transform=encoder, background=people, target=0,
        baseline=people.iloc[[17]],
    )  # fmt: skip
    assert torch.equal(attribution.values, explorer.attribution.values)
    assert "# baseline = background.iloc[[17]]\n" in explorer.to_code()
    assert torch.equal(sw.attribute(**explorer.settings).values, attribution.values)
    explorer.update(baseline="median")
    assert control.row is None
    assert "baseline='median'" in explorer.to_code()


def test_what_if_changes_the_prediction_and_the_bars(explorer, people, encoder):
    what_if, model = explorer.kind_view.what_if, explorer.settings["model"]
    what_if._feature.value = "age"
    assert (what_if._value.min, what_if._value.max, what_if._value.value) == (
        people["age"].min(), people["age"].max(), people.loc[3, "age"],
    )  # fmt: skip
    with torch.no_grad():
        was = model(torch.from_numpy(encoder.transform(people.iloc[[3]]))).sigmoid().item()
        now = model(torch.from_numpy(encoder.transform(people.iloc[[3]].assign(age=80)))).sigmoid().item()
    assert f"yes {was:.1%}" in explorer.kind_view._predicted.value
    assert f"no {1 - was:.1%}" in explorer.kind_view._predicted.value
    what_if._value.value = 80
    assert f"yes {now:.1%}" in explorer.kind_view._predicted.value
    assert f"was {was:.1%} before the changes" in explorer.kind_view._predicted.value
    assert any(label.startswith("age = 80") for label in shown(explorer.kind_view.bars))
    assert what_if.changed == {"age": 80}
    what_if._feature.value = "job"
    assert [option for option, _ in what_if._value.options] == ["baker", "judge", "pilot"]
    what_if._value.value = "pilot" if people.loc[3, "job"] != "pilot" else "judge"
    assert set(what_if.changed) == {"age", "job"}
    what_if._all.click()
    assert what_if.changed == {}
    assert "before the changes" not in explorer.kind_view._predicted.value
    assert explorer.row.iloc[0].to_dict() == people.iloc[3].to_dict()


def test_one_change_is_undone_and_others_stay(explorer, people):
    what_if = explorer.kind_view.what_if
    explorer.edit(age=33, debt=1.5)
    what_if._feature.value = "debt"
    assert what_if._value.value == 1.5
    assert not what_if._back.disabled
    what_if._back.click()
    assert what_if.changed == {"age": 33}
    assert what_if._value.value == people.loc[3, "debt"]
    assert what_if._back.disabled


def test_a_slider_has_a_step_at_the_rows_value_and_its_echo_is_no_change(explorer, people):
    """The browser rounds a value to the nearest step, and sends back one that differs in the last bits."""
    what_if = explorer.kind_view.what_if
    for name, value in (("income", float(people.loc[3, "income"])), ("debt", -3.21987)):
        explorer.edit(**{name: value})
        what_if._feature.value = name
        slider = what_if._value
        steps = (value - slider.min) / slider.step
        assert steps == pytest.approx(round(steps), abs=1e-6)
        generation, before = explorer.session.generation, what_if.changed
        slider.value = value + 1e-9 * slider.step
        assert what_if.changed == before
        assert explorer.session.generation == generation


def test_dragging_a_slider_that_was_replaced_changes_nothing(explorer):
    what_if = explorer.kind_view.what_if
    what_if._feature.value = "age"
    dragged = what_if._value
    what_if._feature.value = "debt"
    assert dragged.comm is not None, "a closed slider can not receive the message of its page"
    assert dragged.layout.display == "none"
    dragged.set_state({"value": dragged.value + 5})
    assert what_if.changed == {}
    what_if._feature.value = "income"
    assert dragged.comm is None
    last = what_if._value_box.children
    assert len(last) == 2
    explorer.close()
    assert all(child.comm is None for child in last)


def test_a_click_on_a_bar_chooses_the_feature(explorer):
    position = 1
    explorer.kind_view.bars._rows._handle_custom_msg({"event": "element_click", "data": {"index": position}}, [])
    assert explorer.kind_view.what_if._feature.value == explorer.by_feature().index[position]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"height": 1}, "feature: 'height' is not known"),
        ({"age": "old"}, "age: expected a number"),
        ({"age": float("nan")}, "'age' are missing"),
        ({"job": "king"}, "transform: it raised ValueError"),
        ({"debt": 1.0, "age": "old"}, "age: expected a number"),
    ],
)
def test_an_invalid_value_is_an_error_and_changes_nothing(explorer, edit, message):
    before = explorer.attribution
    with pytest.raises(ValueError, match=message):
        explorer.edit(**edit)
    assert explorer.attribution is before
    assert explorer.kind_view.what_if.changed == {}
    explorer.kind_view.what_if._edit(*next(iter(edit.items()))) if len(edit) == 1 else None
    if len(edit) == 1:
        assert explorer.view.status["state"] == "error"
        assert message.split(":")[0] in explorer.view.status["message"]
    explorer.update(method="gradient")
    assert explorer.view.status["state"] == "done"


def test_edits_change_the_bars_of_several_classes(people, encoder, argument):
    model = mlp(features=8, classes=3)
    names = {**argument, "class_names": ["ant", "bee", "cat"]}
    made = Explorer(model, people.iloc[3], **names, target="bee")
    assert "evidence for bee" in made.kind_view.bars._sum.value
    made.edit(income=5000.0)
    with torch.no_grad():
        now = model(torch.from_numpy(encoder.transform(made.row))).softmax(1)[0]
    bars = made.panel._bars
    assert sorted(bars._bars.y.tolist()) == pytest.approx(sorted(now.tolist()))
    made.panel._on_bar(2)
    assert made.attribution.settings["target"] == 2
    assert "evidence for cat" in made.kind_view.bars._sum.value
    made.close()


def test_a_regression_shows_its_value(people, encoder, argument):
    model = mlp(features=8, classes=1)
    made = Explorer(model, people.iloc[3], **{**argument, "class_names": None}, score="value")
    with torch.no_grad():
        value = model(torch.from_numpy(encoder.transform(people.iloc[[3]]))).item()
    assert f"Prediction {value:.4g}" in made.kind_view._predicted.value
    assert "%" not in made.kind_view._predicted.value
    assert made.panel.title == "Integrated Gradients"
    made.edit(age=20)
    assert f"was {value:.4g} before the changes" in made.kind_view._predicted.value
    several = Explorer(
        mlp(features=8, classes=2), people.iloc[3], **{**argument, "class_names": ["sales", "costs"]}, score="value",
        target="costs",
    )  # fmt: skip
    assert "costs " in several.kind_view._predicted.value
    assert several.panel._bars is None
    made.close()
    several.close()


@each("form", ["array", "tensor", "list", "row", "series", "frame", "mapping"])
def test_a_row_can_have_any_supported_type(form):
    numbers = [40.0, 3000.0, -5.0]
    rows = np.random.default_rng(0).normal(size=(9, 3))
    row = {
        "array": np.array(numbers),
        "tensor": torch.tensor(numbers),
        "list": numbers,
        "row": np.array([numbers]),
        "series": pd.Series(numbers, NAMES[:3]),
        "frame": pd.DataFrame([numbers], columns=NAMES[:3]),
        "mapping": dict(zip(NAMES[:3], numbers, strict=True)),
    }[form]
    named = form in ("series", "frame", "mapping")
    made = sw.explore(linear(torch.ones(3)), row, background=rows, feature_names=None if named else NAMES[:3])
    assert made.kind == "table"
    made.wait(20)
    assert {label.partition(" = ")[0] for label in shown(made.kind_view.bars)} == set(NAMES[:3])
    assert torch.equal(sw.attribute(**made.settings).values, made.attribution.values)
    made.close()


def test_a_row_can_be_explored_without_a_background():
    made = sw.explore(mlp(), torch.rand(4, dtype=torch.float64))
    assert made.kind == "table"
    made.wait(20)
    assert [label for label, _ in baseline(made)._holder.options] == ["zero in the model's input"]
    made.kind_view.what_if._feature.value = "feature 2"
    made.kind_view.what_if._value.value += 3 * made.kind_view.what_if._value.step
    made.wait(20)
    made.trust._choice.value = TABS.index("shuffle")
    made.trust._fold.selected_index = 0
    assert "as background=" in made.trust._sections[0]._said.value
    made.close()
    image = sw.explore(nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()), torch.rand(3, 8, 8))
    assert isinstance(image, Explorer)
    image.close()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"inputs": lambda p: p.iloc[:2]}, ValueError, "one row, got 2"),
        ({"inputs": lambda p: p.head(0)}, ValueError, "table of shape"),
        ({"inputs": lambda p: p.iloc[3].drop("job")}, ValueError, "these rows have no job"),
        ({"inputs": lambda p: p.iloc[[3]].assign(age=np.nan)}, ValueError, "values of 'age' are missing"),
        ({"background": lambda p: p[["age"]]}, ValueError, "without income"),
        ({"background": lambda p: p.assign(job=None)}, ValueError, "50 of 50 values of 'job' are missing"),
        ({"background": lambda p: p.head(0)}, ValueError, "background: it has no rows"),
        ({"transform": lambda p: None}, ValueError, "'job' holds .*, which is not a number. Pass transform="),
        ({"transform": lambda p: 7}, TypeError, "transform: expected a fitted"),
        ({"labels": lambda p: [1] * 50}, ValueError, "for all 50 rows"),
        ({"labels": lambda p: [1, 0]}, ValueError, "each of the 50 rows"),
        ({"class_names": lambda p: ["a", "b", "c"]}, ValueError, "got 3"),
        ({"target": lambda p: 3}, ValueError, "class 3 is out of range"),
        ({"top": lambda p: 0}, ValueError, "top: expected"),
        ({"transform": lambda p: p.mean}, ValueError, "transform: "),
        ({"baseline": lambda p: p.iloc[:2]}, ValueError, "baseline: expected one row, got 2"),
        ({"baseline": lambda p: p[["age"]].iloc[[0]]}, ValueError, "baseline: expected the same columns"),
        ({"nosuch": lambda p: 0}, TypeError, "'nosuch' is not known"),
        ({"opacity": lambda p: 0.5}, TypeError, "'opacity' is not known"),
        ({"executor": lambda p: "threads"}, ValueError, "executor: 'threads' is not known"),
    ],
)
def test_an_invalid_argument_is_an_error_and_leaves_no_thread_or_widget(people, argument, change, error, message):
    threads, before = set(threading.enumerate()), set(registry._instances)
    arguments = {"inputs": people.iloc[3], **argument, **{name: make(people) for name, make in change.items()}}
    with pytest.raises(error, match=message):
        Explorer(mlp(features=8, classes=1), arguments.pop("inputs"), **arguments)
    assert set(threading.enumerate()) <= threads
    assert set(registry._instances) <= before


def test_a_baseline_with_other_columns_is_an_error_and_changes_nothing(explorer, people):
    before = explorer.attribution
    with pytest.raises(ValueError, match="baseline: expected the same columns as the inputs"):
        explorer.update(baseline=people.iloc[[2]][["age"]], n_steps=4)
    assert explorer.attribution is before
    assert baseline(explorer).value == "mean"
    explorer.update(n_steps=4)
    assert explorer.attribution.settings["n_steps"] == 4


def test_a_refused_value_resets_the_control(people):
    def encode(rows):
        assert (rows["age"] < 100).all()
        return rows[["age", "income"]].to_numpy(float)

    numbers = people[["age", "income"]].assign(age=people["age"].astype(float))
    made = Explorer(mlp(features=2, classes=1), numbers.iloc[3], background=numbers, transform=encode,
                         executor="inline")  # fmt: skip
    made.kind_view.what_if._feature.value = "age"
    made.kind_view.what_if._value.max = 200
    made.kind_view.what_if._value.value = 150
    assert made.kind_view.what_if._value.value == numbers.loc[3, "age"]
    assert made.kind_view.what_if.changed == {}
    assert "AssertionError" in made.view.status["message"]
    made.kind_view.what_if._value.value = 30
    assert made.view.status["state"] == "done"
    made.close()


def test_the_prediction_before_the_changes_is_that_of_the_current_model(people):
    model = linear(torch.ones(2, dtype=torch.float64))
    numbers = people[["age", "income"]]
    made = Explorer(model, numbers.iloc[0], background=numbers, score="value", executor="inline")
    was = numbers.iloc[0].sum()
    made.edit(age=0)
    assert f"was {was:.4g} before" in made.kind_view._predicted.value
    with torch.no_grad():
        model.weight.mul_(10)
    made.edit(age=1)
    assert "before the changes" not in made.kind_view._predicted.value
    assert f"Prediction {10 * (numbers.iloc[0, 1] + 1):.4g}" in made.kind_view._predicted.value
    made.kind_view.what_if._all.click()
    made.edit(age=2)
    assert f"was {10 * was:.4g} before" in made.kind_view._predicted.value
    made.close()


def test_a_regression_of_several_values_requires_an_index():
    with pytest.raises(ValueError, match="the model returns 2 values; with score='value', pass the index of one"):
        Explorer(mlp(classes=2), torch.rand(4), score="value", executor="inline")


def test_an_edit_waits_for_no_pass():
    model = Slow().eval()
    rows = pd.DataFrame(np.zeros((4, 3)), columns=NAMES[:3])
    made = Explorer(model, rows.iloc[0], background=rows, score="value")
    made.wait(20)
    model.tally.gate.clear()
    for age in (1.0, 2.0, 3.0):
        made.edit(age=age)
    assert made.session.busy  # edit returned while the first map is still computed
    model.tally.gate.set()
    assert made.wait(20).by_feature()["age"].tolist() == [3.0]
    made.close()


def test_shuffled_contributions_are_marked_on_the_bars_while_the_test_is_open(explorer, people, encoder):
    section = open_tab(explorer, "shuffle")
    local = sw.shuffle(explorer.settings["model"], people.iloc[3], people, transform=encoder)
    marks = dict(zip(explorer.kind_view.bars.labels, explorer.kind_view.bars._marker_marks.x.tolist(), strict=True))
    assert list(explorer.kind_view.bars._marker_marks.y) == list(explorer.kind_view.bars._bars.x)
    assert {label.partition(" = ")[0]: mark for label, mark in marks.items()} == pytest.approx(
        local["contribution"].to_dict()
    )
    assert f"This row: {local.index[0]} changes the score most" in section._said.value
    assert "Pass labels= to see" in section._said.value
    explorer.edit(age=80)
    again = sw.shuffle(explorer.settings["model"], explorer.row, people, transform=encoder)
    assert sorted(explorer.kind_view.bars._marker_marks.x) == pytest.approx(sorted(again["contribution"]))
    explorer.trust._choice.value = TABS.index("stability")
    assert len(explorer.kind_view.bars._marker_marks.x) == 0
    explorer.trust._choice.value = TABS.index("shuffle")
    assert len(explorer.kind_view.bars._marker_marks.x) == 5
    explorer.trust._fold.selected_index = None
    assert len(explorer.kind_view.bars._marker_marks.x) == 0
    explorer.edit(age=30)
    assert len(explorer.kind_view.bars._marker_marks.x) == 0


def test_with_labels_the_loss_is_shown(people, encoder, argument):
    labels = np.arange(50) % 2
    made = Explorer(mlp(features=8, classes=1), people.iloc[3], **argument, labels=labels)
    section = open_tab(made, "shuffle")
    local = sw.importance(
        made.settings["model"], people, labels, transform=encoder, progress=False, class_names=["no", "yes"]
    )
    assert shown(section._bars) == pytest.approx(local["permuted"].to_dict())
    assert f"permuting {local['permuted'].idxmax()} raises the cross-entropy most" in section._said.value
    made.close()


def test_importance_saturation_and_stability(explorer, people, encoder):
    section = open_tab(explorer, "importance")
    local = sw.importance(
        explorer.settings["model"], people, transform=encoder, progress=False, repeats=1, params={"baseline": "mean"}
    )
    assert shown(section._bars) == pytest.approx(local["size"].to_dict(), rel=1e-5)
    assert "Over 50 rows" in section._said.value
    section = open_tab(explorer, "saturation")
    assert "aturated" in section._said.value
    assert "image" not in section._said.value
    assert section.controls["baseline"].value == "mean"
    section = open_tab(explorer, "stability")
    assert "other seeds" not in section._said.value  # Integrated Gradients with the mean as baseline is deterministic
    explorer.update(method="expected_gradients", n_samples=20)
    assert "other seeds" in section._said.value
    assert "Integrated Gradients" in section._table.value
    assert explorer.trust._message.value == ""


def test_close_leaves_no_thread_and_no_widget(people, argument):
    before, threads = set(registry._instances), set(threading.enumerate())
    made = Explorer(mlp(features=8, classes=1), people.iloc[3], **{**argument, "executor": "thread"})
    made.wait(20)
    made.edit(age=22)
    for tab in TABS:
        open_tab(made, tab)
        assert made.trust.wait(60)
    made.kind_view.what_if._feature.value = "job"
    made.close()
    assert set(registry._instances) <= before
    assert set(threading.enumerate()) <= threads


class Slow(nn.Module):
    """Sums three features; its passes block while the gate is closed."""

    passes = tallied("passes")

    def __init__(self) -> None:
        super().__init__()
        self.net, self.tally = linear(torch.ones(3, dtype=torch.float64)), Tally()
        self.tally.gate = threading.Event()
        self.tally.gate.set()

    def forward(self, x):
        self.passes += 1
        assert self.tally.gate.wait(20)
        return self.net(x)


def test_the_newest_row_is_shown_and_labels_match_their_bars():
    model = Slow().eval()
    rows = pd.DataFrame(np.zeros((4, 3)), columns=NAMES[:3])
    made = Explorer(model, rows.iloc[0], background=rows, score="value")
    made.wait(20)
    seen = []
    made.kind_view.bars._bars.observe(
        lambda _change: seen.append((made.kind_view.bars.labels, list(made.kind_view.bars._bars.y))), "y"
    )
    model.tally.gate.clear()
    for value in range(1, 30):
        made.edit(age=float(value))
    model.tally.gate.set()
    assert made.wait(20).by_feature()["age"].tolist() == [29.0]
    assert shown(made.kind_view.bars)["age = 29"] == 29.0
    for labels, values in seen:  # weights of 1 and a baseline of 0: each bar equals the value in its label
        for label, value in zip(labels, values, strict=True):
            assert value == float(label.partition(" = ")[2])
    made.close()


def test_edits_take_precedence_over_trust_tests_and_a_closed_panel_runs_none(monkeypatch):
    model = Slow().eval()
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 3)), columns=NAMES[:3])
    made = Explorer(model, rows.iloc[0], background=rows, score="value")
    made.wait(20)
    made.trust._choice.value = TABS.index("importance")
    model.tally.gate.clear()
    made.trust._fold.selected_index = 0
    made.edit(age=1.5)
    model.tally.gate.set()
    assert made.wait(20).by_feature().notna().all(axis=None)
    assert made.trust.wait(60)
    assert "Over 40 rows" in made.trust._sections[1]._said.value
    made.trust._fold.selected_index = None
    requested = []
    monkeypatch.setattr(made.trust._examiner, "submit", requested.append)
    made.edit(age=2.5)
    made.wait(20)
    assert requested == []
    made.close()


def test_labels_are_shortened_to_fit():
    assert label_of("age", "40") == "age = 40"
    assert label_of("a very long name of a column that goes on", "1234.5") == "a very long name of a colum… = 1234.5"
    assert [value_text(v) for v in (True, 3, 0.123456, 1e7, "a long category")] == [
        "True", "3", "0.1235", "1e+07", "a long ca…",
    ]  # fmt: skip
    assert [size_text(v, signed=True) for v in (1530.4, -0.1234, 0.0, 2e9)] == ["+1,530", "-0.123", "0", "+2e+09"]


@pytest.mark.parametrize("name", ["tabular", "diabetes"])
def test_the_demos_of_tables(name):
    made = sw.demo(name, method="gradient")
    assert made.kind == "table"
    assert made.wait(60).complete
    assert ("malignant" in made.kind_view._predicted.value) == (name == "tabular")
    made.close()
    with pytest.raises(ValueError, match="name: 'tables' is not known"):
        sw.demo("tables")


@pytest.mark.parametrize("target", ["no", "yes"])
def test_both_classes_of_one_logit_are_shown_and_explained(people, argument, target):
    model = mlp(features=8, classes=1)
    made = Explorer(model, people.iloc[3], **argument, target=target)
    other = {"no": "yes", "yes": "no"}[target]
    assert {name for _, name, _ in made.panel.predictions} == {"no", "yes"}
    assert f"Orange is evidence for {target}, blue against it ({other})" in made.kind_view.bars._sum.value
    first = made.attribution.by_feature().iloc[0]
    made.update(target=other)
    assert made.attribution.by_feature().iloc[0].to_numpy() == pytest.approx(-first.to_numpy())
    made.close()


def test_the_default_target_of_one_logit_is_the_likelier_class(people, argument):
    made = Explorer(mlp(features=8, classes=1), people.iloc[3], **argument)
    (index, name, share), (_, _, rest) = made.panel.predictions
    assert made.attribution.settings["target"] == index
    assert share > rest
    assert f"<b>{name} {share:.1%}</b>" in made.kind_view._predicted.value
    made.close()


def test_bars_are_drawn_completely_before_another_thread_reads_or_draws_them():
    bars = FeatureBars(list("abc"))
    bars.show(np.array([1.0, 2.0, 3.0]), final=True)
    entered, go_on = threading.Event(), threading.Event()

    def wait(_change):
        entered.set()
        go_on.wait(60)

    bars._size.observe(wait, "max")
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(bars.show, np.array([40.0, 50.0, 60.0]), final=True)
        assert entered.wait(60)
        second = pool.submit(bars.show_markers, np.array([70.0, 80.0, 90.0]))
        shown = pool.submit(lambda: bars.shown)
        assert not wait_for([second, shown], timeout=0.3).done
        go_on.set()
        first.result(60)
        second.result(60)
        assert [size for _, size, _, _ in shown.result(60)] == [60.0, 50.0, 40.0]
    assert bars._marker_marks.x.tolist() == [90.0, 80.0, 70.0]


def test_the_check_up_runs_once_for_a_model_and_covers_methods_for_rows(explorer, monkeypatch):
    from saliency_widgets.api import checkup as module
    from saliency_widgets.diagnostics.report import Finding

    runs = []

    def check_up(*_args):
        runs.append(1)
        return [Finding("of a map", methods=("grad_cam",)), Finding("of a slope", methods=("gradient",))]

    monkeypatch.setattr(module, "check_up", check_up)
    explorer.edit(age=31)
    assert not runs  # the model is the same, only the row has changed
    with torch.no_grad():
        next(explorer.problem.model.parameters()).add_(0.1)
    explorer.update()
    assert len(runs) == 1
    assert [finding["what"] for finding in explorer.view.findings] == ["of a slope"]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("pin", ()), ("save_png", ("map.png",)), ("page_size", ()), ("save_html", ("page.html",))],
)
def test_features_for_images_are_errors_for_rows(explorer, name, arguments):
    with pytest.raises(NotImplementedError, match=f"^{name}: "):
        getattr(explorer, name)(*arguments)
    with pytest.raises(NotImplementedError, match=r"^annotations: this explorer shows a row of a table"):
        _ = explorer.annotations


def test_features_for_rows_are_errors_for_images():
    made = Explorer(conv_net(), images()[:1], method="gradient", executor="inline")
    with pytest.raises(NotImplementedError, match=r"^edit: this explorer shows an image"):
        made.edit(age=3)
    with pytest.raises(NotImplementedError, match=r"^row: "):
        _ = made.row
    with pytest.raises(ValueError, match="not rows of a table"):
        made.by_feature()
    made.close()
