"""Stores of sweeps, damaged at random or made to do harm: no wrong map, no raw error, and no endless query."""

from __future__ import annotations

import faulthandler
import itertools
import json
import random
import sqlite3
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
from toys import conv_net, images

import saliency_widgets as sw
from saliency_widgets.api.sweep.cells import CellResult
from saliency_widgets.api.sweep.store import Store, StoreError, _checksum
from soak.figures import Figures

_SWEEP_EVERY = 50  # one in this many files is used by a whole sweep, the others by the store alone
_GRID = {"n_samples": [1, 2]}
_CPU_SECONDS = 60  # per file: six times the limit of a query
_STUCK_SECONDS = 600  # per file, after which SQLite itself hangs

Move = Callable[[random.Random, Path, bytes], None]


def attack(seed: int, seconds: float, files: int | None = None) -> Figures:
    """Damage stores, use them, and compare their contents with the originals.

    Args:
        seed: The seed of the damages.
        seconds: How long to run.
        files: The maximum number of files.
    """
    figures, rng = Figures(), random.Random(seed)
    figures.expect_none_of("wrong map", "raw error", "hang", "refused file changed")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        stores = _Cells(Path(folder) / "cells"), _Sweep(Path(folder) / "sweep")
        end = time.monotonic() + seconds
        for step in itertools.count():
            if step == files or time.monotonic() > end:
                return figures
            target, other = stores[:: -1 if step % _SWEEP_EVERY == 0 else 1]
            name = rng.choice(list(MOVES))
            example = f"seed {seed}, file {step}: {name}"
            faulthandler.dump_traceback_later(_STUCK_SECONDS, exit=True, file=sys.__stderr__)
            began = time.process_time()
            try:
                target.damage(rng, MOVES[name], other.good)
                target.use(figures, example)
            except Exception as error:
                figures.fault("raw error", f"{example}: {type(error).__name__}: {error}")
            faulthandler.cancel_dump_traceback_later()
            if time.process_time() - began > _CPU_SECONDS:
                figures.fault("hang", example)
            figures.counts["files"] += 1
            figures.counts["warnings of damaged maps"] += any("are damaged" in str(one.message) for one in caught)
            caught.clear()
    return figures


