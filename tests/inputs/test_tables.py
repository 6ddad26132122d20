"""Rows of tables: their forms, scalers and encoders, the columns of the model's inputs, and error messages."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, OneHotEncoder, StandardScaler
from toys import each, linear

import saliency_widgets as sw
from saliency_widgets.inputs.table import read_table

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


@each("form", ["array", "tensor", "list", "row", "series", "frame", "mapping"])
def test_a_row_may_come_in_any_form(form):
    numbers = [40.0, 3000.0, -5.0]
    settings = {
        "array": np.array(numbers),
        "tensor": torch.tensor(numbers),
        "list": numbers,
        "row": np.array([numbers]),
        "series": pd.Series(numbers, NAMES),
        "frame": pd.DataFrame([numbers], columns=NAMES, index=[17]),
        "mapping": dict(zip(NAMES, numbers, strict=True)),
    }[form]
    named = form in ("series", "frame", "mapping")
    result = read_table(settings, feature_names=None if named else NAMES)
    assert result.names == NAMES
    assert result.tensor.tolist() == [numbers]
    assert result.columns.of.tolist() == [0, 1, 2]


def test_one_hot_groups_are_found_and_summed(people, encoder):
    result = read_table(people.iloc[[3]], people, transform=encoder)
    assert result.tensor.shape == (1, 7)
    assert result.columns.rows.shape == (50, 7)
    assert result.columns.of.tolist() == [0, 1, 2, 2, 2, 3, 3]
    values = torch.arange(7.0)[None]
    assert result.columns.summed(values).tolist() == [[0.0, 1.0, 2.0 + 3.0 + 4.0, 5.0 + 6.0]]
    assert result.notes == ()


def test_columns_are_found_in_any_order_of_the_encoders_outputs(people):
    encoder = ColumnTransformer([("words", OneHotEncoder(drop="first"), ["job"])], remainder="passthrough").fit(people)
    result = read_table(people.iloc[0], people, transform=encoder)
    assert result.columns.of.tolist() == [2, 2, 0, 1, 3]


def test_pipelines_and_functions_are_transforms(people):
    numbers = people[["age", "income"]]
    scaler = make_pipeline(StandardScaler()).fit(numbers.to_numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = read_table(numbers.iloc[0], numbers, transform=scaler)
    assert torch.allclose(result.tensor, torch.from_numpy(scaler.transform(numbers.iloc[[0]].to_numpy())))
    by_hand = read_table(numbers.iloc[0], numbers, transform=lambda rows: rows.to_numpy() / 10)
    assert by_hand.tensor.numpy() == pytest.approx(numbers.iloc[[0]].to_numpy() / 10, rel=1e-6)


def test_integrated_gradients_of_a_linear_model_are_in_the_columns_units(people):
    """The values are w (x - x') with the weights of the unscaled columns."""
    numbers = people[["age", "income"]].astype(float)
    scaler = StandardScaler().fit(numbers)
    weights = torch.tensor([0.7, -2.0], dtype=torch.float64)
    result = sw.attribute(
        linear(weights), numbers.iloc[7], method="integrated_gradients", baseline="median", score="value",
        transform=scaler, background=numbers,
    )  # fmt: skip
    original = weights.numpy() / scaler.scale_
    expected = original * (numbers.iloc[7].to_numpy() - numbers.quantile(0.5, interpolation="lower").to_numpy())
    assert result.by_feature().iloc[0].to_numpy() == pytest.approx(expected)
    assert list(result.by_feature()) == ["age", "income"]


def test_the_typical_row_has_medians_and_most_frequent_values(people, encoder):
    typical = read_table(people.iloc[0], people, transform=encoder).typical()
    assert typical["age"].iloc[0] == people["age"].quantile(0.5, interpolation="lower")
    assert typical.dtypes.to_dict() == people.dtypes.to_dict()
    assert typical["job"].iloc[0] == people["job"].mode()[0]


def test_a_constant_column_is_noted(people):
    people["age"] = 30
    result = read_table(people[["age", "income"]].iloc[0], people[["age", "income"]])
    assert any("Constant in the background: age" in note for note in result.notes)


def test_a_category_that_no_row_has_belongs_to_its_column(people, encoder):
    some = people[people["job"] != "pilot"]
    result = read_table(some.iloc[0], some, transform=encoder)
    assert result.columns.of.tolist() == [0, 1, 2, 2, 2, 3, 3]
    assert result.notes == ()


def test_constant_numbers_without_names_belong_to_no_column(people, encoder):
    """For a function, nothing shows whether the constant "pilot" belongs to "job" or to the next column."""
    some = people[people["job"] != "pilot"]
    result = read_table(some.iloc[0], some, transform=lambda rows: encoder.transform(rows))
    assert result.columns.of.tolist() == [0, 1, 2, 2, -1, 3, 3]
    assert any("1 of the 7 numbers in the model's input" in note for note in result.notes)
    assert result.columns.summed(torch.arange(7.0)[None]).tolist() == [[0.0, 1.0, 2.0 + 3.0, 5.0 + 6.0]]


def test_categories_that_come_late_in_a_sorted_background_are_found():
    rows = pd.DataFrame({"A": ["p", "q"] * 150, "B": ["y", "y", "z", "z"] * 62 + ["y", "z"] + ["x"] * 50})
    hot = OneHotEncoder().fit(rows)
    for transform in (hot, lambda rows: hot.transform(rows)):
        assert read_table(rows.iloc[[0]], rows, transform=transform).columns.of.tolist() == [0, 0, 1, 1, 1]
    bins = KBinsDiscretizer(4, encode="onehot-dense", strategy="uniform")
    numbers = pd.DataFrame({"n": np.sort(np.random.default_rng(0).normal(size=500)), "m": np.arange(500.0)})
    assert read_table(numbers.iloc[0], numbers, transform=bins.fit(numbers)).columns.of.tolist() == [0] * 4 + [1] * 4


def test_one_row_is_enough_for_numbers_but_not_for_categories(people, encoder):
    scaler = StandardScaler().fit(people[["age", "income"]])
    assert read_table(people[["age", "income"]].iloc[0], transform=scaler).columns.of.tolist() == [0, 1]
    assert read_table(people.iloc[[0]], transform=encoder).columns.of.tolist() == [
        0,
        1,
        2,
        2,
        2,
        3,
        3,
    ]  # by the names of the encoder's outputs
    for columns in (["job", "owns"], ["age", "job", "owns"]):
        hot = make_column_transformer((OneHotEncoder(), ["job", "owns"]), remainder="passthrough").fit(people[columns])
        with pytest.raises(ValueError, match="one row is not enough to find the column"):
            read_table(people[columns].iloc[[0]], transform=lambda rows, hot=hot: hot.transform(rows))


def test_a_table_of_many_columns_is_read_in_few_calls_and_blocks(monkeypatch):
    wide = pd.DataFrame(np.random.default_rng(0).random((300, 400)), columns=[f"c{k}" for k in range(400)])
    requested = []

    def reordered(rows):
        requested.append(len(rows))
        return wide.columns.size * rows.to_numpy()[:, ::-1]

    assert read_table(wide.iloc[0], wide, transform=reordered).columns.of.tolist() == list(range(400))[::-1]
    assert sum(requested) < 50_000  # changing each column in each row would take 120,000
    whole = len(requested)
    monkeypatch.setattr("saliency_widgets.inputs.tracing._CELLS", 40_000)
    assert read_table(wide.iloc[0], wide, transform=reordered).columns.of.tolist() == list(range(400))[::-1]
    assert len(requested) - whole > 2 * whole


def _rare():
    generator = np.random.default_rng(0)
    return pd.DataFrame({
        "vip": (generator.random(1000) < 0.005).astype(int),
        "spend": generator.normal(size=1000) + 5,
        "sort": np.where(np.arange(1000) == 700, "x", "y"),
    })  # fmt: skip


@each(
    "transform",
    [
        lambda d: np.column_stack([d.vip, d.spend, d.vip * d.spend]),
        lambda d: np.column_stack([d.vip, np.where(d["sort"] == "x", d.spend, 0)]),
        lambda d: np.column_stack([d.spend, (d.vip == 1) & (d["sort"] == "y")]),
        lambda d: np.column_stack([d.spend, (d.vip == 1) | (d["sort"] == "x")]),
        lambda d: np.column_stack([d.spend, np.maximum(d.vip, d.spend > 7)]),
    ],
    ids=["product", "where", "and", "or", "maximum"],
)
def test_rare_interactions_of_columns_are_refused(transform):
    rows = _rare()
    for position in (0, 700, int(rows["vip"].argmax())):
        with pytest.raises(ValueError, match="depends on several of the 3 columns"):
            read_table(rows.iloc[[position]], rows, transform=transform)


def test_every_number_that_varies_belongs_to_a_column():
    generator = np.random.default_rng(1)
    rows = pd.DataFrame({"age": generator.normal(size=400), "zip": generator.permutation(400), "k": 1.0})

    def encode(table):
        return np.column_stack([table.age, np.eye(400)[table.zip.to_numpy().astype(int)], table.k > 5])

    result = read_table(rows.iloc[[0]], rows, transform=encode)
    assert result.columns.of.tolist() == [0] + [1] * 400 + [-1]
    assert any("1 of the 402 numbers" in note for note in result.notes)


def test_output_names_that_may_mean_another_column_are_not_used():
    codes = np.column_stack([np.random.default_rng(k).integers(0, 4, 1000) for k in range(3)])
    encoder = OneHotEncoder(sparse_output=False).fit(codes)
    seen = codes[(codes != 3).all(1)][:100]
    result = read_table(seen[0], seen, transform=encoder, feature_names=["x1", "x2", "x3"]).columns.of
    assert result.tolist() == [0, 0, 0, -1, 1, 1, 1, -1, 2, 2, 2, -1]
    for names, of in ((["a", "a_b"], -1), (["a__b", "b"], 0)):
        rows = pd.DataFrame({names[0]: ["p", "q", "b_3"] * 9, names[1]: np.arange(27.0)})
        hot = make_column_transformer((OneHotEncoder(), [names[0]]), remainder="passthrough").fit(rows)
        some = rows[rows[names[0]] != "b_3"]
        assert read_table(some.iloc[0], some, transform=hot).columns.of.tolist() == [of, 0, 0, 1]


class Picks(TransformerMixin, BaseEstimator):
    """A custom transformer that reads columns by name and stores nothing in ``fit``."""

    def fit(self, X, y=None):  # noqa: N803
        return self

    def transform(self, X):  # noqa: N803
        return X[["income", "age"]].to_numpy()


def test_transformers_that_store_no_names_get_named_columns(people):
    numbers = people[["age", "income"]]
    for transform in (Picks().fit(numbers), make_pipeline(Picks(), StandardScaler()).fit(numbers)):
        assert read_table(numbers.iloc[0], numbers, transform=transform).columns.of.tolist() == [1, 0]
    named = StandardScaler().set_output(transform="pandas").fit(numbers)
    assert read_table(numbers.iloc[0], numbers, transform=named).columns.of.tolist() == [0, 1]


def test_medians_of_numeric_categories_are_existing_values():
    rows = pd.DataFrame({"pclass": [1, 1, 3, 3], "x": [0.1, 0.2, 0.3, 0.4]})
    for unknown in ("error", "ignore"):
        hot = OneHotEncoder(handle_unknown=unknown)
        encoder = make_column_transformer((hot, ["pclass"]), remainder="passthrough").fit(rows)
        result = read_table(rows.iloc[[0]], rows, transform=encoder)
        assert result.columns.median.tolist() == [1, 0, 0.2]
        assert result.columns.of.tolist() == [0, 0, 1]


def test_columns_keep_their_types():
    when = pd.date_range("2020-01-01", periods=9)
    rows = pd.DataFrame({"city": pd.Categorical(list("abcabcabc")), "day": when, "flag": [True, False, True] * 3})

    def encode(table):
        days = (table["day"] - when[0]).dt.days
        return np.column_stack([pd.get_dummies(table["city"]).to_numpy(float), days, table["flag"]])

    for row in (rows.iloc[[0]], rows.iloc[0]):
        result = read_table(row, rows, transform=encode)
        assert result.tensor.tolist() == [[1, 0, 0, 0, 1]]
        assert result.columns.of.tolist() == [0, 0, 0, 1, 2]
        assert result.columns.median.tolist() == [1, 0, 0, 4, 1]
        edited = result.with_values({"city": "c", "day": when[7]}).with_values({"flag": 0})
        assert edited.tensor.tolist() == [[0, 0, 1, 7, 0]]
        assert edited.rows.dtypes.to_dict() == rows.dtypes.to_dict()
    with pytest.raises(ValueError, match=r"city: 'z' is not known\. Known: 'a', 'b', 'c'"):
        result.with_values({"city": "z"})
    with pytest.raises(ValueError, match="flag: expected True or False"):
        result.with_values({"flag": 7})
    with pytest.raises(ValueError, match="day: expected a value of type datetime64"):
        result.with_values({"day": "soon"})


def test_an_integer_may_be_changed_to_any_number():
    table = read_table(pd.DataFrame({"n": np.array([3], np.uint8)}))
    for value in (7, 300, -1, 2.5, np.float32(0.25), 2**63):
        assert table.with_values({"n": value}).tensor.tolist() == [[float(value)]]
    with pytest.raises(ValueError, match=r"n: .* is too large a number"):
        table.with_values({"n": 10**400})


def test_undoing_an_edit_restores_the_columns_type():
    rows = pd.DataFrame({"zip": np.array([101, 102, 103], np.int16), "flag": [True, False, True]})
    table = read_table(rows.iloc[[0]], rows)
    edited = table.with_values({"zip": 101.5})
    assert edited.rows["zip"].dtype == float
    again = edited.with_values({"zip": 102})
    assert again.rows["zip"].dtype == np.int16
    with pytest.raises(ValueError, match="zip: expected one value"):
        again.with_values({"zip": [101]})
    with pytest.raises(ValueError, match="flag: expected one value, got <NA>"):
        again.with_values({"flag": pd.NA})


def test_a_row_without_types_takes_those_of_the_background():
    rows = pd.DataFrame({"zip": [101, 102, 103], "x": [0.5, 1.5, 2.5], "flag": [True, False, True]})
    hot = make_column_transformer((OneHotEncoder(), ["zip"]), remainder="passthrough").fit(rows)

    def encode(table):
        return np.column_stack([table.zip.astype(str) == "101", table.x, ~table.flag])

    local = read_table(rows.iloc[[0]], rows, transform=encode).tensor
    for row in (rows.iloc[0], dict(rows.iloc[0]), {"zip": 101.0, "x": 0.5, "flag": 1}):
        assert torch.equal(read_table(row, rows, transform=encode).tensor, local)
        assert torch.equal(
            read_table(row, rows, transform=hot).tensor, read_table(rows.iloc[[0]], rows, transform=hot).tensor
        )


def test_a_transform_whose_result_varies_in_size_is_refused():
    rows = pd.DataFrame({"job": ["baker", "judge", "pilot"], "n": [1.0, 2.0, 3.0]})
    with pytest.raises(ValueError, match="it returns 4 numbers per row for background, but 2 for the inputs"):
        read_table(rows.iloc[[0]], rows, transform=lambda table: pd.get_dummies(table).to_numpy(float))


def test_column_names_may_come_from_the_row_or_the_background(people):
    numbers = people[["age", "income"]].astype(float)
    assert read_table(numbers.iloc[0].to_numpy(), numbers).names == ["age", "income"]
    plain = pd.DataFrame(numbers.to_numpy())
    assert read_table(plain.iloc[[0]], numbers.to_numpy()).names == ["0", "1"]
    assert read_table(numbers.iloc[0].to_frame().T, numbers).tensor.tolist() == [numbers.iloc[0].to_list()]


def _changed(frame: pd.DataFrame, **columns) -> pd.DataFrame:
    return frame.assign(**columns)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda p: {"row": p.iloc[0], "background": p}, ValueError, "'job' holds .*transform="),
        (lambda p: {"background": p[["age"]]}, ValueError, "the same columns as the inputs, got rows without income"),
        (lambda p: {"background": p.assign(height=1.0)[["age", "income", "height"]]}, ValueError, "with height"),
        (lambda p: {"background": p.assign(age=np.nan)}, ValueError, "50 of 50 values of 'age' are missing"),
        (lambda p: {"row": pd.Series({"age": np.nan, "income": 1.0})}, ValueError, "'age' are missing"),
        (lambda p: {"row": pd.Series({"age": np.inf, "income": 1.0})}, ValueError, "infinite"),
        (lambda p: {"background": p.head(0)}, ValueError, "no rows"),
        (lambda p: {"row": np.ones(2), "feature_names": ["a"]}, ValueError, "expected 2 names, .*, got 1"),
        (lambda p: {"row": "me"}, TypeError, "Series"),
        (lambda p: {"row": np.ones((2, 2, 2))}, ValueError, "shape"),
        (lambda p: {"transform": 3}, TypeError, "transform"),
        (lambda p: {"transform": LinearRegression()}, TypeError, r"pass pipeline\[:-1\]"),
        (
            lambda p: {
                "row": p[["age", "income"]].iloc[[0]].rename(columns={"age": 0, "income": "0"}),
                "background": None,
            },
            ValueError,
            "several columns are called '0'",
        ),
        (lambda p: {"transform": StandardScaler()}, ValueError, "must be fitted"),
        (lambda p: {"transform": lambda rows: rows.to_numpy()[0]}, ValueError, "rows of numbers"),
        (lambda p: {"transform": lambda rows: rows.to_numpy() * np.nan}, ValueError, "NaN"),
    ],
)
def test_invalid_rows_backgrounds_and_transforms_are_refused(people, change, error, message):
    numbers = people[["age", "income"]]
    arguments = {"row": numbers.iloc[0], "background": numbers} | change(people)
    if set(arguments["row"].columns if isinstance(arguments["row"], pd.DataFrame) else []) == set(people):
        arguments["background"] = people
    value = arguments["background"]
    if isinstance(value, pd.DataFrame) and "job" in value and "holds" not in message:
        arguments["background"] = value.drop(columns=["job", "owns"])
    if isinstance(arguments["row"], np.ndarray):
        arguments["background"] = None
    with pytest.raises(error, match=message):
        read_table(arguments.pop("row"), arguments.pop("background"), **arguments)


