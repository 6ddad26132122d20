"""The version of a model: a number that changes with everything tracked that its forward depends on.

Tracked are the modules, their classes, modes and hooks, replaced forwards, weights and buffers, attributes two levels
deep, and the globals that the code of a forward names. Anything further away is not tracked.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from saliency_widgets.runtime.arguments import entries
from saliency_widgets.runtime.model.tensor_hash import TensorHash, digest, numbers_in
from saliency_widgets.runtime.model.walker import (
    CONTAINERS,
    FRAME,
    PLAIN,
    TORCHS,
    VALUES,
    Snapshot,
    draws_numbers,
    global_hooks,
    is_array,
    parts,
)

_DEPTH = 2
_MOST = 1000  # objects reached from one attribute
_REMEMBERED = 8


class Held:
    """An object as part of a key: equal only to itself, and referenced, so that no other object gets its id."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Held) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


class ModelVersion:
    """Numbers the states of one model: a call returns the same number for the same state, and another for another.

    Fused optimizers and writes to ``.data`` don't increase torch's version counters, so a sample of the weights is
    compared as well; :meth:`verify` compares all of them.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._state: State | None = None
        self._numbers: OrderedDict[tuple, int] = OrderedDict()
        self._last: tuple[tuple, int] | None = None
        self._count = 0
        self._slices: list[Callable[[], int]] = []
        self._sliced: tuple | None = None
        self._digests: dict[int, dict[int, int]] = {}
        self._next = 0
        self._lock = threading.RLock()

    def __call__(self) -> int:
        """Return the number of the current state; a return to one of the last few states restores its number."""
        with self._lock:
            if self._state is None or not self._state.snapshot.is_current():
                self._state = None  # an error leaves no partial state
                self._state = State(self._model)
            state = self._state()
            if self._last is None or self._last[0] != state:
                self._last = state, self._number(tuple(map(tuple, state)))
            return self._last[1]

    def glance(self) -> int:
        """Return the number of the state without reading tensors; writes that torch doesn't count go unnoticed."""
        with self._lock:
            if self._last is None or self._state is None or not self._state.is_untouched():
                return self()
            return self._last[1]

    def _number(self, state: tuple) -> int:
        if state not in self._numbers:
            self._count += 1
            self._numbers[state] = self._count
            if len(self._numbers) > _REMEMBERED:
                self._digests.pop(self._numbers.popitem(last=False)[1], None)
        return self._numbers[state]

    def renew(self) -> None:
        """Give every state a new number from now on, as after a change that went unnoticed."""
        with self._lock:
            self._state = self._last = None
            self._numbers.clear()
            self._digests.clear()

    def verify(self, check: Callable[[], None]) -> bool:
        """Hash everything that the sample leaves out, and compare it with the first such hashes of the same state.

        Args:
            check: Called between slices; an exception from it ends the call, and the next call continues there.

        Returns:
            Whether there is a change that the sample missed. The state has a new number then.
        """
        with self._lock:
            number = self()
            if self._sliced is not self._last:
                self._sliced, self._slices, self._next = self._last, self._state.hash.slices() if self._state else [], 0
            before = self._digests.setdefault(number, {})
        for _ in self._slices:
            check()
            index, self._next = self._next, (self._next + 1) % len(self._slices)
            if before.setdefault(index, current := self._slices[index]()) != current:
                if self() != number:
                    return False
                self.renew()
                return True
        return False


