"""Copies of a model's modules and of what hangs on them: what a pass writes to is never the caller's."""

from __future__ import annotations

import copy
import functools
import operator
import types
import weakref
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from saliency_widgets.runtime.model.copyable import (
    CONTAINERS,
    MANY,
    PLAIN,
    compiled_from,
    content_of,
    draws_numbers,
    globals_of,
    is_array,
    is_atom,
    is_simple,
    leads_on,
    slots_of,
)

_TENSORS = ("_parameters", "_buffers", "_modules")
_RECURRENT = (nn.RNN, nn.LSTM, nn.GRU)
_TORCHS = frozenset(vars(nn.Module()))
_MUCH = 64 * 2**20  # bytes of which a buffer shows a part: it is then copied alone


class Copier:
    """Makes the objects of one stand-in, each once.

    Modules, containers, arrays, generators of random numbers, functions that hold any of these in their closures,
    and small objects of plain parts are copied, as each of them may be written to or lead back to the caller's
    model. What is neither small nor plain (a trainer, a lock, a file, a large configuration) is handed on as it is,
    and so is an object that its module knows by name. Of what a function knows by a global name, modules, their
    methods and the functions beside it are copied, and nothing else. It works outside of inference mode.

    Args:
        copied: Filled in: which object of the model, by its id, became which of the stand-in.

    Attributes:
        scripted: Modules that can't be copied, and run themselves.
    """

    def __init__(self, copied: dict[int, Any]) -> None:
        self._copied = copied
        self._memories: dict[int, Any] = {}
        self.scripted: list[nn.Module] = []

    def module(self, module: nn.Module) -> nn.Module:
        """A copy of the tree of modules that shares parameters and clones buffers."""
        copied = self._copied
        if id(module) in copied:
            return copied[id(module)]
        if isinstance(module, torch.jit.ScriptModule):
            self.scripted.append(module)
            copied[id(module)] = module
            return module
        if "_orig_mod" in module._modules:  # torch.compile: its code is bound to the caller's module
            through = copied[id(module)] = _Through(self.module(module._modules["_orig_mod"]))  # type: ignore[arg-type]
            return through
        new = nn.Module.__new__(type(module))  # a class of the caller's may ask for arguments
        copied[id(module)] = new
        state = dict(module.__dict__)
        for name, value in state.items():
            kind = type(value)
            if kind in PLAIN or name in _TENSORS:
                continue
            if name in _TORCHS and not value:  # most of a module's attributes: no hooks, and nobody shares them
                state[name] = kind()
            else:
                state[name] = self.own(value)
        state["_compiled_call_impl"] = None
        state["_parameters"] = dict(module._parameters)
        state["_buffers"] = {name: None if b is None else self._tensor(b) for name, b in module._buffers.items()}
        if type(module) in _RECURRENT:
            # cuDNN differentiates recurrent layers in training mode only, and draws their dropout by itself: without
            # it, the modes compute the same.
            state["training"], state["dropout"] = True, 0.0
        object.__setattr__(new, "__dict__", state)  # torch's own takes longer than all of the above
        state["_modules"] = {
            name: None if child is None else self.module(child) for name, child in module._modules.items()
        }
        return new

    def own(self, value: Any) -> Any:
        """The stand-in's own copy of a value that its forward may write to, or that leads back to the original."""
        kind = type(value)
        if kind in PLAIN:
            return value
        if id(value) in self._copied:
            return self._copied[id(value)]
        if kind in CONTAINERS:
            return self._container(value)
        if issubclass(kind, nn.Module):  # a weak proxy of a module says that it is one
            return self.module(value)
        if kind is weakref.ref:
            target = value()
            return value if target is None or not leads_on(target, set()) else weakref.ref(self.own(target))
        if isinstance(value, nn.Parameter):
            return value
        if kind is types.FunctionType:
            return self._function(value)
        if kind is types.MethodType:
            function, owner = self.own(value.__func__), self.own(value.__self__)
            same = function is value.__func__ and owner is value.__self__
            return value if same else types.MethodType(function, owner)
        if isinstance(value, functools.partial):
            func, args, keywords = self.own(value.func), self.own(value.args), self.own(value.keywords)
            return functools.partial(func, *args, **keywords)
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, torch.Generator):
            made: Any = value.clone_state()
        elif is_array(value):
            made = value.copy()
        elif draws_numbers(value):
            made = copy.deepcopy(value)
        else:
            return self._object(value)
        self._copied[id(value)] = made
        return made

    def _tensor(self, value: Tensor) -> Tensor:
        """A copy outside of any graph; of tensors that lie in one memory, copies that do so too."""
        found = self._copied.get(id(value))
        if found is None:
            found = self._copied[id(value)] = self._placed(value.detach())
        return found

    def _placed(self, value: Tensor) -> Tensor:
        if value.layout != torch.strided or value.is_quantized or value.is_conj() or value.is_neg() or value.is_meta:
            return value.clone()
        if is_traceable_wrapper_subclass(value):  # its numbers lie in the tensors inside
            return value.clone()
        memory = value.untyped_storage()
        size, key = memory.nbytes(), memory.data_ptr()
        whole = value.numel() * value.element_size() == size
        if not size or (key not in self._memories and (whole or size > _MUCH)):
            made = value.clone()
            if whole:
                self._memories[key] = made.untyped_storage()
            return made
        if key not in self._memories:
            self._memories[key] = memory.clone()
        made = torch.empty(0, dtype=value.dtype, device=value.device)
        return made.set_(self._memories[key], value.storage_offset(), value.size(), value.stride())

    def _container(self, value: Any) -> Any:
        if isinstance(value, tuple):
            if PLAIN.issuperset(map(type, value)):
                return value
            items = [self.own(item) for item in value]
            return value if all(map(operator.is_, items, value)) else tuple(items)
        made = self._copied[id(value)] = copy.copy(value)
        # A vocabulary: what leads back to a module is no such.
        if len(value) > MANY or isinstance(value, (set, Counter)):
            return made
        if isinstance(value, dict):
            made.update([(key, self.own(item)) for key, item in list(value.items())])
        else:
            made.clear()
            made.extend([self.own(item) for item in list(value)])
        return made

    def _function(self, value: types.FunctionType) -> Any:
        """With cells of its own where what is in them is copied; the same cell for all functions that share it."""
        original = compiled_from(value)
        if original is not None:
            return self.own(original)
        if not leads_on(value, set()):
            return value
        new, fresh = [], []
        for cell in value.__closure__ or ():
            if id(cell) not in self._copied:
                leads = leads_on(content_of(cell), set())
                self._copied[id(cell)] = types.CellType() if leads else cell
                fresh += [cell] if leads else []
            new.append(self._copied[id(cell)])
        names = [name for name, known in globals_of(value) if leads_on(known, set())]
        known = dict(value.__globals__) if names else value.__globals__
        made = types.FunctionType(value.__code__, known, value.__name__, None, tuple(new) or None)
        self._copied[id(value)] = made  # before its cells are filled: it may be in them
        known.update([(name, self.own(known[name])) for name in names])
        for cell in fresh:
            self._copied[id(cell)].cell_contents = self.own(cell.cell_contents)
        made.__defaults__, made.__kwdefaults__ = self.own(value.__defaults__), self.own(value.__kwdefaults__)
        made.__dict__.update(value.__dict__)
        made.__qualname__, made.__module__, made.__doc__ = value.__qualname__, value.__module__, value.__doc__
        return made

    def _object(self, value: Any) -> Any:
        kind = type(value)
        if is_atom(value) or not is_simple(value, {id(value)}):
            self._copied[id(value)] = value
            return value
        copies_itself = hasattr(kind, "__copy__")
        try:
            made: Any = copy.copy(value) if copies_itself else kind.__new__(kind)  # type: ignore[call-overload]
        except Exception:  # its class says that it can't be copied
            made = value
        self._copied[id(value)] = made
        if made is value or type(made) is not kind:  # its class says that it is shared, or what stands for it
            return made
        source = made if copies_itself else value
        for slot, item in slots_of(source):
            slot.__set__(made, self.own(item))
        if kind.__dictoffset__:
            vars(made).update([(name, self.own(item)) for name, item in list(vars(source).items())])
        if isinstance(value, dict):
            dict.update(made, [(key, self.own(item)) for key, item in list(dict.items(source))])
        elif isinstance(value, list):
            list.__setitem__(made, slice(None), [self.own(item) for item in list.__iter__(source)])
        return made


def cloned(buffer: Tensor) -> Tensor:
    """A copy of a tensor, outside of any graph."""
    with torch.inference_mode(False):
        return buffer.detach().clone()


class _Through(nn.Module):
    """Stands for a compiled module: runs what was compiled, as it was written."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self._orig_mod = original

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("_orig_mod"), name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the compiled module does."""
        return self._orig_mod(*args, **kwargs)