def test_a_transform_that_mixes_columns_is_refused(people):
    numbers = people[["age", "income"]]
    mixing = make_pipeline(StandardScaler(), PCA(2)).fit(numbers)
    with pytest.raises(ValueError, match="depends on several of the 2 columns"):
        read_table(numbers.iloc[0], numbers, transform=mixing)


# ---- rows or transforms without column names


FITTED = ["age", "height", "weight"]
WEIGHTS = torch.tensor([2.0, -3.0, 5.0], dtype=torch.float64)


@pytest.fixture
def bodies():
    numbers = np.random.default_rng(1).normal(size=(40, 3)) * [15, 10, 12] + [40, 170, 70]
    return pd.DataFrame(numbers, columns=FITTED)


def transforms(bodies):
    scaler = StandardScaler().fit(bodies)
    apart = ColumnTransformer([(name, StandardScaler(), [name]) for name in FITTED]).fit(bodies)
    return {
        "scaler": scaler,
        "its bound method": scaler.transform,
        "ColumnTransformer": apart,
        "pipeline": make_pipeline(apart, StandardScaler(with_mean=False, with_std=False)).fit(bodies),
    }


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("which", ["scaler", "its bound method", "ColumnTransformer", "pipeline"])
def test_rows_without_names_and_a_transform_fitted_with_names(bodies, which):
    """The values are w (x - mean) / std, under the names that the transform was fitted with."""
    transform = transforms(bodies)[which]
    row = bodies.iloc[3].to_numpy().copy()
    expected = WEIGHTS.numpy() * (row - bodies.mean().to_numpy()) / bodies.std(ddof=0).to_numpy()
    for value in (row, row[None], torch.from_numpy(row), row.tolist()):
        result = sw.attribute(linear(WEIGHTS), value, method="input_x_gradient", score="value", transform=transform)
        assert result.by_feature().columns.tolist() == FITTED
        assert result.by_feature().iloc[0].to_numpy() == pytest.approx(expected)
    for background in (bodies, bodies.to_numpy(), bodies[FITTED[::-1]]):
        value = row if background is not None and list(getattr(background, "columns", FITTED)) == FITTED else row[::-1]
        result = sw.attribute(
            linear(WEIGHTS), value, method="input_x_gradient", score="value", transform=transform, background=background
        )
        assert result.by_feature().iloc[0][FITTED].to_numpy() == pytest.approx(expected)


