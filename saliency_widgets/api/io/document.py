"""The JSON of a state, limited in size and protected by a checksum."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import xxhash

from saliency_widgets.params import MANY

FORMAT = 2
# Python objects take many times as much memory as their JSON.
LARGEST_TEXT, _MOST_NESTED, _DEEPEST = 2**23, 10**5, 40


def parse(content: bytes) -> dict[str, Any]:
    """Parse the JSON of a state.

    Raises:
        ValueError: The content is not a state, is too large, has another format version, or was changed.
    """
    nested = content.count(b"[") + content.count(b"{")
    if len(content) > LARGEST_TEXT or nested > _MOST_NESTED or nested + content.count(b",") > MANY:
        raise ValueError(f"its JSON ({len(content)} bytes) exceeds the limits for a state.")
    try:
        document = json.loads(
            content.decode(), parse_int=_whole, parse_float=_finite, parse_constant=_finite, object_pairs_hook=_object
        )
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it was not written by save_state, or was damaged: {error}.") from error
    version = document.get("format") if isinstance(document, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise ValueError("it was not written by save_state.")
    if version != FORMAT:
        which = "a newer" if version > FORMAT else "an older"
        raise ValueError(f"it was written by {which} saliency_widgets, in format {version}; this one reads {FORMAT}.")
    _check_depth(document)
    if document.get("checksum") != checksum(document):
        raise ValueError("it was changed or damaged since save_state wrote it. Save it again.")
    return document


def checksum(document: Mapping[str, Any]) -> str:
    """Return a digest of all fields except the checksum itself, independent of whitespace.

    Raises:
        ValueError: A string can't be encoded.
    """
    rest = {name: value for name, value in document.items() if name != "checksum"}
    try:
        return xxhash.xxh3_128_hexdigest(json.dumps(rest, sort_keys=True, ensure_ascii=False).encode())
    except UnicodeEncodeError as error:
        raise ValueError(f"a string contains the unpaired surrogate {error.object[error.start]!r}.") from error


def _whole(text: str) -> int:
    if len(text) > 20:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is not a number")
    return number


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) < len(pairs):
        raise ValueError("a name is repeated")
    return read


def _check_depth(document: dict[str, Any]) -> None:
    """Check the nesting depth level by level, without recursion, so that later code may recurse."""
    level: list[Any] = [document]
    for _ in range(_DEEPEST):
        items = (item for nested in level for item in (nested.values() if isinstance(nested, dict) else nested))
        level = [item for item in items if isinstance(item, (dict, list))]
    if level:
        raise ValueError("it is nested too deeply.")
