"""The caller's model, random state and grad mode are left as they were found."""

from __future__ import annotations

import contextlib
import copy
import functools
import random
import sys
import threading
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from saliency_widgets.attribution.randomness import OwnRandomness


def is_training(model: nn.Module) -> bool:
    """Whether any part of the model is in training mode (dropout active, BatchNorm learning)."""
    return any(module.training for module in model.modules())


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's first parameter or buffer; the CPU where it has none."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def dtype_of(model: nn.Module) -> torch.dtype:
    """The floating type the model computes in; torch's default where it has no parameters."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            return tensor.dtype
    return torch.get_default_dtype()


@contextlib.contextmanager
def stand_in(model: nn.Module, seed: int = 0, copies: dict[int, Any] | None = None) -> Iterator[nn.Module]:
    """A module to run in the model's place, with gradients on; nothing that happens to it happens to the model.

    It shares the parameters, as they are at this moment, and has its own buffers (BatchNorm statistics, counters),
    hooks and attributes. So the model can be trained in another cell meanwhile: neither disturbs the other's
    buffers. It draws random numbers (dropout, noise layers) from a generator of its own and computes in its own
    precision, whatever autocast the caller is under. It is made anew for each pass, which takes microseconds
    a layer, so that no change of the model is missed.

    What can't be copied (scripted modules) is run itself, and its buffers are put back.

    Args:
        model: The caller's model.
        seed: Of the random numbers.
        copies: Filled in: which object of the model, by its id, became which of the stand-in.
    """
    copied: dict[int, Any] = {} if copies is None else copies
    originals: list[nn.Module] = []
    substitute = _shallow(model, copied, originals)
    device = device_of(model).type
    with (
        _buffers_as_found(originals),
        _random_as_found(model),
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(device, enabled=False) if device in _AUTOCAST else contextlib.nullcontext(),
        OwnRandomness(seed),
    ):
        yield substitute


_AUTOCAST = ("cpu", "cuda")


def own_weights(stand_in: nn.Module) -> None:
    """Give a stand-in weights of its own, tied as they were, for code that changes them.

    Scripted modules keep theirs; recurrent layers compute with the shared ones.
    """
    own: dict[int, nn.Parameter] = {}
    for module in stand_in.modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue
        for name, weight in module._parameters.items():
            if weight is not None:
                if id(weight) not in own:
                    own[id(weight)] = nn.Parameter(_cloned(weight), requires_grad=weight.requires_grad)
                module._parameters[name] = own[id(weight)]


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


def _shallow(module: nn.Module, copied: dict[int, Any], originals: list[nn.Module]) -> nn.Module:
    """A copy of the tree of modules that shares parameters and clones buffers."""
    if id(module) in copied:
        return copied[id(module)]
    if isinstance(module, torch.jit.ScriptModule):
        originals.append(module)
        copied[id(module)] = module
        return module
    if "_orig_mod" in module._modules:  # torch.compile: its code is bound to the caller's module
        through = copied[id(module)] = _Through(_shallow(module._modules["_orig_mod"], copied, originals))  # type: ignore[arg-type]
        return through
    new = nn.Module.__new__(type(module))  # a class of the caller's may ask for arguments
    copied[id(module)] = new
    state = dict(module.__dict__)
    for name, value in state.items():
        kind = type(value)
        if kind in _PLAIN or name in _TENSORS:
            continue
        if kind in _DICTS and not value:  # most of a module's attributes are empty dicts of hooks
            state[name] = kind()
        else:
            state[name] = _own(value, copied, originals)
    state["_compiled_call_impl"] = None
    state["_parameters"] = dict(module._parameters)
    state["_buffers"] = {name: None if b is None else _cloned(b) for name, b in module._buffers.items()}
    if type(module) in _RECURRENT:
        # cuDNN differentiates recurrent layers in training mode only, and draws their dropout by itself: without it,
        # the modes compute the same.
        state["training"], state["dropout"] = True, 0.0
    new.__dict__ = state
    state["_modules"] = {
        name: None if child is None else _shallow(child, copied, originals) for name, child in module._modules.items()
    }
    return new


_TENSORS = ("_parameters", "_buffers", "_modules")
_RECURRENT = (nn.RNN, nn.LSTM, nn.GRU)


def _own(value: Any, copied: dict[int, Any], originals: list[nn.Module]) -> Any:
    """A stand-in's own copy of an attribute that its forward may write to, or that leads back to the original."""
    if type(value) in _PLAIN:
        return value
    if id(value) in copied:
        return copied[id(value)]
    if isinstance(value, nn.Module):
        return _shallow(value, copied, originals)
    if isinstance(value, nn.Parameter):
        return value
    if isinstance(value, types.MethodType) and isinstance(value.__self__, nn.Module):
        return types.MethodType(value.__func__, _shallow(value.__self__, copied, originals))
    if isinstance(value, functools.partial):
        parts = (_own(part, copied, originals) for part in (value.func, value.args, value.keywords))
        func, args, keywords = parts
        return functools.partial(func, *args, **keywords)
    if isinstance(value, Tensor):
        made: Any = _cloned(value)
    elif isinstance(value, torch.Generator):
        made = value.clone_state()
    elif type(value).__module__ == "numpy" and hasattr(value, "__array__"):
        made = value.copy()  # type: ignore[attr-defined]
    elif type(value) in _CONTAINERS:
        return _own_container(value, copied, originals)
    else:
        return value
    copied[id(value)] = made
    return made


