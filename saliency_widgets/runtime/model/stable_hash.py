"""A hash of everything that a result depends on, which is the same in another process and on another day."""

from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor, nn

from saliency_widgets.runtime.model.tensor_hash import is_empty
from saliency_widgets.runtime.model.walker import CONTAINERS, PLAIN, SORTS, TENSORS, contents, is_foreign

_PLAIN = tuple(PLAIN - {slice})
_READ = (
    types.MappingProxyType,
    frozenset,
    *chain.from_iterable(sort if isinstance(sort, tuple) else (sort,) for sort in SORTS),
)
_NAMED = (types.BuiltinFunctionType, types.ModuleType, types.MethodDescriptorType, types.WrapperDescriptorType)
# Attributes of a class that are not written in its body.
_GENERATED = frozenset(
    (
        *("__dict__", "__weakref__", "__doc__", "__module__", "__annotations__", "__qualname__", "__firstlineno__"),
        *("__dataclass_fields__", "__dataclass_params__", "__match_args__", "__static_attributes__"),
        *("__abstractmethods__", "_abc_impl"),
    )
)
_DEPTH = 24


def signature(*values: Any) -> str:
    """Return a hash of values by their contents, independent of their memory addresses.

    A module is hashed by its classes (with their code, if that is the caller's), attributes, weights, hooks and mode; a
    function by its code, its captured values, and the caller's own globals that it names; any other object of a
    caller's class by that class and its attributes. Objects of libraries are hashed by their name or their pickle.

    Raises:
        TypeError: A value can't be hashed this way.
    """
    signer = _Signer()
    try:
        signer.each(values, _DEPTH)
    except TypeError:
        raise
    except Exception as error:
        raise TypeError(f"a value that the sweep depends on can't be hashed reproducibly: {error}") from error
    return signer.state.hexdigest()


class _Signer:
    """Feeds values to a hash. A repeated object is fed as its number, so that sharing counts and cycles end."""

    def __init__(self) -> None:
        self.state = xxhash.xxh3_128()
        self._met: dict[int, tuple[int, Any]] = {}

    def each(self, values: Iterable[Any], depth: int) -> None:
        for value in values:
            self._feed(value, depth)

    def _feed(self, value: Any, depth: int) -> None:
        add = self.state.update
        add(f"<{type(value).__module__}.{type(value).__qualname__}".encode())
        if isinstance(value, _PLAIN):
            add(repr(value).encode())
        elif not depth:
            raise TypeError(f"a {type(value).__name__} is nested too deeply to be hashed reproducibly.")
        elif id(value) in self._met:
            add(f"#{self._met[id(value)][0]}".encode())
        else:
            self._met[id(value)] = len(self._met), value
            self._open(value, depth - 1)
            add(b">")

    def _open(self, value: Any, depth: int) -> None:
        add = self.state.update
        if isinstance(value, Tensor) or (isinstance(value, np.ndarray) and not value.dtype.hasobject):
            self._numbers(value)
        elif isinstance(value, nn.Module):
            self._module(value, depth)
        elif isinstance(value, (set, frozenset)):  # their order differs between processes
            add("".join(sorted(map(signature, value))).encode())
        elif isinstance(value, types.CodeType):
            self.each((value.co_code, value.co_names, value.co_varnames, value.co_consts), depth)
        elif isinstance(value, types.FunctionType):
            add(value.__qualname__.encode())
            library = _is_library(value.__globals__.get("__name__"))
            self.each(contents(value)[library:], depth)  # without a library's code, the first item
        elif isinstance(value, type):
            add(f"{value.__module__}.{value.__qualname__}".encode())
            if not is_foreign(value) and not _is_library(value.__module__):
                written = {name: held for name, held in vars(value).items() if _is_written(name)}
                self.each((value.__bases__, written), depth)
        elif isinstance(value, _NAMED):
            add(str(getattr(value, "__qualname__", value.__name__)).encode())
        elif type(value) in CONTAINERS or isinstance(value, _READ) or not is_foreign(type(value)):
            self.each(contents(value), depth)
        else:  # attributes may not show its whole state; an object that can't be pickled has no hash
            add(pickle.dumps(value))

    def _numbers(self, value: Any) -> None:
        about = [str(value.dtype), tuple(value.shape)]
        if isinstance(value, Tensor):
            about.append("meta" if is_empty(value) else str(value.layout))
            dense = value.to_dense() if value.layout != torch.strided else value
            bare = is_empty(value) or not value.numel()
            value = np.empty(0) if bare else dense.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
        self.state.update(repr(about).encode())
        self.state.update(np.ascontiguousarray(value).tobytes())

    def _module(self, model: nn.Module, depth: int) -> None:
        for path, module in model.named_modules(remove_duplicate=False):
            self.each((path, type(module)), depth)
            if id(module) in self._met and module is not model:
                self.state.update(f"#{self._met[id(module)][0]}".encode())
                continue
            self._met.setdefault(id(module), (len(self._met), module))
            self.state.update(module.extra_repr().encode())
            for name, held in vars(module).items():
                if name not in TENSORS:
                    # The keys of hooks count up over the whole process, so they are left out.
                    self.each((name, [*held.values()] if name.endswith("_hooks") and held else held), depth)
        for named in (model.named_parameters, model.named_buffers):
            self.each((part for pair in named(remove_duplicate=False) for part in pair), depth)


def _is_written(name: str) -> bool:
    return name not in _GENERATED and not name.startswith("__orig")


def _is_library(module: Any) -> bool:
    """Return whether code belongs to an installed library, and only changes with its version."""
    if str(module).partition(".")[0] == "saliency_widgets":
        return True
    file = getattr(sys.modules.get(str(module)), "__file__", None) or ""
    return "site-packages" in file or "dist-packages" in file or file.startswith(sys.base_prefix)