@pytest.mark.filterwarnings("error")
def test_columns_are_passed_to_the_transform_by_name(bodies):
    row = bodies.iloc[[3]]
    for name, transform in transforms(bodies).items():
        expected = read_table(row, transform=transform).tensor
        reordered = row[["weight", "age", "height"]]
        result = read_table(reordered, bodies, transform=transform)
        assert torch.equal(result.tensor, expected), name
        assert result.columns.of.tolist() == [1, 2, 0]
        more = read_table(reordered.assign(shoe=43.0), transform=transform)
        assert torch.equal(more.tensor, expected)
        assert more.columns.of.tolist() == [1, 2, 0]
        assert any("Not used by the transform" in note and "shoe" in note for note in more.notes)
        called = read_table(reordered.to_numpy(), feature_names=list(reordered), transform=transform)
        assert torch.equal(called.tensor, expected)


@pytest.mark.filterwarnings("error")
def test_feature_names_replace_the_transforms_names_by_position(bodies):
    scaler = StandardScaler().fit(bodies)
    names = ["Age in years", "height", "kg"]
    result = read_table(bodies.iloc[3].to_numpy(), bodies.to_numpy(), feature_names=names, transform=scaler)
    assert torch.equal(result.tensor, read_table(bodies.iloc[3], transform=scaler).tensor)
    assert result.names == names


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("bound", [False, True])
def test_rows_with_names_and_a_transform_fitted_without_names(bodies, bound):
    scaler = StandardScaler().fit(bodies.to_numpy())
    result = read_table(bodies.iloc[3], bodies, transform=scaler.transform if bound else scaler)
    assert result.tensor.numpy() == pytest.approx(scaler.transform(bodies.iloc[[3]].to_numpy()))
    assert result.names == FITTED


