"""Files that people name: written at once or not at all."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_KINDS = {stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}


def quoted(path: Any) -> str:
    """A path for an error message, cut where it is longer than any that people name."""
    text = str(path)
    return repr(text if len(text) <= 500 else f"{text[:500]}…")


def as_path(path: Any, argument: str = "path") -> Path:
    """A path as people pass it, with "~" spelled out.

    Args:
        path: It.
        argument: The argument's name, for the error.

    Raises:
        TypeError: It is no path.
        ValueError: It is empty, or names nothing that a file system could hold.
    """
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(f"{argument}: expected a path such as 'maps/cat', got a {type(path).__name__}.")
    try:
        text = os.fsdecode(path)
        os.fsencode(text)
    except UnicodeError:
        raise ValueError(f"{argument}: it holds letters that no name of a file can have. Choose another.") from None
    except TypeError as error:  # a __fspath__ that gives something else
        raise TypeError(f"{argument}: expected a path such as 'maps/cat', got one that is no text: {error}.") from None
    if not text or "\0" in text:
        raise ValueError(f"{argument}: expected a path such as 'maps/cat', got {text[:60]!r}.")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        name = quoted(Path(text).parts[0])
        raise ValueError(f"{argument}: nobody here is called {name}. Spell the home folder out.") from None


def check_folder(folder: Path, argument: str = "path") -> None:
    """Look whether a folder is there.

    Raises:
        FileNotFoundError: It isn't.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{argument}: there is no folder {quoted(folder)}. Make it first, or choose another.")


def resolve_target(path: Any) -> Path:
    """The file that is written for a path: links are followed, also to a file that isn't there yet.

    Raises:
        TypeError, ValueError: See :func:`as_path`; or it is a pipe, a socket, a device, or a link to itself.
        FileNotFoundError: There is no such folder.
        IsADirectoryError: It is a folder.
        PermissionError: The folder, or the file, can't be written to.
        OSError: The system refuses it otherwise, for example as too long.
    """
    path = as_path(path)
    named = quoted(path)
    with path_errors(path, "can't be written"):
        target = Path(os.path.realpath(path))
        folder = target.parent
        check_folder(folder)
        mode = None
        with contextlib.suppress(FileNotFoundError):
            mode = target.lstat().st_mode
    if mode is not None and stat.S_ISDIR(mode):
        raise IsADirectoryError(f"path: {named} is a folder. Add the name of the file.")
    if mode is not None and stat.S_ISLNK(mode):
        raise ValueError(f"path: the link {named} leads back to itself. Choose another name.")
    if mode is not None and not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "special file")
        raise ValueError(f"path: {named} is a {kind}, which nothing is written to. Choose another name.")
    if mode is not None and not os.access(target, os.W_OK):
        raise PermissionError(f"path: {named} is write-protected. Choose another name, or change its mode.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"path: the folder {quoted(folder)} can't be written to. Choose another.")
    return target


def put(path: Any, content: bytes | memoryview) -> int:
    """Write a file at once or not at all: on an error, what was there stays, and nothing else.

    A file that is replaced keeps its mode, and a link to it stays a link.

    Returns:
        Its size.

    Raises:
        TypeError, ValueError, OSError: See :func:`resolve_target`; or it can't be written.
    """
    target = resolve_target(path)
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    with path_errors(as_path(path), "can't be written; what was there stays"):
        try:
            mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else None
            # Of a file that may be private, the copy is, too.
            begin = 0o666 if mode is None else 0o600
            with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, begin)) as file:
                size = file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if mode is not None:
                temporary.chmod(mode)
            temporary.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    sync_folder(target.parent)
    return size


def check_open(file: Any) -> None:
    """Look at a file that somebody has opened, before anything is made for it.

    Raises:
        TypeError: It takes text.
        ValueError: It was opened for reading, or is closed.
    """
    expected = f"path: expected a path, or a file opened for writing in binary mode, got a {type(file).__name__}"
    remedy = 'Pass open(path, "wb").'
    if hasattr(file, "encoding"):
        raise TypeError(f"{expected} that takes text. {remedy}")
    if getattr(file, "closed", False):
        raise ValueError(f"{expected} that is closed. {remedy}")
    if hasattr(file, "writable") and not file.writable():
        raise ValueError(f"{expected} that can only be read. {remedy}")


def write_all(file: Any, content: bytes) -> None:
    """Write to a file that somebody has opened, in several turns where it takes a part at a time.

    Raises:
        OSError: It takes no more.
    """
    size = len(content)
    while content:
        count = file.write(content)
        if not isinstance(count, int) and not isinstance(file, io.RawIOBase):
            return  # of those that don't count
        if not count:
            raise OSError(
                f"path: the file took {size - len(content)} of {size} bytes, and no more. Pass a path, or a file that "
                f"waits until it is written."
            )
        content = content[count:]


def sync_folder(folder: Path) -> None:
    """Make sure that what was renamed in a folder still is after a power cut, where the system can."""
    with contextlib.suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def is_file(path: Path) -> bool:
    """Whether there is such a regular file, which can be read without waiting for anybody."""
    with contextlib.suppress(OSError):
        return path.is_file()
    return False


@contextlib.contextmanager
def path_errors(path: Path, failure: str) -> Iterator[None]:
    """Errors of the system as errors of the argument; their number stays.

    Args:
        path: As it was passed.
        failure: What can't be done, in words.
    """
    try:
        yield
    except OSError as error:
        if error.strerror is None:  # it is one of ours
            raise
        clear = type(error)(f"path: {quoted(path)} {failure}: {error.strerror}.")
        clear.errno = error.errno
        raise clear from error