def _own_container(value: Any, copied: dict[int, Any], originals: list[nn.Module]) -> Any:
    if len(value) > _MANY or isinstance(value, (set, Counter)):  # a vocabulary: what leads back to a module is no such
        return copy.copy(value)
    if isinstance(value, tuple):
        return tuple(_own(item, copied, originals) for item in value)
    made = copied[id(value)] = copy.copy(value)
    if isinstance(value, dict):
        made.update((key, _own(item, copied, originals)) for key, item in value.items())
    else:
        made.clear()
        made.extend(_own(item, copied, originals) for item in value)
    return made


_PLAIN = frozenset((type(None), bool, int, float, str))
_DICTS = frozenset((dict, OrderedDict))
_CONTAINERS = (list, tuple, set, dict, OrderedDict, defaultdict, Counter, deque)
_MANY = 256


def _cloned(buffer: Tensor) -> Tensor:
    with torch.inference_mode(False):
        return buffer.detach().clone()


@contextlib.contextmanager
def _buffers_as_found(modules: list[nn.Module]) -> Iterator[None]:
    saved = [(buffer, _cloned(buffer)) for module in modules for buffer in module.buffers()]
    try:
        yield
    finally:
        for buffer, copy in saved:
            if not torch.equal(buffer, copy):
                with torch.inference_mode(buffer.is_inference()), torch.no_grad():
                    buffer.copy_(copy)


@contextlib.contextmanager
def _random_as_found(model: nn.Module) -> Iterator[None]:
    # A worker thread shares torch's random state with the caller's running cell: putting it back from there
    # would make the caller draw the same numbers twice.
    guarded = threading.current_thread() is threading.main_thread()
    if not guarded:
        yield
        return
    generators = _generators(device_of(model))
    states = [generator.get_state() for generator in generators]
    plain, numpy = random.getstate(), sys.modules.get("numpy")
    arrays = None if numpy is None else numpy.random.get_state()
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        random.setstate(plain)
        if numpy is not None:
            numpy.random.set_state(arrays)


def _generators(device: torch.device) -> list[torch.Generator]:
    generators = [torch.default_generator]
    if device.type == "cuda":
        index = device.index if device.index is not None else torch.cuda.current_device()
        generators.append(torch.cuda.default_generators[index])
    return generators
