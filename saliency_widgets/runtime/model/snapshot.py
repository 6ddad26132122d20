"""What was read of an object and of all that hangs on it, so that it can be told whether it would be read again.

Reading a model through takes as long as a few of its layers; finding out that nothing in it is another is one
comparison of a long list, object by object.
"""

from __future__ import annotations

import operator
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from saliency_widgets.runtime.model.copyable import content_of, members_of

_DICTS = frozenset((dict, OrderedDict, defaultdict, Counter, types.MappingProxyType))
_LISTS = frozenset((list, set, deque))
_CONTAINERS = _DICTS | _LISTS


class Reading:
    """Reads, and remembers what it was given: every object that was seen is kept alive, so that none gets its id."""

    def __init__(self) -> None:
        self._each = _each = chain.from_iterable
        self._types = _Seen(lambda some: map(type, some))
        self._attributes = _Seen(lambda some: map(operator.attrgetter("__dict__"), some))
        self._orders = _Seen(lambda some: map(operator.attrgetter("__mro__"), some))
        self._sizes = _Seen(lambda some: map(len, some), operator.eq)
        self._keys = _Seen(_each)  # of lists, their items
        self._values = _Seen(lambda some: _each(map(operator.methodcaller("values"), some)))
        self._functions = _Seen(
            lambda some: _each(map(operator.attrgetter("__code__", "__defaults__", "__kwdefaults__"), some))
        )
        self._cells = _Seen(lambda some: map(content_of, some))
        self._names = _Seen(lambda some: (known.get(name, _MISSING) for known, name in some))
        self._slots = _Seen(lambda some: (_in_slot(member, value) for member, value in some))
        self._empty: list[Any] = []
        self._others: list[tuple[Callable[[], Any], Any]] = []

    def is_current(self) -> bool:
        """Whether all that was read is what it was; not, where it can't be told any more."""
        seen = (
            *(self._sizes, self._types, self._attributes, self._orders, self._keys, self._values),
            *(self._functions, self._cells, self._names, self._slots),
        )
        try:
            return (
                not any(self._empty)
                and all(one.is_current() for one in seen)
                and all(look() == before for look, before in self._others)
            )
        except Exception:  # what was read may be gone: reading it again finds that out, and says so
            return False

    def is_empty(self, value: Any) -> bool:
        """Whether it is a container of one of Python's own kinds with nothing in it."""
        if type(value) not in _CONTAINERS or value:
            return False
        self._empty.append(value)  # most of a module's attributes: no hooks
        return True

    def items(self, value: Mapping) -> list[tuple[Any, Any]]:
        """Of a mapping of one of Python's own kinds, see :func:`is_readable`, or the attributes of a class."""
        if self.is_empty(value):
            return []
        items = list(value.items())
        self._sizes.add(value, [len(items)])
        self._keys.add(value, [key for key, _ in items])
        self._values.add(value, [item for _, item in items])
        return items

    def listed(self, value: Collection) -> list[Any]:
        """What is in a list, a set or a queue, see :func:`is_listable`."""
        items = list(value)
        self._sizes.add(value, [len(items)])
        self._keys.add(value, items)
        return items

    def attributes(self, value: Any) -> tuple[type, list[tuple[str, Any]]]:
        """The type of an object and what stands in its ``__dict__``."""
        kind, own = type(value), getattr(value, "__dict__", None)
        self._types.add(value, [kind])
        if not isinstance(own, dict):  # list[int] shows those of list, in a new wrapper every time
            return kind, []
        self._attributes.add(value, [own])
        return kind, self.items(own)

    def slots(self, value: Any) -> list[tuple[str, Any]]:
        """What stands in the ``__slots__`` of an object."""
        found = []
        for member in members_of(type(value)):
            held = _in_slot(member, value)
            self._slots.add((member, value), [held])
            if held is not _MISSING:
                found.append((member.__name__, held))
        return found

    def classes(self, kind: type) -> tuple[type, ...]:
        """A class and those that it is made of."""
        order = kind.__mro__
        self._orders.add(kind, [order])
        return order

    def function(self, value: types.FunctionType) -> tuple[types.CodeType, Any, Any, list[Any]]:
        """A function's code, its defaults, those by keyword, and what is in its closure."""
        code, given, named = value.__code__, value.__defaults__, value.__kwdefaults__
        self._functions.add(value, [code, given, named])
        held = []
        for cell in value.__closure__ or ():
            held.append(content_of(cell))
            self._cells.add(cell, held[-1:])
        return code, given, named, held

    def named(self, known: dict[str, Any], names: Iterable[str]) -> list[tuple[str, Any]]:
        """What stands under some global names."""
        found = []
        for name in names:
            value = known.get(name, _MISSING)
            self._names.add((known, name), [value])
            if value is not _MISSING:
                found.append((name, value))
        return found

    def other(self, look: Callable[[], Any]) -> Any:
        """What no object in it tells (the numbers of an array, a generator's state): looked at every time."""
        before = look()
        self._others.append((look, before))
        return before


_MISSING = object()


def _in_slot(member: Any, value: Any) -> Any:
    try:
        return member.__get__(value)
    except AttributeError:  # an empty one
        return _MISSING


class _Seen:
    """One kind of thing that is read of many objects, and what was found."""

    def __init__(
        self, look: Callable[[list[Any]], Iterable[Any]], same: Callable[[Any, Any], bool] = operator.is_
    ) -> None:
        self._look, self._same = look, same
        self._sources: list[Any] = []
        self._before: list[Any] = []

    def add(self, source: Any, found: Sequence[Any]) -> None:
        """Remember what was found in an object just now: not looked up again, as it may change meanwhile."""
        self._sources.append(source)
        self._before += found

    def is_current(self) -> bool:
        """Whether it would be found again; where there can be more or less of it, the sizes are compared before."""
        return all(map(self._same, self._look(self._sources), self._before))


def is_readable(value: Any) -> bool:
    """Whether it is a mapping that can be read by :meth:`Reading.items`."""
    return type(value) in _DICTS


def is_listable(value: Any) -> bool:
    """Whether it can be read by :meth:`Reading.listed`."""
    return type(value) in _LISTS
