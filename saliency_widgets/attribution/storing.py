"""Attributions as two files, JSON and npz: readable by anything, and nothing in them runs."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
import xxhash
from torch import Tensor

from saliency_widgets.attribution.columns import Columns
from saliency_widgets.attribution.result import Attribution
from saliency_widgets.files import as_path, put

FORMAT = 1
_ODD = {torch.bfloat16: torch.int16}  # what NumPy has no type for, by what has as many bits
_KINDS = ("array", "tensor", "tuple", "mapping", "frame", "series")


class Writer:
    """Puts values into plain JSON and a set of arrays."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}

    def plain(self, name: str, value: Any) -> Any:
        """The value as JSON has it; arrays and tensors by their names among the arrays.

        Args:
            name: What it is called, for the arrays and in errors.
            value: Numbers, texts, tensors, arrays, tables of pandas; and lists, tuples and mappings of these.

        Raises:
            TypeError: It is something else, such as a function.
        """
        if value is None or isinstance(value, (bool, int, str)):
            return value
        if isinstance(value, (float, np.integer, np.floating)):
            number = value.item() if isinstance(value, np.generic) else value
            return number if np.isfinite(number) else self._array(name, "array", np.asarray(value))
        if isinstance(value, Tensor):
            return self._tensor(name, value)
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
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
            f"{name}: a {type(value).__name__} can't be stored: numbers, names, tensors and tables can. Choose such a "
            "value first; nothing was written."
        )

    def _tensor(self, name: str, value: Tensor) -> dict[str, Any]:
        kept = value.detach().cpu().contiguous()
        odd = _ODD.get(kept.dtype)
        told = self._array(name, "tensor", (kept if odd is None else kept.view(odd)).numpy())
        return {**told, "dtype": str(value.dtype).removeprefix("torch.")}

    def _array(self, name: str, kind: str, value: np.ndarray) -> dict[str, Any]:
        self.arrays[name] = value
        return {kind: name}

    def _pandas(self, name: str, value: Any) -> dict[str, Any]:
        index = self.plain(f"{name}/index", [getattr(item, "item", lambda item=item: item)() for item in value.index])
        if not hasattr(value, "columns"):
            return {"series": self._column(f"{name}/values", value), "name": value.name, "index": index}
        columns = [self._column(f"{name}/{k}", value.iloc[:, k]) for k in range(value.shape[1])]
        return {"frame": columns, "columns": self.plain(name, list(value.columns)), "index": index}

    def _column(self, name: str, column: Any) -> Any:
        values = column.to_numpy()
        if not values.dtype.hasobject:
            return self.plain(name, values)
        return self.plain(name, [getattr(item, "item", lambda item=item: item)() for item in values])


def read(told: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """The value from what :class:`Writer` made of it."""
    if isinstance(told, list):
        return [read(item, arrays) for item in told]
    if not isinstance(told, dict):
        return told
    kind = next((kind for kind in _KINDS if kind in told), None)
    if kind == "array":
        found = arrays[told["array"]]
        return found if found.ndim else found[()].item()
    if kind == "tensor":
        dtype = getattr(torch, told["dtype"])
        found = torch.from_numpy(arrays[told["tensor"]].copy())
        return found.view(dtype) if dtype in _ODD else found
    if kind == "tuple":
        return tuple(read(told["tuple"], arrays))
    if kind == "mapping":
        return {read(key, arrays): read(value, arrays) for key, value in told["mapping"]}
    import pandas as pd

    index = read(told["index"], arrays)
    if kind == "series":
        return pd.Series(read(told["series"], arrays), index=index, name=told["name"])
    columns = [pd.Series(read(column, arrays), index=index) for column in told["frame"]]
    found = pd.concat(columns, axis=1) if columns else pd.DataFrame(index=index)
    found.columns = pd.Index(read(told["columns"], arrays))
    return found


def stored(found: Attribution, writer: Writer) -> Any:
    """An attribution as :func:`attribution_of` reads it.

    Raises:
        TypeError: A setting can't be stored; the message names it.
    """
    told = {f.name: getattr(found, f.name) for f in fields(found)}
    columns = told.pop("columns")
    if columns is not None:
        told["columns"] = {"names": columns.names, "of": columns.of, "rows": columns.rows, "median": columns.median}
    parts = dict(told.pop("settings"))
    settings = {name: writer.plain(name, value) for name, value in parts.items()}
    return {**{name: writer.plain(name, value) for name, value in told.items()}, "settings": settings}


def attribution_of(told: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Attribution:
    """The attribution that was stored."""
    found = {name: read(value, arrays) for name, value in told.items() if name != "settings"}
    settings = {name: read(value, arrays) for name, value in told["settings"].items()}
    if "columns" in found:
        found["columns"] = Columns(encode=_no_transform, **found["columns"])
    return Attribution(settings=settings, **found)


def _no_transform(_rows: Any, name: str) -> NoReturn:
    raise ValueError(f"{name}: this attribution was loaded from a file, without the way its rows were prepared.")


def paths_of(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """The two files that a name stands for, with or without one of their endings."""
    path = as_path(path)
    if path.suffix in (".json", ".npz"):
        path = path.with_suffix("")
    return path.with_name(path.name + ".json"), path.with_name(path.name + ".npz")


def write_files(path: str | os.PathLike[str], told: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Path:
    """Write both files, each at once; returns the first one's path.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    text, packed = paths_of(path)
    file = io.BytesIO()
    # By number: an array's own name may be anything.
    numbered: dict[str, Any] = {str(k): array for k, array in enumerate(arrays.values())}
    np.savez_compressed(file, **numbered)
    content = file.getvalue()
    told = {**told, "format": FORMAT, "arrays": list(arrays), "npz": xxhash.xxh3_128_hexdigest(content)}
    put(packed, content)
    put(text, (json.dumps(told, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode())
    return text


def read_files(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What :func:`write_files` wrote.

    Raises:
        FileNotFoundError: One of the two is missing.
        ValueError: They are no such files, don't belong together, or are of a newer version.
    """
    text, packed = paths_of(path)
    for one in (text, packed):
        if not one.is_file():
            raise FileNotFoundError(
                f"path: there is no file {str(one)!r}. Both {text.name} and {packed.name} are needed."
            )
    try:
        told = json.loads(text.read_text(encoding="utf-8"))
        version = told["format"]
    except (ValueError, TypeError, KeyError):
        raise ValueError(f"path: {str(text)!r} was not written by save_state.") from None
    if version > FORMAT:
        raise ValueError(f"path: {str(text)!r} was written by a newer saliency_widgets. Update this one to read it.")
    content = packed.read_bytes()
    if xxhash.xxh3_128_hexdigest(content) != told["npz"]:
        raise ValueError(
            f"path: {packed.name} is not the one that {text.name} was written with, or it was changed. Bring the two "
            "files of one save_state together."
        )
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as found:
            return told, {name: found[str(k)] for k, name in enumerate(told["arrays"])}
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"path: {str(packed)!r} can't be read: {error}.") from error
