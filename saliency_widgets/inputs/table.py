"""Tables: rows in the caller's units, and encoded as the model's input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from saliency_widgets.attribution import Kind
from saliency_widgets.attribution.arrays import check_dense
from saliency_widgets.attribution.baselines import noise, zero
from saliency_widgets.attribution.columns import Columns
from saliency_widgets.attribution.kind import Baseline
from saliency_widgets.inputs.encoder import Encoder, fitted, fitted_names, is_for_tables
from saliency_widgets.inputs.frames import (
    check_comparable,
    check_names,
    check_values,
    fill_column,
    has_names,
    read_frame,
    same_columns,
    typical,
    with_types_of,
)
from saliency_widgets.inputs.options import Options
from saliency_widgets.inputs.tracing import trace
from saliency_widgets.outputs.class_names import read_names
from saliency_widgets.params import unknown


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of a table, their columns, and their encoding as the model's input.

    Attributes:
        rows: B rows with named columns, in the caller's units.
        background: Other rows of the same columns, or None.
        tensor: The encoded rows, shape (B, F), float64.
        columns: The column that each of the model's features comes from, and the encoded background.
        original: The rows as passed, whose column types apply to changed values.
        notes: Notes for the user.
    """

    rows: pd.DataFrame
    background: pd.DataFrame | None
    tensor: Tensor
    columns: Columns
    original: pd.DataFrame
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """The columns' names."""
        return list(self.columns.names)

    def typical(self) -> pd.DataFrame:
        """Return the background's median of each column of numbers or dates, and the mode of each other column.

        Raises:
            ValueError: The table has no background.
        """
        if self.background is None:
            raise ValueError("background: the median needs other rows. Pass background= your training data.")
        return typical(self.background)

    @cached_property
    def column_index(self) -> dict[str, int]:
        """The index of each column by name."""
        return {name: index for index, name in enumerate(self.columns.names)}

    def with_values(self, values: Mapping[str, Any]) -> Table:
        """Return the table with other values in some columns.

        Raises:
            ValueError: A column doesn't exist, or a value is missing or rejected by the column or the transform.
        """
        rows = self.rows.copy()
        for name, value in values.items():
            if name not in self.column_index:
                raise ValueError(unknown("feature", name, self.names))
            index = self.column_index[name]
            rows.isetitem(index, fill_column(self.original.iloc[:, index], value, name))
        return replace(self, rows=rows, tensor=self.columns.encode(rows, ", ".join(islice(values, 4))))


@dataclass(frozen=True, eq=False)
class TableKind(Kind):
    """A row of a table, encoded as the model's input, shape (F,).

    Attributes:
        columns: The columns, with the encoded background.
        table: The table in the caller's units.
    """

    name = "table"
    noun = "row"
    mark = "A long bar"
    columns: Columns = field()  # pyright: ignore[reportIncompatibleVariableOverride]
    table: Table = field()

    @property
    def default_fill(self) -> str:
        """The default fill: the mean of the background, or zero without a background."""
        return "zero" if self.background is None else "mean"

    @property
    def background(self) -> Tensor | None:
        """The encoded rows of the background, shape (N, F), or None."""
        return self.columns.rows

    @property
    def baselines(self) -> Mapping[str, Baseline]:
        """The baselines by name: first the background's mean, if any; "noise" is in the range of each feature there."""
        rows, middle = self.columns.rows, self.columns.median
        if rows is None:
            return {"zero": zero, "noise": noise}
        make: dict[str, Baseline] = {"mean": lambda inputs, _: rows.mean(0).to(inputs).expand_as(inputs).clone()}
        if middle is not None:
            make["median"] = lambda inputs, _: middle.to(inputs).expand_as(inputs).clone()
        make["noise"] = lambda inputs, seed: noise(inputs, seed, rows.amin(0), rows.amax(0))
        return {**make, "zero": zero}

    def why_no_baseline(self, name: str, inputs: Tensor) -> str:
        """Return an error message that says whether the background or its median is missing."""
        if name == "median" and self.background is not None:
            return "baseline: the transform fails for the row of medians. Choose another baseline."
        if name in ("mean", "median"):
            return f"baseline: {name!r} is computed from other rows. Pass background= your training data."
        return super().why_no_baseline(name, inputs)

    def encode(self, rows: Any, argument: str) -> Tensor:
        """Apply the transform to rows in the caller's units."""
        return self.columns.encode(rows, argument)

    def spread(self, inputs: Tensor) -> Tensor:
        """Return the range of each feature in the background, or of the row's numbers without a background."""
        rows = self.background
        return super().spread(inputs) if rows is None else (rows.amax(0) - rows.amin(0)).to(inputs)[None]