def test_strings_in_a_row_without_names(people, encoder):
    row = people.iloc[3]
    for value in (row.to_list(), row.to_numpy(), [row.to_list()]):
        result = read_table(value, people, transform=encoder)
        assert torch.equal(result.tensor, read_table(people.iloc[[3]], people, transform=encoder).tensor)


@pytest.mark.parametrize(
    ("value", "names", "message"),
    [
        (lambda b: b.iloc[0].to_numpy()[:2], None, "fitted on 3 columns, age, height, weight; these rows have 2"),
        (lambda b: np.ones((2, 4)), None, "fitted on 3 columns.*these rows have 4"),
        (lambda b: b[["age", "weight"]].iloc[[0]], None, "these rows have no height"),
        (lambda b: b.iloc[[0]].rename(columns={"age": "Age"}), None, "these rows have no age"),
        (lambda b: b.iloc[0].to_numpy(), ["kg", "age", "height"], "named kg, age, height, in a different order"),
    ],
)
def test_columns_that_differ_from_the_transforms_are_refused(bodies, value, names, message):
    for transform in transforms(bodies).values():
        with pytest.raises(ValueError, match=f"^inputs: .*{message}"):
            read_table(value(bodies), feature_names=names, transform=transform)


def test_a_wrong_number_of_columns_for_a_transform_without_names_is_refused(bodies):
    scaler = StandardScaler().fit(bodies.to_numpy())
    with pytest.raises(ValueError, match=r"^inputs: the transform was fitted on 3 columns, but these rows have 2"):
        read_table(bodies[["age", "weight"]].iloc[0], transform=scaler)


