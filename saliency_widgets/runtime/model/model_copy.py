"""Copies of a model's modules and of the objects that they hold, so that no pass writes to the caller's objects."""

from __future__ import annotations

import contextlib
import copy
import enum
import functools
import operator
import threading
import types
import weakref
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import PurePath
from typing import Any

import torch
from torch import Tensor, nn

from saliency_widgets.runtime.model.tensor_hash import is_empty, is_odd
from saliency_widgets.runtime.model.version import ModelVersion, State
from saliency_widgets.runtime.model.walker import (
    CONTAINERS,
    PLAIN,
    TENSORS,
    TORCHS,
    compiled_from,
    contents,
    draws_numbers,
    filled_slots,
    in_cell,
    is_array,
    is_foreign,
    names_in,
)

_MANY = 256  # items; those of a larger container, such as a vocabulary, are shared
_FEW, _DEEP = 64, 3  # limits of an object that is copied: values in all, and levels of nesting
_RECURRENT = (nn.RNN, nn.LSTM, nn.GRU)
_LARGEST_SHARED = 64 * 2**20  # bytes of a storage; a buffer that is a small part of a larger one is copied alone
_SINGLE = (
    *(nn.Module, Tensor, torch.Generator, type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType),
    *(types.MethodType, functools.partial, frozenset, enum.Enum, PurePath),
)
_CONSTRUCTORS = (object.__new__, dict.__new__, list.__new__, types.SimpleNamespace.__new__)