def read_table(
    rows: Any,
    background: Any = None,
    *,
    feature_names: Sequence[str] | None = None,
    transform: Any = None,
) -> Table:
    """Read rows of a table and a background, and encode them as the model's input.

    Args:
        rows: An array, a tensor or a list of numbers (C,) or (B, C); a pandas Series; a DataFrame; or a mapping from
            names to values.
        background: Rows of the same columns: a DataFrame, an array or a tensor (N, C).
        feature_names: The columns' names, for rows without names. Default: the transform's.
        transform: A fitted scikit-learn transformer (a scaler, a ColumnTransformer), or a function from such rows to
            numbers (N, F); None if the model takes the columns directly.

    Raises:
        TypeError: The rows or the transform have an unsupported type.
        ValueError: Values are missing, text has no transform, the background has other columns, names don't match, or
            the transform fails, returns anything but numbers, or mixes columns.
    """
    if isinstance(background, pd.DataFrame):
        check_names("background", background.columns)
    names, named = None if feature_names is None else read_names("feature_names", feature_names), has_names(rows)
    if names is None and not named and isinstance(background, pd.DataFrame):
        names, named = list(background.columns), True
    frame = read_frame(rows, "inputs", names)
    check_comparable("inputs", frame)
    if frame.empty:
        raise ValueError(f"inputs: expected at least one row and one column, got a table of shape {frame.shape}.")
    of_transform = fitted_names(transform)
    if of_transform is not None and names is None and not named and len(of_transform) == frame.shape[1]:
        frame.columns = of_transform
    ordered: tuple[str, ...] = ()
    other = [] if of_transform is not None or not isinstance(background, pd.DataFrame) else [*background.columns]
    if {*other} == {*frame.columns} and len(other) == len(frame.columns) and other != [*frame.columns]:
        ordered = ("The inputs' columns were reordered to match the background's.",)
        frame = frame.reindex(columns=other)
    encoder = Encoder(transform, [*frame.columns], named=named)
    rest = None if background is None else read_frame(background, "background", list(frame.columns))
    if rest is not None:
        rest = same_columns(frame, rest, "background")
        check_comparable("background", rest)
        if rest.empty:
            raise ValueError("background: it has no rows. Pass some of your training data.")
        frame = with_types_of(rest, frame, exactly=not isinstance(rows, pd.DataFrame))
    check_values("inputs", frame, transform)
    tensor = encoder(frame)

    def encode(values: Any, argument: str) -> Tensor:
        same = same_columns(frame, read_frame(values, argument, list(frame.columns)), argument)
        same = with_types_of(frame, same)
        check_values(argument, same, transform)
        encoded = encoder(same)
        if encoded.shape[1] != tensor.shape[1]:
            raise ValueError(
                f"transform: it returns {encoded.shape[1]} numbers per row for {argument}, but {tensor.shape[1]} for "
                f"the inputs. It must return the same number for all rows."
            )
        return encoded

    encoded_background = None if rest is None else encode(rest, "background")
    if transform is None:
        of, notes = torch.arange(tensor.shape[1], device="cpu"), ()
    else:
        together = frame if rest is None else pd.concat([frame, rest], ignore_index=True)
        numbers = tensor if encoded_background is None else torch.cat([tensor, encoded_background])
        mixed = lambda rows: encode(rows, "mixed rows")  # noqa: E731
        of, notes = trace(together, numbers, mixed, fitted(transform), alone=rest is None)
    if rest is not None:
        varied = dict(rest.nunique(dropna=False).items())
        constant = [str(name) for name, count in varied.items() if count == 1 and len(rest) > 1]
        if constant:
            notes += (
                f"Constant in the background: {', '.join(constant[:6])}. Shuffling such a column changes nothing.",
            )
    notes += ordered
    if encoder.unused:
        notes += (f"Not used by the transform, which was fitted without them: {', '.join(encoder.unused[:6])}.",)
    try:
        median = None if rest is None else encode(typical(rest), "the median row")[0]
    except ValueError:  # reported only if the median is requested
        median = None
    columns = Columns(tuple(map(str, frame.columns)), of, encode, encoded_background, median)
    return Table(frame, rest, tensor, columns, frame, notes)


def is_table(inputs: Any, background: Any, feature_names: Any, transform: Any) -> bool:
    """Return whether inputs are rows of a table: pandas objects, values by name, or implied by the other arguments."""
    if isinstance(inputs, (pd.DataFrame, pd.Series, Table)) or background is not None or feature_names is not None:
        return True
    if is_for_tables(transform):
        return True
    plain = (Real, str, np.generic)
    # A mapping with a single value is a named input of the model.
    return isinstance(inputs, Mapping) and len(inputs) > 1 and all(isinstance(v, plain) for v in inputs.values())


def read_row_as_table(inputs: Any, options: Options) -> Any:
    """Return inputs that are rows of a table, or one row of numbers, as a table; return anything else unchanged."""
    background, feature_names, transform = options.background, options.feature_names, options.transform
    if not is_table(inputs, background, feature_names, transform) and not _is_row(inputs, transform):
        return inputs
    return read_table(inputs, background, feature_names=feature_names, transform=transform)


def _is_row(inputs: Any, transform: Any) -> bool:
    if isinstance(inputs, list):
        return bool(inputs) and all(isinstance(item, (int, float)) for item in inputs)
    if not isinstance(inputs, (Tensor, np.ndarray)) or transform is not None:
        return False
    if isinstance(inputs, Tensor):
        check_dense(inputs, "inputs")
    flat = inputs.ndim == 1 or (inputs.ndim == 2 and len(inputs) == 1)
    return flat and inputs.dtype not in (torch.uint8, np.uint8)
