"""A name for what a number depends on, that is the same in another process and on another day."""

from __future__ import annotations

import pickle
import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor, nn

from saliency_widgets.attribution.copyable import is_foreign

_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size, range)
_TENSORS = ("_parameters", "_buffers", "_modules")
_DEEP = 8


def signature(*values: Any) -> str:
    """A digest of values by what they hold, never by where they lie.

    Of a module that is its classes, their code where it is the caller's, its attributes, weights and mode; of a
    function its code, with what it captures.

    Raises:
        TypeError: Something can't be told by what it holds.
    """
    state = xxhash.xxh3_128()
    for value in values:
        _feed(value, state.update, _DEEP)
    return state.hexdigest()


def _feed(value: Any, add: Callable[[Any], None], deep: int) -> None:
    add(f"<{type(value).__module__}.{type(value).__qualname__}".encode())
    if isinstance(value, _PLAIN):
        add(repr(value).encode())
    elif isinstance(value, Tensor):
        dense = value.detach().cpu().contiguous()
        add(repr((value.dtype, tuple(value.shape))).encode())
        add(dense.view(-1).view(torch.uint8).numpy() if dense.numel() else b"")
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        add(repr((value.dtype.str, value.shape)).encode())
        add(np.ascontiguousarray(value).tobytes())
    elif not deep:
        raise TypeError(f"a {type(value).__name__} that lies too deep can't be recognised in a later run.")
    elif isinstance(value, nn.Module):
        _feed_module(value, add, deep)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _feed(key, add, deep - 1)
            _feed(item, add, deep - 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _feed(item, add, deep - 1)
    elif isinstance(value, types.MethodType):
        _feed((value.__func__, value.__self__), add, deep - 1)
    elif isinstance(value, types.FunctionType):
        held = [cell.cell_contents for cell in value.__closure__ or ()]
        _feed((_code(value.__code__), value.__defaults__, value.__kwdefaults__, held), add, deep - 1)
    elif isinstance(value, (type, types.BuiltinFunctionType)):
        add(f"{value.__module__}.{value.__qualname__}".encode())
    else:
        try:
            add(pickle.dumps(value))
        except Exception as error:
            raise TypeError(f"a {type(value).__name__} can't be recognised in a later run: {error}") from error
    add(b">")


def _feed_module(model: nn.Module, add: Callable[[Any], None], deep: int) -> None:
    kinds: set[type] = set()
    for path, module in model.named_modules():
        _feed((path, type(module), module.extra_repr()), add, deep - 1)
        for name, held in vars(module).items():
            if name in _TENSORS:
                continue
            # Hooks are by numbers that count all hooks of a process.
            _feed((name, [*held.values()] if name.endswith("_hooks") and held else held), add, deep - 1)
        kinds.update(kind for kind in type(module).__mro__ if not is_foreign(kind))
    for kind in sorted(kinds, key=lambda kind: (kind.__module__, kind.__qualname__)):
        _feed([(name, _code(f.__code__)) for name, f in vars(kind).items() if hasattr(f, "__code__")], add, deep - 1)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        _feed((name, tensor), add, deep - 1)


def _code(code: types.CodeType) -> tuple:
    """What a function does, without where it was written."""
    parts = [_code(part) if isinstance(part, types.CodeType) else repr(part) for part in code.co_consts]
    return code.co_code, code.co_names, code.co_varnames, parts
