"""What of a model's attributes a stand-in gets copies of: told before anything is copied."""

from __future__ import annotations

import contextlib
import dis
import enum
import functools
import random
import sys
import types
import weakref
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any

import torch
from torch import Tensor, nn

PLAIN = frozenset((type(None), bool, int, float, str))
CONTAINERS = frozenset((list, tuple, set, dict, OrderedDict, defaultdict, Counter, deque))
MANY = 256
# Of an object that is copied: so many values in all, and so many objects and containers inside each other.
_FEW, _DEEP = 64, 3
_ATOMS = (
    *(nn.Module, Tensor, torch.Generator, torch.dtype, torch.device, torch.Size, torch.layout, torch.memory_format),
    *(type, types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType, functools.partial),
    *(complex, bytes, range, slice, frozenset, enum.Enum, PurePath),
)
_BARE = (object.__new__, dict.__new__, list.__new__, types.SimpleNamespace.__new__)


def is_array(value: Any) -> bool:
    """Whether it is an array or a number of NumPy's."""
    return type(value).__module__ == "numpy" and hasattr(value, "__array__")


def draws_numbers(value: Any) -> bool:
    """Whether it is a generator of random numbers, of Python's or NumPy's kind."""
    return type(value) is random.Random or str(type(value).__module__).startswith("numpy.random")


def is_foreign(kind: type) -> bool:
    """Whether it is torch's or Python's own, of which nobody knows what a copy does."""
    return _is_foreign_name(kind.__module__)


def _is_foreign_name(module: Any) -> bool:
    root = str(module).partition(".")[0]
    return root in ("torch", "numpy") or root in sys.stdlib_module_names


def compiled_from(function: types.FunctionType) -> Any:
    """What torch.compile was given to make it; a wrapper of somebody's around that has its attributes too."""
    if not str(function.__globals__.get("__name__")).startswith("torch._dynamo"):
        return None
    return getattr(function, "_torchdynamo_orig_callable", None)


def content_of(cell: types.CellType) -> Any:
    """What is in a closure's cell."""
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def globals_of(function: types.FunctionType) -> list[tuple[str, Any]]:
    """Modules, their methods and functions beside it that it knows by a global name, as in a notebook."""
    return [(name, item) for name, item in named_in(function) if _runs_a_module(item, function.__globals__)]


def names_in(function: types.FunctionType) -> Iterable[str]:
    """Under which names it may look for something global; none of torch's and Python's own functions."""
    return () if _is_foreign_name(function.__globals__.get("__name__")) else _names(function.__code__)


def named_in(function: types.FunctionType) -> list[tuple[str, Any]]:
    """Whatever it knows by a global name; nothing of torch's and Python's own functions."""
    known = function.__globals__
    return [(name, known[name]) for name in names_in(function) if name in known]


def _runs_a_module(value: Any, known: dict[str, Any]) -> bool:
    if type(value) is types.FunctionType:
        return value.__globals__ is known or compiled_from(value) is not None
    return isinstance(getattr(value, "__self__", None) if type(value) is types.MethodType else value, nn.Module)


@functools.lru_cache(4096)
def _names(code: types.CodeType) -> frozenset[str]:
    # Of co_names, attributes and methods are no names of anything global.
    own = {str(i.argval) for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    inner = (_names(const) for const in code.co_consts if isinstance(const, types.CodeType))
    return frozenset(own).union(*inner)


def leads_on(value: Any, seen: set[int]) -> bool:
    """Whether what a function holds is copied: that decides, of each cell alone, if functions share a new one."""
    kind = type(value)
    if kind in PLAIN or isinstance(value, type) or id(value) in seen:
        return False
    seen.add(id(value))
    if kind is types.FunctionType:
        cells = [content_of(cell) for cell in value.__closure__ or ()]
        known = [item for _, item in globals_of(value)]
        held = (compiled_from(value), *cells, *known, value.__defaults__, *(value.__kwdefaults__ or {}).values())
        return any(leads_on(item, seen) for item in held)
    if kind is types.MethodType:
        return leads_on(value.__func__, seen) or leads_on(value.__self__, seen)
    if kind is tuple:
        return any(leads_on(item, seen) for item in value)
    if issubclass(kind, (nn.Module, functools.partial, torch.Generator, types.SimpleNamespace)):
        return True
    if kind is weakref.ref:
        return leads_on(value(), seen)
    return kind in CONTAINERS or draws_numbers(value) or not is_foreign(kind)


def is_atom(value: Any) -> bool:
    """Whether it is one value, however much there is inside it."""
    kind = type(value)
    if kind in PLAIN or kind is object or isinstance(value, _ATOMS) or is_array(value) or draws_numbers(value):
        return True
    return kind not in CONTAINERS and _is_known_by_name(value)


def _is_known_by_name(value: Any) -> bool:
    """Whether it is reached past the model too (a registry), or compared with ``is`` (a mark for "missing")."""
    kind = type(value)
    home = sys.modules.get(str(kind.__module__))
    if home is None:
        return False
    if home.__name__ == "__main__" and not _says_nothing(value):  # in a notebook everything has a name
        return False
    return any(known is value for known in list(vars(home).values()))


def _says_nothing(value: Any) -> bool:
    return not getattr(value, "__dict__", None) and all(name.startswith("__") for name in dir(type(value)))


def is_simple(value: Any, seen: set[int], depth: int = 0) -> bool:
    """Whether an object or container, and all that is reached from it, is small and can be copied."""
    if is_atom(value):
        return True
    inside = _inside(value)
    if inside is None or depth > _DEEP or len(inside) > _FEW:
        return False
    fresh = [item for item in inside if id(item) not in seen]
    seen.update(map(id, fresh))
    return len(seen) <= _FEW and all(is_simple(item, seen, depth + 1) for item in fresh)


def _inside(value: Any) -> list[Any] | None:
    """What an object or container holds; None of one that isn't copied."""
    kind = type(value)
    if kind in CONTAINERS:
        items = list(value.values() if isinstance(value, dict) else value)
        short = len(items) <= MANY or not isinstance(value, dict)
        return [] if short and PLAIN.issuperset(map(type, items)) else items
    odd = hasattr(kind, "__del__") or issubclass(kind, (OrderedDict, defaultdict)) or kind.__new__ not in _BARE
    if odd or (is_foreign(kind) and kind is not types.SimpleNamespace):
        return None
    held = [item for _, item in slots_of(value)]
    if not held and not kind.__dictoffset__:
        return None
    held += vars(value).values() if kind.__dictoffset__ else ()
    held += dict.values(value) if isinstance(value, dict) else list.__iter__(value) if isinstance(value, list) else ()
    return held


def slots_of(value: Any) -> list[tuple[Any, Any]]:
    """What stands in an object's ``__slots__``, and where."""
    found = []
    for member in members_of(type(value)):
        with contextlib.suppress(AttributeError):  # an empty one
            found.append((member, member.__get__(value)))
    return found


def members_of(kind: type) -> list[Any]:
    """The ``__slots__`` of a class and its bases, but for torch's and Python's own."""
    members = [member for base in kind.__mro__ for member in vars(base).values()]
    return [m for m in members if type(m) is types.MemberDescriptorType and not is_foreign(m.__objclass__)]
