"""What a model is at this moment: changes whenever anything that its forward may depend on does."""

from __future__ import annotations

import functools
import types
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from saliency_widgets.attribution.copyable import draws_numbers, names_in, slots_of
from saliency_widgets.attribution.tuning import global_hooks
from saliency_widgets.engine.contents import Contents, digest
from saliency_widgets.engine.reading import Reading, is_readable

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
    through again, see :class:`~.reading.Reading`.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._walk: _Walk | None = None
        self._contents = Contents()
        self._versions: OrderedDict[tuple, int] = OrderedDict()
        self._last: tuple[tuple, int] | None = None
        self._count = 0

    def __call__(self) -> int:
        """The number of the version that the model is now; of the last few versions, the one it had then."""
        if self._walk is None or not self._walk.reading.is_current():
            self._walk = _Walk()
            self._walk.through(self._model)
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
    """Goes through a model, or through one object.

    Args:
        nested: Whether it is a part of another walk, which looks at it again every time.

    Attributes:
        told: Something hashable that is another when the model is.
        tensors: Those that were met, which are to be looked at.
        modules: Those that were met.
        reading: All that was read.
    """

    def __init__(self, *, nested: bool = False) -> None:
        self.told: list[Any] = []
        self.tensors: list[Tensor] = []
        self.modules: list[nn.Module] = []
        self.reading = Reading()
        self._nested = nested
        self._met: dict[int, Any] = {}  # by id, and alive: none gets the id of another
        self._kinds: dict[type, Any] = {}

    def through(self, model: nn.Module) -> None:
        """The model and all modules that are met on the way, however they hang on it."""
        self.modules.append(model)
        seen: dict[int, nn.Module] = {}
        for module in self.modules:
            if id(module) in seen:
                continue
            seen[id(module)] = module
            self.told.append(self._module(module))
            if type(module) not in self._kinds:
                self._kinds[type(module)] = self._class(type(module))
        self.told += self._kinds.values()

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

    def _class(self, kind: type) -> Any:
        """The code and the attributes of a class, which are exchanged in notebooks; of torch's own, itself."""
        told: list[Any] = [kind]
        for base in self.reading.classes(kind):
            if base.__module__.partition(".")[0] not in ("torch", "builtins"):
                told += [(name, self.tell(value, [_MANY])) for name, value in self.reading.items(vars(base))]
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
        if not deep or left[0] < 0 or id(value) in self._met:
            return Held(value)
        self._met[id(value)] = value

        def each(items: Iterable[Any]) -> tuple:
            return tuple([self.tell(item, left, deep - 1) for item in items])

        reading = self.reading
        if reading.is_empty(value):
            return type(value)
        if is_readable(value):
            items = reading.items(value)
            return type(value), each(key for key, _ in items), each(item for _, item in items)
        if type(value) is list:
            return type(value), each(reading.listed(value))
        if isinstance(value, tuple):
            return type(value), each(value)
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
        # What says itself how it is copied may be shared with the stand-ins, and count their passes.
        if isinstance(value, (type, types.ModuleType)) or (hasattr(type(value), "__copy__") and not _is_known(value)):
            return Held(value)
        if not self._nested and (_is_known(value) or slots_of(value)):
            reading.other(functools.partial(_alone, value, deep))
        if _is_known(value):
            return self._known(value, each)
        kind, own = reading.attributes(value)
        held = [*own, *((member.__name__, item) for member, item in slots_of(value))]
        return Held(value), kind, tuple(name for name, _ in held), each(item for _, item in held)

    def _known(self, value: Any, each: Callable[[Iterable[Any]], tuple]) -> Any:
        if isinstance(value, np.ndarray):
            return each(value.tolist()) if value.dtype.hasobject else (value.shape, value.dtype.str, digest(value))
        if isinstance(value, Mapping):
            return type(value), each(list(value.keys())), each(list(value.values()))
        if isinstance(value, (list, deque)):
            return type(value), each(list(value))
        if isinstance(value, AbstractSet):
            return type(value), frozenset(each(list(value)))
        if isinstance(value, weakref.ref):
            return Held(value), each((value(),))
        if isinstance(value, torch.Generator):
            return Held(value), digest(value.get_state().numpy())
        state = value.getstate() if hasattr(value, "getstate") else getattr(value, "bit_generator", value)
        return Held(value), str(getattr(state, "state", state))


def _is_known(value: Any) -> bool:
    """Whether we know how to look into it, though not by the objects that it holds."""
    kinds = (np.ndarray, Mapping, list, deque, AbstractSet, weakref.ref, torch.Generator)
    return isinstance(value, kinds) or draws_numbers(value)


def _alone(value: Any, deep: int) -> Any:
    """What is told of a value by itself, with the tensors that are met in it."""
    walk = _Walk(nested=True)
    return walk.tell(value, [_MANY], deep), [*map(Held, walk.tensors)]


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
