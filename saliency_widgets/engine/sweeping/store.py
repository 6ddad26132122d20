"""Finished cells in a file, as they come: an interrupted sweep goes on where it was."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from saliency_widgets.engine.sweeping.cells import Found

_FORM = 1  # of the table; another one is another program's
_AT_ONCE = 500  # names in a query


class Store:
    """Cells by their signatures, in an SQLite file.

    Args:
        path: The file; made where there is none. None keeps them in memory.

    Raises:
        ValueError: The file is something else.
    """

    def __init__(self, path: Any = None) -> None:
        self.path = None if path is None else Path(path)
        try:
            self._file = sqlite3.connect(
                ":memory:" if self.path is None else self.path, timeout=30, check_same_thread=False
            )
            (form,) = self._file.execute("PRAGMA user_version").fetchone()
            (tables,) = self._file.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if form != _FORM and tables:
                raise ValueError(f"store: {self.path} was written by something else. Choose another file.")
            self._file.execute(
                "CREATE TABLE IF NOT EXISTS cells "
                "(name TEXT PRIMARY KEY, numbers TEXT, shape TEXT, low REAL, high REAL, codes BLOB)"
            )
            self._file.execute(f"PRAGMA user_version = {_FORM}")
            self._file.commit()
        except sqlite3.Error as error:
            raise ValueError(f"store: {self.path} can't be used ({error}). Choose another file.") from error

    def put(self, name: str, found: Found) -> None:
        """Keep a finished cell; from here on it outlives an interruption."""
        assert found.codes is not None
        row = (name, json.dumps(found.numbers), json.dumps(found.codes.shape), found.low, found.high)
        codes = found.codes.astype("<u2").tobytes()
        with self._file:
            self._file.execute("INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?, ?)", (*row, codes))

    def get(self, names: Collection[str]) -> dict[str, Found]:
        """Those of some cells that are kept."""
        found: dict[str, Found] = {}
        wanted = list(names)
        for begin in range(0, len(wanted), _AT_ONCE):
            some = wanted[begin : begin + _AT_ONCE]
            marks = ",".join("?" * len(some))
            for name, numbers, shape, low, high, codes in self._file.execute(
                f"SELECT * FROM cells WHERE name IN ({marks})", some
            ):
                array = np.frombuffer(codes, "<u2").reshape(json.loads(shape)).astype(np.uint16)
                found[name] = Found(json.loads(numbers), array, low, high)
        return found

    def close(self) -> None:
        """Close the file."""
        self._file.close()
