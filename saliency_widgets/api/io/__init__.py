"""Save and load states as two files, JSON and npz: widely readable, and without executable content.

Arrays are unpacked only after their sizes are checked, and values are used only after they are checked against
:mod:`~saliency_widgets.api.io.schema`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import xxhash

from saliency_widgets.api.io.arrays import largest_file, read_statement, statement, unpack
from saliency_widgets.api.io.document import FORMAT, LARGEST_TEXT, checksum, parse
from saliency_widgets.api.io.schema import STATE, check_attribution, check_names, check_state, is_digest
from saliency_widgets.api.io.values import Reader, Writer, by_name
from saliency_widgets.attribution.columns import Columns
from saliency_widgets.attribution.features import PIXELS, Features
from saliency_widgets.attribution.result import Attribution
from saliency_widgets.files import as_path, is_file, path_errors, put, quoted, resolve_target
from saliency_widgets.inputs.signal.kind import SignalFeatures
from saliency_widgets.inputs.text.kind import TokenFeatures
from saliency_widgets.inputs.volume import VolumeFeatures

__all__ = ["Writer", "check_target", "read_state", "stored", "write_files"]

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_WRITING = threading.Lock()
_ABOUT_FILES = ("format", "arrays", "npz", "checksum")


def stored(attribution: Attribution, writer: Writer) -> dict[str, Any]:
    """Return an attribution in the form that :func:`read_state` expects.

    Raises:
        TypeError: A setting can't be stored; the message names it.
    """
    features = attribution.features
    values = {f.name: getattr(attribution, f.name) for f in fields(attribution) if f.name != "features"}
    columns, settings = values["columns"], dict(values.pop("settings"))
    if columns is not None:
        values["columns"] = {name: getattr(columns, name) for name in ("names", "of", "rows", "median")}
    settings.pop("tokenizer", None)  # an object, which is passed again
    plain = {name: writer.plain(name, value) for name, value in settings.items()}
    if features.labels is not None:
        values |= {"labels": features.labels, "groups": features.groups}
    return {**{name: writer.plain(name, value) for name, value in values.items()}, "settings": plain}


def check_target(path: Any) -> None:
    """Check that both files can be written, before their content is computed.

    Raises:
        TypeError, ValueError, OSError: One can't be written; see :func:`saliency_widgets.files.resolve_target`.
    """
    text, packed = _paths(path)
    if resolve_target(text) == resolve_target(packed):
        raise ValueError(
            f"path: {text.name} and {packed.name} are the same file. Choose another name, or remove a link."
        )


def write_files(path: Any, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Path:
    """Write both files, or neither; return the path of the JSON.

    The JSON holds a digest of the npz, and is written last. Until then the old state remains valid: a copy of its npz
    has a name derived from its digest, under which :func:`read_state` looks for it even if the process was killed.

    Args:
        path: The path of both files; a suffix .json or .npz is ignored.
        state: The fields of ``schema.STATE``, as converted by a :class:`Writer`.
        arrays: The arrays of this writer.

    Raises:
        ValueError: The state could not be read back; the message gives the reason.
        TypeError, ValueError, OSError: See :func:`check_target`.
    """
    check_target(path)
    text, packed = _paths(path)
    try:
        stated = statement(arrays)
        read_statement(stated)
        file = io.BytesIO()
        # Numbered, because an array's name may be any string.
        numbered: dict[str, Any] = {str(k): array for k, array in enumerate(arrays.values())}
        np.savez_compressed(file, **numbered)
        content = file.getbuffer()
        document = {**state, "format": FORMAT, "arrays": stated, "npz": xxhash.xxh3_128_hexdigest(content)}
        document["checksum"] = checksum(document)
        written = (json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()
        _decode(parse(written), arrays)
    except (TypeError, ValueError) as error:
        raise ValueError(f"state: it can't be stored, and nothing was written: {error}") from error
    with _folder_lock(text.parent), _set_aside(packed, until=text):
        put(packed, content)
        put(text, written)
    return text


def read_state(path: Any) -> dict[str, Any]:
    """Read the files of :func:`write_files`: the fields of ``schema.STATE``, including ``attribution``.

    Raises:
        TypeError: ``path`` is not a path.
        FileNotFoundError: One of the two files is missing.
        ValueError: The files are not those of a state, don't belong together, or were changed.
        OSError: A file can't be read.
    """
    text, packed = _paths(path)
    _check_there(text)
    with path_errors(text, "can't be read"):
        try:
            written = _content(text, LARGEST_TEXT)
            if written is None:
                raise ValueError(f"it exceeds the limit of {LARGEST_TEXT} bytes for a state.")
            document = parse(written)
            stated = read_statement(document.get("arrays"))
            # The packed bytes are not bound to a name, so that they are freed before tables copy the arrays.
            arrays = unpack(_packed(text, packed, document.get("npz"), largest_file(stated)), stated)
            return _decode(document, arrays)
        except (OSError, MemoryError):
            raise
        except Exception as error:  # malicious bytes may make the libraries raise anything
            raise ValueError(f"path: {quoted(text)} can't be read: {str(error)[:300]}") from error


def _decode(document: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    state = {"text": None, **{name: value for name, value in document.items() if name not in _ABOUT_FILES}}
    check_names("state", state, STATE)
    reader = Reader(arrays)
    state |= {name: reader.value(state[name]) for name in ("inputs", "pixels", "row", "text")}
    state["controls"] = reader.fields("controls", state["controls"])
    state["attribution"] = _attribution(reader, state["attribution"])
    if reader.arrays:
        raise ValueError(f"arrays: no value refers to {min(reader.arrays)[:99]!r}.")
    check_state(state)
    return state


def _attribution(reader: Reader, plain: Any) -> Attribution:
    rest = {"labels": None, "groups": None, **by_name("attribution", plain)}  # only texts have them
    settings = reader.fields("settings", rest.pop("settings", None))
    values = {**reader.fields("attribution", rest), "settings": settings}
    check_attribution(values)
    if values["columns"] is not None:
        values["columns"] = Columns(encode=_no_transform, **values["columns"])
    features = _features_of(values.pop("labels"), values.pop("groups"), settings)
    return Attribution(**values, features=features)


def _features_of(labels: Any, groups: Any, settings: Mapping[str, Any]) -> Features:
    """Return what the values are reduced to: by what only texts store, or the option that only one kind repeats."""
    if labels is not None:
        return TokenFeatures(labels, groups)
    if "slices" in settings:
        return VolumeFeatures(slices=settings["slices"])
    if "time_axis" in settings:
        return SignalFeatures(time_first=settings["time_axis"] == "first")
    return PIXELS


def _no_transform(_rows: Any, name: str) -> NoReturn:
    raise ValueError(f"{name}: this attribution was loaded from a file, without the transform of its rows.")


# ---- the two files


def _paths(path: Any) -> tuple[Path, Path]:
    """Return the paths of the two files, from a path with or without one of their suffixes."""
    path = as_path(path)
    if path.suffix in (".json", ".npz"):
        path = path.with_suffix("")
    if path.name in ("", ".."):
        raise IsADirectoryError(f"path: {quoted(path)} is a folder. Add a name for the two files.")
    return path.with_name(path.name + ".json"), path.with_name(path.name + ".npz")


def _aside(packed: Path, digest: str) -> Path:
    """Return the path of the copy of an npz that is being replaced while the JSON still refers to it.

    It also depends on the state's name, so that another state with equal arrays has a different path.
    """
    target = Path(os.path.realpath(packed))
    name = xxhash.xxh3_128_hexdigest(os.fsencode(f"{target.name}/{digest}"))
    return target.with_name(f".{name}.npz")


@contextlib.contextmanager
def _folder_lock(folder: Path) -> Iterator[None]:
    """Lock a folder against other threads that write states and, if the system supports it, other processes."""
    with _WRITING, contextlib.ExitStack() as stack:
        if fcntl is not None:
            with contextlib.suppress(OSError):  # a folder that can't be read, or a file system without locks
                opened = os.open(folder, os.O_RDONLY)
                stack.callback(os.close, opened)
                fcntl.flock(opened, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _set_aside(packed: Path, until: Path) -> Iterator[None]:
    """Keep a copy of a file while it is replaced; on an error, restore it unless the other file was replaced too."""
    target, aside = resolve_target(packed), None
    before = _version(target), _version(until)
    with path_errors(packed, "can't be replaced"):
        if target.exists():
            with target.open("rb") as file:
                aside = _aside(packed, hashlib.file_digest(file, xxhash.xxh3_128).hexdigest())
        try:
            if aside is not None:
                _copy(target, aside)
            yield
        except BaseException:
            if _version(target) != before[0] and _version(until) == before[1]:
                _restore(target, aside)
            _remove(aside)
            raise
        _remove(aside)


def _restore(target: Path, aside: Path | None) -> None:
    if aside is None:
        target.unlink()
    else:
        aside.replace(target)


def _remove(aside: Path | None) -> None:
    if aside is not None:
        aside.unlink(missing_ok=True)


def _copy(target: Path, aside: Path) -> None:
    try:
        os.link(target, aside)
    except OSError:  # links are unsupported, or one exists from a killed process or another thread
        with contextlib.suppress(shutil.SameFileError):
            shutil.copy2(target, aside)


def _version(path: Path) -> tuple[int, int] | None:
    """Return a value that changes when a file is replaced."""
    state = path.stat() if path.exists() else None
    return None if state is None else (state.st_ino, state.st_mtime_ns)


def _content(path: Path, limit: int) -> bytes | None:
    """Return the content of a file, or None if it does not exist or is larger than the limit."""
    size = path.stat().st_size if is_file(path) else limit + 1
    if size > limit:
        return None
    with path.open("rb") as file:
        return file.read(size)


def _packed(text: Path, packed: Path, digest: Any, limit: int) -> bytes:
    """Return the content of the npz that the JSON refers to, which may be the copy made by :func:`write_files`.

    Raises:
        ValueError: The npz is a different one, or the digest is invalid.
        FileNotFoundError: The npz is missing.
    """
    if not is_digest(digest):
        raise ValueError("npz: expected a digest.")
    for path in (packed, _aside(packed, digest)):
        content = _content(path, limit)
        if content is not None and xxhash.xxh3_128_hexdigest(content) == digest:
            return content
    _check_there(packed)
    raise ValueError(
        f"{packed.name} is not the one that {text.name} was written with, or it was changed. Use the two files "
        "that one save_state wrote."
    )


def _check_there(path: Path) -> None:
    if not is_file(path):
        raise FileNotFoundError(
            f"path: there is no file {quoted(path)}. Both {path.stem[:99]}.json and {path.stem[:99]}.npz are needed."
        )
