"""Traversal of the Python objects that a model holds; no other code does this.

It is used for copies (:mod:`~.model_copy`), versions (:mod:`~.version`) and stable hashes (:mod:`~.stable_hash`).
"""

from __future__ import annotations

import dis
import enum
import functools
import operator
import random
import sys
import types
import weakref
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as _hooks

PLAIN = frozenset(
    (
        *(type(None), bool, int, float, complex, str, bytes, range, slice),
        *(torch.dtype, torch.device, torch.Size, torch.layout, torch.memory_format),
    )
)
MAPPINGS = frozenset((dict, OrderedDict, defaultdict, Counter))
CONTAINERS = MAPPINGS | {list, tuple, set, deque}
TENSORS = ("_parameters", "_buffers", "_modules")
TORCHS = frozenset(name for name, value in vars(nn.Module()).items() if type(value) in CONTAINERS)
"""The containers that every module has: of parameters, hooks and the like."""
Read = Callable[[Any], Iterable[Any]]
"""Reads a part of an object: the keys or the values of a dictionary, the content of a cell, ..."""

MISSING = object()
VALUES: Read = operator.methodcaller("values")
FRAME: Read = operator.attrgetter("__class__", "__dict__")
_code: Read = operator.attrgetter("__code__", "__defaults__", "__kwdefaults__")
_bound: Read = operator.attrgetter("__func__", "__self__")
_partial: Read = operator.attrgetter("func", "args", "keywords")
_wrapped: Read = operator.attrgetter("__func__", "__isabstractmethod__")
_bases: Read = operator.attrgetter("__mro__", "__base__")
_accessors: Read = operator.attrgetter("fget", "fset")
_BASES = (dict, list, tuple, set, frozenset, deque)


def in_cell(source: types.CellType) -> tuple[Any]:
    """Read a closure's cell; None if it isn't filled yet."""
    try:
        return (source.cell_contents,)
    except ValueError:
        return (None,)


def _global(source: tuple[dict[str, Any], str]) -> tuple[Any]:
    return (source[0].get(source[1], MISSING),)


def in_slot(source: tuple[Any, Any]) -> tuple[Any]:
    """Read a slot of an object; ``MISSING`` if it is empty."""
    member, value = source
    try:
        return (member.__get__(value),)
    except AttributeError:
        return (MISSING,)


def _target(reference: weakref.ref) -> tuple[Any]:
    return (reference(),)


def _type(value: Any) -> tuple[type]:
    return (type(value),)


def parts(value: Any) -> list[tuple[Read, Any]]:
    """Return the parts of a value as pairs of a reader and its source; an empty list for an atomic value."""
    kind = type(value)
    if kind in PLAIN or isinstance(value, (Tensor, types.ModuleType, enum.Enum, PurePath)):
        return []
    if kind in MAPPINGS or kind is types.MappingProxyType:
        return [(iter, value), (VALUES, value)]
    if kind in CONTAINERS or kind is frozenset:
        return [(iter, value)]
    if kind is types.FunctionType:
        names = [(_global, (value.__globals__, name)) for name in sorted(names_in(value))]
        cells = [(in_cell, cell) for cell in value.__closure__ or ()]
        return [(_code, value), *cells, *names, *parts(value.__dict__)]
    if isinstance(value, type):
        classes = [base for base in value.__mro__ if not is_foreign(base)]
        return [(_bases, value), *(part for base in classes for part in parts(vars(base)))]
    for sort, read in SORTS.items():
        if isinstance(value, sort):
            return [(read, value)]
    pairs: list[tuple[Read, Any]] = [(_type, value)]
    if isinstance(getattr(value, "__dict__", None), dict):  # list[int] has list's, in a new wrapper every time
        pairs += parts(vars(value))
    pairs += [(in_slot, (member, value)) for member in slots_of(kind)]
    for base in _BASES:
        if isinstance(value, base):  # a subclass may override how it is read
            pairs += [(base.__iter__, value), *([(dict.values, value)] if base is dict else [])]
    return pairs


SORTS: dict[Any, Read] = {
    types.MethodType: _bound,
    functools.partial: _partial,
    weakref.ref: _target,
    (staticmethod, classmethod): _wrapped,
    property: _accessors,
}


def contents(value: Any) -> list[Any]:
    """Return everything in a value, one level deep."""
    return [item for read, source in parts(value) for item in read(source) if item is not MISSING]


