"""Tables: a row as people know it, and as the model sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from saliency_widgets.attribution.columns import Columns
from saliency_widgets.params import unknown

_PROBED = 64  # rows of the background that tell which columns a feature of the model comes from


@dataclass(frozen=True, eq=False)
class Table:
    """Rows, their columns, and the way from there to what the model sees.

    Attributes:
        rows: In the units people know, B rows with named columns.
        background: Other rows of the kind, or None.
        tensor: The rows as the model sees them, shape (B, F), float64.
        columns: Which of the model's features come from which column, and the background as the model sees it.
        notes: What a reader should know.
    """

    rows: pd.DataFrame
    background: pd.DataFrame | None
    tensor: Tensor
    columns: Columns
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """The columns' names."""
        return list(self.columns.names)

    def typical(self) -> pd.DataFrame:
        """The median of each column of numbers, and the most frequent value of each other one.

        Raises:
            ValueError: There is no background.
        """
        if self.background is None:
            raise ValueError("background: the median is one of other rows. Pass background= your training data.")
        return _typical(self.background)

    def with_value(self, name: str, value: Any) -> Table:
        """The same with another value in one column of its row.

        Raises:
            ValueError: There is no such column, or the value is missing, or not one that the transform knows.
        """
        if name not in self.names:
            raise ValueError(unknown("feature", name, self.names))
        place = self.names.index(name)
        column = self.rows.iloc[:, place]
        if is_numeric(column) and not isinstance(value, (Real, np.number, np.bool_)):
            raise ValueError(f"{name}: expected a number, as the column holds, got {value!r}.")
        values: Any = [value] * len(self.rows)
        if is_numeric(column):  # a whole number may become another
            moved = pd.Series(values, dtype=_wider(column.dtype, value))
        else:
            moved = pd.Series(values, dtype=column.dtype if value in set(column) else object)
        rows = _with(self.rows, place, moved)
        rows.columns = self.rows.columns
        return replace(self, rows=rows, tensor=self.columns.encode(rows))


def read_table(
    rows: Any,
    background: Any = None,
    *,
    feature_names: Sequence[str] | None = None,
    transform: Any = None,
) -> Table:
    """Bring rows, and a background, into the form a model takes.

    Args:
        rows: An array, a tensor or a list of numbers (C,) or (B, C); a pandas Series; a DataFrame; or a mapping from
            names to values.
        background: Rows of the same columns: a DataFrame, an array or a tensor (N, C).
        feature_names: The columns' names, where the rows don't have them.
        transform: A fitted scikit-learn transformer (a scaler, a ColumnTransformer), or a function from such rows to
            numbers (N, F); None where the model takes the columns as they are.

    Raises:
        TypeError: Rows or a transform of no known kind.
        ValueError: Missing values, text without a transform, other columns in the background, names that don't fit, or
            a transform that fails, gives no numbers, or mixes columns.
    """
    frame = _frame(rows, "inputs", feature_names)
    if frame.empty:
        raise ValueError(f"inputs: expected rows of columns, got a table of shape {frame.shape}.")
    rest = None if background is None else _frame(background, "background", feature_names or list(frame.columns))
    if rest is not None:
        rest = _same_columns(frame, rest, "background")
        if rest.empty:
            raise ValueError("background: it has no rows. Pass some of your training data.")
    for name, some in (("inputs", frame), ("background", rest)):
        if some is not None:
            _check(name, some, transform)

    def encode(given: Any) -> Tensor:
        found = _frame(given, "row", list(frame.columns))
        found = _same_columns(frame, found, "row")
        _check("row", found, transform)
        return _encoded(found, transform)

    tensor = _encoded(frame, transform)
    around = None if rest is None else _encoded(rest, transform)
    if around is not None and around.shape[1] != tensor.shape[1]:
        raise ValueError(f"transform: {tensor.shape[1]} numbers for the row, {around.shape[1]} for the background.")
    of, notes = _columns_behind(frame, rest, transform, tensor.shape[1])
    if rest is not None:
        varied = dict(rest.nunique(dropna=False).items())
        constant = [str(name) for name, count in varied.items() if count == 1 and len(rest) > 1]
        if constant:
            notes += (
                f"Constant in the background: {', '.join(constant[:6])}. Shuffling such a column changes nothing.",
            )
    median = None if rest is None else _encoded(_typical(rest), transform)[0]
    columns = Columns(tuple(map(str, frame.columns)), of, encode, around, median)
    return Table(frame, rest, tensor, columns, notes)


