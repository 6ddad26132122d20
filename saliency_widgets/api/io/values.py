"""Convert values to plain JSON and a set of arrays, and back: numbers, names, tensors and tables, but no code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saliency_widgets.api.io.arrays import can_be_stored

_BY_BITS = {torch.bfloat16: torch.int16}  # types that NumPy lacks, and types of the same size
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    )
}


class Writer:
    """Converts values to plain JSON and a set of arrays."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}

    def plain(self, name: str, value: Any) -> Any:
        """Return the value as plain JSON, with references to arrays and tensors by name.

        Args:
            name: The name of the value, for the arrays and in errors.
            value: A number, a string, a tensor, an array or a pandas table; or a list, tuple or mapping of these.

        Raises:
            TypeError: The value has another type, such as a function.
        """
        if value is None or isinstance(value, (bool, int, str)):
            return value
        if isinstance(value, (float, np.integer, np.floating)):
            number = value.item() if isinstance(value, np.generic) else value
            return number if np.isfinite(number) else self._array(name, "array", np.asarray(value))
        if isinstance(value, Tensor) and value.dtype in _DTYPES.values():
            return self._tensor(name, value)
        if isinstance(value, np.ndarray) and can_be_stored(value.dtype):
            return self._array(name, "array", value)
        if isinstance(value, list):
            return [self.plain(f"{name}/{k}", item) for k, item in enumerate(value)]
        if isinstance(value, tuple):
            return {"tuple": self.plain(name, list(value))}
        if isinstance(value, Mapping):
            return {"mapping": [[self.plain(name, k), self.plain(f"{name}/{k}", v)] for k, v in value.items()]}
        if hasattr(value, "iloc"):
            return self._pandas(name, value)
        raise TypeError(
            f"{name}: a {type(value).__name__} can't be stored; numbers, names, tensors and tables can. Choose such a "
            "value first. Nothing was written."
        )

    def _tensor(self, name: str, value: Tensor) -> dict[str, Any]:
        dense = value.detach().cpu().contiguous()
        array = dense.view(_BY_BITS.get(value.dtype, value.dtype)).numpy()
        return {**self._array(name, "tensor", array), "dtype": str(value.dtype).removeprefix("torch.")}

    def _array(self, name: str, kind: str, value: np.ndarray) -> dict[str, Any]:
        while name in self.arrays:
            name += "'"
        self.arrays[name] = np.asarray(value, order="C")
        return {kind: name}

    def _pandas(self, name: str, value: Any) -> dict[str, Any]:
        index = self._column(f"{name}/index", value.index)
        if not hasattr(value, "columns"):
            return {
                "series": self._column(f"{name}/values", value),
                "name": self.plain(name, value.name),
                "index": index,
            }
        columns = [self._column(f"{name}/{k}", value.iloc[:, k]) for k in range(value.shape[1])]
        return {"frame": columns, "columns": self.plain(name, list(value.columns)), "index": index}

    def _column(self, name: str, column: Any) -> Any:
        values = column.to_numpy()
        if can_be_stored(values.dtype):
            return self.plain(name, values)
        return self.plain(name, [getattr(item, "item", lambda item=item: item)() for item in values])


def by_name(what: str, stored: Any) -> dict[str, Any]:
    """Check that a JSON value is a mapping from names to values, and return it.

    Raises:
        ValueError: It has another type.
    """
    if not isinstance(stored, dict):
        raise ValueError(f"{what}: expected values by name, got a {type(stored).__name__}.")
    return stored


class Reader:
    """Converts the output of :class:`Writer` back to values.

    Args:
        arrays: The arrays by name. Each may be used only once, so that a small file can't expand to large values.

    Attributes:
        arrays: The arrays that no value has used so far.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.arrays = dict(arrays)
        self._readers: dict[frozenset[str], Callable[[dict[str, Any]], Any]] = {
            frozenset({"array"}): self._array,
            frozenset({"tensor", "dtype"}): self._tensor,
            frozenset({"tuple"}): self._tuple,
            frozenset({"mapping"}): self._mapping,
            frozenset({"series", "name", "index"}): self._series,
            frozenset({"frame", "columns", "index"}): self._frame,
        }

    def fields(self, what: str, stored: Any) -> dict[str, Any]:
        """Convert values by name.

        Raises:
            ValueError, TypeError, ...: The values do not have the form that :class:`Writer` produces.
        """
        return {name: self.value(value) for name, value in by_name(what, stored).items()}

    def value(self, stored: Any) -> Any:
        """Convert one value; see :meth:`fields`."""
        if isinstance(stored, list):
            return [self.value(item) for item in stored]
        if not isinstance(stored, dict):
            return stored
        read = self._readers.get(frozenset(stored))
        if read is None:
            raise ValueError(f"{', '.join(stored)[:99]!r}: unknown kind of value.")
        return read(stored)

    def _listed(self, stored: Any) -> list[Any]:
        if not isinstance(stored, list):
            raise ValueError(f"expected a list, got a {type(stored).__name__}.")
        return [self.value(item) for item in stored]

    def _take(self, name: Any) -> np.ndarray:
        if not isinstance(name, str) or name not in self.arrays:
            raise ValueError(f"arrays: {str(name)[:99]!r} is missing, or used twice.")
        return self.arrays.pop(name)

    def _array(self, stored: dict[str, Any]) -> Any:
        array = self._take(stored["array"])
        return array if array.ndim else array[()].item()

    def _tensor(self, stored: dict[str, Any]) -> Tensor:
        array, name = self._take(stored["tensor"]), stored["dtype"]
        dtype = _DTYPES.get(name) if isinstance(name, str) else None
        tensor = torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
        if dtype is None or tensor.dtype != _BY_BITS.get(dtype, dtype):
            raise ValueError(f"arrays: {stored['tensor'][:99]!r} is not a tensor of dtype {str(name)[:99]!r}.")
        return tensor.view(dtype)

    def _tuple(self, stored: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(self._listed(stored["tuple"]))

    def _mapping(self, stored: dict[str, Any]) -> dict[Any, Any]:
        pairs = self._listed(stored["mapping"])
        try:
            mapping = dict(pairs)
        except (TypeError, ValueError) as error:
            raise ValueError(f"a mapping in it is invalid: {error}.") from error
        if len(mapping) < len(pairs):
            raise ValueError("a mapping in it repeats a key.")
        return mapping

    def _series(self, stored: dict[str, Any]) -> Any:
        import pandas as pd

        name, index = self.value(stored["name"]), pd.Index(self._column(stored["index"]))
        return pd.Series(self._column(stored["series"]), index=index, name=name)

    def _frame(self, stored: dict[str, Any]) -> Any:
        import pandas as pd

        if not isinstance(stored["frame"], list):
            raise ValueError("a table has no list of columns.")
        columns = {k: self._column(column) for k, column in enumerate(stored["frame"])}
        frame = pd.DataFrame(columns, index=pd.Index(self._column(stored["index"])))
        frame.columns = pd.Index(self._listed(stored["columns"]))
        return frame

    def _column(self, stored: Any) -> Any:
        values = self.value(stored)
        if not isinstance(values, list) and not (isinstance(values, np.ndarray) and values.ndim == 1):
            raise ValueError(f"a column of a table is a {type(values).__name__}.")
        return values
