"""Shuffling, permutation importance, and importance over many rows, against closed forms and scikit-learn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.compose import ColumnTransformer
from sklearn.inspection import permutation_importance as sklearns
from sklearn.metrics import log_loss, mean_squared_error
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch import nn
from toys import Formula, linear, mlp, state_of

import saliency_widgets as sw
from saliency_widgets.attribution import Score
from saliency_widgets.evaluation.shuffling import permutation_importance, shuffle
from saliency_widgets.outputs.classification import Classification
from saliency_widgets.session import Problem
from saliency_widgets.session.explanation import labels_of

NAMES = ["age", "income", "debt", "rent"]


@pytest.fixture
def people():
    generator = np.random.default_rng(3)
    return pd.DataFrame(generator.normal(size=(60, 4)) * [20, 800, 5, 90] + [40, 3000, 0, 700], columns=NAMES)


@pytest.fixture
def mixed(people):
    generator = np.random.default_rng(4)
    return people.assign(
        job=generator.choice(["baker", "judge", "pilot"], 60), owns=generator.choice([True, False], 60)
    )


def weights():
    return torch.tensor([0.5, -0.002, 1.5, 0.01], dtype=torch.float64)


def runner_of(model, inputs, background, score="logit", target=0, **about):
    problem = Problem(model, inputs, background=background, **about)
    return problem.runner(Score(score, torch.tensor([target])))


def last(estimates):
    *_, result = estimates
    return result


def test_shuffling_a_linear_model_equals_integrated_gradients_from_the_mean(people):
    """f(x) - E f(x with b_j) = w_j (x_j - mean b_j), over all rows b of the background."""
    model, row = linear(weights()), people.iloc[7]
    expected = weights().numpy() * (row - people.mean()).to_numpy()
    result = sw.shuffle(model, row, people, draws=512, score="value")
    assert result.loc[NAMES, "contribution"].to_numpy() == pytest.approx(expected)
    assert result["contribution"].abs().is_monotonic_decreasing
    assert result.loc["income", "value"] == row["income"]
    gradients = sw.attribute(model, row, background=people, baseline="mean", score="value").by_feature().iloc[0]
    assert gradients.to_numpy() == pytest.approx(expected)


def test_expected_gradients_draw_from_the_background(people):
    """For a linear model they are w (x - mean of the background), within their standard error."""
    row = people.iloc[7]
    result = sw.attribute(
        linear(weights()), row, background=people, method="expected_gradients", n_samples=500, score="value"
    )
    expected = weights() * torch.tensor((row - people.mean()).to_list())
    assert result.standard_error is not None
    assert bool(((result.values[0] - expected).abs() < 5 * result.standard_error[0]).all())
    rows = sw.attribute(
        linear(weights()), row, background=people, method="expected_gradients", n_samples=500, score="value",
        baselines=torch.from_numpy(people.to_numpy()),
    )  # fmt: skip
    assert torch.equal(result.values, rows.values)


@pytest.mark.parametrize("name", ["mean", "median", "zero", "row"])
def test_baselines_are_those_of_the_background_in_the_columns_units(people, name):
    scaler = StandardScaler().fit(people)
    row = people.iloc[7]
    start = {
        "mean": people.mean(),
        "median": people.quantile(0.5, interpolation="lower"),
        "zero": people.mean(),
        "row": people.iloc[3],
    }[name]
    value = people.iloc[[3]] if name == "row" else name  # zero in the model's inputs is the scaler's mean
    result = sw.attribute(
        linear(weights()), row, background=people, transform=scaler, baseline=value, score="value"
    ).by_feature()
    assert result.iloc[0].to_numpy() == pytest.approx(weights().numpy() / scaler.scale_ * (row - start).to_numpy())


def test_noise_is_in_proportion_to_each_columns_range_in_the_background(people):
    """VarGrad of sum_i x_i^2 is 4 (noise level times range)^2, with the range of each column."""
    model = Formula(lambda x: (x**2).sum(1))
    result = sw.attribute(
        model, people.iloc[7], background=people, method="smoothgrad", statistic="variance", noise_level=0.1,
        n_samples=500, score="value",
    )  # fmt: skip
    expected = 4 * (0.1 * (people.max() - people.min()).to_numpy()) ** 2
    assert result.values[0].numpy() == pytest.approx(expected, rel=0.25)


class _Estimator(ClassifierMixin, BaseEstimator):
    """A torch model as an estimator of scikit-learn that records the rows that it gets."""

    def __init__(self, model):
        self.model = model
        self.classes_ = np.arange(3)
        self.seen = []

    def fit(self, X, y):  # noqa: N803
        return self

    def output(self, rows):
        self.seen.append(np.array(rows))
        with torch.no_grad():
            return self.model(torch.from_numpy(np.array(rows)))


def _cross_entropy(estimator, rows, labels):
    return -log_loss(labels, estimator.output(rows).softmax(1).numpy(), labels=[0, 1, 2])


def _binary(estimator, rows, labels):
    return -log_loss(labels, estimator.output(rows)[:, 0].sigmoid().numpy(), labels=[0, 1])


def _squared(estimator, rows, labels):
    return -mean_squared_error(labels, estimator.output(rows)[:, 0].numpy())


@pytest.mark.parametrize(
    ("classes", "score", "scorer", "loss"),
    [
        (3, "logit", _cross_entropy, "cross-entropy"),
        (1, "logit", _binary, "cross-entropy"),
        (1, "value", _squared, "squared error"),
    ],
)
def test_permutation_importance_equals_scikit_learns_on_the_same_permutations(classes, score, scorer, loss):
    generator = np.random.default_rng(5)
    rows = generator.normal(size=(40, 4))
    labels = generator.integers(0, max(2, classes), 40) if score == "logit" else generator.normal(size=40)
    model = mlp(classes=classes)
    estimator = _Estimator(model)
    theirs = sklearns(estimator, rows, labels, scoring=scorer, n_repeats=3, random_state=11)
    # The row that each value came from: all values of a column are different.
    requested = np.stack(estimator.seen[1:]).reshape(4, 3, 40, 4)
    orders = [[np.argmax(requested[c, r, :, c][:, None] == rows[:, c], 1) for r in range(3)] for c in range(4)]
    assert all(np.array_equal(order, orders[0]) for order in orders)  # scikit-learn permutes each column alike
    runner = runner_of(model, rows[0], rows, score)
    problem = Problem(model, rows[0], background=rows)
    expected, kind = labels_of(labels, problem, score)
    assert kind == loss
    ours = last(permutation_importance(runner, expected, kind, orders=torch.from_numpy(np.stack(orders[0]))))
    assert ours.increases.numpy() == pytest.approx(theirs.importances, rel=1e-9, abs=1e-12)
    assert ours.importance.numpy() == pytest.approx(theirs.importances_mean, rel=1e-9, abs=1e-12)
    assert ours.before == pytest.approx(-scorer(estimator, rows, labels))


def test_permutation_importance_without_labels_is_the_mean_change_of_the_score(people):
    order = torch.from_numpy(np.random.default_rng(0).permutation(60))[None]
    runner = runner_of(linear(weights()), people.iloc[7], people, "value")
    result = last(permutation_importance(runner, orders=order))
    expected = np.abs(weights().numpy() * (people.to_numpy()[order[0]] - people.to_numpy())).mean(0)
    assert result.loss == "change of the score"
    assert result.before == 0
    assert result.importance.numpy() == pytest.approx(expected)


def test_the_importance_over_many_rows_is_the_mean_size_of_their_attributions(people):
    centered = weights().numpy() * (people - people.mean()).to_numpy()
    result = sw.importance(linear(weights()), people, score="value", progress=False, repeats=2)
    assert list(result.columns) == ["size", "mean", "permuted", "permuted_std"]
    assert result.loc[NAMES, "size"].to_numpy() == pytest.approx(np.abs(centered).mean(0))
    assert result.loc[NAMES, "mean"].to_numpy() == pytest.approx(centered.mean(0), abs=1e-9)
    assert result["size"].is_monotonic_decreasing
    other = sw.importance(
        linear(weights()), people, score="value", progress=False, repeats=2, background=people.iloc[[3]]
    )
    moved = weights().numpy() * (people - people.iloc[3]).to_numpy()
    assert other.loc[NAMES, "mean"].to_numpy() == pytest.approx(moved.mean(0))


def test_one_hot_groups_are_shuffled_together(mixed):
    encoder = ColumnTransformer(
        [("numbers", StandardScaler(), NAMES), ("words", OneHotEncoder(), ["job", "owns"])]
    ).fit(mixed)
    model = mlp(features=9, classes=2)
    row = mixed.iloc[[5]]

    def score(rows):
        with torch.no_grad():
            return model(torch.from_numpy(encoder.transform(rows)))[:, 1].numpy()

    result = sw.shuffle(model, row, mixed, transform=encoder, draws=512, target=1)
    for name in mixed:
        others = pd.concat([row] * 60, ignore_index=True)
        others[name] = mixed[name].to_numpy()
        assert result.loc[name, "contribution"] == pytest.approx(score(row)[0] - score(others).mean())


def test_a_constant_feature_has_no_importance(people):
    people["debt"] = 3.0
    result = sw.shuffle(mlp(classes=2), people.iloc[0], people)
    assert result.loc["debt", "contribution"] == pytest.approx(0, abs=1e-12)
    assert sw.importance(mlp(classes=2), people, progress=False, repeats=2).loc["debt", "permuted"] == pytest.approx(
        0, abs=1e-12
    )
    attribution = sw.attribute(mlp(classes=2), people.iloc[0], background=people)
    assert any("Constant in the background: debt" in note for note in attribution.notes)


def test_running_estimates_are_prefixes_of_the_last(people):
    result = list(shuffle(runner_of(mlp(), people.iloc[0], people), draws=60, chunk_size=16))
    assert len(result) > 3
    assert [one.done for one in result] == sorted({one.done for one in result})
    for one in result:
        assert torch.equal(one.scores, result[-1].scores[:, : one.done])
    steps = list(permutation_importance(runner_of(mlp(), people.iloc[0], people), repeats=2))
    assert [one.done for one in steps] == list(range(1, 9))
    assert bool(steps[0].increases.isnan().any())
    assert not bool(steps[-1].increases.isnan().any())


def test_a_feature_that_the_model_does_not_read_has_no_importance_and_redundant_ones_have(people):
    model = Formula(lambda x: torch.minimum(x[:, 0], x[:, 1]))
    rows = np.repeat(np.linspace(0, 1, 50)[:, None], 3, 1)  # all columns are equal
    result = sw.importance(model, rows, score="value", progress=False, repeats=3)
    assert result.loc["feature 2", ["size", "permuted"]].tolist() == [0, 0]
    assert result.loc["feature 0", "permuted"] > 0


def test_the_model_and_the_callers_rows_are_unchanged(mixed):
    encoder = ColumnTransformer([("words", OneHotEncoder(), ["job"])], remainder="passthrough").fit(mixed)
    model = nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2)).double()
    with pytest.raises(ValueError, match=r"Call model.eval\(\) first"):  # BatchNorm has no statistics of one row
        sw.shuffle(model, mixed.iloc[0], mixed, transform=encoder)
    model.eval()[1].train()
    before, rows = state_of(model), mixed.copy(deep=True)
    sw.shuffle(model, mixed.iloc[0], mixed, transform=encoder)
    sw.importance(model, mixed, np.arange(60) % 2, transform=encoder, progress=False, repeats=2)
    assert state_of(model) == before
    pd.testing.assert_frame_equal(mixed, rows)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (np.zeros(60, int), ValueError, "got one \\(0\\) for all 60 rows"),
        (np.arange(59) % 2, ValueError, "each of the 60 rows of the background, got 59"),
        (np.where(np.arange(60) == 3, np.nan, 1), ValueError, "1 of 60 are missing"),
        (np.arange(60) % 3, ValueError, "classes from 0 to 1, got 2"),
        (np.linspace(0, 1, 60), ValueError, "classes from 0 to 1, got 0.0169"),
        (["ant", "bee"] * 30, ValueError, "labels: 'ant' is not known. Known: 'no', 'yes'"),
        (np.eye(2)[np.arange(60) % 2], ValueError, r"got shape \(60, 2\). For one-hot rows, pass the argmax"),
        ("yes", TypeError, "labels: expected one for each row"),
        (3, TypeError, "got a int"),
    ],
)
def test_invalid_labels_are_refused(people, labels, error, message):
    with pytest.raises(error, match=message):
        sw.importance(mlp(classes=2), people, labels, class_names=["no", "yes"], progress=False)


def test_the_loss_of_a_regression_is_that_of_the_explained_value(people):
    model = nn.Linear(4, 2).double()
    with torch.no_grad():
        labels = model(torch.tensor(people.to_numpy()))[:, 1].numpy()
        model.weight[0] = 0
    result = sw.importance(model, people, labels, score="value", target=1, progress=False)
    assert bool((result["permuted"] > 0).all())


def test_probabilities_are_not_taken_for_logits(people):
    model, labels = mlp(classes=3), np.arange(60) % 3
    by_logits = sw.importance(model, people, labels, progress=False, repeats=2)
    soft = nn.Sequential(model, nn.Softmax(1))
    by_softmax = sw.importance(soft, people, labels, progress=False, repeats=2)
    assert by_softmax.loc[NAMES, "permuted"].to_numpy() == pytest.approx(by_logits.loc[NAMES, "permuted"].to_numpy())


@pytest.mark.parametrize(
    "form",
    [pd.Series, lambda y: pd.Series(y).astype("category"), lambda y: pd.Series(y, dtype=object), list, torch.tensor,
     lambda y: y[:, None], lambda y: pd.DataFrame({"y": y}), lambda y: y.astype(bool), lambda y: y.astype(float),
     lambda y: pd.Series(y, index=np.arange(60)[::-1], dtype="Int64")],
)  # fmt: skip
def test_labels_may_come_in_any_form(people, form):
    labels = np.arange(60) % 2
    task = Classification("logit")
    assert torch.equal(task.read_labels(form(labels), 60, 2), task.read_labels(labels, 60, 2))


def test_labels_may_be_names_of_both_classes_of_a_single_logit(people):
    model = mlp(classes=1)
    numbers = np.arange(60) % 2
    by_name = sw.importance(
        model,
        people,
        np.where(numbers, "yes", "no"),
        class_names=["no", "yes"],
        target="yes",
        progress=False,
        repeats=2,
    )
    pd.testing.assert_frame_equal(by_name, sw.importance(model, people, numbers, progress=False, repeats=2))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m, p: sw.shuffle(m, p.iloc[:2], p), ValueError, "expected one row, got 2"),
        (lambda m, p: sw.shuffle(m, p.iloc[0], None), ValueError, "background: .* got none"),
        (lambda m, p: sw.shuffle(m, p.iloc[0], p[NAMES[:3]]), ValueError, "without rent"),
        (lambda m, p: sw.shuffle(m, p.iloc[0], p, draws=0), ValueError, "draws: expected a number from 1 to 1000000"),
        (lambda m, p: sw.shuffle(m, p.iloc[0], p, target=7), ValueError, "class 7 is out of range"),
        (lambda m, p: sw.importance(m, p, method="grad_cam", progress=False), ValueError, "layer"),
        (lambda m, p: sw.importance(m, torch.rand(3, 8, 8), progress=False), ValueError, "non-empty row or table"),
        (lambda m, p: sw.importance(m, p, np.full(60, np.inf), score="value", target=0), ValueError, "infinite"),
        (lambda m, p: sw.attribute(m, p.iloc[0], baseline="mean"), ValueError, "'mean' is computed from other rows"),
        (lambda m, p: sw.attribute(m, p.iloc[0], background=p, baseline=p.iloc[0][:2]), ValueError,
         "baseline: expected the same columns"),
        (lambda m, p: sw.attribute(m, torch.rand(4), baselines="background", method="expected_gradients"), ValueError,
         "there is no background"),
        (lambda m, p: sw.attribute(m, torch.rand(4), baseline=p.iloc[0]), TypeError, "a pandas row"),
        (lambda m, p: sw.attribute(m, torch.rand(4)).by_feature(), ValueError, "not rows of a table"),
        (lambda m, p: sw.attribute(m, p, feature_names=list("abcd")), ValueError, "already has column names"),
        (lambda m, p: sw.attribute(m, p, explain=0), ValueError, "explain: a row of a table is a single input"),
    ],
)  # fmt: skip
def test_invalid_arguments_are_refused(people, call, error, message):
    with pytest.raises(error, match=message):
        call(mlp(classes=2), people)
