"""The store of a sweep: it returns a map exactly as it was written or not at all, even if the file is damaged."""

from __future__ import annotations

import concurrent.futures as cf
import math
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from soak import stores
from toys import Counting, conv_net, images

import saliency_widgets as sw
from saliency_widgets.api.sweep.cells import CellResult
from saliency_widgets.api.sweep.store import Store, StoreError

MODEL, INPUTS = conv_net(), images(0, 2, 3, 8, 8)
ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(autouse=True)
def no_unsaved_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saliency_widgets.api.sweep._unsaved", None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store of four maps."""
    with closing(Store(tmp_path / "cells")) as store:
        for k in range(4):
            store.put(f"{k}", cell(k))
    return tmp_path / "cells"


def cell(k: int) -> CellResult:
    return CellResult({"time": k / 3, "delta": math.nan}, np.random.default_rng(k).normal(size=(3, k + 1)).astype("f4"))


def read(path: Path) -> dict[Any, CellResult]:
    with closing(Store(path)) as store:
        return store.get([f"{k}" for k in range(4)])


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        for statement in statements:
            file.execute(statement)


def sweep(store: Path | None) -> tuple[list[np.ndarray | None], int]:
    """Run a sweep, and return its maps and how many of them were computed."""
    executor = Counting()
    result = sw.sweep(
        MODEL, INPUTS, "smoothgrad", {"n_samples": [1, 2, 3]}, ["similarity"], store=store, executor=executor,
        progress=False,
    )  # fmt: skip
    return [result.cells[key].values for key in sorted(result.cells)], executor.cells


def test_cells_are_read_back_bit_for_bit(path: Path) -> None:
    cells = read(path)
    assert list(cells) == ["0", "1", "2", "3"]
    for k, result in enumerate(cells.values()):
        np.testing.assert_array_equal(result.values, cell(k).values)
        assert str(result.numbers) == str(cell(k).numbers)


@pytest.mark.parametrize(
    "change",
    [
        "CREATE TEMP TABLE t AS SELECT rowid AS k, map FROM cells; "
        "UPDATE cells SET map = (SELECT map FROM t WHERE k = 3 - cells.rowid) WHERE rowid < 3",
        "UPDATE cells SET numbers = replace(numbers, '{', '{ ') WHERE rowid < 3",
        "UPDATE cells SET shape = '[8, 8, 1]' WHERE rowid < 3",
        "UPDATE cells SET checksum = NULL WHERE rowid < 3",
        "UPDATE cells SET map = zeroblob(256) WHERE rowid < 3",
        "UPDATE cells SET map = hex(map) WHERE rowid < 3",
    ],
)
def test_damaged_maps_are_reported_recomputed_and_replaced(tmp_path: Path, change: str) -> None:
    good, computed = sweep(tmp_path / "cells")
    assert computed == 6
    execute(tmp_path / "cells", *change.split("; "))
    with pytest.warns(UserWarning, match=r"^store: 2 of 6 maps in .*cells are damaged\. They are") as warned:
        maps, computed = sweep(tmp_path / "cells")
    assert [one.filename for one in warned] == [__file__]  # the warning points to the caller
    assert computed == 2
    np.testing.assert_array_equal(maps, good)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        maps, computed = sweep(tmp_path / "cells")
    assert computed == 0
    np.testing.assert_array_equal(maps, good)


@pytest.mark.parametrize("forged", range(len(stores.FORGED)))
def test_malformed_rows_are_refused_even_with_a_valid_checksum(path: Path, forged: int) -> None:
    numbers, shape, values = stores.FORGED[forged]
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        stores.write_row(file, "1", numbers, shape, values)
    with pytest.warns(UserWarning, match="1 of 4 maps"):
        assert list(read(path)) == ["0", "2", "3"]


def test_a_map_of_another_size_than_the_image_is_refused(path: Path) -> None:
    with closing(Store(path, (3, 2))) as store, pytest.warns(UserWarning, match="3 of 4 maps"):
        assert list(store.get(list("0123"))) == ["1"]