class _Target:
    """A store and what it held before it was damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fill()
        self.good = path.read_bytes()

    def damage(self, rng: random.Random, move: Move, other: bytes) -> None:
        for one in self.path.parent.glob(f"{self.path.name}*"):
            one.unlink()
        self.path.write_bytes(self.good)
        move(rng, self.path, other)
        self.damaged = self.path.read_bytes()

    def refused(self, figures: Figures, example: str, error: ValueError) -> None:
        figures.counts["refused"] += 1
        if not str(error).startswith("store: "):
            figures.fault("raw error", f"{example}: {error}")
        # If there is a journal, SQLite itself may change the file, to roll back a write.
        if self.path.read_bytes() != self.damaged and "journal" not in example:
            figures.fault("refused file changed", f"{example}: {error}")

    def fill(self) -> None: ...

    def use(self, figures: Figures, example: str) -> None: ...


class _Cells(_Target):
    """A store of maps that fill several database pages, used without a sweep."""

    def fill(self) -> None:
        draw = np.random.default_rng(0)
        self.cells = {
            f"{k:032x}": CellResult(
                {"time": float(k), "delta": float("nan")}, draw.normal(size=shape).astype(np.float32)
            )
            for k, shape in enumerate([(5, 5), (40, 50), (7,), (16, 16), (30, 41), (1, 1)])
        }
        with closing(Store(self.path)) as store:
            for name, cell in self.cells.items():
                store.put(name, cell)

    def use(self, figures: Figures, example: str) -> None:
        try:
            store = Store(self.path)
        except StoreError as error:
            self.refused(figures, example, error)
            return
        with closing(store):
            store._file.execute("PRAGMA synchronous = OFF")  # for speed; the disk is not tested
            left = self._compare(store, figures, example)
            try:
                for name in left:
                    store.put(name, self.cells[name])
            except StoreError:
                figures.counts["not written to"] += 1
            else:
                figures.counts["repaired"] += not self._compare(store, figures, example)

    def _compare(self, store: Store, figures: Figures, example: str) -> list[str]:
        """Compare the stored maps with the originals; return the names of missing ones."""
        cells = store.get(self.cells)
        for name, cell in cells.items():
            good = self.cells[name]
            if not np.array_equal(cell.values, good.values) or str(cell.numbers) != str(good.numbers):
                figures.fault("wrong map", f"{example}, cell {name}")
        figures.counts["maps used"] += len(cells)
        return [name for name in self.cells if name not in cells]


class _Sweep(_Target):
    """A store that is used by a whole sweep."""

    def fill(self) -> None:
        self.model, self.inputs = conv_net(), images(0, 1, 3, 8, 8)
        self.maps = self._maps()

    def _maps(self) -> list[np.ndarray]:
        result = sw.sweep(
            self.model, self.inputs, "smoothgrad", _GRID, ["similarity"], target=0, store=self.path, progress=False
        )
        return [result.cells[key].values for key in sorted(result.cells)]

    def use(self, figures: Figures, example: str) -> None:
        figures.counts["sweeps"] += 1
        try:
            maps = self._maps()
        except ValueError as error:
            if "can't be written" in str(error):
                figures.counts["not written to"] += 1
            else:
                self.refused(figures, example, error)
            return
        if len(maps) != len(self.maps) or not all(map(np.array_equal, maps, self.maps)):
            figures.fault("wrong map", example)


# -- bytes


def _change_bytes(rng: random.Random, path: Path, _: bytes, begin: int = 0, end: int | None = None) -> None:
    data = bytearray(path.read_bytes())
    for _n in range(rng.randint(1, 40)):
        data[rng.randrange(begin, end or len(data))] = rng.randrange(256)
    path.write_bytes(data)


def _change_header(rng: random.Random, path: Path, other: bytes) -> None:
    _change_bytes(rng, path, other, 16, 120)


def _flip_a_bit(rng: random.Random, path: Path, _: bytes) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def _truncate(rng: random.Random, path: Path, _: bytes) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data))])


def _append(rng: random.Random, path: Path, _: bytes) -> None:
    path.write_bytes(path.read_bytes() + rng.randbytes(rng.randint(1, 10_000)))


def _blank(rng: random.Random, path: Path, _: bytes) -> None:
    data = bytearray(path.read_bytes())
    begin = rng.randrange(len(data))
    count = min(rng.randint(1, 5000), len(data) - begin)
    data[begin : begin + count] = bytes([rng.choice([0, 255])]) * count
    path.write_bytes(data)


def _swap_blocks(rng: random.Random, path: Path, _: bytes) -> None:
    data, size = bytearray(path.read_bytes()), rng.choice([16, 512, 4096])
    one, two = (size * rng.randrange(len(data) // size) for _n in range(2))
    data[one : one + size], data[two : two + size] = data[two : two + size], data[one : one + size]
    path.write_bytes(data)


def _splice(rng: random.Random, path: Path, other: bytes) -> None:
    """Replace a database page by one of another store."""
    data, page = bytearray(path.read_bytes()), 4096
    at, of = (page * rng.randrange(len(one) // page) for one in (data, other))
    data[at : at + page] = other[of : of + page]
    path.write_bytes(data)


def _journal(rng: random.Random, path: Path, other: bytes) -> None:
    name = rng.choice(["-journal", "-wal"])
    data = rng.randbytes(rng.randint(0, 9000))
    if rng.random() < 0.5:  # with the header of a journal, and pages of another file
        data = bytes.fromhex("d9d505f920a163d7") + rng.randbytes(504) + other[: rng.randrange(len(other))]
    path.with_name(path.name + name).write_bytes(data)


# -- rows


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.execute("PRAGMA synchronous = OFF")  # for speed; the disk is not tested
        yield file


def _execute(path: Path, *statements: str) -> None:
    with _opened(path) as file:
        for statement in statements:
            file.execute(statement)


def _swap_columns(rng: random.Random, path: Path, _: bytes) -> None:
    """Swap columns of two rows: maps, numbers, names, with or without their checksums."""
    columns = rng.sample(["name", "numbers", "shape", "map", "checksum"], rng.randint(1, 4))
    with _opened(path) as file:
        ids = [row for (row,) in file.execute("SELECT rowid FROM cells")]
        one, two = rng.sample(ids, 2)
        rows = [file.execute(f"SELECT {','.join(columns)} FROM cells WHERE rowid = ?", (k,)).fetchone()
                for k in (one, two)]  # fmt: skip
        if "name" in columns:
            file.execute("UPDATE cells SET name = 'x' WHERE rowid = ?", (one,))
        marks = ",".join(f"{column} = ?" for column in columns)
        for k, row in ((two, rows[0]), (one, rows[1])):
            file.execute(f"UPDATE cells SET {marks} WHERE rowid = ?", (*row, k))


def _set_columns(rng: random.Random, path: Path, _: bytes) -> None:
    """Set columns to values of other types and sizes."""
    values = [None, 7, 0.5, "", b"", "\ud7ff" * 9, rng.randbytes(400), json.dumps([16, 16]), json.dumps({"time": 1.0})]
    with _opened(path) as file:
        for column in rng.sample(["numbers", "shape", "map", "checksum"], rng.randint(1, 4)):
            file.execute(f"UPDATE cells SET {column} = ? WHERE rowid % 3 <> ?", (rng.choice(values), rng.randrange(4)))


_FOUR = np.arange(4, dtype="<f4").tobytes()
FORGED = [
    ("{}", "[4]", np.full(4, np.nan, "<f4").tobytes()),
    ("{}", "[4]", np.array([0, 1, np.inf, 2], "<f4").tobytes()),
    ("{}", "[5]", _FOUR),
    ("{}", "[-1]", _FOUR),
    ("{}", "[2.0, 2]", _FOUR),
    ("{}", "[true, 4]", _FOUR),
    ("{}", f"[{10**30}, 0]", b""),
    ("{}", "4", _FOUR),
    ("{}", "null", _FOUR),
    ("{}", f"[{', '.join('1' * 200)}, 4]", _FOUR),
    ("{}", "[4]", _FOUR + b"."),
    ("[]", "[4]", _FOUR),
    ("null", "[4]", _FOUR),
    ('{"time": "now"}', "[4]", _FOUR),
    ('{"time": [1.0]}', "[4]", _FOUR),
    ('{"time": true}', "[4]", _FOUR),
    (f'{{"time": {"9" * 5000}}}', "[4]", _FOUR),
    ("[" * 50_000, "[4]", _FOUR),
    ('{"a":' * 10_000, "[4]", _FOUR),
    ("{}" + " " * 100_000, "[4]", _FOUR),
    ("{", "[4]", _FOUR),
    ("{}", "[", _FOUR),
    ("{}", "[" * 50_000, _FOUR),
]  # fmt: skip


def write_row(file: sqlite3.Connection, name: str, numbers: str, shape: str, values: bytes) -> None:
    """Write a row with a correct checksum."""
    checksum = _checksum(name, numbers.encode(), shape.encode(), values)
    file.execute("INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?)", (name, numbers, shape, values, checksum))


def _forge(rng: random.Random, path: Path, _: bytes) -> None:
    """Replace all rows by rows that hold no valid map."""
    with _opened(path) as file:
        for (name,) in file.execute("SELECT name FROM cells").fetchall():
            write_row(file, name, *rng.choice(FORGED))


# -- the schema

# A query that never ends.
_ROWS = "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r) SELECT x FROM r"
SCHEMAS = [  # schemas that no store has
    ("ALTER TABLE cells RENAME TO kept", f"CREATE VIEW cells (name) AS {_ROWS}"),
    ("DROP TABLE cells", f"CREATE VIEW cells (name, numbers, shape, map, checksum) AS SELECT x,x,x,x,x FROM ({_ROWS})"),
    (f"CREATE TRIGGER t BEFORE INSERT ON cells BEGIN INSERT INTO cells (name) {_ROWS}; END",),
    ("CREATE TRIGGER t AFTER INSERT ON cells BEGIN UPDATE cells SET map = zeroblob(100); END",),
    ("CREATE INDEX i ON cells (hex(map))",),
    ("CREATE TABLE more (x)",),
    ("ALTER TABLE cells ADD COLUMN more AS (hex(map))",),
    ("ALTER TABLE cells RENAME COLUMN map TO maps",),
    ("DROP TABLE cells", "CREATE TABLE cells (name, numbers, shape, map, checksum)"),
    ("DROP TABLE cells", "CREATE TABLE cells (name, numbers, shape, map)", "PRAGMA user_version = 1"),
    ("PRAGMA application_id = 0", "PRAGMA user_version = 1"),
    ("PRAGMA user_version = 3",),
    ("PRAGMA writable_schema = ON", "UPDATE sqlite_master SET sql = x'435245415445ff'"),
    ("PRAGMA writable_schema = ON", "UPDATE sqlite_master SET name = x'ff00ff', tbl_name = x'fe'"),
    ("PRAGMA writable_schema = ON", "UPDATE sqlite_master SET type = 'view'"),
    ("PRAGMA writable_schema = ON", "UPDATE sqlite_master SET sql = sql || ' STRICT' WHERE type = 'table'"),
    ("PRAGMA writable_schema = ON", f"UPDATE sqlite_master SET sql = sql || ' -- {'x' * 5000}' WHERE type = 'table'"),
]  # fmt: skip
LAYOUTS = [  # changes that keep the schema, drop the table, or point it to another page
    ("PRAGMA journal_mode = WAL",),
    ("PRAGMA auto_vacuum = FULL", "VACUUM"),
    ("PRAGMA page_size = 512", "VACUUM"),
    ("DROP TABLE cells",),
    ("PRAGMA writable_schema = ON", "UPDATE sqlite_master SET rootpage = 1"),
    ("PRAGMA writable_schema = ON", "UPDATE sqlite_master SET rootpage = rootpage + 1"),
    ("PRAGMA writable_schema = ON", "UPDATE sqlite_master SET rootpage = 1000000"),
]


def _change_schema(rng: random.Random, path: Path, _: bytes) -> None:
    _execute(path, *rng.choice(SCHEMAS))


def _change_layout(rng: random.Random, path: Path, _: bytes) -> None:
    _execute(path, *rng.choice(LAYOUTS))


def _both(rng: random.Random, path: Path, other: bytes) -> None:
    """Change the file by SQL, and then its bytes."""
    rng.choice([_swap_columns, _set_columns, _forge, _change_schema, _change_layout])(rng, path, other)
    rng.choice([_change_bytes, _change_header, _flip_a_bit, _truncate])(rng, path, other)


MOVES: dict[str, Move] = {
    "bytes changed": _change_bytes,
    "header changed": _change_header,
    "a bit flipped": _flip_a_bit,
    "truncated": _truncate,
    "appended to": _append,
    "blanked": _blank,
    "blocks swapped": _swap_blocks,
    "a page of another store": _splice,
    "a journal": _journal,
    "columns swapped": _swap_columns,
    "columns set": _set_columns,
    "rows forged": _forge,
    "schema changed": _change_schema,
    "layout changed": _change_layout,
    "rows or schema and bytes": _both,
}
