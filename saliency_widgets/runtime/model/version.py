"""What a model is at this moment: changes whenever anything that its forward may depend on does."""

from __future__ import annotations

import functools
import types
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from saliency_widgets.runtime.arguments import entries
from saliency_widgets.runtime.model.copyable import draws_numbers, is_foreign, members_of, names_in
from saliency_widgets.runtime.model.snapshot import Reading, is_listable, is_readable
from saliency_widgets.runtime.model.tensor_hash import TensorHash, digest
from saliency_widgets.runtime.reuse.fusion import global_hooks

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


class ModelVersion:
    """Tells versions of one model apart: called, it gives the same number for the same state, and another for another.

    Its modules, their names, weights, buffers and attributes of any kind count, what hangs on these a few levels deep,
    the code of their classes, and hooks. Fused optimizers and ``.data`` leave torch's version counters as they were, so
    the numbers themselves are looked at, see :class:`~.tensor_hash.TensorHash`. What is as it was the last time is not
    gone through again, see :class:`~.snapshot.Reading`.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._walk: _Walk | None = None
        self._contents = TensorHash()
        self._versions: OrderedDict[tuple, int] = OrderedDict()
        self._last: tuple[tuple, int] | None = None
        self._count = 0

    def __call__(self) -> int:
        """The number of the version that the model is now; of the last few versions, the one it had then."""
        if self._walk is None or not self._walk.reading.is_current():
            self._walk = None  # half of one, that an error ended, is none
            walk = _Walk()
            walk.through(self._model)
            self._walk = walk
        state = (self._walk.told, [*map(Held, global_hooks())], *self._contents(self._walk.tensors))
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


class _Walk:
    """Goes through a model.

    Attributes:
        told: Something hashable that is another when the model is.
        tensors: Those that were met, which are to be looked at.
        modules: Those that were met.
        reading: All that was read.
    """

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.tensors: list[Tensor] = []
        self.modules: list[nn.Module] = []
        self.reading = Reading()
        # By id, and alive, so that none gets the id of another: how far down it was looked into.
        self._met: dict[int, tuple[Any, int]] = {}

    def through(self, model: nn.Module) -> None:
        """The model and all modules that are met on the way, however they hang on it."""
        self.modules.append(model)
        seen: dict[int, nn.Module] = {}
        kinds: dict[type, Any] = {}
        for module in self.modules:
            if id(module) not in seen:
                seen[id(module)] = module
                self.told.append(self._module(module))
                kind = type(module)
                if kind not in kinds:
                    kinds[kind] = self._class(kind, lambda value: self.tell(value, [_MANY]))
        self.told += kinds.values()

    def _module(self, module: nn.Module) -> Any:
        kind, attributes = self.reading.attributes(module)
        told: list[Any] = [Held(module), kind]
        for name, value in attributes:
            whole = name in _TENSORS and is_readable(value)  # however many there are
            told.append((name, self._parts(value) if whole else self.tell(value, [_MANY])))
        if isinstance(module, torch.jit.ScriptModule):
            told.append(self.reading.other(functools.partial(_scripted, module))[0])
            self.tensors += (*module.parameters(recurse=False), *module.buffers(recurse=False))
            self.modules += module.children()
        return tuple(told)

    def _parts(self, held: dict[str, Any]) -> tuple:
        """The weights, buffers or modules in a module: which modules and names; the tensors are looked at."""
        items = self.reading.items(held)
        self.tensors += [item for _, item in items if isinstance(item, Tensor)]
        self.modules += [item for _, item in items if isinstance(item, nn.Module)]
        return tuple([(name, type(item) if isinstance(item, Tensor) else Held(item)) for name, item in items])

    def _class(self, kind: type, tell: Callable[[Any], Any]) -> Any:
        """The code and the attributes of a class, which are exchanged in notebooks; of torch's own, itself."""
        told: list[Any] = [Held(kind)]
        for base in self.reading.classes(kind):
            if not is_foreign(base):
                told += [(name, tell(value)) for name, value in self.reading.items(vars(base))]
        return tuple(told)

    def tell(self, value: Any, left: list[int], deep: int = _DEEP) -> Any:
        """Something hashable that is another when the value is.

        Args:
            value: Anything.
            left: How much more may be looked at.
            deep: And how far down.
        """
        left[0] -= 1
        if isinstance(value, _PLAIN):
            # 1 and True apart, and NaN equal to itself.
            return type(value), str(value) if isinstance(value, (float, complex)) else value
        if isinstance(value, Tensor):
            self.tensors.append(value)
            return type(value)
        if issubclass(type(value), nn.Module):  # a weak proxy says that it is one
            self.modules.append(value)
            return Held(value)
        if not deep or left[0] < 0 or self._met.get(id(value), _NEVER)[1] >= deep:
            return Held(value)
        self._met[id(value)] = value, deep

        def each(items: Iterable[Any]) -> tuple:
            return tuple([self.tell(item, left, deep - 1) for item in items])

        reading = self.reading
        if isinstance(value, type):
            # Of a class in passing, its own code and attributes: what these lead to is everything, sooner or later.
            return self._class(value, lambda item: self.tell(item, left, min(deep - 1, 1)))
        if reading.is_empty(value):
            return type(value)
        if is_readable(value):
            items = reading.items(value)
            return type(value), each(key for key, _ in items), each(item for _, item in items)
        if is_listable(value):
            found = each(reading.listed(value))
            return type(value), frozenset(found) if isinstance(value, set) else found
        if type(value) in (tuple, frozenset):
            return type(value), type(value)(each(value))
        if isinstance(value, types.FunctionType):
            code, given, named, held = reading.function(value)
            known = reading.named(value.__globals__, names_in(value))
            known += reading.attributes(value)[1]
            names, items = tuple(name for name, _ in known), (item for _, item in known)
            return Held(value), Held(code), names, each(held), each((given, named)), each(items)
        if isinstance(value, types.MethodType):
            return each((value.__self__, value.__func__))
        if isinstance(value, functools.partial):
            return Held(value), each((value.func, value.args, value.keywords))
        if isinstance(value, (staticmethod, classmethod, property)):
            return Held(value), each((value.fget,) if isinstance(value, property) else (value.__func__,))
        if isinstance(value, (np.ndarray, torch.Generator)) or draws_numbers(value):
            told = reading.other(functools.partial(_numbers, value))
            objects = value.ravel().tolist() if isinstance(value, np.ndarray) and value.dtype.hasobject else []
            return Held(value), told, each(objects)
        # What says itself how it is copied may be shared with the stand-ins, and count their passes.
        inside = _inside(value)
        if isinstance(value, types.ModuleType) or (hasattr(type(value), "__copy__") and inside is None):
            return Held(value)
        kind, attributes = reading.attributes(value)
        own: list[tuple[str, Any]] = [("", kind), *attributes, *reading.slots(value)]
        if inside is not None:
            own += [("", held.value) for held in reading.other(functools.partial(_inside, value))]
        return Held(value), tuple(name for name, _ in own), each(item for _, item in own)


