"""Files written while something fails: an error, an interrupt or the end of the process at any system call."""

from __future__ import annotations

import errno
import functools
import io
import json
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

import saliency_widgets as sw
from saliency_widgets import files
from saliency_widgets.api.io import write_files
from saliency_widgets.files import put
from soak.figures import Figures
from soak.states import IN_MEMORY, good_states, is_same

FAULTS = ("lost file", "partial state", "leftover", "changed mode", "lost link", "raw error")
CALLS = ("open", "replace", "link", "fsync", "chmod")
FAILURES = ("disk full", "error", "interrupt before", "interrupt after", "kill")


class Case(NamedTuple):
    """Files with two contents, the old and the new."""

    what: str
    names: tuple[str, ...]
    contents: tuple[Any, Any]
    write: Callable[[Path, int], None]
    read: Callable[[Path], Any]


def attack(seed: int, seconds: float, most: int | None = None) -> Figures:
    """Write files over others while something fails.

    Args:
        seed: The seed of what fails and when.
        seconds: How long to run.
        most: The maximum number of writes.
    """
    figures = Figures()
    figures.expect_none_of(*FAULTS)
    until, step = time.monotonic() + seconds, 0
    while time.monotonic() < until and (most is None or step < most):
        with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
            _write(figures, random.Random(f"{seed}/{step}"), Path(folder), f"seed {seed}, step {step}")
        step += 1
    return figures


def _write(figures: Figures, rng: random.Random, folder: Path, example: str) -> None:
    case, here = rng.choice(cases()), folder / "here"
    here.mkdir()
    exists = rng.random() < 0.8  # whether the file exists already
    if exists:
        case.write(here / "file", 0)
        _link_and_protect(rng, here, case.names)
    before = _listing(here)
    failing = Failing(rng, here, folder / "killed")
    example = f"{example}: {case.what}, {failing.how} at call {failing.at}"
    figures.counts["writes"] += 1
    error: BaseException | None = None
    with failing:
        try:
            case.write(here / "file", 1)
        except (OSError, ValueError, KeyboardInterrupt) as raised:
            error = raised
    figures.counts[failing.how] += 1
    if error is not None:
        figures.counts["errors"] += 1
        if not isinstance(error, KeyboardInterrupt) and not str(error).startswith("path: "):
            figures.fault("raw error", f"{example}: {type(error).__name__}: {error}")
    old = case.contents[0] if exists else None
    _look_at(figures, case, here, [case.contents[1]] if error is None else [old, case.contents[1]], example)
    for copy in failing.copies:
        figures.counts["ends of the process"] += 1
        _look_at(figures, case, copy, [old, case.contents[1]], f"{example}, {copy.name}")
    _compare(figures, before, _listing(here), case.names, example)


def _look_at(figures: Figures, case: Case, folder: Path, allowed: list[Any], example: str) -> None:
    """Check that a reader finds one of the allowed contents: the new one, or all of the old one."""
    try:
        content = case.read(folder / "file")
    except FileNotFoundError:
        content = None
    except ValueError as error:
        figures.fault("partial state", f"{example}: {error}")
        return
    if not any(is_same(content, one) for one in allowed):
        figures.fault("lost file", example)


def _compare(
    figures: Figures, before: dict[str, Any], after: dict[str, Any], names: tuple[str, ...], example: str
) -> None:
    """Check that modes and links are unchanged, and that no other files are left."""
    for name in after.keys() - before.keys() - {*names}:
        figures.fault("leftover", f"{example}: {name}")
    for name, (mode, link) in before.items():
        if name not in after:
            figures.fault("lost file", f"{example}: {name}")
        elif after[name][1] != link:
            figures.fault("lost link", f"{example}: {name}")
        elif after[name][0] != mode:
            figures.fault("changed mode", f"{example}: {name}, {mode:o} is {after[name][0]:o}")


