"""The contract of every trust test, and that one file adds a test."""

from __future__ import annotations

import importlib
import math
import re
import sys
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from toys import conv_net, images, mlp, rows, state_of

import saliency_widgets as sw
from saliency_widgets.attribution import Kind, Reduction, get_method
from saliency_widgets.attribution.errors import Cancelled
from saliency_widgets.evaluation.explanation import Explanation, map_of
from saliency_widgets.evaluation.registry import TrustTest, trust_tests
from saliency_widgets.session import Problem
from saliency_widgets.session.request import Request
from saliency_widgets.widgets import Explorer
from saliency_widgets.widgets.trust.panel import views
from saliency_widgets.widgets.trust.section import Section

ROOT = Path(__file__).resolve().parents[2]
NAME = "concentration"
QUICK = {"steps": 4, "stages": 2, "turns": 2, "draws": 2, "rows": 8, "repeats": 1}


@pytest.fixture(params=list(trust_tests()))
def test(request) -> TrustTest:
    return trust_tests()[request.param]


class Store(dict):
    """A store for the results of single passes, as a session has."""

    put = dict.__setitem__


def explanation_of(kind: str, store: Store | None = None, check=lambda: None, method: str = "smoothgrad"):
    """Return a problem with a small model and an image, a signal or a row, and an explanation of it."""
    if kind == "image":
        problem = Problem(conv_net(), images(0, 1, 3, 8, 8))
    elif kind == "signal":
        problem = Problem(conv_net_over_time(), rows(0, 2, 12), sampling_rate=4)
    else:
        frame = pd.DataFrame(np.random.default_rng(0).normal(size=(70, 4)), columns=list("abcd"))
        problem = Problem(mlp(classes=2), frame.iloc[3], background=frame)
    entry = get_method(method)
    params = entry.check_params({"n_samples": 2} if method == "smoothgrad" else {})
    score, _ = problem.resolve(Request.of(method, {}, target=1))
    runner, reduction = problem.runner(score, check), Reduction(entry.sign)
    region = torch.zeros(problem.kind.shape_of(problem.tensor) if kind == "signal" else (8, 8), dtype=torch.bool)
    region[..., 1:4] = True
    values = map_of(entry, params, reduction, problem.runner(score))
    explained = Explanation(
        lambda shared: runner if shared is None else replace(runner, results=store),
        values, entry, params, reduction, region=region, others=lambda: {"other": values.flip(0)},
    )  # fmt: skip
    return problem, explained


def conv_net_over_time():
    torch.manual_seed(0)
    parts = nn.Conv1d(2, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 2)
    return nn.Sequential(*parts).double().eval()


def begin(test: TrustTest, explained: Explanation, **values):
    """Start a test with few steps, and with the default fill of the kind of input."""
    return test.begin(explained, {**QUICK, "fill": explained.runner().kind.default_fill, **values})