def test_a_pipeline_with_its_predictor_is_refused_for_rows_without_names_too(bodies):
    whole = make_pipeline(StandardScaler(), LinearRegression()).fit(bodies, bodies["age"])
    with pytest.raises(TypeError, match=r"pipeline\[:-1\]"):
        sw.attribute(linear(WEIGHTS), bodies.iloc[0].to_numpy().copy(), transform=whole)


@pytest.mark.parametrize("transform", [None, "by position"])
def test_columns_are_reordered_to_match_the_background(transform):
    """The model needs the order of its training data, which the background has, and knows no names."""
    generator = np.random.default_rng(0)
    background = pd.DataFrame(generator.normal(size=(20, 3)) * [1, 10, 100], columns=list("abc"))
    scaler = None if transform is None else StandardScaler().fit(background.to_numpy())
    row = background.iloc[0]
    straight = read_table(row, background, transform=scaler)
    for other in ({name: row[name] for name in "cab"}, row[list("bca")], background.iloc[[0]][list("cba")]):
        table = read_table(other, background, transform=scaler)
        assert torch.equal(table.tensor, straight.tensor)
        assert list(table.rows.columns) == list("abc")
        assert any("reordered to match the background" in note for note in table.notes)
    assert not any("order of" in note for note in straight.notes)


