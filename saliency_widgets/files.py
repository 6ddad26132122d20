"""Checks of file paths that users pass, and atomic writes."""

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
    """Quote a path for an error message, cut after 500 characters."""
    text = str(path)
    return repr(text if len(text) <= 500 else f"{text[:500]}…")


def as_path(path: Any, argument: str = "path") -> Path:
    """Return a path that a user passed, with "~" expanded.

    Args:
        path: The path.
        argument: The argument's name, for the error.

    Raises:
        TypeError: ``path`` is not a path.
        ValueError: ``path`` is empty, not a valid path of the file system, or in the home of an unknown user.
    """
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(f"{argument}: expected a path such as 'maps/cat', got a {type(path).__name__}.")
    try:
        text = os.fsdecode(path)
        os.fsencode(text)
    except UnicodeError:
        raise ValueError(f"{argument}: it contains characters that file names can't have. Choose another.") from None
    except TypeError as error:  # __fspath__ returned something else
        raise TypeError(f"{argument}: expected a path such as 'maps/cat', got a non-string path: {error}.") from None
    if not text or "\0" in text:
        raise ValueError(f"{argument}: expected a path such as 'maps/cat', got {text[:60]!r}.")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        name = quoted(Path(text).parts[0])
        raise ValueError(f"{argument}: there is no user {name}. Write out the path of the home folder.") from None


def check_folder(folder: Path, argument: str = "path") -> None:
    """Check that a folder exists.

    Raises:
        FileNotFoundError: It does not exist.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{argument}: there is no folder {quoted(folder)}. Create it first, or choose another.")


def resolve_target(path: Any) -> Path:
    """Return the file to write for a path, with links followed, even to a file that doesn't exist yet.

    Raises:
        TypeError, ValueError: See :func:`as_path`; or the path is a pipe, a socket, a device, or a link to itself.
        FileNotFoundError: The folder does not exist.
        IsADirectoryError: The path is a folder.
        PermissionError: The folder or the file is not writable.
        OSError: The system rejects the path for another reason, such as its length.
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
        raise ValueError(f"path: {named} is a {kind}, which can't be written to. Choose another name.")
    if mode is not None and not os.access(target, os.W_OK):
        raise PermissionError(f"path: {named} is write-protected. Choose another name, or change its mode.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"path: the folder {quoted(folder)} can't be written to. Choose another.")
    return target


def put(path: Any, content: bytes | memoryview) -> int:
    """Write a file atomically: on an error, an existing file stays unchanged and no temporary file is left behind.

    A replaced file keeps its mode, and a link to it remains a link.

    Returns:
        The file's size in bytes.

    Raises:
        TypeError, ValueError, OSError: See :func:`resolve_target`; or the file can't be written.
    """
    target = resolve_target(path)
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    with path_errors(as_path(path), "can't be written; an existing file is unchanged"):
        try:
            mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else None
            # An existing file may be private, so its replacement must never be readable by others.
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
    """Check that a file opened by the caller can be written to, before its content is computed.

    Raises:
        TypeError: The file is in text mode.
        ValueError: The file was opened for reading, or is closed.
    """
    expected = f"path: expected a path, or a file opened for writing in binary mode, got a {type(file).__name__}"
    remedy = 'Pass open(path, "wb").'
    if hasattr(file, "encoding"):
        raise TypeError(f"{expected} in text mode. {remedy}")
    if getattr(file, "closed", False):
        raise ValueError(f"{expected} that is closed. {remedy}")
    if hasattr(file, "writable") and not file.writable():
        raise ValueError(f"{expected} that is read-only. {remedy}")


def write_all(file: Any, content: bytes) -> None:
    """Write all content to a file opened by the caller, with repeated calls if it accepts only a part at a time.

    Raises:
        OSError: The file accepts no more.
    """
    size = len(content)
    while content:
        count = file.write(content)
        if not isinstance(count, int) and not isinstance(file, io.RawIOBase):
            return  # the file doesn't report how much it wrote
        if not count:
            raise OSError(
                f"path: the file accepted only {size - len(content)} of {size} bytes. Pass a path, or a file in "
                f"blocking mode."
            )
        content = content[count:]


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power loss, if the system supports it."""
    with contextlib.suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def is_file(path: Path) -> bool:
    """Return whether a path is a regular file, which can be read without blocking, unlike a pipe."""
    with contextlib.suppress(OSError):
        return path.is_file()
    return False


@contextlib.contextmanager
def path_errors(path: Path, failure: str) -> Iterator[None]:
    """Report system errors in this block as errors of the ``path`` argument, with the same errno.

    Args:
        path: The path as it was passed.
        failure: The operation that failed, in words.
    """
    try:
        yield
    except OSError as error:
        if error.strerror is None:  # already an error of this module
            raise
        clear = type(error)(f"path: {quoted(path)} {failure}: {error.strerror}.")
        clear.errno = error.errno
        raise clear from error
