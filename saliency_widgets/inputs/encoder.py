"""Encode rows with named columns as the model's input, with the transform that the model was trained with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from saliency_widgets.attribution.arrays import as_array, check_dense


def fitted(transform: Any) -> Any:
    """Return the fitted object: the transform itself, or the scaler for a bound method such as ``scaler.transform``."""
    return getattr(transform, "__self__", transform)


def is_for_tables(transform: Any) -> bool:
    """Return whether a transform has scikit-learn's interface; a pipeline with a predictor is rejected later."""
    estimator = fitted(transform)
    return hasattr(estimator, "fit") and (hasattr(estimator, "transform") or hasattr(estimator, "predict"))


def fitted_names(transform: Any) -> list[str] | None:
    """Return the columns that a transform was fitted on, in order; None if it was fitted without names."""
    names = getattr(fitted(transform), "feature_names_in_", None)
    return None if names is None else [*names]


class Encoder:
    """A wrapper that passes rows to a transform in the form in which it was fitted, and checks the outputs.

    A transform that was fitted on a DataFrame gets the same columns by name, in the same order. One that was fitted on
    an array gets an array, with the columns in the order of the rows. A function gets the DataFrame.

    Args:
        transform: A fitted scikit-learn transformer, or a function; None if the model takes the columns directly.
        columns: The names of the rows' columns.
        named: Whether the rows came with these names. If not, the names are only labels, and columns whose names the
            transform doesn't have are matched by position.

    Raises:
        TypeError: The transform is not callable.
        ValueError: The transform was fitted on other columns.
    """

    def __init__(self, transform: Any, columns: Sequence[Any], *, named: bool) -> None:
        self._transform, self._apply = transform, getattr(transform, "transform", transform)
        self._select: list[int] | None = None
        self._names = None if transform is None else fitted_names(transform)
        self.unused: list[str] = []
        """The columns that the transform doesn't use."""
        if transform is None:
            return
        if not callable(self._apply):
            hint = " For a pipeline with a predictor, pass pipeline[:-1]." if hasattr(transform, "predict") else ""
            raise TypeError(
                f"transform: expected a fitted scikit-learn transformer or a function, got a "
                f"{type(transform).__name__}.{hint}"
            )
        if self._names is not None:
            self._select = _column_indices(self._names, [*columns], named)
            taken = set(self._select)
            self.unused = [str(name) for k, name in enumerate(columns) if k not in taken]
        else:
            count = getattr(fitted(transform), "n_features_in_", None)
            if count is not None and count != len(columns):
                raise ValueError(
                    f"inputs: the transform was fitted on {count} columns, but these rows have {len(columns)}. Pass "
                    f"the columns that it was fitted on, in the same order."
                )

    def __call__(self, rows: pd.DataFrame) -> Tensor:
        """Encode rows with the expected columns, shape (N, F), float64.

        Raises:
            TypeError: The transform returns a tensor that isn't dense.
            ValueError: The transform fails, or returns anything but N rows of finite numbers.
        """
        if self._transform is None:
            return torch.from_numpy(rows.to_numpy(dtype=np.float64, copy=True))
        try:
            output: Any = self._apply(self._as_fitted(rows))
        except Exception as error:
            raise ValueError(
                f"transform: it raised {type(error).__name__} for these rows: {str(error).rstrip('. ')}. It must be "
                f"fitted and accept the columns of these rows."
            ) from error
        if hasattr(output, "toarray"):  # a sparse matrix
            output = output.toarray()
        if isinstance(output, Tensor):
            check_dense(output, "transform", returned=True)
            output = as_array(output, "transform")
        numbers = np.asarray(output)
        if numbers.dtype.kind not in "buif":
            try:
                numbers = numbers.astype(np.float64)
            except (TypeError, ValueError):
                raise ValueError("transform: it must return numbers. Make it encode the categories as well.") from None
        if numbers.ndim != 2 or len(numbers) != len(rows):
            raise ValueError(f"transform: expected {len(rows)} rows of numbers from it, got shape {numbers.shape}.")
        if not np.isfinite(numbers).all():
            raise ValueError("transform: it returns NaN or infinite values for these rows (a division by zero?).")
        return torch.from_numpy(np.array(numbers, dtype=np.float64, order="C"))

    def _as_fitted(self, rows: pd.DataFrame) -> Any:
        if self._select is not None:
            return rows.iloc[:, self._select].set_axis(self._names, axis=1)
        # A transformer that was fitted on an array warns if the columns have names.
        return rows.to_numpy() if hasattr(fitted(self._transform), "n_features_in_") else rows


def _column_indices(wanted: list[str], columns: list[Any], named: bool) -> list[int]:
    """Return the positions in the rows of the columns that a transform was fitted on."""
    index_of = {name: index for index, name in reversed([*enumerate(columns)])}
    missing = [name for name in wanted if name not in index_of]
    if not missing:
        return [index_of[name] for name in wanted]
    in_order = len(columns) == len(wanted) and all(
        name == other or name not in index_of for name, other in zip(wanted, columns, strict=True)
    )
    if in_order and not named:
        return [*range(len(wanted))]
    listed = ", ".join(wanted[:6]) + (", ..." if len(wanted) > 6 else "")
    if named:
        here = f"have no {', '.join(missing[:6])}"
    elif len(columns) != len(wanted):
        here = f"have {len(columns)}"
    else:
        here = f"are named {', '.join(map(str, columns[:6]))}, in a different order"
    raise ValueError(
        f"inputs: the transform was fitted on {len(wanted)} columns, {listed}; these rows {here}. Pass the columns "
        f"that it was fitted on: by name, or as an array in the same order."
    )
