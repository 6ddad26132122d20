"""Functions that read class names in order, and shorten them without making them ambiguous."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set, Sized
from itertools import islice
from typing import Any

import numpy as np
from torch import Tensor

from saliency_widgets.params import brief, check_length

_NAMES = (str, int, float, np.generic)


def read_class_names(class_names: Sequence[str] | Mapping[int, str] | None) -> list[str] | None:
    """Return the names in order, from a sequence or a mapping from index to name like ``id2label``."""
    if class_names is None:
        return None
    if not isinstance(class_names, Mapping):
        return read_names("class_names", class_names)
    _texts("class_names", class_names.values())
    try:
        by_index = {int(index): str(name) for index, name in class_names.items()}
    except (TypeError, ValueError, OverflowError):
        raise TypeError(
            f"class_names: expected a mapping from index to name, got one from {brief(next(iter(class_names)))} to "
            f"{brief(next(iter(class_names.values())))}. If that is label2id, pass id2label."
        ) from None
    if sorted(by_index) != list(range(len(by_index))):
        last = max(by_index) if min(by_index, default=0) >= 0 else len(by_index) - 1
        missing = list(islice((index for index in range(last + 1) if index not in by_index), 5))
        raise ValueError(
            f"class_names: a mapping must name the classes 0 to {last}, each once; {missing} have no name."
        )
    return [by_index[index] for index in range(len(by_index))]


def read_names(argument: str, names: Any) -> list[str]:
    """Return names in order, as a list.

    Args:
        argument: The argument's name, for the error.
        names: A list, an array or any other sized and ordered collection of strings.

    Raises:
        TypeError: ``names`` is anything else, such as a single string, a set, a tensor or an iterator.
    """
    if isinstance(names, str):
        raise TypeError(f"{argument}: expected a list of names, got one string, {names[:30]!r}.")
    ordered = isinstance(names, Sized) and not isinstance(names, (bytes, bytearray, Set, Tensor, Mapping))
    if not ordered or getattr(names, "ndim", 1) != 1:
        also = " or a mapping from index to name" if argument == "class_names" else ""
        raise TypeError(f"{argument}: expected the names in order, as a list{also}, got a {type(names).__name__}.")
    check_length(argument, names)
    try:
        listed = list(names)  # type: ignore[call-overload]
    except Exception as error:
        raise TypeError(
            f"{argument}: expected the names in order, got a {type(names).__name__} that can't be read: {error}."
        ) from error
    return _texts(argument, listed)


def _texts(argument: str, names: Iterable[Any]) -> list[str]:
    strange = [name for name in names if not isinstance(name, _NAMES) or name != name]  # NaN: a missing text in pandas
    if strange:
        raise TypeError(
            f"{argument}: expected strings, got {brief(strange[0])} ({type(strange[0]).__name__}) among them."
        )
    try:
        return list(map(str, names))
    except ValueError as error:  # an integer of thousands of digits
        raise TypeError(f"{argument}: expected strings, but one of them can't be converted: {error}.") from error


def short_names(class_names: Sequence[str]) -> list[str]:
    """Shorten each name to the first of its synonyms ("tabby, tabby cat"), unless another name has the same one.

    Args:
        class_names: Names in order; synonyms are separated by commas, as in ImageNet.

    Returns:
        The shortened names; a name whose first synonym is empty or ambiguous is left unchanged.
    """
    first = [name.partition(",")[0].strip() for name in class_names]
    count = Counter(first)
    return [short if short and count[short] == 1 else name for short, name in zip(first, class_names, strict=True)]
