"""Read the labels of the background's rows for a loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from saliency_widgets.attribution.arrays import as_array
from saliency_widgets.params import brief, unknown


def read_labels(labels: Any, rows: int, classes: int, class_names: Sequence[str] | None, *, value: bool) -> Tensor:
    """Bring labels into the form a loss takes.

    Args:
        labels: A Series, an array, a tensor or a list: class indices or names, or numbers.
        rows: The number of rows of the background.
        classes: The number of the model's outputs; 1 is a binary model with one logit, or a regression.
        class_names: Names of the classes; of both for a binary model with one logit.
        value: Whether the model predicts a value, so that labels are plain numbers.

    Returns:
        Shape (N,): class indices (int64), or values (float64).

    Raises:
        TypeError: The labels have an unsupported type.
        ValueError: Labels are missing, too many or too few, of an unknown class, or all of one class.
    """
    column = _column(labels)
    if len(column) != rows:
        raise ValueError(f"labels: expected one for each of the {rows} rows of the background, got {len(column)}.")
    if column.isna().any():
        raise ValueError(f"labels: {int(column.isna().sum())} of {len(column)} are missing. Leave those rows out.")
    numeric = pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column)
    if value:
        if not numeric:
            raise ValueError(f"labels: expected numbers, as the model predicts a value; got {brief(column.iloc[0])}.")
        values = column.to_numpy(dtype=np.float64, copy=True)
        if not np.isfinite(values).all():
            raise ValueError("labels: some are infinite. Leave those rows out.")
        return torch.from_numpy(values)
    return _classes(column if numeric else _by_name(column, class_names), max(2, classes), classes == 1)


def _column(labels: Any) -> Any:
    """Return the labels as a pandas column of the simplest type that holds them."""
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
        raise TypeError("labels: expected classes or numbers, got complex ones.")
    return labels.reset_index(drop=True).infer_objects()


def _by_name(column: Any, class_names: Sequence[str] | None) -> Any:
    if class_names is None:
        raise ValueError(f"labels: got {brief(column.iloc[0])}, but no class_names= were given to look it up in.")
    index_of = {str(name): index for index, name in enumerate(class_names)}
    other = next((label for label in column if str(label) not in index_of), None)
    if other is not None:
        raise ValueError(unknown("labels", str(other), list(index_of)))
    return column.map(lambda label: index_of[str(label)])


def _classes(column: Any, count: int, single: bool) -> Tensor:
    numbers = column.to_numpy(dtype=np.float64)
    invalid = numbers[~((numbers % 1 == 0) & (numbers >= 0) & (numbers < count))]
    if len(invalid):
        hint = " For a model that predicts a value, pass score='value'." if single else ""
        raise ValueError(f"labels: expected classes from 0 to {count - 1}, got {invalid[0]:g}.{hint}")
    if len(set(numbers)) == 1:
        raise ValueError(
            f"labels: expected several classes, got one ({numbers[0]:g}) for all {len(numbers)} rows. A loss on one "
            f"class says little about what distinguishes classes. Pass rows of several classes."
        )
    return torch.from_numpy(numbers.astype(np.int64))
