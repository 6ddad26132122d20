"""Finished cells in a file, as they come: an interrupted sweep goes on where it was."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Collection, Hashable
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from saliency_widgets.engine.fingerprint import Fingerprint
from saliency_widgets.engine.sweeping.cells import Found

_FORM = 1  # of the table; another one is another program's
_AT_ONCE = 500  # names in a query


class Store:
    """Cells by their signatures, in an SQLite file.

    Args:
        path: The file; made where there is none.

    Raises:
        TypeError: That is no path.
        ValueError: The file is something else.
    """

    def __init__(self, path: Any) -> None:
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(f"store: expected the path of a file, got a {type(path).__name__}.")
        self.path = Path(path)
        try:
            self._file = sqlite3.connect(self.path, timeout=30)
            (form,) = self._file.execute("PRAGMA user_version").fetchone()
            (tables,) = self._file.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if form != _FORM and tables:
                raise ValueError(f"store: {self.path} was written by something else. Choose another file.")
            self._file.execute(
                "CREATE TABLE IF NOT EXISTS cells (name TEXT PRIMARY KEY, numbers TEXT, shape TEXT, map BLOB)"
            )
            self._file.execute(f"PRAGMA user_version = {_FORM}")
            self._file.commit()
        except sqlite3.Error as error:
            raise ValueError(f"store: {self.path} can't be used ({error}). Choose another file.") from error

    def put(self, name: Hashable, found: Found) -> None:
        """Keep a finished cell; from here on it outlives an interruption."""
        assert found.values is not None
        row = (name, json.dumps(found.numbers), json.dumps(found.values.shape), found.values.astype("<f4").tobytes())
        with self._file:
            self._file.execute("INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?)", row)

    def get(self, names: Collection[Hashable]) -> dict[Hashable, Found]:
        """Those of some cells that are kept."""
        found: dict[Hashable, Found] = {}
        wanted = list(names)
        for begin in range(0, len(wanted), _AT_ONCE):
            some = wanted[begin : begin + _AT_ONCE]
            marks = ",".join("?" * len(some))
            for name, numbers, shape, held in self._file.execute(f"SELECT * FROM cells WHERE name IN ({marks})", some):
                values = np.frombuffer(held, "<f4").reshape(json.loads(shape)).astype(np.float32)
                found[name] = Found(json.loads(numbers), values)
        return found

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Memory:
    """Cells of one sweep of one model in one state, as long as the process lives.

    Args:
        model: The model.
        about: All else that its cells depend on.
    """

    path = None

    def __init__(self, model: nn.Module, about: Hashable) -> None:
        self._model, self._about = model, about
        self._fingerprint = Fingerprint(model)
        self._version = self._fingerprint()
        self._cells: dict[Hashable, Found] = {}

    def is_of(self, model: nn.Module, about: Hashable) -> bool:
        """Whether this is what they were computed with, unchanged."""
        return model is self._model and about == self._about and self._fingerprint() == self._version

    def put(self, name: Hashable, found: Found) -> None:
        """Keep a finished cell, if the model is still what it was."""
        if self._fingerprint() == self._version:
            self._cells[name] = found

    def get(self, names: Collection[Hashable]) -> dict[Hashable, Found]:
        """Those of some cells that are kept."""
        return {name: self._cells[name] for name in names if name in self._cells}

    def close(self) -> None:
        """Nothing to be closed."""