def is_table(inputs: Any, background: Any, feature_names: Any, transform: Any) -> bool:
    """Whether inputs are rows of a table: of pandas, said to be so, or values by their names."""
    if isinstance(inputs, (pd.DataFrame, pd.Series, Table)) or background is not None or feature_names is not None:
        return True
    if hasattr(transform, "fit") and hasattr(transform, "transform"):  # of scikit-learn
        return True
    plain = (Real, str, np.generic)
    return isinstance(inputs, Mapping) and bool(inputs) and all(isinstance(value, plain) for value in inputs.values())


def _typical(rows: Any) -> pd.DataFrame:
    found = {name: [c.median() if _is_measured(c) else c.mode().iloc[0]] for name, c in rows.items()}
    return pd.DataFrame(found, columns=rows.columns)


def is_numeric(column: Any) -> bool:
    """Whether a column holds numbers or truth values."""
    return pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column)


def _is_measured(column: Any) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _wider(dtype: Any, value: Any) -> Any:
    whole = isinstance(value, (bool, np.bool_)) if pd.api.types.is_bool_dtype(dtype) else float(value).is_integer()
    return dtype if whole or not (pd.api.types.is_integer_dtype(dtype) or pd.api.types.is_bool_dtype(dtype)) else float


def _frame(value: Any, argument: str, names: Sequence[str] | None) -> pd.DataFrame:
    if isinstance(value, pd.DataFrame):
        if names is not None and list(map(str, value.columns)) != list(map(str, names)) and argument == "inputs":
            raise ValueError("feature_names: the table has names of its own. Leave them out, or rename its columns.")
        return value.reset_index(drop=True)
    if isinstance(value, pd.Series):
        return pd.DataFrame([value.to_list()], columns=list(value.index))
    if isinstance(value, Mapping):
        return pd.DataFrame([list(value.values())], columns=list(value))
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if not hasattr(value, "__array__") and not isinstance(value, (list, tuple)):
        raise TypeError(
            f"{argument}: expected an array, a tensor, a pandas Series or a DataFrame, got a {type(value).__name__}."
        )
    array = np.asarray(value)
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"{argument}: expected rows of columns, got an array of shape {array.shape}.")
    columns = [f"feature {k}" for k in range(array.shape[1])] if names is None else [str(name) for name in names]
    if len(columns) != array.shape[1]:
        raise ValueError(
            f"feature_names: {len(columns)} names were given, and {argument} has {array.shape[1]} columns."
        )
    return pd.DataFrame(array, columns=columns)


def _same_columns(row: pd.DataFrame, others: Any, argument: str) -> Any:
    missing = [str(name) for name in row.columns if name not in others.columns]
    extra = [str(name) for name in others.columns if name not in row.columns]
    if missing or extra:
        said = [f"without {', '.join(missing[:5])}"] if missing else []
        said += [f"with {', '.join(extra[:5])}"] if extra else []
        raise ValueError(
            f"{argument}: it has other columns than the inputs, {' and '.join(said)}. Pass rows of the same columns."
        )
    return others[row.columns]


def _check(argument: str, rows: Any, transform: Any) -> None:
    twice = [str(name) for name in rows.columns[rows.columns.duplicated()]]
    if twice:
        raise ValueError(f"{argument}: several columns are called {twice[0]!r}. Give each a name of its own.")
    for name in rows.columns:
        column = rows[name]
        gone = int(column.isna().sum())
        if gone:
            raise ValueError(
                f"{argument}: {gone} of {len(rows)} values of {str(name)!r} are missing. Fill them in as the model was "
                f"trained, for example with the imputer of its pipeline, before it is explained."
            )
        if not is_numeric(column):
            if transform is None:
                raise ValueError(
                    f"{argument}: {str(name)!r} holds {column.iloc[0]!r}, which is no number. Pass transform= the "
                    f"encoder that the model was trained with, such as a fitted ColumnTransformer."
                )
        elif not np.isfinite(column.to_numpy(dtype=np.float64)).all():
            raise ValueError(f"{argument}: {str(name)!r} holds infinite values.")


