"""What a model is at this moment: changes whenever anything that its forward may depend on does."""

from __future__ import annotations

import functools
import operator
import types
import weakref
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from saliency_widgets.attribution.copyable import content_of, draws_numbers, named_in, slots_of
from saliency_widgets.attribution.tuning import global_hooks
from saliency_widgets.engine.contents import Contents, digest

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)
_TENSORS = ("_parameters", "_buffers", "_modules")
_DEEP, _MANY = 6, 1000  # of what hangs on one attribute; what lies beyond is known by its identity
_REMEMBERED = 8


class Held:
    """An object as a part of a key: equal to itself alone, and kept alive, so that no other gets its id."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Held) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


class Fingerprint:
    """Tells versions of one model apart: called, it gives the same number for the same state, and another for another.

    Its modules, their names, weights, buffers and attributes of any kind count, what hangs on these a few levels deep,
    the code of their classes, and hooks. Fused optimisers and ``.data`` leave torch's version counters as they were, so
    the numbers themselves are looked at, see :class:`~.contents.Contents`. What is as it was the last time is not gone
    through again.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._modules: dict[int, _Seen] = {}
        self._contents = Contents()
        self._versions: OrderedDict[tuple, int] = OrderedDict()
        self._last: tuple[tuple, int] | None = None
        self._count = 0

    def __call__(self) -> int:
        """The number of the version that the model is now; of the last few versions, the one it had then."""
        found = _Found(modules=[self._model])
        seen: dict[int, _Seen] = {}
        kinds: dict[type, Any] = {}
        told = []
        for module in found.modules:  # more are found on the way
            key, kind = id(module), type(module)
            if key not in seen:
                known = seen[key] = self._modules.get(key) or _Seen(module)
                told.append(known.told(found))
            if kind not in kinds:
                kinds[kind] = _class_told(kind, found)
        self._modules = seen
        state = (told, [*kinds.values()], [*map(Held, global_hooks())], *self._contents(found.tensors))
        if self._last is None or self._last[0] != state:
            self._last = state, self._version(tuple(map(tuple, state)))
        return self._last[1]

    def _version(self, state: tuple) -> int:
        if state not in self._versions:
            self._count += 1
            self._versions[state] = self._count
            if len(self._versions) > _REMEMBERED:
                self._versions.popitem(last=False)
        return self._versions[state]


@dataclass
class _Found:
    """What a walk through a model met: tensors and modules to be looked at, and what was told already."""

    tensors: list[Tensor] = field(default_factory=list)
    modules: list[nn.Module] = field(default_factory=list)
    told: dict[int, Any] = field(default_factory=dict)  # by id, and alive: none gets the id of another


class _Seen:
    """A module's attributes, as they were."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._attributes = vars(module)
        self._values: list[Any] = []
        self._structure: list[Any] | None = None
        self._empty: list[Any] = []
        self._others: list[tuple[str, Any]] = []
        self._plain: tuple = ()

    def told(self, found: _Found) -> Any:
        """Something hashable that is another when an attribute is; tensors and modules join what is found."""
        module, attributes = self.module, self._attributes
        structure: list[Any] = [*attributes]
        if module._modules:
            parts = [part for part in module._modules.values() if part is not None]
            found.modules += parts
            structure += (1, *module._modules.keys(), *parts)
        for held in (module._parameters, module._buffers):
            if held:
                structure += (2, *held.keys())
                for tensor in held.values():
                    if tensor is None:
                        structure.append(tensor)
                    else:
                        found.tensors.append(tensor)
        same = len(attributes) == len(self._values) and all(map(operator.is_, self._values, attributes.values()))
        if not same or structure != self._structure or any(self._empty):
            self._read(structure)
        if not self._others:
            return self._plain
        return self._plain, tuple([(name, _told(value, found, [_MANY])) for name, value in self._others])

    def _read(self, structure: list[Any]) -> None:
        self._attributes, self._structure = vars(self.module), structure
        self._values, self._empty, self._others = list(self._attributes.values()), [], []
        inside = [Held(item) if isinstance(item, nn.Module) else item for item in structure]
        plain: list[Any] = [Held(self.module), type(self.module), *inside]
        for name, value in self._attributes.items():
            if _is_fixed(value):
                plain.append((name, _told(value, _Found(), [_MANY])))
            elif name in _TENSORS:
                continue
            elif type(value) in (dict, OrderedDict, set, list) and not value:
                self._empty.append(value)  # most of a module's attributes: no hooks
            else:
                self._others.append((name, value))
        self._plain = _Tuple(plain)


def _is_fixed(value: Any) -> bool:
    """Whether it can't change and stay the same object."""
    return isinstance(value, _PLAIN) or (type(value) is tuple and all(map(_is_fixed, value)))