def tagged(*tags):
    """Return a table with a column of numbers and a column with several words per row."""
    return pd.DataFrame({"a": np.linspace(0.0, 1.0, len(tags)), "tags": pd.Series(tags, dtype=object)})


def count_tags(frame):
    return np.column_stack([frame["a"].astype(float), [float("x" in tags) for tags in frame["tags"]]])


@pytest.mark.parametrize("background", [True, False])
def test_a_column_of_lists_is_refused_by_name_and_one_of_tuples_is_accepted(background):
    lists, tuples = (tagged(kind("xy"), kind("y")) for kind in (list, tuple))
    with pytest.raises(ValueError, match=r"^(inputs|background): 'tags' holds .*'list'.*df\['tags'\]\.map\(tuple\)"):
        read_table(tuples if background else lists, lists if background else None, transform=count_tags)
    table = read_table(tuples.iloc[[0]], tuples.iloc[[1, 1]], transform=count_tags)
    assert table.columns.of.tolist() == [0, 1]
    assert table.typical()["tags"].item() == ("y",)


@pytest.mark.parametrize(
    ("rows", "background"),
    [
        (pd.DataFrame([[1.0, 2.0]], columns=pd.Index([["a"], "b"], dtype=object)), None),
        (pd.Series([1.0, 2.0], index=pd.Index([["a"], "b"], dtype=object)), None),
        (np.ones(2), pd.DataFrame([[1.0, 2.0]], columns=pd.Index([["a"], "b"], dtype=object))),
    ],
)
def test_column_names_that_are_lists_are_refused(rows, background):
    with pytest.raises(TypeError, match=r"^(inputs|background): expected strings or numbers as column names"):
        read_table(rows, background)


@pytest.mark.parametrize(("shape", "net"), [((2,), torch.nn.Linear(2, 1)), ((3, 8, 8), torch.nn.Conv2d(3, 1, 8))])
def test_masked_arrays_are_refused_unless_nothing_is_masked(shape, net):
    value = np.ma.masked_array(np.ones(shape, np.float32), np.zeros(shape, bool))
    model = torch.nn.Sequential(net, torch.nn.Flatten())
    sw.attribute(model, value, method="gradient")
    value[..., -1] = np.ma.masked
    with pytest.raises(TypeError, match=r"^inputs: expected an array without missing .*Pass inputs\.filled\(value\)"):
        sw.attribute(model, value, method="gradient")