def _encoded(rows: pd.DataFrame, transform: Any) -> Tensor:
    if transform is None:
        return torch.from_numpy(rows.to_numpy(dtype=np.float64, copy=True))
    apply = getattr(transform, "transform", transform)
    if not callable(apply):
        raise TypeError(
            f"transform: expected a fitted scikit-learn transformer or a function, got a {type(transform).__name__}."
        )
    # A transformer that was fitted on an array warns about names, and one fitted on a frame about their absence.
    named = hasattr(transform, "feature_names_in_") or not hasattr(transform, "transform")
    try:
        found: Any = apply(rows if named else rows.to_numpy())
    except Exception as error:
        raise ValueError(
            f"transform: it raised {type(error).__name__} for these rows: {error}. It must be fitted, and take the "
            f"columns that the row has."
        ) from error
    if hasattr(found, "toarray"):  # a sparse matrix
        found = found.toarray()
    if isinstance(found, Tensor):
        found = found.detach().cpu().numpy()
    numbers = np.asarray(found)
    if numbers.dtype.kind not in "buif":
        try:
            numbers = numbers.astype(np.float64)
        except (TypeError, ValueError):
            raise ValueError("transform: what it gives are no numbers. Encode categories in it, too.") from None
    if numbers.ndim != 2 or len(numbers) != len(rows):
        raise ValueError(f"transform: expected {len(rows)} rows of numbers from it, got shape {numbers.shape}.")
    if not np.isfinite(numbers).all():
        raise ValueError("transform: it gives NaN or infinite values for these rows (a division by zero?).")
    return torch.from_numpy(np.ascontiguousarray(numbers, dtype=np.float64))


def _columns_behind(
    row: pd.DataFrame,
    background: pd.DataFrame | None,
    transform: Any,
    features: int,
) -> tuple[Tensor, tuple[str, ...]]:
    """Which column each feature of the model comes from: by changing one column at a time, and looking."""
    if transform is None:
        return torch.arange(features, device="cpu"), ()
    rows = row if background is None else pd.concat([row, background.head(_PROBED)], ignore_index=True)
    before = _encoded(rows, transform)
    try:
        probed = _probed(rows, transform, before, moving=True)
    except ValueError:  # a number moved to one that nobody has: of an encoder of categories, too far
        probed = _probed(rows, transform, before, moving=False)
    behind: list[set[int]] = [set(found.nonzero()[:, 0].tolist()) for found in probed.T]
    mixed = next((feature for feature, places in enumerate(behind) if len(places) > 1), None)
    if mixed is not None:
        several = ", ".join(str(rows.columns[place]) for place in sorted(behind[mixed])[:4])
        raise ValueError(
            f"transform: number {mixed} of what it gives comes from several columns ({several}), so attributions can't "
            f"be summed back. Leave transform= out, and explain the transformed row itself."
        )
    known = {place for places in behind for place in places}
    unknown = [place for place in range(len(rows.columns)) if place not in known]
    lost = [feature for feature, places in enumerate(behind) if not places]
    notes: tuple[str, ...] = ()
    if lost:
        # A category that no row has: beside those of its column, as encoders lay them.
        for feature in lost:
            near = [places for places in behind[max(0, feature - 1) : feature] if places]
            behind[feature] = set(near[-1]) if near and not unknown else {unknown[0]} if len(unknown) == 1 else set()
            if not behind[feature]:
                behind[feature] = next((places for places in behind[feature:] if places), {0})
        notes = (
            f"{len(lost)} of the model's {features} features are the same for all rows at hand; each is counted to the "
            f"column beside it. Pass a background with all categories.",
        )
    return torch.tensor([next(iter(places)) for places in behind], device="cpu"), notes


def _probed(rows: Any, transform: Any, before: Tensor, *, moving: bool) -> Tensor:
    """Whether each feature moves with each column, truth values (C, F); the transform runs once for all changes."""
    which: list[int] = []  # of each changed row, which it was
    pieces: list[tuple[int, Any]] = []  # of each column, where its changes begin, and the values there
    for place in range(len(rows.columns)):
        numbers, values = _changes(rows.iloc[:, place], moving=moving)
        pieces.append((len(which), values))
        which += numbers
    changed: dict[Any, Any] = {}
    for place, (start, values) in enumerate(pieces):
        column = rows.iloc[:, place]
        same = column.iloc[which]
        parts = [same.iloc[:start], values, same.iloc[start + len(values) :]]
        changed[rows.columns[place]] = pd.concat([part for part in parts if len(part)], ignore_index=True)
    frame = pd.DataFrame(changed, columns=rows.columns)
    if frame.empty:
        return torch.zeros(len(rows.columns), before.shape[1], dtype=torch.bool, device="cpu")
    moved = _encoded(frame, transform) != before[torch.tensor(which, device="cpu")]
    spans = [moved[start : start + len(values)] for start, values in pieces]
    return torch.stack([span.any(0) for span in spans])