class Snapshot:
    """A record of what was read from a model. Checking that it is unchanged takes a fraction of reading it again.

    Everything read is referenced, so that no other object gets its id.
    """

    def __init__(self) -> None:
        self._seen: dict[Read, tuple[list[Any], list[Any]]] = {}
        self._sized: list[Any] = []
        self._sizes: list[int] = []
        self._empty: list[Any] = []
        self._states: list[tuple[Callable[[], Any], Any]] = []

    def items(self, read: Read, source: Any) -> list[Any]:
        """Read and record a part of an object."""
        sized = read is iter
        if (sized or read is VALUES) and not source:
            if sized:
                self._empty.append(source)  # most attributes of a module: no hooks
            return []
        items = list(read(source))
        sources, before = self._seen.setdefault(read, ([], []))
        sources.append(source)
        before += items
        if sized:
            self._sized.append(source)
            self._sizes.append(len(items))
        return [item for item in items if item is not MISSING]

    def state(self, look: Callable[[], Any]) -> Any:
        """Call a function and record its result, compared by ``==``: for objects without parts (generators)."""
        before = look()
        self._states.append((look, before))
        return before

    def is_current(self) -> bool:
        """Return whether everything is still as it was read."""
        try:
            return (
                not any(self._empty)
                and list(map(len, self._sized)) == self._sizes
                and all(_same(chain.from_iterable(map(read, some)), seen) for read, (some, seen) in self._seen.items())
                and all(look() == before for look, before in self._states)
            )
        except Exception:  # an object may be gone; reading the model again reports that
            return False


def _same(items: Iterable[Any], before: Iterable[Any]) -> bool:
    return all(map(operator.is_, chain(items, (MISSING,)), chain(before, (MISSING,))))


def modules_of(model: nn.Module) -> list[nn.Module]:
    """Return the model and its submodules, each once; ``modules()`` builds names and takes three times as long."""
    modules = {id(model): model}
    pending = [model]
    for module in pending:
        for child in module._modules.values():
            if child is not None and id(child) not in modules:
                modules[id(child)] = child
                pending.append(child)
    return pending


_GLOBAL_HOOKS = tuple(name for name in vars(_hooks) if name.startswith("_global") and name.endswith("hooks"))


def global_hooks() -> list[Any]:
    """Return the hooks that are registered for all modules of the process."""
    return [hook for name in _GLOBAL_HOOKS for hook in getattr(_hooks, name).values()]


def is_foreign(kind: type) -> bool:
    """Return whether a class belongs to torch, NumPy or Python."""
    return is_library(kind.__module__)


def is_library(module: Any) -> bool:
    """Return whether the module of that name belongs to torch, NumPy or Python."""
    root = str(module).partition(".")[0]
    return root in ("torch", "numpy") or root in sys.stdlib_module_names


def is_array(value: Any) -> bool:
    """Return whether a value is a NumPy array or scalar."""
    return isinstance(value, (np.ndarray, np.generic))


def draws_numbers(value: Any) -> bool:
    """Return whether a value is a random number generator of Python or NumPy."""
    return type(value) is random.Random or str(type(value).__module__).startswith("numpy.random")


def compiled_from(function: types.FunctionType) -> Any:
    """Return the original of a compiled function; None for others, including wrappers that copied its attributes."""
    if not str(function.__globals__.get("__name__")).startswith("torch._dynamo"):
        return None
    return getattr(function, "_torchdynamo_orig_callable", None)


def names_in(function: types.FunctionType) -> Iterable[str]:
    """Return the global names in a function's code; none for functions of torch, NumPy and Python."""
    return () if is_library(function.__globals__.get("__name__")) else _names(function.__code__)


@functools.lru_cache(4096)
def _names(code: types.CodeType) -> frozenset[str]:
    # co_names also contains names of attributes.
    names = {str(i.argval) for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    inner = (_names(const) for const in code.co_consts if isinstance(const, types.CodeType))
    return frozenset(names).union(*inner)


def filled_slots(value: Any) -> list[tuple[Any, Any]]:
    """Return the filled ``__slots__`` of an object, each with its value."""
    return [(slot, item) for slot in slots_of(type(value)) for item in in_slot((slot, value)) if item is not MISSING]


def slots_of(kind: type) -> list[Any]:
    """Return the ``__slots__`` of a class and its bases, except for those of torch, NumPy and Python."""
    members = [member for base in kind.__mro__ for member in vars(base).values()]
    return [m for m in members if type(m) is types.MemberDescriptorType and not is_foreign(m.__objclass__)]
