"""Tables: a row as people know it, and as the model sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

_PROBED = 64  # rows of the background that tell which columns a feature of the model comes from


@dataclass(frozen=True, eq=False)
class Table:
    """A row, its columns, and the way from there to what the model sees.

    Attributes:
        row: In the units people know, one row with named columns.
        background: Other rows of the kind, or None.
        tensor: The row as the model sees it, shape (1, F).
        around: The background as the model sees it, shape (N, F), or None.
        column_of: Which column each of the model's F features comes from, shape (F,).
        encode: From rows with these columns to what the model sees, shape (N, F).
        notes: What a reader should know.
    """

    row: pd.DataFrame
    background: pd.DataFrame | None
    tensor: Tensor
    around: Tensor | None
    column_of: Tensor
    encode: Callable[[pd.DataFrame], Tensor]
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """The columns' names."""
        return [str(name) for name in self.row.columns]

    def summed(self, values: Tensor) -> Tensor:
        """Attributions of the model's features, summed back to the columns: (B, F) becomes (B, C).

        An attribution in proportion to the change of its feature is the same in any unit: of a linear model on scaled
        features, Integrated Gradients give w (x - x') in the units of the columns.
        """
        found = values.new_zeros(len(values), len(self.names))
        return found.index_add_(1, self.column_of.to(values.device), values)

    def typical(self) -> pd.DataFrame:
        """The median of each column of numbers, and the most frequent value of each other one.

        Raises:
            ValueError: There is no background.
        """
        if self.background is None:
            raise ValueError("background: the median is one of other rows. Pass background= your training data.")
        columns = self.background.items()
        found = {name: [c.median() if _is_numeric(c) else c.mode().iloc[0]] for name, c in columns}
        return pd.DataFrame(found, columns=self.background.columns)


def read_table(
    row: Any,
    background: Any = None,
    *,
    feature_names: Sequence[str] | None = None,
    transform: Any = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Table:
    """Bring a row, and a background, into the form a model takes.

    Args:
        row: An array, a tensor or a list of numbers (C,) or (1, C); a pandas Series; a DataFrame of one row; or a
            mapping from names to values.
        background: Rows of the same columns: a DataFrame, an array or a tensor (N, C).
        feature_names: The columns' names, where the row doesn't have them.
        transform: A fitted scikit-learn transformer (a scaler, a ColumnTransformer), or a function from such rows to
            numbers (N, F); None where the model takes the columns as they are.
        dtype: What the model computes in.
        device: Where it is.

    Raises:
        TypeError: A row or a transform of no known kind.
        ValueError: Missing values, text without a transform, other columns in the background, names that don't fit, or
            a transform that fails, gives no numbers, or mixes columns.
    """
    frame = _frame(row, "inputs", feature_names)
    if len(frame) != 1:
        raise ValueError(f"inputs: expected one row, got {len(frame)}. Pass one of them, as df.iloc[[0]].")
    rest = None if background is None else _frame(background, "background", feature_names or list(frame.columns))
    if rest is not None:
        rest = _same_columns(frame, rest)
        if rest.empty:
            raise ValueError("background: it has no rows. Pass some of your training data.")
    for name, some in (("inputs", frame), ("background", rest)):
        if some is not None:
            _check(name, some, transform)

    def encode(rows: pd.DataFrame) -> Tensor:
        return _encoded(rows, transform).to(device=device, dtype=dtype)

    tensor = encode(frame)
    around = None if rest is None else encode(rest)
    if around is not None and around.shape[1] != tensor.shape[1]:
        raise ValueError(f"transform: {tensor.shape[1]} numbers for the row, {around.shape[1]} for the background.")
    column_of, notes = _columns_behind(frame, rest, encode, tensor.shape[1], transform is None)
    if rest is not None:
        varied = dict(rest.nunique(dropna=False).items())
        constant = [str(name) for name, count in varied.items() if count == 1 and len(rest) > 1]
        if constant:
            notes += (
                f"Constant in the background: {', '.join(constant[:6])}. Shuffling such a column changes nothing.",
            )
    return Table(frame, rest, tensor, around, column_of, encode, notes)


def _frame(value: Any, argument: str, names: Sequence[str] | None) -> pd.DataFrame:
    if isinstance(value, pd.DataFrame):
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


def _same_columns(row: pd.DataFrame, background: Any) -> Any:
    missing = [str(name) for name in row.columns if name not in background.columns]
    extra = [str(name) for name in background.columns if name not in row.columns]
    if missing or extra:
        said = [f"without {', '.join(missing[:5])}"] if missing else []
        said += [f"with {', '.join(extra[:5])}"] if extra else []
        raise ValueError(
            f"background: it has other columns than the row, {' and '.join(said)}. Pass rows of the same columns."
        )
    return background[row.columns]


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
        if not _is_numeric(column):
            if transform is None:
                raise ValueError(
                    f"{argument}: {str(name)!r} holds {column.iloc[0]!r}, which is no number. Pass transform= the "
                    f"encoder that the model was trained with, such as a fitted ColumnTransformer."
                )
        elif not np.isfinite(column.to_numpy(dtype=np.float64)).all():
            raise ValueError(f"{argument}: {str(name)!r} holds infinite values.")


def _is_numeric(column: Any) -> bool:
    return pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column)


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
    encode: Callable[[pd.DataFrame], Tensor],
    features: int,
    plain: bool,
) -> tuple[Tensor, tuple[str, ...]]:
    """Which column each feature of the model comes from: by changing one column at a time, and looking."""
    if plain:
        return torch.arange(features), ()
    rows = row if background is None else pd.concat([row, background.head(_PROBED)], ignore_index=True)
    before = encode(rows)
    behind: list[set[int]] = [set() for _ in range(features)]
    for place, name in enumerate(rows.columns):
        for other in _changed(rows[name]):
            moved = encode(_with(rows, place, other))
            for feature in (moved != before).any(0).nonzero()[:, 0].tolist():
                behind[feature].add(place)
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
    return torch.tensor([next(iter(places)) for places in behind]), notes


def _changed(column: Any) -> list[Any]:
    """The column with other values: those of other rows, and for numbers, moved."""
    count = len(column)
    found: list[Any] = []
    if column.nunique() > 1:
        found += [
            column.iloc[order].reset_index(drop=True) for order in (np.arange(count)[::-1], np.arange(-1, count - 1))
        ]
        found += [pd.Series([value] * count, dtype=column.dtype) for value in column.drop_duplicates().head(_PROBED)]
    if _is_numeric(column) and not pd.api.types.is_bool_dtype(column):
        numbers = column.to_numpy(dtype=np.float64)
        found.append(numbers + (numbers.std() or 1.0))
    return found


def _with(rows: pd.DataFrame, place: int, values: Any) -> pd.DataFrame:
    return pd.concat(
        [rows.iloc[:, :place], pd.DataFrame({rows.columns[place]: values}), rows.iloc[:, place + 1 :]], axis=1
    )
