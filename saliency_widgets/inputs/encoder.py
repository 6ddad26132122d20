"""From rows with named columns to the model's numbers, through whatever transform the model was trained behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from saliency_widgets.attribution.arrays import as_array, check_dense


def fitted(transform: Any) -> Any:
    """What was fitted: the transform itself, or of a bound method such as ``scaler.transform``, the scaler."""
    return getattr(transform, "__self__", transform)


def is_for_tables(transform: Any) -> bool:
    """Whether a transform is one of scikit-learn's kind; one with a predictor at its end is refused later, in words."""
    estimator = fitted(transform)
    return hasattr(estimator, "fit") and (hasattr(estimator, "transform") or hasattr(estimator, "predict"))


def fitted_names(transform: Any) -> list[str] | None:
    """The columns that a transform was fitted on, in their order; None where it was fitted without names."""
    names = getattr(fitted(transform), "feature_names_in_", None)
    return None if names is None else [*names]


class Encoder:
    """Hands rows to a transform in the form in which it was fitted, and checks what comes back.

    A transform that was fitted on a DataFrame gets its own columns, by name and in its order. One that was fitted on an
    array gets an array, with the columns in the order of the rows. A function gets the DataFrame.

    Args:
        transform: A fitted scikit-learn transformer, or a function; None where the columns are the model's numbers.
        columns: The names of the rows' columns.
        named: Whether the rows came with these names. Where they did not, the names are only what people call the
            columns, and names that the transform doesn't know stand for its columns by position.

    Raises:
        TypeError: The transform can't be called.
        ValueError: It was fitted on other columns.
    """

    def __init__(self, transform: Any, columns: Sequence[Any], *, named: bool) -> None:
        self._transform, self._apply = transform, getattr(transform, "transform", transform)
        self._select: list[int] | None = None
        self._names = None if transform is None else fitted_names(transform)
        self.unused: list[str] = []
        """Columns that the transform doesn't take."""
        if transform is None:
            return
        if not callable(self._apply):
            hint = " Of a pipeline with its predictor, pass pipeline[:-1]." if hasattr(transform, "predict") else ""
            raise TypeError(
                f"transform: expected a fitted scikit-learn transformer or a function, got a "
                f"{type(transform).__name__}.{hint}"
            )
        if self._names is not None:
            self._select = _places(self._names, [*columns], named)
            taken = set(self._select)
            self.unused = [str(name) for k, name in enumerate(columns) if k not in taken]
        else:
            count = getattr(fitted(transform), "n_features_in_", None)
            if count is not None and count != len(columns):
                raise ValueError(
                    f"inputs: the transform was fitted on {count} columns, and these rows have {len(columns)}. Pass "
                    f"the columns that it was fitted on, in the same order."
                )

    def __call__(self, rows: pd.DataFrame) -> Tensor:
        """The model's numbers of rows with the columns that were announced, shape (N, F), float64.

        Raises:
            TypeError: It gives a tensor that is no dense one.
            ValueError: The transform fails, or gives anything but N rows of finite numbers.
        """
        if self._transform is None:
            return torch.from_numpy(rows.to_numpy(dtype=np.float64, copy=True))
        try:
            found: Any = self._apply(self._in_its_form(rows))
        except Exception as error:
            raise ValueError(
                f"transform: it raised {type(error).__name__} for these rows: {str(error).rstrip('. ')}. It must be "
                f"fitted, and take the columns that the row has."
            ) from error
        if hasattr(found, "toarray"):  # a sparse matrix
            found = found.toarray()
        if isinstance(found, Tensor):
            check_dense(found, "transform", returned=True)
            found = as_array(found, "transform")
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
        return torch.from_numpy(np.array(numbers, dtype=np.float64, order="C"))

    def _in_its_form(self, rows: pd.DataFrame) -> Any:
        if self._select is not None:
            return rows.iloc[:, self._select].set_axis(self._names, axis=1)
        # A transformer that was fitted on an array warns about names.
        return rows.to_numpy() if hasattr(fitted(self._transform), "n_features_in_") else rows


def _places(wanted: list[str], columns: list[Any], named: bool) -> list[int]:
    """Where the columns that a transform was fitted on lie among those of the rows."""
    places = {name: place for place, name in reversed([*enumerate(columns)])}
    missing = [name for name in wanted if name not in places]
    if not missing:
        return [places[name] for name in wanted]
    in_order = len(columns) == len(wanted) and all(
        name == other or name not in places for name, other in zip(wanted, columns, strict=True)
    )
    if in_order and not named:
        return [*range(len(wanted))]
    listed = ", ".join(wanted[:6]) + (", ..." if len(wanted) > 6 else "")
    if named:
        here = f"have no {', '.join(missing[:6])}"
    elif len(columns) != len(wanted):
        here = f"have {len(columns)}"
    else:
        here = f"are called {', '.join(map(str, columns[:6]))}, in another order"
    raise ValueError(
        f"inputs: the transform was fitted on {len(wanted)} columns, {listed}; these rows {here}. Pass the columns "
        f"that it was fitted on: by name, or as an array in the same order."
    )