class _Tuple(tuple):
    """A tuple that is hashed once."""

    def __hash__(self) -> int:
        found = self.__dict__.get("hash")
        if found is None:
            found = self.__dict__["hash"] = super().__hash__()
        return found


def _class_told(kind: type, found: _Found) -> Any:
    """The code and the attributes of a class, which are exchanged in notebooks; of torch's own, itself."""
    told: list[Any] = [kind]
    for base in kind.__mro__:
        if base.__module__.partition(".")[0] in ("torch", "builtins"):
            continue
        for name, value in list(vars(base).items()):
            if isinstance(value, types.FunctionType):
                told.append((name, _code_told(value, found, [_MANY], _DEEP)))
            else:
                told.append((name, _plain(value) if isinstance(value, _PLAIN) else Held(value)))
    return tuple(told)


def _code_told(function: types.FunctionType, found: _Found, left: list[int], deep: int) -> tuple:
    """A function, its code, which %autoreload exchanges, and what it knows by global names."""
    names = [(name, value) for name, value in named_in(function) if not isinstance(value, _CONSTANT)]
    known = [(name, _told(value, found, left, deep - 1)) for name, value in names]
    return Held(function), Held(function.__code__), *known


_CONSTANT = (types.ModuleType, type, types.BuiltinFunctionType)


def _plain(value: Any) -> Any:
    """A plain value: 1 and True apart, and NaN equal to itself."""
    return type(value), str(value) if isinstance(value, (float, complex)) else value


def _told(value: Any, found: _Found, left: list[int], deep: int = _DEEP) -> Any:
    """Something hashable that is another when the value is."""
    left[0] -= 1
    if isinstance(value, _PLAIN):
        return _plain(value)
    if isinstance(value, Tensor):
        found.tensors.append(value)
        return "tensor"
    if issubclass(type(value), nn.Module):  # a weak proxy says that it is one
        found.modules.append(value)
        return Held(value)
    if not deep or left[0] < 0 or id(value) in found.told:
        return Held(value)
    found.told[id(value)] = value

    def each(items: Iterable[Any]) -> tuple:
        return tuple([_told(item, found, left, deep - 1) for item in _first(items, left)])

    if isinstance(value, np.ndarray):
        return each(value.tolist()) if value.dtype.hasobject else (value.shape, value.dtype.str, digest(value))
    if isinstance(value, Mapping):
        return type(value), each(value.keys()), each(value.values())
    if isinstance(value, (list, tuple, deque)):
        if all(isinstance(item, _PLAIN) for item in value):
            return type(value), tuple(map(type, value)), tuple(value)
        return type(value), each(value)
    if isinstance(value, AbstractSet):
        return type(value), frozenset(each(value))
    if isinstance(value, types.FunctionType):
        cells = [content_of(cell) for cell in value.__closure__ or ()]
        given = value.__defaults__ or (), tuple((value.__kwdefaults__ or {}).items())
        return _code_told(value, found, left, deep), each(cells), each(given)
    if isinstance(value, types.MethodType):
        return each((value.__self__, value.__func__))
    if isinstance(value, functools.partial):
        return Held(value), each((value.func, value.args, value.keywords))
    if isinstance(value, weakref.ref):
        return Held(value), each((value(),))
    if isinstance(value, torch.Generator):
        return Held(value), digest(value.get_state().numpy())
    if draws_numbers(value):
        state = value.getstate() if hasattr(value, "getstate") else getattr(value, "bit_generator", value)
        return Held(value), str(getattr(state, "state", state))
    # What says itself how it is copied may be shared with the stand-ins, and count their passes.
    if isinstance(value, (type, types.ModuleType)) or hasattr(type(value), "__copy__"):
        return Held(value)
    own = [*(getattr(value, "__dict__", None) or {}).items(), *((s.__name__, item) for s, item in slots_of(value))]
    return Held(value), tuple(name for name, _ in own), each(item for _, item in own)


def _first(items: Iterable[Any], left: list[int]) -> list[Any]:
    return [item for item, _ in zip(list(items), range(max(left[0], 0)), strict=False)]


def identity(value: Any) -> Any:
    """A hashable stand-in for an argument: numbers and names by value, objects by identity, arrays by content too.

    So an edit in place is noticed, in whatever way it was made.
    """
    if isinstance(value, Tensor):
        return ("tensor", Held(value), *map(tuple, Contents()([value])))
    if isinstance(value, np.ndarray):
        return ("array", Held(value), value.shape, None if value.dtype.hasobject else digest(value))
    if isinstance(value, Mapping):
        return tuple((str(key), identity(item)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(identity(item) for item in value)
    if isinstance(value, (str, int, float, bool, type(None))):
        return (type(value).__name__, value)
    if hasattr(value, "tobytes") and hasattr(value, "getpixel"):  # a picture of PIL's
        return ("picture", Held(value), value.size, value.mode, digest(np.frombuffer(value.tobytes(), np.uint8)))
    return ("object", Held(value))