def plain(value):
    """Return a result as plain numbers, for comparison."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def same(one, other) -> bool:
    return repr(plain(one)) == repr(plain(other))


def kinds_of(test: TrustTest) -> tuple[str, ...]:
    mapped = ("image", "signal")
    return test.kinds or (mapped if "map" in test.needs else (*mapped, "table"))


def last(test: TrustTest, explained: Explanation, **values):
    *_, outcome = begin(test, explained, **values)
    return outcome


def others_of(param) -> list:
    """Return values of a parameter other than its default."""
    if param.choices:
        return [name for name in param.options() if name in ("mean", "noise", "scattered")]
    return [param.check(param.low if param.default != param.low else param.low + 1)]


def test_title_view_readings_and_parameters(test):
    assert test.title
    assert test.view in views()
    for kind in (*(explanation_of(name)[0].kind for name in ("image", "signal", "table")), Kind()):
        assert test.reading(kind).endswith(".")
        if kind.name not in ("image", "numbers"):
            assert not re.search("image|pixel", test.reading(kind))
    for param in test.params:
        assert param.help.endswith(".")
        assert param.default is None or param.check(param.default) == param.default


def test_names_of_columns_and_metrics_are_unique():
    tests = trust_tests().values()
    columns = [name for test in tests for columns in test.columns for name in columns.numbers]
    metrics = [metric.name for test in tests for metric in test.metrics]
    assert len(set(columns)) == len(columns)
    assert len(set(metrics)) == len(metrics)


def test_each_running_result_can_be_shown_and_the_last_is_complete(test):
    for kind in kinds_of(test):
        problem, explained = explanation_of(kind)
        before = state_of(problem.model)
        results = list(begin(test, explained))
        parts = [[one for one in (r if isinstance(r, tuple) else (r,)) if one is not None] for r in results]
        assert all(0 <= one.done <= one.total for shown in parts for one in shown)
        assert all(one.complete for one in parts[-1])
        assert state_of(problem.model) == before
        assert same(results[-1], last(test, explained))


def test_it_stops_when_it_is_cancelled(test):
    for kind in kinds_of(test):
        stopped: list[bool] = []

        def check(stopped=stopped):
            if stopped:
                raise Cancelled

        _, explained = explanation_of(kind, check=check)
        running = begin(test, explained, draws=64, rows=64)
        next(running)
        stopped.append(True)
        further = 0
        try:
            for _ in running:
                further += 1
        except Cancelled:
            continue
        assert not further  # a test that needs only the map ends with its first result


def test_stored_results_are_reused_only_for_the_same_parameters(test):
    """The keys of stored results contain all parameters: changing one never gives a stale result."""
    for kind in kinds_of(test):
        _, explained = explanation_of(kind, Store())
        _, fresh = explanation_of(kind)
        last(test, explained)
        for param in test.params:
            for value in others_of(param):
                change = {param.name: value}
                assert same(last(test, explained, **change), last(test, fresh, **change)), change
        assert same(last(test, explained), last(test, fresh))


def test_each_column_is_a_finite_number_or_has_a_reason(test):
    for columns in test.columns:
        for method in ("smoothgrad", "gradient"):
            _, explained = explanation_of("image", method=method)
            try:
                *_, outcome = (None, *test.begin(explained, QUICK, **columns.settings))
                numbers = [read(outcome) for read in columns.numbers.values()]
            except ValueError as error:
                numbers, reason = [], str(error)
                assert reason.endswith("."), columns
            assert all(math.isfinite(number) for number in numbers)


# ---- a trust test in one file


@pytest.fixture
def added(tmp_path, monkeypatch):
    """Add the trust test that CONTRIBUTING.md shows, as a file in a temporary folder."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    (code,) = [block for block in blocks if "@trust_test" in block]
    (tmp_path / f"{NAME}.py").write_text(code)
    package = importlib.import_module("saliency_widgets.evaluation")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    yield
    sys.modules.pop(f"{package.__name__}.{NAME}", None)
    vars(package).pop(NAME, None)


def test_the_added_test_is_a_column_with_a_checked_parameter(added):
    model, x = conv_net(), images(0, 1, 3, 8, 8)
    values = np.zeros((8, 8))
    values[0, :4] = [5, 3, 1, 1]
    options = {"turns": 1, "stages": 1, "progress": False, "fill": "zero"}
    outcome = sw.evaluate(model, x, {"mine": values, "blank": np.zeros((8, 8))}, **options)
    assert outcome.loc["mine", NAME] == 2 / 64  # 8 of 10
    assert np.isnan(outcome.loc["blank", NAME])
    assert outcome.reasons["blank"][NAME] == "the map is zero everywhere."
    assert sw.evaluate(model, x, values, share=0.5, **options).loc["map", NAME] == 1 / 64
    with pytest.raises(ValueError, match=r"share: expected a number from 0\.1 to 1, got 2\.0"):
        sw.evaluate(model, x, values, share=2, **options)


def test_the_added_test_is_a_tab_with_a_slider(added):
    explorer = Explorer(conv_net(), images(0, 1, 3, 8, 8), executor="inline", method="gradient")
    titles = [title for title, _ in explorer.trust._choice.options]
    explorer.trust._choice.value = titles.index("Concentration")
    explorer.trust._fold.selected_index = 0
    section = explorer.trust._visible
    assert type(section) is Section
    values = np.abs(explorer.attribution.values[0].numpy()).max(0).flatten()

    def fraction_of(share: float) -> float:
        ranked = np.sort(values)[::-1].cumsum()
        return (np.argmax(ranked >= share * ranked[-1]) + 1) / len(values)

    assert f"Concentration: {fraction_of(0.8):.2f}" in section._said.value
    section.controls["share"].value = 0.5
    assert f"Concentration: {fraction_of(0.5):.2f}" in section._said.value
    assert "the smaller" in section.widget.children[-1].value
    explorer.close()


def test_the_added_test_is_removed_again():
    assert NAME not in trust_tests()
