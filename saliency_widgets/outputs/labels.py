"""Labels of samples: the correct outputs, in any form that users pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from saliency_widgets.attribution.arrays import as_array


def read_column(labels: Any, rows: int) -> Any:
    """Return labels as a pandas column of the simplest type that holds them.

    Args:
        labels: A Series, an array, a tensor or a list of class indices, class names or numbers.
        rows: The number of rows that they belong to.

    Raises:
        TypeError: The labels have an unsupported type.
        ValueError: Labels are missing, too many or too few.
    """
    column = _column(labels)
    if len(column) != rows:
        raise ValueError(f"labels: expected one for each of the {rows} rows of the background, got {len(column)}.")
    if column.isna().any():
        raise ValueError(f"labels: {int(column.isna().sum())} of {len(column)} are missing. Leave those rows out.")
    return column


def is_numeric(column: Any) -> bool:
    """Return whether a pandas column holds numbers or truth values."""
    return bool(pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column))


def _column(labels: Any) -> Any:
    if isinstance(labels, str) or not (hasattr(labels, "__array__") or isinstance(labels, Sequence)):
        raise TypeError(f"labels: expected one for each row of the background, got a {type(labels).__name__}.")
    if not isinstance(labels, pd.Series):
        array = as_array(labels, "labels")
        flat = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
        if flat.ndim != 1:
            raise ValueError(
                f"labels: expected one for each row, got shape {array.shape}. For one-hot rows, pass the argmax."
            )
        labels = pd.Series(flat)
    if isinstance(labels.dtype, pd.CategoricalDtype):
        labels = labels.astype(object)
    if pd.api.types.is_complex_dtype(labels):
        raise TypeError("labels: expected classes or numbers, got complex numbers.")
    return labels.reset_index(drop=True).infer_objects()