_NEVER = None, 0


def _inside(value: Any) -> list[Held] | None:
    """What is in a container or a weak reference besides its attributes; None where it is no such thing."""
    if isinstance(value, dict):  # of a kind of somebody's, whose own ways of reading may make things anew
        return [Held(item) for pair in dict.items(value) for item in pair]
    if isinstance(value, weakref.ref):
        return [Held(value())]
    kinds: tuple[Any, ...] = (list, tuple, set, frozenset, deque)
    for kind in kinds:
        if isinstance(value, kind):
            return [*map(Held, kind.__iter__(value))]
    if isinstance(value, Mapping) and not hasattr(value, "__dict__") and not members_of(type(value)):
        return [Held(item) for pair in value.items() for item in pair]
    return None


def _numbers(value: Any) -> Any:
    """What is in an array, and where a generator of random numbers is."""
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            return value.shape, [*map(Held, value.ravel().tolist())]
        mask = getattr(value, "mask", None)
        return value.shape, value.dtype.str, digest(np.asarray(value)), None if mask is None else digest(mask)
    if isinstance(value, torch.Generator):
        return digest(value.get_state().numpy())
    if hasattr(value, "get_state"):  # NumPy's of old
        state = value.get_state()
        return digest(state[1]), state[2:]
    state = value.getstate() if hasattr(value, "getstate") else getattr(value, "bit_generator", value)
    return str(getattr(state, "state", state))


def _scripted(module: Any) -> Any:
    """What a scripted module holds, which isn't in its ``__dict__``."""
    kind = getattr(module, "_concrete_type", None)
    names = () if kind is None else kind.get_attributes()
    own = [(name, module._c.getattr(name)) for name in names if module._c.hasattr(name)]
    plain = tuple([(name, str(value)) for name, value in own if not isinstance(value, Tensor)])
    held = [part for parts in (module._parameters, module._buffers, module._modules) for part in parts.items()]
    return (plain, tuple([name for name, _ in held])), [Held(item) for _, item in held]


def identity(value: Any) -> Any:
    """A hashable stand-in for an argument: numbers and names by value, objects by identity, arrays by content too.

    So an edit in place is noticed, in whatever way it was made.
    """
    if isinstance(value, Tensor):
        return ("tensor", Held(value), *map(tuple, TensorHash()([value])))
    if isinstance(value, np.ndarray):
        return ("array", Held(value), value.shape, None if value.dtype.hasobject else digest(value))
    if isinstance(value, Mapping):
        return tuple((str(key), _inner(item)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(_inner(item) for item in value)
    if isinstance(value, (str, int, float, bool, type(None))):
        return (type(value).__name__, value)
    if hasattr(value, "tobytes") and hasattr(value, "getpixel"):  # an image of PIL's
        return ("image", Held(value), value.size, value.mode, digest(np.frombuffer(value.tobytes(), np.uint8)))
    return ("object", Held(value))


def _inner(item: Any) -> Any:
    """Of something inside a container, where a dataclass is one too."""
    fields = entries(item) if is_dataclass(item) else None
    return identity(item) if fields is None else ("dataclass", Held(item), identity(dict(fields)))