@pytest.mark.soak
def test_no_damage_gives_another_map_a_raw_error_or_a_hang() -> None:
    figures = stores.attack(0, math.inf, files=2000)
    assert dict.fromkeys(figures.faults, 0) == figures.faults, figures.examples
    for name in ("maps used", "warnings of damaged maps", "refused", "repaired", "not written to"):
        assert figures.counts[name] > 50, figures.counts  # otherwise the attacks cover too little


# ---- files of other programs


def other_files(path: Path) -> Iterator[str]:
    """Write files that are no stores to the path one after another, and yield a name for each."""
    path.write_text("a text, long enough to be looked at as a database, " * 20)
    yield "text"
    path.unlink()
    execute(path, "CREATE TABLE cells (name, numbers, shape, map)", "INSERT INTO cells VALUES ('0', '{}', '[1]', 1)")
    yield "table of the same name"
    execute(path, "PRAGMA user_version = 1")
    yield "old version"
    execute(path, "PRAGMA user_version = 2")
    yield "current version"
    execute(path, "PRAGMA journal_mode = WAL", "CREATE TABLE more (x)")
    yield "write-ahead log"


def test_files_of_other_programs_are_refused_and_left_unchanged(tmp_path: Path) -> None:
    for name in other_files(tmp_path / "mine"):
        before = (tmp_path / "mine").read_bytes()
        with pytest.raises(StoreError, match=r"^store: .*mine (was written by|can't be used).* another file"):
            Store(tmp_path / "mine")
        assert (tmp_path / "mine").read_bytes() == before, name