def _changes(column: Any, *, moving: bool) -> tuple[list[int], Any]:
    """Which rows get another value in a column, and which: other rows' values, and where there are none, moved ones."""
    count = len(column)
    if column.nunique() > 1:
        turned = [*range(count)[::-1], *(range(-1, count - 1))]
        each = column.drop_duplicates().head(_PROBED)
        return [*range(count), *range(count), *[0] * len(each)], pd.concat([column.iloc[turned], each])
    if moving and _is_measured(column):
        return [0], pd.Series([float(column.iloc[0]) + 1.0])
    return [], column.iloc[:0]


def _with(rows: pd.DataFrame, place: int, values: Any) -> pd.DataFrame:
    return pd.concat(
        [rows.iloc[:, :place], pd.DataFrame({rows.columns[place]: values}), rows.iloc[:, place + 1 :]], axis=1
    )


def read_labels(labels: Any, rows: int, classes: int, class_names: Sequence[str] | None, *, value: bool) -> Tensor:
    """What is known of the background's rows, as the loss takes it.

    Args:
        labels: A Series, an array, a tensor or a list: class indices or names, or numbers.
        rows: How many rows the background has.
        classes: How many the model scores; 1 is a binary model with one logit, or a regression.
        class_names: Of the classes; of a binary model with one logit, of both.
        value: Whether the model predicts a value, so that they are plain numbers.

    Returns:
        Shape (N,): class indices (int64), or values (float64).

    Raises:
        TypeError: They are of no known kind.
        ValueError: Missing ones, another number of them, a class that isn't there, or one class only.
    """
    if isinstance(labels, Tensor):
        labels = labels.detach().cpu().numpy()
    if isinstance(labels, pd.DataFrame) and labels.shape[1] == 1:
        labels = labels.iloc[:, 0]
    if isinstance(labels, str) or not (hasattr(labels, "__array__") or isinstance(labels, (list, tuple))):
        raise TypeError(f"labels: expected one for each row of the background, got a {type(labels).__name__}.")
    found = pd.Series(np.asarray(labels).squeeze(-1) if np.ndim(labels) == 2 and np.shape(labels)[1] == 1 else labels)
    found = found.reset_index(drop=True)
    if np.ndim(found.to_numpy()) != 1 or len(found) != rows:
        raise ValueError(f"labels: expected one for each of the {rows} rows of the background, got {len(found)}.")
    if found.isna().any():
        raise ValueError(f"labels: {int(found.isna().sum())} of {len(found)} are missing. Leave those rows out.")
    if value:
        if not is_numeric(found):
            raise ValueError(f"labels: expected numbers, as the model predicts a value; got {found.iloc[0]!r}.")
        return torch.from_numpy(found.to_numpy(dtype=np.float64, copy=True))
    count = max(2, classes)
    if not is_numeric(found):
        if class_names is None:
            raise ValueError(f"labels: got {found.iloc[0]!r}, but no class_names= were given to look it up in.")
        places = {str(name): place for place, name in enumerate(class_names)}
        other = next((label for label in found if str(label) not in places), None)
        if other is not None:
            raise ValueError(unknown("labels", str(other), list(places)))
        found = found.map(lambda label: places[str(label)])
    numbers = found.to_numpy(dtype=np.float64)
    if not ((numbers % 1 == 0) & (numbers >= 0) & (numbers < count)).all():
        hint = " Of a model that predicts a value, pass score='value'." if classes == 1 else ""
        raise ValueError(
            f"labels: expected classes from 0 to {count - 1}, got {_first_strange(numbers, count):g}.{hint}"
        )
    if len(set(numbers)) == 1:
        raise ValueError(
            f"labels: all {rows} rows are of one class ({numbers[0]:g}), and a loss on them tells little of what tells "
            f"classes apart. Pass rows of several classes."
        )
    return torch.from_numpy(numbers.astype(np.int64))


def _first_strange(numbers: np.ndarray, count: int) -> float:
    return float(next(n for n in numbers if n % 1 or not 0 <= n < count))
