"""Read rows as pandas DataFrames, check them, and convert them to the types of other rows."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

from saliency_widgets.attribution.arrays import as_array
from saliency_widgets.inputs.tracing import is_measured
from saliency_widgets.outputs.labels import is_numeric
from saliency_widgets.params import brief, unknown


def typical(rows: Any) -> pd.DataFrame:
    """Return the (lower) median of each ordered column, and the most frequent value of each other column."""
    result = {}
    for name, column in rows.items():
        if _is_ordered(column):
            index = int(np.argsort(column.to_numpy(), kind="stable")[(len(column) - 1) // 2])
        else:
            usual = column.mode().iloc[0]  # compared one by one: pandas interprets a tuple as several values
            index = next(k for k, value in enumerate(column) if value == usual)
        result[name] = column.iloc[[index]].reset_index(drop=True)  # keeps the column's type
    return pd.DataFrame(result, columns=rows.columns)


def _is_ordered(column: Any) -> bool:
    return is_measured(column) or pd.api.types.is_datetime64_any_dtype(column)


def fill_column(column: Any, value: Any, name: str) -> Any:
    """Return a column of the same type and length that holds one value.

    Raises:
        ValueError: The value doesn't fit the type.
    """
    if not pd.api.types.is_scalar(value) or value is pd.NA:
        raise ValueError(f"{name}: expected one value, got {brief(value)}.")
    values: Any = [value] * len(column)
    if pd.api.types.is_bool_dtype(column):
        if value not in (False, True):
            raise ValueError(f"{name}: expected True or False, as in the column, got {brief(value)}.")
        return pd.Series([bool(value)] * len(column), dtype=column.dtype)
    if is_numeric(column):
        if not isinstance(value, (Real, np.number)):
            raise ValueError(f"{name}: expected a number, as in the column, got {brief(value)}.")
        try:
            filled = pd.Series(values, dtype=column.dtype)
            if value != value or bool((filled == value).all()):
                return filled
        except (TypeError, ValueError, OverflowError):
            pass  # the value doesn't fit a column of integers
        try:
            return pd.Series([float(value)] * len(column))
        except OverflowError:
            raise ValueError(f"{name}: {brief(value)} is too large a number.") from None
    if isinstance(column.dtype, pd.CategoricalDtype) and value not in column.cat.categories:
        raise ValueError(unknown(name, str(value), [str(category) for category in column.cat.categories]))
    try:
        return pd.Series(values, dtype=column.dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected a value of type {column.dtype}, got {brief(value)}.") from error


def with_types_of(model: Any, rows: Any, *, exactly: bool = False) -> Any:
    """Convert rows to the types of another table's columns, for special types: categories and dates.

    Args:
        model: The table with the types to use.
        rows: The rows to convert.
        exactly: Whether to convert to any type that preserves the values, because the rows came without types.
    """
    if list(rows.dtypes) == list(model.dtypes):
        return rows
    result = {}
    for name in rows.columns:
        column, dtype = rows[name], model[name].dtype
        special = isinstance(dtype, pd.CategoricalDtype) or dtype.kind in "mM"
        if column.dtype != dtype and column.dtype.kind != "c" and (special or exactly):
            with contextlib.suppress(TypeError, ValueError):  # errors are reported where the column is used
                converted = column.astype(dtype)
                preserved = converted.notna() | column.isna() if special else converted == column
                column = converted if bool(preserved.all()) else column
        result[name] = column
    return pd.DataFrame(result, columns=rows.columns)


def has_names(rows: Any) -> bool:
    """Return whether rows come with the names of their columns."""
    return isinstance(rows, (pd.DataFrame, pd.Series, Mapping))


def read_frame(value: Any, argument: str, names: Sequence[str] | None) -> pd.DataFrame:
    """Return rows in any form as a table.

    Args:
        value: A DataFrame, a Series, a mapping, an array, a tensor or a list.
        argument: The argument's name for error messages.
        names: The columns' names, for rows without names.

    Raises:
        TypeError: The value has an unsupported type.
        ValueError: The names don't match, or the value is empty or not a row or a table.
    """
    if isinstance(value, (pd.DataFrame, pd.Series)):
        check_names(argument, value.columns if isinstance(value, pd.DataFrame) else value.index)
    if isinstance(value, pd.DataFrame):
        if names is not None and list(map(str, value.columns)) != list(map(str, names)) and argument == "inputs":
            raise ValueError(
                "feature_names: the table already has column names. Omit it, or rename the table's columns."
            )
        return value.reset_index(drop=True).infer_objects()
    if isinstance(value, pd.Series):
        return pd.DataFrame([value.to_list()], columns=list(value.index))
    if isinstance(value, Mapping):
        return pd.DataFrame([list(value.values())], columns=list(value))
    if not hasattr(value, "__array__") and not isinstance(value, (list, tuple)):
        raise TypeError(
            f"{argument}: expected an array, a tensor, a pandas Series or a DataFrame, got a {type(value).__name__}."
        )
    array = as_array(value, argument)
    if array.dtype.kind == "U":  # NumPy converts numbers to strings in a list that contains strings
        array = np.asarray(value, dtype=object)
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"{argument}: expected a non-empty row or table, got an array of shape {array.shape}.")
    columns = [f"feature {k}" for k in range(array.shape[1])] if names is None else list(names)
    if len(columns) != array.shape[1]:
        raise ValueError(
            f"feature_names: expected {array.shape[1]} names, one for each column of {argument}, got {len(columns)}."
        )
    return pd.DataFrame(array, columns=columns).infer_objects()


def same_columns(row: pd.DataFrame, others: Any, argument: str) -> Any:
    """Return other rows with their columns in the order of a row's columns.

    Raises:
        ValueError: Columns are missing, or there are additional columns.
    """
    missing = [str(name) for name in row.columns if name not in others.columns]
    extra = [str(name) for name in others.columns if name not in row.columns]
    if missing or extra:
        listed = [f"without {', '.join(missing[:5])}"] if missing else []
        listed += [f"with {', '.join(extra[:5])}"] if extra else []
        raise ValueError(
            f"{argument}: expected the same columns as the inputs, got rows {' and '.join(listed)}. Pass rows with the "
            f"same columns."
        )
    return others[row.columns]


def check_names(argument: str, names: Any) -> None:
    """Check that column names are hashable.

    Raises:
        TypeError: A name is not hashable.
    """
    for name in names:
        try:
            hash(name)
        except TypeError:
            raise TypeError(
                f"{argument}: expected strings or numbers as column names, got {brief(name)}. Rename the columns."
            ) from None


def check_comparable(argument: str, rows: Any) -> None:
    """Raise ValueError if a column's values can't be counted and compared, which tracing columns requires."""
    for name, column in rows.items():
        if is_numeric(column):
            continue
        try:
            column.nunique()
        except Exception as error:  # TypeError, or any error of the column's type
            raise ValueError(
                f"{argument}: {brief(str(name))} holds values that can't be compared ({error}). Convert lists to "
                f"tuples, df[{str(name)!r}].map(tuple), or to strings."
            ) from error


def check_values(argument: str, rows: Any, transform: Any) -> None:
    """Check names and values before the transform is applied.

    Raises:
        TypeError: A column holds complex numbers.
        ValueError: A name occurs twice; a value is missing or infinite; or, without a transform, is not a number.
    """
    names = pd.Index([str(name) for name in rows.columns])
    if not names.is_unique:
        twice = names[names.duplicated()][0]
        raise ValueError(f"{argument}: several columns are called {brief(twice)}. Give each a unique name.")
    gone = rows.isna().to_numpy().sum(0)
    if gone.any():
        index = int(gone.argmax())
        raise ValueError(
            f"{argument}: {gone[index]} of {len(rows)} values of {brief(names[index])} are missing. Fill them in as "
            f"in training, for example with the imputer of the model's pipeline."
        )
    complex_ = np.array([dtype.kind == "c" for dtype in rows.dtypes])
    if complex_.any():
        raise TypeError(
            f"{argument}: {brief(names[complex_][0])} holds complex numbers. Pass real and imaginary parts."
        )
    numeric = np.array([is_numeric(dtype) for dtype in rows.dtypes])
    if transform is None and not numeric.all():
        index = int(numeric.argmin())
        raise ValueError(
            f"{argument}: {brief(names[index])} holds {brief(rows.iloc[0, index])}, which is not a number. Pass "
            f"transform= the encoder that the model was trained with, such as a fitted ColumnTransformer."
        )
    infinite = ~np.isfinite(rows.loc[:, numeric].to_numpy(dtype=np.float64)).all(0)
    if infinite.any():
        raise ValueError(f"{argument}: {brief(names[numeric][infinite][0])} holds infinite values.")