@pytest.mark.parametrize("schema", range(len(stores.SCHEMAS)))
def test_a_store_with_another_schema_is_refused_and_left_unchanged(path: Path, schema: int) -> None:
    execute(path, *stores.SCHEMAS[schema])
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"^store: "):
        Store(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("suffix", ["", "-journal", "-wal"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: Path(path).symlink_to("/dev/zero")])
def test_only_regular_files_are_opened(tmp_path: Path, suffix: str, make: Any) -> None:
    make(f"{tmp_path}/cells{suffix}")
    with pytest.raises(StoreError, match=r"^store: expected a regular file, but .*cells"):
        Store(tmp_path / "cells")
    assert [one.name for one in tmp_path.iterdir()] == [f"cells{suffix}"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing/cells", "there is no folder .*missing'. Create it first"),
        ("a\0b", "expected a path"),
        ("n" * 300, ".* can't be used"),
    ],
)
def test_invalid_paths_are_errors(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(StoreError, match=f"^store: {message}"):
        Store(tmp_path / name)


def test_a_tilde_in_the_path_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    Store("~/cells").close()
    assert [one.name for one in tmp_path.iterdir()] == ["cells"]


@pytest.mark.parametrize("name", [":memory:", "file:x?mode=memory", "%41 #?&", "ünï"])
def test_names_that_sqlite_interprets_are_plain_file_names(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Store(name).close()
    assert [one.name for one in tmp_path.iterdir()] == [name]


# ---- endless queries and locks


def write_trap(path: Path) -> None:
    """Turn a store into one whose list of tables has a single row that 10**30 paths in the B-tree lead to."""
    size, depth = 512, 17
    execute(path, f"PRAGMA page_size = {size}", "VACUUM")
    header = bytearray(path.read_bytes()[:100])
    sql = b"CREATE TABLE IF NOT EXISTS cells (x)"
    row = bytes([6, 23, 23, 23, 1, 13 + 2 * len(sql)]) + b"table" + b"cells" + b"cells" + b"\x02" + sql
    pages = [bytes(header)]
    for page in range(1, depth):
        start = 100 if page == 1 else 0
        count = (size - start - 12) // 7
        cells = ((page + 1).to_bytes(4, "big") + b"\1") * count
        pointers = b"".join((size - 5 * (k + 1)).to_bytes(2, "big") for k in range(count))
        top = b"\5\0\0" + count.to_bytes(2, "big") + (size - len(cells)).to_bytes(2, "big") + b"\0"
        body = top + (page + 1).to_bytes(4, "big") + pointers
        pages.append(body + bytes(size - start - len(body) - len(cells)) + cells)
    leaf = bytes([len(row), 1]) + row
    at = (size - len(leaf)).to_bytes(2, "big")
    body = b"\r\0\0\0\1" + at + b"\0" + at
    pages.append(body + bytes(size - len(body) - len(leaf)) + leaf)
    data = bytearray(b"".join(pages))
    data[28:32] = depth.to_bytes(4, "big")
    path.write_bytes(data)


def test_an_endless_query_is_aborted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saliency_widgets.api.sweep.store._QUERY_SECONDS", 0.1)
    write_trap(path)
    with pytest.raises(StoreError, match=r"^store: a query of .*cells takes over 0.1 s"):
        Store(path)


@pytest.mark.parametrize("what", ["trap", pytest.param("lock", marks=pytest.mark.soak)])
def test_ctrl_c_interrupts_a_query_or_a_wait_for_a_lock(path: Path, what: str) -> None:
    if what == "trap":
        write_trap(path)
    code = f"""
        import signal, sys, threading, time
        signal.signal(signal.SIGINT, signal.default_int_handler)  # background processes ignore SIGINT
        from saliency_widgets.api.sweep import store
        store._QUERY_SECONDS = store._LOCK_SECONDS = 1e9
        run, wait = store.Store._run, threading.Event()
        def running(self, statement, values=()):
            if "sqlite_master" in statement:
                print("begins", flush=True)
            return run(self, statement, values)
        store.Store._run = running
        store.Store({str(path)!r})
    """
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        if what == "lock":
            holder.execute("BEGIN EXCLUSIVE")
            code = code.replace("sqlite_master", "application_id")
        child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True,
                                 stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "begins\n"
            child.send_signal(signal.SIGINT)
            assert "KeyboardInterrupt" in child.communicate(timeout=300)[1]
        finally:
            child.kill()


def test_reading_waits_for_a_lock(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        release = threading.Timer(0.3, holder.execute, ["COMMIT"])
        release.start()
        assert len(read(path)) == 4
        release.join()


def test_a_lock_that_is_not_released_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saliency_widgets.api.sweep.store._LOCK_SECONDS", 0.1)
    with closing(sqlite3.connect(path, isolation_level=None)) as holder, closing(Store(path)) as store:
        holder.execute("BEGIN EXCLUSIVE")
        for use in (lambda: store.get(["1"]), lambda: store.put("1", cell(1)), lambda: Store(path)):
            with pytest.raises(StoreError, match=r"^store: .* locked by another process"):
                use()


# ---- full disks and concurrent sweeps


def test_a_full_disk_loses_no_finished_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = Store._connect

    def on_a_small_disk(self: Store, mode: str) -> None:
        connect(self, mode)
        self._run("PRAGMA page_size = 512")  # each map fills one page
        self._run("PRAGMA max_page_count = 7")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "_connect", on_a_small_disk)
        with pytest.raises(StoreError, match=r"^store: .*cells can't be written .*full.* of 6 .* in memory") as caught:
            sweep(tmp_path / "cells")
    finished = int(str(caught.value).partition(" of 6")[0][-1])
    assert 1 < finished < 6
    maps, computed = sweep(None)
    assert computed == 6 - finished
    np.testing.assert_array_equal(maps, sweep(tmp_path / "other")[0])
    assert sweep(tmp_path / "cells")[1] == 6 - finished + 1  # the last finished map is not in the file


def test_several_sweeps_share_a_file(tmp_path: Path) -> None:
    def put(first: int) -> None:
        with closing(Store(tmp_path / "cells")) as store:
            for k in range(first, first + 20):
                store.put(f"{k}", cell(k))

    with cf.ThreadPoolExecutor(6) as pool:
        list(pool.map(put, range(0, 120, 20)))
    with closing(Store(tmp_path / "cells")) as store:
        cells = store.get([f"{k}" for k in range(120)])
    assert all(np.array_equal(cells[f"{k}"].values, cell(k).values) for k in range(120))