def _listing(folder: Path) -> dict[str, tuple[int, str | None]]:
    """The mode and the link's target of each file."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_mode, str(path.readlink()) if path.is_symlink() else None)
        for path in folder.rglob("*")
    }


def _link_and_protect(rng: random.Random, folder: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (folder / name).chmod(rng.choice([0o600, 0o644, 0o664]))
        if rng.random() < 0.3:
            (folder / "real").mkdir(exist_ok=True)
            (folder / name).rename(folder / "real" / name)
            (folder / name).symlink_to(Path("real") / name)


class Failing:
    """System calls, one of which fails.

    Attributes:
        how: The kind of failure.
        at: The index of the call that fails.
        copies: Copies of the folder as it was at each call, as if the process had ended there.
    """

    def __init__(self, rng: random.Random, folder: Path, killed: Path) -> None:
        self.how, self.at = rng.choice(FAILURES), rng.randrange(14)
        self._bytes = rng.choice([0, 1, 100, 1000])  # that still fit on the disk
        self._folder, self._killed = folder, killed
        self._count = -1
        self.copies: list[Path] = []
        self._calls = {name: getattr(os, name) for name in CALLS}
        self._patches = [
            mock.patch.multiple(
                os, **{name: functools.partial(self._call, call) for name, call in self._calls.items()}
            ),
            mock.patch.object(files, "open", self._open, create=True),
        ]

    def __enter__(self) -> None:
        for patch in self._patches:
            patch.start()

    def __exit__(self, *_error: object) -> None:
        for patch in self._patches:
            patch.stop()

    def _call(self, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        self._count += 1
        now = self._count == self.at
        if self.how == "kill":
            self._copy()
        elif now and self.how == "error":
            raise OSError(errno.EIO, "Input/output error")
        elif now and self.how == "interrupt before":
            raise KeyboardInterrupt
        elif self._full and function.__name__ == "fsync":
            raise OSError(errno.ENOSPC, "No space left on device")
        result = function(*arguments, **keywords)
        if now and self.how == "interrupt after":
            if function.__name__ == "open":  # after a real interrupt Python would own and close it
                os.close(result)
            raise KeyboardInterrupt
        return result

    @property
    def _full(self) -> bool:
        return self.how == "disk full" and self._count >= self.at

    def _open(self, path: Path, mode: str, opener: Callable[[str, int], int]) -> Any:
        return _Limited(open(path, mode, opener=opener), self)

    def room(self) -> int | None:
        """The number of bytes that can still be written; None for any number."""
        return self._bytes if self._full else None

    def _copy(self) -> None:
        copy = self._killed / str(self._count)
        with mock.patch.multiple(os, **self._calls):
            shutil.copytree(self._folder, copy, symlinks=True)
        self.copies.append(copy)


class _Limited:
    """A file on a disk that may be full."""

    def __init__(self, file: Any, failing: Failing) -> None:
        self._file, self._failing = file, failing

    def __enter__(self) -> _Limited:
        return self

    def __exit__(self, *_error: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, content: bytes) -> int:
        room = self._failing.room()
        if room is None or room >= len(content):
            return self._file.write(content)
        self._file.write(content[:room])
        raise OSError(errno.ENOSPC, "No space left on device")


# ---- cases


@functools.cache
def cases() -> tuple[Case, ...]:
    """A plain file, and a state of two files."""
    pages = (b"old" * 3000, b"new" * 5000)
    first, second, *_ = good_states()
    fields = [_fields(state.text, state.packed) for state in (first, second)]
    return (
        Case("a file", ("file",), pages, lambda path, k: put(path, pages[k]) and None, Path.read_bytes),
        Case(
            "a state",
            ("file.json", "file.npz"),
            (first.attribution, second.attribution),
            lambda path, k: write_files(path, *fields[k]) and None,
            sw.load,
        ),
    )


def _fields(text: bytes, packed: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A state's fields and arrays, as ``write_files`` takes them."""
    document = json.loads(text)
    with np.load(io.BytesIO(packed)) as arrays:
        named = {one["name"]: arrays[str(k)] for k, one in enumerate(document["arrays"])}
    about = ("format", "arrays", "npz", "checksum")
    return {name: value for name, value in document.items() if name not in about}, named