class Copier:
    """Copies the objects of a model, each of them once.

    Modules, containers, arrays, random number generators, functions that hold any of these in their closures, and small
    objects with plain parts are copied, because a pass may write to them or reach the caller's model through them.
    Objects that are neither small nor plain (a trainer, a lock, a file, a large configuration) are shared. Of the
    globals that a function uses, only modules, their methods, and functions of the same Python module are copied.

    Args:
        memo: Maps the id of an object of the model to the object and its counterpart in the copy.

    Attributes:
        memo: The same mapping, filled in.
        scripted: The scripted modules, which can't be copied and are run themselves.
    """

    def __init__(self, memo: MutableMapping[int, tuple[Any, Any]] | None = None) -> None:
        self.memo: MutableMapping[int, tuple[Any, Any]] = {} if memo is None else memo
        self.scripted: list[nn.Module] = []
        self._memories: dict[int, Any] = {}

    def _put(self, value: Any, made: Any) -> Any:
        self.memo[id(value)] = value, made
        return made

    def module(self, module: nn.Module) -> nn.Module:
        """Return a copy of a module and its descendants, with shared parameters and cloned buffers."""
        if id(module) in self.memo:
            return self.memo[id(module)][1]
        if isinstance(module, torch.jit.ScriptModule):
            self.scripted.append(module)
            return self._put(module, module)
        if "_orig_mod" in module._modules:  # torch.compile: its code is bound to the caller's module
            return self._put(module, _Through(self.module(module._modules["_orig_mod"])))  # type: ignore[arg-type]
        made = self._put(module, nn.Module.__new__(type(module)))  # without __init__, which may take arguments
        state = dict(module.__dict__)
        object.__setattr__(made, "__dict__", state)  # Module.__setattr__ takes longer than all the rest
        for name, value in state.items():
            if name in TORCHS and not value and type(value) in CONTAINERS:
                state[name] = type(value)()
            elif type(value) not in PLAIN and name not in TENSORS:
                state[name] = self.counterpart(value)
        state["_compiled_call_impl"] = None
        state["_parameters"] = dict(module._parameters)
        state["_buffers"] = {name: None if b is None else self._tensor(b) for name, b in module._buffers.items()}
        if type(module) in _RECURRENT:
            # cuDNN differentiates recurrent layers only in training mode, and draws their dropout itself. Without
            # dropout, both modes compute the same.
            state["training"], state["dropout"] = True, 0.0
        state["_modules"] = {
            name: None if child is None else self.module(child) for name, child in module._modules.items()
        }
        return made

    def counterpart(self, value: Any) -> Any:
        """Return the copy's counterpart of a value, or the value itself if no forward can write to it."""
        kind = type(value)
        if kind in PLAIN or kind in weakref.ProxyTypes:
            return value
        if id(value) in self.memo:
            return self.memo[id(value)][1]
        if kind in CONTAINERS:
            return self._container(value)
        if issubclass(kind, nn.Module):
            return self.module(value)
        if kind is weakref.ref:
            target = value()
            return value if target is None or not _leads_on(target, set()) else weakref.ref(self.counterpart(target))
        if isinstance(value, Tensor):
            return value if isinstance(value, nn.Parameter) else self._tensor(value)
        if kind is types.FunctionType:
            return self._function(value)
        if kind is types.MethodType:
            function, instance = self.counterpart(value.__func__), self.counterpart(value.__self__)
            same = function is value.__func__ and instance is value.__self__
            return value if same else types.MethodType(function, instance)
        if isinstance(value, functools.partial):
            func, args, keywords = (
                self.counterpart(value.func),
                self.counterpart(value.args),
                self.counterpart(value.keywords),
            )
            return functools.partial(func, *args, **keywords)
        if isinstance(value, torch.Generator):
            return self._put(value, value.clone_state())
        if is_array(value):
            return self._put(value, value.copy())
        if draws_numbers(value):
            return self._put(value, copy.deepcopy(value))
        return self._object(value)

    def _tensor(self, value: Tensor) -> Tensor:
        """Return a copy outside any autograd graph; copies of tensors that share memory share memory, too."""
        if id(value) in self.memo:
            return self.memo[id(value)][1]
        source = value.detach()
        special = source.is_quantized or source.is_conj() or source.is_neg()
        if special or is_odd(source) or is_empty(source):
            return self._put(value, source.clone())
        memory = source.untyped_storage()
        size, whole = memory.nbytes(), source.numel() * source.element_size() == memory.nbytes()
        shared = self._memories.get(memory.data_ptr())
        if not size or (shared is None and (whole or size > _LARGEST_SHARED)):
            made = source.clone()
            if whole:
                self._memories[memory.data_ptr()] = made.untyped_storage()
            return self._put(value, made)
        if shared is None:
            shared = self._memories[memory.data_ptr()] = memory.clone()
        made = torch.empty(0, dtype=value.dtype, device=value.device)
        return self._put(value, made.set_(shared, source.storage_offset(), source.size(), source.stride()))

    def _container(self, value: Any) -> Any:
        if isinstance(value, tuple):
            if PLAIN.issuperset(map(type, value)):
                return value
            items = [self.counterpart(item) for item in value]
            return value if all(map(operator.is_, items, value)) else tuple(items)
        made = self._put(value, copy.copy(value))
        if len(value) > _MANY or isinstance(value, (set, Counter)):
            return made
        if isinstance(value, dict):
            made.update([(key, self.counterpart(item)) for key, item in list(value.items())])
        else:
            made.clear()
            made.extend([self.counterpart(item) for item in list(value)])
        return made

    def _function(self, value: types.FunctionType) -> Any:
        """Copy a function and its closure cells if their contents are copied; shared cells stay shared."""
        original = compiled_from(value)
        if original is not None:
            return self.counterpart(original)
        if not _leads_on(value, set()):
            return value
        cells, fresh = [], []
        for cell in value.__closure__ or ():
            if id(cell) not in self.memo:
                leads = _leads_on(in_cell(cell)[0], set())
                self._put(cell, types.CellType() if leads else cell)
                fresh += [cell] if leads else []
            cells.append(self.memo[id(cell)][1])
        names = [name for name, item in _followed(value) if _leads_on(item, set())]
        namespace = dict(value.__globals__) if names else value.__globals__
        made = types.FunctionType(value.__code__, namespace, value.__name__, None, tuple(cells) or None)
        self._put(value, made)  # before its cells are filled, as they may refer to it
        namespace.update([(name, self.counterpart(namespace[name])) for name in names])
        for cell in fresh:
            self.memo[id(cell)][1].cell_contents = self.counterpart(cell.cell_contents)
        made.__defaults__, made.__kwdefaults__ = (
            self.counterpart(value.__defaults__),
            self.counterpart(value.__kwdefaults__),
        )
        made.__dict__.update(value.__dict__)
        made.__qualname__, made.__module__, made.__doc__ = value.__qualname__, value.__module__, value.__doc__
        return made

    def _object(self, value: Any) -> Any:
        kind = type(value)
        if isinstance(value, _SINGLE) or not _has_state(value) or not _is_small(value, {id(value)}):
            return self._put(value, value)
        copies_itself = hasattr(kind, "__copy__")
        try:
            made: Any = copy.copy(value) if copies_itself else kind.__new__(kind)  # type: ignore[call-overload]
        except Exception:  # the class can't be copied
            made = value
        self._put(value, made)
        if made is value or type(made) is not kind:  # the class shares it or returned something else
            return made
        source = made if copies_itself else value
        for slot, item in filled_slots(source):
            slot.__set__(made, self.counterpart(item))
        if kind.__dictoffset__:
            vars(made).update([(name, self.counterpart(item)) for name, item in list(vars(source).items())])
        if isinstance(value, dict):
            dict.update(made, [(key, self.counterpart(item)) for key, item in list(dict.items(source))])
        elif isinstance(value, list):
            list.__setitem__(made, slice(None), [self.counterpart(item) for item in list.__iter__(source)])
        return made


