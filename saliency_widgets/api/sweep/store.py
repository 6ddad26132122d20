"""Storage of finished cells in a file or in memory, so that an interrupted sweep can resume."""

from __future__ import annotations

import json
import math
import os
import sqlite3
import stat
import time
import warnings
from collections.abc import Collection, Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from torch import nn

from saliency_widgets.api.sweep.cells import CellResult
from saliency_widgets.files import as_path, check_folder
from saliency_widgets.runtime.model.version import ModelVersion

# Stored in the file header. Version 1 had no application id and no checksums.
_APPLICATION, _VERSION = 0x53574343, 2
_TABLE = "CREATE TABLE cells (name TEXT PRIMARY KEY, numbers TEXT, shape TEXT, map BLOB, checksum TEXT)"
# The only accepted schema: views, triggers, generated columns and expression indexes are refused.
_SCHEMA = [(b"table", b"cells", _TABLE.encode()), (b"index", b"sqlite_autoindex_cells_1", None)]
_LIMITS = {sqlite3.SQLITE_LIMIT_LENGTH: 2**28, sqlite3.SQLITE_LIMIT_SQL_LENGTH: 1000}
_JSON_LENGTH = 2**16
_MAX_DIMENSIONS = 32  # supported by every NumPy
_LOCK_SECONDS = 30.0  # how long to wait for another process
_QUERY_SECONDS = 10.0  # one row takes milliseconds; a malicious file could take forever


class StoreError(ValueError):
    """The store's file can't be used."""


class Store:
    """Finished cells by signature, in an SQLite file that may be damaged or malicious.

    Args:
        path: The file; created if it does not exist.
        shape: The shape of every map, if they share one.

    Raises:
        TypeError: ``path`` is not a path.
        StoreError: The file is not a store, or is damaged or locked.
    """

    def __init__(self, path: Any, shape: tuple[int, ...] | None = None) -> None:
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(f"store: expected the path of a file, got a {type(path).__name__}.")
        try:
            self.path = as_path(path, "store")
            check_folder(Path(os.path.realpath(self.path)).parent, "store")
        except (FileNotFoundError, ValueError) as error:
            raise StoreError(str(error)) from error
        self._shape = shape
        self._deadline = math.inf
        _check_regular(self.path)
        try:
            if self.path.exists():
                self._check_unchanged()
            self._connect("rwc")
            try:
                self._make_table()
            except BaseException:
                self.close()
                raise
        except sqlite3.Error as error:
            raise StoreError(
                f"store: {self.path} can't be used ({error}). Choose another file, or delete this one if it is a "
                f"damaged store."
            ) from error

    def put(self, name: Hashable, cell: CellResult) -> None:
        """Store a finished cell, so that it survives an interruption.

        Raises:
            StoreError: The file can't be written.
        """
        assert cell.values is not None
        numbers = json.dumps({metric: float(number) for metric, number in cell.numbers.items()})
        shape, values = json.dumps(cell.values.shape), cell.values.astype("<f4").tobytes()
        checksum = _checksum(str(name), numbers.encode(), shape.encode(), values)
        try:
            self._run("INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?)", (name, numbers, shape, values, checksum))
        except (sqlite3.Error, OverflowError) as error:
            raise StoreError(f"store: {self.path} can't be written ({error}).") from error

    def get(self, names: Collection[Hashable]) -> dict[Hashable, CellResult]:
        """Return the requested cells that are stored, and warn about damaged ones.

        Raises:
            StoreError: The file is locked, or a query takes too long.
        """
        cells: dict[Hashable, CellResult] = {}
        damaged = 0
        for name in dict.fromkeys(names):
            try:
                rows = self._run("SELECT numbers, shape, map, checksum FROM cells WHERE name = ?", (name,))
            except sqlite3.Error:  # other rows may be readable
                rows = [(None,) * 4]
            read = [cell for row in rows if (cell := _read(str(name), row, self._shape)) is not None]
            if read:
                cells[name] = read[0]
            elif rows:
                damaged += 1
        if damaged:
            warnings.warn(
                f"store: {damaged} of {len(cells) + damaged} maps in {self.path} are damaged. They are recomputed.",
                UserWarning,
                stacklevel=6,  # the caller of sw.sweep
            )
        return cells

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _connect(self, mode: str) -> None:
        self._file = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode={mode}", uri=True, timeout=0, isolation_level=None
        )
        self._file.text_factory = bytes  # damaged text may not be valid UTF-8
        for limit, value in _LIMITS.items():
            self._file.setlimit(limit, value)
        self._file.set_progress_handler(lambda: time.monotonic() > self._deadline, 1000)
        self._run("PRAGMA trusted_schema = OFF")
        self._run("PRAGMA cell_size_check = ON")

    def _check_unchanged(self) -> None:
        """Refuse a foreign file before opening it for writing, because opening alone could change it."""
        self._connect("ro")
        try:
            self._run("BEGIN")
            self._holds_table()
        except sqlite3.OperationalError:
            pass  # a write was interrupted; opening the file for writing rolls it back
        finally:
            self.close()

    def _make_table(self) -> None:
        self._run("BEGIN")
        if not self._holds_table():
            self._run("COMMIT")
            self._run("BEGIN IMMEDIATE")
            if not self._holds_table():  # another process may have created it in the meantime
                self._run(_TABLE)
                self._run(f"PRAGMA application_id = {_APPLICATION}")
                self._run(f"PRAGMA user_version = {_VERSION}")
        self._run("COMMIT")

    def _holds_table(self) -> bool:
        """Return whether the file holds our table and nothing else; False for an empty file.

        Call this in a transaction, because another process may be creating the table.
        """
        ids = [self._run(f"PRAGMA {name}")[0][0] for name in ("application_id", "user_version")]
        ours = ids == [_APPLICATION, _VERSION]
        foreign = any(ids) and not ours
        schema = None if foreign else self._run("SELECT type, name, sql FROM sqlite_master LIMIT 3")
        if schema != [] and not (ours and schema == _SCHEMA):
            raise StoreError(
                f"store: {self.path} was written by another program, or by an older version without checksums, or is "
                f"damaged. Choose another file, or delete this one if it is an old store."
            )
        return bool(schema)

    def _run(self, statement: str, values: Sequence[Any] = ()) -> list[tuple]:
        """Execute a statement and return its rows; wait for another process's lock, and allow interruption."""
        patience = time.monotonic() + _LOCK_SECONDS
        while True:
            self._deadline = time.monotonic() + _QUERY_SECONDS
            try:
                return self._file.execute(statement, values).fetchall()
            except UnicodeDecodeError as error:  # the error message contains a damaged name
                raise sqlite3.DatabaseError("malformed database schema") from error
            except sqlite3.OperationalError as error:
                code = error.sqlite_errorcode & 0xFF
                if code == sqlite3.SQLITE_INTERRUPT:
                    if time.monotonic() < self._deadline:
                        raise KeyboardInterrupt from error  # sqlite3 swallows exceptions of its handler
                    raise StoreError(
                        f"store: a query of {self.path} takes over {_QUERY_SECONDS:g} s instead of milliseconds. "
                        f"Choose another file."
                    ) from error
                if code != sqlite3.SQLITE_BUSY:
                    raise
                if time.monotonic() > patience:
                    raise StoreError(
                        f"store: {self.path} has been locked by another process for {_LOCK_SECONDS:g} s. End it, "
                        f"or choose another file."
                    ) from error
            time.sleep(0.01)