class State:
    """The state of a model at one moment.

    Args:
        model: The model.
        depth: How many levels of attributes are read.
        weights: Whether the values of parameters count.

    Attributes:
        key: A description without the values of tensors.
        tensors: The tensors of the model.
        snapshot: Everything that was read.
        hash: Hashes the tensors.
    """

    def __init__(self, model: nn.Module, depth: int = _DEPTH, *, weights: bool = True) -> None:
        self.key: list[Any] = []
        self.tensors: list[Tensor] = []
        self.snapshot = Snapshot()
        self._modules, self._depth, self._left = [model], depth, 0
        # By id: an object, referenced so that its id isn't reused, and the depth to which it was read.
        self._met: dict[int, tuple[Any, int]] = {}
        done: dict[int, nn.Module] = {}
        classes: dict[type, None] = {}
        for module in self._modules:
            if id(module) not in done:
                done[id(module)] = module
                classes[type(module)] = None
                self.key.append(self._module(module))
        for kind in classes:
            self._left = _MOST
            self.key.append((Held(kind), self._open(kind, depth)))
        self.hash = TensorHash(self.tensors, weights=weights)

    def __call__(self) -> tuple:
        """Return the key, the hooks registered for all modules, and current hashes of the tensors."""
        return self.key, [*map(Held, global_hooks())], *self.hash()

    def is_untouched(self) -> bool:
        """Return whether nothing has changed since the last call, as far as visible without reading tensors."""
        return self.snapshot.is_current() and not self.hash.moved()

    def _module(self, module: nn.Module) -> tuple:
        items = self.snapshot.items
        kind, attributes = items(FRAME, module)
        key: list[Any] = [Held(module), kind]
        for name, value in zip(items(iter, attributes), items(VALUES, attributes), strict=True):
            self._left = _MOST
            torchs = name in TORCHS and type(value) in CONTAINERS
            key.append((name, self._open(value, self._depth) if torchs else self._key(value, self._depth)))
        if isinstance(module, torch.jit.ScriptModule):
            key.append(self.snapshot.state(functools.partial(_scripted, module)))
            self.tensors += (*module.parameters(recurse=False), *module.buffers(recurse=False))
            self._modules += module.children()
        return tuple(key)

    def _key(self, value: Any, depth: int) -> Any:
        """Return a hashable description of a value, which changes with it."""
        self._left -= 1
        kind = type(value)
        if kind in PLAIN:
            # The type distinguishes 1 from True, and repr makes NaN equal to itself.
            return kind, repr(value) if kind in (float, complex, slice) else value
        if kind in weakref.ProxyTypes:
            return Held(value)
        if isinstance(value, Tensor):
            self.tensors.append(value)
            return kind
        if issubclass(kind, nn.Module):
            self._modules.append(value)
            return Held(value)
        if is_array(value) or isinstance(value, torch.Generator) or draws_numbers(value):
            state = self.snapshot.state(functools.partial(numbers_in, value))
            return Held(value), state, self._open(value, min(depth, 1)) if is_array(value) else None
        if kind is tuple and self._left > 0:
            return kind, self._open(value, depth)
        if not depth or self._left < 0 or self._met.get(id(value), _NEVER)[1] >= depth or _is_shared(value):
            return Held(value)
        self._met[id(value)] = value, depth
        key = self._open(value, depth - 1)
        return (kind, key) if kind in CONTAINERS else (Held(value), key)

    def _open(self, value: Any, depth: int) -> Any:
        if type(value) in CONTAINERS and not value:  # most are empty: the hooks
            self.snapshot.items(iter, value)
            return ()
        key_of, unordered = self._key, isinstance(value, (set, frozenset))
        key = [key_of(item, depth) for read, source in parts(value) for item in self.snapshot.items(read, source)]
        return frozenset(key) if unordered else tuple(key)


_NEVER = None, 0


def _is_shared(value: Any) -> bool:
    """Return whether an object defines how it is copied: copies may share it, and passes may count in it."""
    return hasattr(type(value), "__copy__") and not isinstance(value, (dict, list, tuple, set, deque))


def _scripted(module: Any) -> Any:
    """Return the contents of a scripted module that aren't in its ``__dict__``."""
    kind = getattr(module, "_concrete_type", None)
    names = () if kind is None else kind.get_attributes()
    attributes = [(name, module._c.getattr(name)) for name in names if module._c.hasattr(name)]
    plain = tuple((name, str(value)) for name, value in attributes if not isinstance(value, Tensor))
    held = [item for part in (module._parameters, module._buffers, module._modules) for item in part.items()]
    return plain, tuple((name, Held(value)) for name, value in held)


def identity(value: Any) -> Any:
    """Return a hashable key for an argument: numbers and names by value, objects by identity, arrays by content too.

    So edits in place are noticed, no matter how they were made.
    """
    if isinstance(value, Tensor):
        return ("tensor", Held(value), *map(tuple, TensorHash([value], None)()))
    if isinstance(value, np.ndarray):
        return ("array", Held(value), value.shape, None if value.dtype.hasobject else digest(value))
    if isinstance(value, Mapping):
        return tuple((str(key), _inner(item)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(_inner(item) for item in value)
    if isinstance(value, (str, int, float, bool, type(None))):
        return (type(value).__name__, value)
    if hasattr(value, "tobytes") and hasattr(value, "getpixel"):  # a PIL image
        return ("image", Held(value), value.size, value.mode, digest(np.frombuffer(value.tobytes(), np.uint8)))
    return ("object", Held(value))


def _inner(item: Any) -> Any:
    """Return the key of an item of a container; a dataclass counts as a container, too."""
    fields = entries(item) if is_dataclass(item) else None
    return identity(item) if fields is None else ("dataclass", Held(item), identity(dict(fields)))