def _followed(function: types.FunctionType) -> list[tuple[str, Any]]:
    """Return the globals of a function that are modules, their methods, or functions of the same Python module."""
    namespace = function.__globals__
    named = [(name, namespace[name]) for name in names_in(function) if name in namespace]
    return [(name, item) for name, item in named if _runs_a_module(item, namespace)]


def _runs_a_module(value: Any, namespace: dict[str, Any]) -> bool:
    if type(value) is types.FunctionType:
        return value.__globals__ is namespace or compiled_from(value) is not None
    return isinstance(value.__self__ if type(value) is types.MethodType else value, nn.Module)


def _leads_on(value: Any, seen: set[int]) -> bool:
    """Return whether a value is, or leads to, an object that is copied; decides for each closure cell separately."""
    kind = type(value)
    if kind in PLAIN or isinstance(value, (type, types.ModuleType, types.CodeType)) or id(value) in seen:
        return False
    seen.add(id(value))
    if kind in (types.FunctionType, types.MethodType, tuple, weakref.ref):
        return any(_leads_on(item, seen) for item in contents(value))
    if issubclass(kind, (nn.Module, functools.partial, torch.Generator, types.SimpleNamespace)):
        return True
    return kind in CONTAINERS or draws_numbers(value) or not is_foreign(kind)


def _is_small(value: Any, seen: set[int], depth: int = 0) -> bool:
    """Return whether an object or container, with everything reachable from it, is small and can be copied."""
    kind = type(value)
    if isinstance(value, _SINGLE) or is_array(value) or draws_numbers(value) or not _has_state(value):
        return True
    if kind not in CONTAINERS and (
        hasattr(kind, "__del__")
        or issubclass(kind, (OrderedDict, defaultdict))
        or kind.__new__ not in _CONSTRUCTORS
        or (is_foreign(kind) and kind is not types.SimpleNamespace)
    ):
        return False
    inside = [i for i in contents(value) if type(i) not in PLAIN and not isinstance(i, type) and id(i) not in seen]
    seen.update(map(id, inside))
    return depth <= _DEEP and len(seen) <= _FEW and all(_is_small(item, seen, depth + 1) for item in inside)


def _has_state(value: Any) -> bool:
    """Return whether there is anything to copy; not in a sentinel for "missing", which is compared by ``is``."""
    return type(value) in CONTAINERS or len(contents(value)) > 1 or not all(n[:2] == "__" for n in dir(type(value)))


class ModelCopy:
    """A copy of a model.

    Args:
        model: The caller's model.
        prepare: Replaces weights of the copy.

    Attributes:
        module: The copy.
        memo: Maps the id of an object of the model to the object and its counterpart in the copy.
        scripted: The scripted modules in the copy, which are the caller's own.
    """

    def __init__(self, model: nn.Module, prepare: Callable[[nn.Module], None] | None = None) -> None:
        copier = Copier()
        with torch.inference_mode(False):
            self.module = copier.module(model)
            if prepare is not None:
                prepare(self.module)
        self.memo, self.scripted = copier.memo, copier.scripted


_DEPTH = 6  # to which a copy is examined after a pass
_IDLE = 2  # idle copies: one to compute with, and one that runs the model as it is written


class Copies:
    """The copies of one model, made once for each version of it and lent to passes.

    Args:
        model: The caller's model.
        version: Numbers the states of the model.
    """

    def __init__(self, model: nn.Module, version: ModelVersion | None = None) -> None:
        self.model = model
        self.version = ModelVersion(model) if version is None else version
        self._idle: list[tuple[int, Any, ModelCopy, State, tuple]] = []
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def lend(self, number: int, key: Any, prepare: Callable[[nn.Module], None]) -> Iterator[ModelCopy]:
        """Lend a copy that no other pass uses meanwhile.

        A copy that a pass wrote to (a cache in an attribute, BatchNorm statistics) is not reused, because a recorded
        graph may refer to the tensors that were written.

        Args:
            number: The number of the model's version.
            key: The kind of copy, compared by identity.
            prepare: Replaces weights of a new copy.
        """
        with self._lock:
            self._idle = [entry for entry in self._idle if entry[0] == number]
            entry = next((entry for entry in self._idle if entry[1] is key), None)
            if entry is not None:
                self._idle.remove(entry)
        if entry is None:
            copied = ModelCopy(self.model, prepare)
            state = State(copied.module, _DEPTH, weights=False)
            entry = number, key, copied, state, state()
        yield entry[2]  # after an error, it isn't reused either
        *_, state, before = entry
        if state.snapshot.is_current() and state() == before:
            with self._lock:
                self._idle = [entry, *self._idle][:_IDLE]


class _Through(nn.Module):
    """Replaces a compiled module, and runs the original module without compilation."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self._orig_mod = original

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("_orig_mod"), name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._orig_mod(*args, **kwargs)
