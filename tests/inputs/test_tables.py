"""Rows as people have them: every form, scalers and encoders, and one clear message for what doesn't fit."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from toys import linear

import saliency_widgets as sw
from saliency_widgets.inputs.tables import read_table

NAMES = ["age", "income", "debt"]


@pytest.fixture
def people():
    generator = np.random.default_rng(0)
    return pd.DataFrame({
        "age": generator.integers(18, 90, 50),
        "income": generator.normal(3000, 800, 50),
        "job": generator.choice(["baker", "judge", "pilot"], 50),
        "owns": generator.choice([True, False], 50),
    })  # fmt: skip


@pytest.fixture
def encoder(people):
    return ColumnTransformer(
        [("numbers", StandardScaler(), ["age", "income"]), ("words", OneHotEncoder(), ["job", "owns"])]
    ).fit(people)


@pytest.mark.parametrize("form", ["array", "tensor", "list", "row", "series", "frame", "mapping"])
def test_a_row_may_come_in_any_form(form):
    numbers = [40.0, 3000.0, -5.0]
    given = {
        "array": np.array(numbers),
        "tensor": torch.tensor(numbers),
        "list": numbers,
        "row": np.array([numbers]),
        "series": pd.Series(numbers, NAMES),
        "frame": pd.DataFrame([numbers], columns=NAMES, index=[17]),
        "mapping": dict(zip(NAMES, numbers, strict=True)),
    }[form]
    named = form in ("series", "frame", "mapping")
    found = read_table(given, feature_names=None if named else NAMES)
    assert found.names == NAMES
    assert found.tensor.tolist() == [numbers]
    assert found.columns.of.tolist() == [0, 1, 2]


def test_one_hot_groups_are_found_and_summed_back(people, encoder):
    found = read_table(people.iloc[[3]], people, transform=encoder)
    assert found.tensor.shape == (1, 7)
    assert found.columns.rows.shape == (50, 7)
    assert found.columns.of.tolist() == [0, 1, 2, 2, 2, 3, 3]
    values = torch.arange(7.0)[None]
    assert found.columns.summed(values).tolist() == [[0.0, 1.0, 2.0 + 3.0 + 4.0, 5.0 + 6.0]]
    assert found.notes == ()


def test_columns_are_told_apart_in_whatever_order_an_encoder_lays_them(people):
    turned = ColumnTransformer([("words", OneHotEncoder(drop="first"), ["job"])], remainder="passthrough").fit(people)
    found = read_table(people.iloc[0], people, transform=turned)
    assert found.columns.of.tolist() == [2, 2, 0, 1, 3]


def test_a_pipeline_and_a_function_are_taken_too(people):
    numbers = people[["age", "income"]]
    scaler = make_pipeline(StandardScaler()).fit(numbers.to_numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_table(numbers.iloc[0], numbers, transform=scaler)
    assert torch.allclose(found.tensor, torch.from_numpy(scaler.transform(numbers.iloc[[0]].to_numpy())))
    by_hand = read_table(numbers.iloc[0], numbers, transform=lambda rows: rows.to_numpy() / 10)
    assert by_hand.tensor.numpy() == pytest.approx(numbers.iloc[[0]].to_numpy() / 10, rel=1e-6)


def test_integrated_gradients_of_a_linear_model_are_in_the_units_people_know(people):
    """w (x - x') with the weights of the columns themselves, after the scaling is undone."""
    numbers = people[["age", "income"]].astype(float)
    scaler = StandardScaler().fit(numbers)
    weights = torch.tensor([0.7, -2.0], dtype=torch.float64)
    found = sw.attribute(
        linear(weights), numbers.iloc[7], method="integrated_gradients", baseline="median", score="value",
        transform=scaler, background=numbers,
    )  # fmt: skip
    original = weights.numpy() / scaler.scale_
    expected = original * (numbers.iloc[7].to_numpy() - numbers.median().to_numpy())
    assert found.by_feature().iloc[0].to_numpy() == pytest.approx(expected)
    assert list(found.by_feature()) == ["age", "income"]


def test_the_typical_row_has_medians_and_the_most_frequent(people, encoder):
    typical = read_table(people.iloc[0], people, transform=encoder).typical()
    assert typical["age"].iloc[0] == people["age"].median()
    assert typical["job"].iloc[0] == people["job"].mode()[0]


def test_a_constant_column_is_said(people):
    people["age"] = 30
    found = read_table(people[["age", "income"]].iloc[0], people[["age", "income"]])
    assert any("Constant in the background: age" in note for note in found.notes)


def test_a_category_that_no_row_has_is_counted_to_its_column(people, encoder):
    some = people[people["job"] != "pilot"]
    found = read_table(some.iloc[0], some, transform=encoder)
    assert found.columns.of.tolist() == [0, 1, 2, 2, 2, 3, 3]
    assert any("the same for all rows" in note for note in found.notes)


def _changed(frame: pd.DataFrame, **columns) -> pd.DataFrame:
    return frame.assign(**columns)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (lambda p: {"row": p.iloc[0], "background": p}, ValueError, "'job' holds .*transform="),
        (lambda p: {"background": p[["age"]]}, ValueError, "other columns than the inputs, without income"),
        (lambda p: {"background": p.assign(height=1.0)[["age", "income", "height"]]}, ValueError, "with height"),
        (lambda p: {"background": p.assign(age=np.nan)}, ValueError, "50 of 50 values of 'age' are missing"),
        (lambda p: {"row": pd.Series({"age": np.nan, "income": 1.0})}, ValueError, "'age' are missing"),
        (lambda p: {"row": pd.Series({"age": np.inf, "income": 1.0})}, ValueError, "infinite"),
        (lambda p: {"background": p.head(0)}, ValueError, "no rows"),
        (lambda p: {"row": np.ones(2), "feature_names": ["a"]}, ValueError, "1 names"),
        (lambda p: {"row": "me"}, TypeError, "Series"),
        (lambda p: {"row": np.ones((2, 2, 2))}, ValueError, "shape"),
        (lambda p: {"transform": 3}, TypeError, "transform"),
        (lambda p: {"transform": StandardScaler()}, ValueError, "must be fitted"),
        (lambda p: {"transform": lambda rows: rows.to_numpy()[0]}, ValueError, "rows of numbers"),
        (lambda p: {"transform": lambda rows: rows.to_numpy() * np.nan}, ValueError, "NaN"),
    ],
)
def test_what_does_not_fit_is_said(people, change, error, said):
    numbers = people[["age", "income"]]
    arguments = {"row": numbers.iloc[0], "background": numbers} | change(people)
    if set(arguments["row"].columns if isinstance(arguments["row"], pd.DataFrame) else []) == set(people):
        arguments["background"] = people
    given = arguments["background"]
    if isinstance(given, pd.DataFrame) and "job" in given and "holds" not in said:
        arguments["background"] = given.drop(columns=["job", "owns"])
    if isinstance(arguments["row"], np.ndarray):
        arguments["background"] = None
    with pytest.raises(error, match=said):
        read_table(arguments.pop("row"), arguments.pop("background"), **arguments)


def test_a_transform_that_mixes_columns_is_refused(people):
    numbers = people[["age", "income"]]
    mixing = make_pipeline(StandardScaler(), PCA(2)).fit(numbers)
    with pytest.raises(ValueError, match="comes from several columns"):
        read_table(numbers.iloc[0], numbers, transform=mixing)
