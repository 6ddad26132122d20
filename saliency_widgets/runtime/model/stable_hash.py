"""A name for what a number depends on, that is the same in another process and on another day."""

from __future__ import annotations

import functools
import pickle
import sys
import types
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor, nn

from saliency_widgets.runtime.model.copyable import is_foreign, names_in
from saliency_widgets.runtime.model.tensor_hash import is_empty

_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size, range)
_TENSORS = ("_parameters", "_buffers", "_modules")
# Of a class or a module, what is not its own doing.
_ASIDE = frozenset(
    [
        "__dict__",
        "__weakref__",
        "__doc__",
        "__module__",
        "__annotations__",
        "__qualname__",
        "__firstlineno__",
        "__dataclass_fields__",
        "__dataclass_params__",
        "__match_args__",
        "__static_attributes__",
        "__abstractmethods__",
        "_abc_impl",
    ]
)
_NAMED = (types.BuiltinFunctionType, types.ModuleType, types.MethodDescriptorType, types.WrapperDescriptorType)
_DEEP = 24


def signature(*values: Any) -> str:
    """A digest of values by what they hold, never by where they lie.

    Of a module that is its classes, with their code where it is the caller's, its attributes, weights, hooks and mode;
    of a function its code, what it captures, and the caller's own globals that it names; of another object of a class
    of the caller's, that class and the attributes. What is other libraries' counts by its name or its pickle.

    Raises:
        TypeError: Something can't be told by what it holds.
    """
    signer = _Signer()
    try:
        for value in values:
            signer.feed(value, _DEEP)
    except TypeError:
        raise
    except Exception as error:
        raise TypeError(f"what the sweep depends on can't be recognized on another day: {error}") from error
    return signer.state.hexdigest()


class _Signer:
    """Goes through values; what it has met is told by when, so that sharing counts and circles end."""

    def __init__(self, met: dict[int, tuple[int, Any]] | None = None) -> None:
        self.state = xxhash.xxh3_128()
        self._met = {} if met is None else met

    def feed(self, value: Any, deep: int) -> None:
        add = self.state.update
        add(f"<{type(value).__module__}.{type(value).__qualname__}".encode())
        if isinstance(value, _PLAIN):
            add(repr(value).encode())
            return
        if not deep:
            raise TypeError(f"a {type(value).__name__} that lies too deep can't be recognized on another day.")
        if id(value) in self._met:
            add(f"#{self._met[id(value)][0]}".encode())
            return
        self._met[id(value)] = len(self._met), value
        self._feed(value, deep - 1)
        add(b">")

    def _each(self, items: Iterable[Any], deep: int) -> None:
        for item in items:
            self.feed(item, deep)

    def _feed(self, value: Any, deep: int) -> None:
        add, each = self.state.update, functools.partial(self._each, deep=deep)
        if isinstance(value, Tensor):
            if is_empty(value):
                add(repr((value.dtype, tuple(value.shape), "meta")).encode())
                return
            dense = (value.to_dense() if value.layout != torch.strided else value).detach().cpu().contiguous()
            add(repr((dense.dtype, tuple(dense.shape), str(value.layout))).encode())
            add(dense.view(-1).view(torch.uint8).numpy().tobytes() if dense.numel() else b"")
        elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
            add(repr((value.dtype.str, value.shape)).encode())
            add(np.ascontiguousarray(value).tobytes())
        elif isinstance(value, nn.Module):
            self._module(value, deep)
        elif isinstance(value, (set, frozenset)):  # their order is another in each process
            add("".join(sorted(map(signature, value))).encode())
        elif isinstance(value, Mapping):
            each(part for pair in value.items() for part in pair)
        elif isinstance(value, (list, tuple)):
            each(value)
        elif isinstance(value, types.CodeType):
            each((value.co_code, value.co_names, value.co_varnames, value.co_consts))
        elif isinstance(value, types.MethodType):
            each((value.__func__, value.__self__))
        elif isinstance(value, types.FunctionType):
            self._function(value, deep)
        elif isinstance(value, functools.partial):
            each((value.func, value.args, value.keywords))
        elif isinstance(value, (staticmethod, classmethod)):
            self.feed(value.__func__, deep)
        elif isinstance(value, property):
            each((value.fget, value.fset))
        elif isinstance(value, type):
            self._class(value, deep)
        elif isinstance(value, _NAMED):
            add(str(getattr(value, "__qualname__", value.__name__)).encode())
        elif not is_foreign(type(value)) and hasattr(value, "__dict__"):
            each((type(value), _own(value)))
        else:
            add(pickle.dumps(value))

    def _function(self, value: types.FunctionType, deep: int) -> None:
        held = [cell.cell_contents for cell in value.__closure__ or ()]
        self._each((value.__qualname__, value.__defaults__, value.__kwdefaults__, held), deep)
        if not _is_library(value.__globals__.get("__name__")):
            known = {name: value.__globals__[name] for name in sorted(names_in(value)) if name in value.__globals__}
            self._each((value.__code__, known), deep)

    def _class(self, kind: type, deep: int) -> None:
        self.state.update(f"{kind.__module__}.{kind.__qualname__}".encode())
        if not is_foreign(kind) and not _is_library(kind.__module__):
            self._each((kind.__bases__, _own(kind)), deep)

    def _module(self, model: nn.Module, deep: int) -> None:
        for path, module in model.named_modules(remove_duplicate=False):
            self._each((path, type(module)), deep)
            if id(module) in self._met and module is not model:
                self.state.update(f"#{self._met[id(module)][0]}".encode())
                continue
            self._met.setdefault(id(module), (len(self._met), module))
            self.state.update(module.extra_repr().encode())
            for name, held in vars(module).items():
                if name not in _TENSORS:
                    # Hooks are by numbers that count all hooks of a process.
                    self._each((name, [*held.values()] if name.endswith("_hooks") and held else held), deep)
        for name, tensor in (
            *model.named_parameters(remove_duplicate=False),
            *model.named_buffers(remove_duplicate=False),
        ):
            self._each((name, tensor), deep)


def _own(value: Any) -> dict[str, Any]:
    return {name: held for name, held in vars(value).items() if name not in _ASIDE and not name.startswith("__orig")}


def _is_library(module: Any) -> bool:
    """Whether code is an installed library's, which changes with its version alone."""
    if str(module).partition(".")[0] == "saliency_widgets":
        return True
    file = getattr(sys.modules.get(str(module)), "__file__", None) or ""
    return "site-packages" in file or "dist-packages" in file or file.startswith(sys.base_prefix)
