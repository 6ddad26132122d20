"""What is known of the background's rows, in the form in which a loss takes it."""

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
    found = _column(labels)
    if len(found) != rows:
        raise ValueError(f"labels: expected one for each of the {rows} rows of the background, got {len(found)}.")
    if found.isna().any():
        raise ValueError(f"labels: {int(found.isna().sum())} of {len(found)} are missing. Leave those rows out.")
    numeric = pd.api.types.is_numeric_dtype(found) or pd.api.types.is_bool_dtype(found)
    if value:
        if not numeric:
            raise ValueError(f"labels: expected numbers, as the model predicts a value; got {brief(found.iloc[0])}.")
        values = found.to_numpy(dtype=np.float64, copy=True)
        if not np.isfinite(values).all():
            raise ValueError("labels: some are infinite. Leave those rows out.")
        return torch.from_numpy(values)
    return _classes(found if numeric else _by_name(found, class_names), max(2, classes), classes == 1)


def _column(labels: Any) -> Any:
    """The labels as one column of pandas, of the simplest type that holds them."""
    if isinstance(labels, str) or not (hasattr(labels, "__array__") or isinstance(labels, Sequence)):
        raise TypeError(f"labels: expected one for each row of the background, got a {type(labels).__name__}.")
    if not isinstance(labels, pd.Series):
        array = as_array(labels, "labels")
        flat = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
        if flat.ndim != 1:
            raise ValueError(
                f"labels: expected one for each row, got shape {array.shape}. Of one-hot rows, the argmax."
            )
        labels = pd.Series(flat)
    if isinstance(labels.dtype, pd.CategoricalDtype):
        labels = labels.astype(object)
    if pd.api.types.is_complex_dtype(labels):
        raise TypeError("labels: expected classes or numbers, got complex ones.")
    return labels.reset_index(drop=True).infer_objects()


def _by_name(found: Any, class_names: Sequence[str] | None) -> Any:
    if class_names is None:
        raise ValueError(f"labels: got {brief(found.iloc[0])}, but no class_names= were given to look it up in.")
    places = {str(name): place for place, name in enumerate(class_names)}
    other = next((label for label in found if str(label) not in places), None)
    if other is not None:
        raise ValueError(unknown("labels", str(other), list(places)))
    return found.map(lambda label: places[str(label)])


def _classes(found: Any, count: int, single: bool) -> Tensor:
    numbers = found.to_numpy(dtype=np.float64)
    strange = numbers[~((numbers % 1 == 0) & (numbers >= 0) & (numbers < count))]
    if len(strange):
        hint = " Of a model that predicts a value, pass score='value'." if single else ""
        raise ValueError(f"labels: expected classes from 0 to {count - 1}, got {strange[0]:g}.{hint}")
    if len(set(numbers)) == 1:
        raise ValueError(
            f"labels: all {len(numbers)} rows are of one class ({numbers[0]:g}), and a loss on them tells little of "
            f"what tells classes apart. Pass rows of several classes."
        )
    return torch.from_numpy(numbers.astype(np.int64))