class Memory:
    """The finished cells of one sweep, in memory, for one version of a model.

    Args:
        model: The model.
        key: Everything else that the cells depend on.
    """

    path = None

    def __init__(self, model: nn.Module, key: Hashable) -> None:
        self._model, self._key = model, key
        self._model_version = ModelVersion(model)
        self._version = self._model_version()
        self._model_version.verify(_go_on)  # hash all weights, for comparison in a later sweep
        self._cells: dict[Hashable, CellResult] = {}

    def matches(self, model: nn.Module, key: Hashable) -> bool:
        """Return whether the cells were computed with this key and this model, which has not changed since."""
        if model is not self._model or key != self._key or self._model_version() != self._version:
            return False
        return not self._model_version.verify(_go_on)

    def put(self, name: Hashable, result: CellResult) -> None:
        """Store a finished cell, if the model has not changed."""
        if self._model_version() == self._version:
            self._cells[name] = result

    def get(self, names: Collection[Hashable]) -> dict[Hashable, CellResult]:
        """Return the requested cells that are stored."""
        return {name: self._cells[name] for name in names if name in self._cells}

    def close(self) -> None:
        """Do nothing; memory needs no closing."""


def _go_on() -> None:
    """Never cancel the hashing."""


def _check_regular(path: Path) -> None:
    """Refuse devices, pipes and folders, also under the names of SQLite's journals: opening one may block forever."""
    for name in (f"{path}", f"{path}-journal", f"{path}-wal"):
        try:
            mode = Path(name).stat().st_mode
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise StoreError(f"store: {path} can't be used ({error}). Choose another file.") from error
        if not stat.S_ISREG(mode):
            raise StoreError(f"store: expected a regular file, but {name} is a folder, a device or a pipe.")


def _checksum(name: str, *parts: bytes) -> str:
    state = xxhash.xxh3_128()
    for part in (name.encode(), *parts):
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.hexdigest()


def _read(name: str, row: tuple, expected: tuple[int, ...] | None) -> CellResult | None:
    """Return the cell of a row, or None if the row is damaged."""
    if not all(isinstance(part, bytes) for part in row) or max(len(part) for part in row[:2]) > _JSON_LENGTH:
        return None
    *parts, checksum = row
    if checksum != _checksum(name, *parts).encode():
        return None
    try:
        numbers, shape = map(json.loads, parts[:2])
    except (ValueError, RecursionError):
        return None
    if not (isinstance(numbers, dict) and all(type(number) is float for number in numbers.values())):
        return None
    if not (isinstance(shape, list) and len(shape) <= _MAX_DIMENSIONS and all(type(n) is int and n > 0 for n in shape)):
        return None
    if 4 * math.prod(shape) != len(parts[2]) or expected not in (None, tuple(shape)):
        return None
    values = np.frombuffer(parts[2], "<f4").astype(np.float32).reshape(shape)
    return CellResult(numbers, values) if np.isfinite(values).all() else None
