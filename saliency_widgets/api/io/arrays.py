"""The npz of a state, of which only the arrays that the JSON declares are unpacked."""

from __future__ import annotations

import io
import math
import re
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

LARGEST = 2**30
"""The maximum total size of a state's arrays, in bytes."""

_DTYPES = re.compile(
    r"\|b1|\|[iu]1|[<>][iu][248]|[<>]f[248]|[<>]c(8|16)|[<>]U[1-9]\d{0,3}|[<>][mM]8\[\d{0,4}[a-zA-Z]{1,2}\]"
)
_MEMBER = 1024  # maximum bytes of a member in addition to its array
_FEW = 1000  # allowance for packed bytes that happen to look like the start of an entry
_CHUNK = 2**20
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # other types need extra memory
_OTHERS = "arrays: the arrays in the npz differ from those declared in the JSON."


class Stated(NamedTuple):
    """The declaration of an array in the JSON."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """The size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def can_be_stored(dtype: np.dtype) -> bool:
    """Return whether arrays of this type can be stored: numbers, booleans, fixed-length strings, and dates."""
    return _DTYPES.fullmatch(dtype.str) is not None


def statement(arrays: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Return the declaration of the arrays for the JSON."""
    return [{"name": name, "dtype": one.dtype.str, "shape": list(one.shape)} for name, one in arrays.items()]


def read_statement(stated: Any) -> list[Stated]:
    """Read the declaration of the arrays in the JSON.

    Raises:
        ValueError: The declaration is invalid, or the arrays are larger than a state allows.
    """
    if not isinstance(stated, list):
        raise ValueError(f"arrays: expected a list, got a {type(stated).__name__}.")
    arrays = [_read_entry(entry) for entry in stated]
    if len({one.name for one in arrays}) < len(arrays):
        raise ValueError("arrays: two arrays have the same name.")
    size = sum(one.bytes for one in arrays)
    if size > LARGEST:
        raise ValueError(f"arrays: they hold {size / 2**20:.0f} MiB; the limit for a state is {LARGEST // 2**20} MiB.")
    return arrays


def _read_entry(entry: Any) -> Stated:
    if not isinstance(entry, dict) or set(entry) != {"name", "dtype", "shape"} or not isinstance(entry["name"], str):
        raise ValueError("arrays: each must have a name, a dtype and a shape.")
    name, dtype, shape = entry["name"], entry["dtype"], entry["shape"]
    if not isinstance(dtype, str) or not _DTYPES.fullmatch(dtype):
        raise ValueError(f"arrays: {name[:99]!r} has a dtype that can't be stored.")
    if not isinstance(shape, list) or len(shape) > 32 or not all(type(n) is int and 0 <= n <= LARGEST for n in shape):
        raise ValueError(f"arrays: {name[:99]!r} has an invalid shape.")
    return Stated(name, np.dtype(dtype), tuple(shape))


def largest_file(stated: Sequence[Stated]) -> int:
    """Return an upper bound on the bytes of an npz of these arrays; incompressible data grows slightly."""
    return sum(one.bytes for one in stated) * 101 // 100 + _MEMBER * (len(stated) + 1)


def unpack(content: bytes, stated: Sequence[Stated]) -> dict[str, np.ndarray]:
    """Return the arrays in an npz by name.

    Raises:
        ValueError, zipfile.BadZipFile, zlib.error, ...: The content differs from the declaration.
    """
    if content.count(b"PK\1\2") > len(stated) + _FEW:  # zipfile creates an object for each
        raise ValueError(_OTHERS)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
        if [member.filename for member in members] != [f"{k}.npy" for k in range(len(stated))]:
            raise ValueError(_OTHERS)
        for member, one in zip(members, stated, strict=True):
            if member.compress_type not in _PACKED or not 0 < member.file_size - one.bytes < _MEMBER:
                raise ValueError(f"arrays: {one.name[:99]!r} has an unsupported compression or an unexpected size.")
        return {one.name: _unpack(archive, member, one) for member, one in zip(members, stated, strict=True)}


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, one: Stated) -> np.ndarray:
    """Unpack one array, whose header must be exactly what NumPy writes for its declaration."""
    buffer = bytearray(one.bytes)
    with archive.open(member) as file:
        head = file.read(10)
        header = file.read(int.from_bytes(head[8:], "little"))
        expected = f"{{'descr': {one.dtype.str!r}, 'fortran_order': False, 'shape': {one.shape!r}, }}"
        if head[:8] != b"\x93NUMPY\1\0" or header.rstrip() != expected.encode():
            raise ValueError(f"arrays: {one.name[:99]!r} has a different type or shape than declared in the JSON.")
        for begin in range(0, one.bytes + 1, _CHUNK):  # reads up to the end, where zipfile verifies the checksum
            part = file.read(_CHUNK)
            if len(part) != min(_CHUNK, one.bytes - begin):
                raise ValueError(f"arrays: {one.name[:99]!r} has a different size than declared in the JSON.")
            buffer[begin : begin + len(part)] = part
    array = np.ndarray(one.shape, one.dtype, buffer)
    _check_bytes(array, one)
    return array


def _check_bytes(array: np.ndarray, one: Stated) -> None:
    """Refuse bytes that are not valid booleans or characters."""
    if one.dtype.kind == "b" and array.view(np.uint8).max(initial=0) > 1:
        raise ValueError(f"arrays: {one.name[:99]!r} contains bytes that are not booleans.")
    if one.dtype.kind == "U":
        letters = np.ndarray(array.size * (one.dtype.itemsize // 4), one.dtype.str[0] + "u4", array.data)
        if letters.max(initial=0) > 0x10FFFF or ((letters >= 0xD800) & (letters < 0xE000)).any():
            raise ValueError(f"arrays: {one.name[:99]!r} contains bytes that are not valid characters.")
