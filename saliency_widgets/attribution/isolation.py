"""The caller's model, random state and grad mode are left as they were found."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from saliency_widgets.attribution.noise import seeded


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
def stand_in(model: nn.Module) -> Iterator[nn.Module]:
    """A module to run in the model's place, with gradients on; nothing that happens to it happens to the model.

    It shares the parameters, as they are at this moment, and has its own buffers (BatchNorm statistics, counters),
    hooks and attributes. So the model can be trained in another cell meanwhile: neither disturbs the other's
    buffers. Dropout draws from a generator of its own. It is made anew for each pass, which takes microseconds
    a layer, so that no change of the model is missed.

    What can't be copied (scripted modules) is run itself, and its buffers are put back.
    """
    copied: dict[int, nn.Module] = {}
    originals: list[nn.Module] = []
    substitute = _shallow(model, copied, originals)
    with (
        _buffers_as_found(originals),
        _random_as_found(model),
        torch.inference_mode(False),
        torch.enable_grad(),
        _SeededDropout() if is_training(model) else contextlib.nullcontext(),
    ):
        yield substitute


def _shallow(module: nn.Module, copied: dict[int, nn.Module], originals: list[nn.Module]) -> nn.Module:
    """A copy of the tree of modules that shares parameters and clones buffers."""
    if id(module) in copied:
        return copied[id(module)]
    if isinstance(module, torch.jit.ScriptModule):
        originals.append(module)
        copied[id(module)] = module
        return module
    new = module.__new__(type(module))
    copied[id(module)] = new
    state = dict(module.__dict__)
    for name, value in state.items():
        if name.endswith("_hooks") or "_hooks_" in name:
            state[name] = OrderedDict(value) if isinstance(value, OrderedDict) else value
    state["_parameters"] = dict(module._parameters)
    state["_buffers"] = {name: None if b is None else _cloned(b) for name, b in module._buffers.items()}
    new.__dict__ = state
    state["_modules"] = {
        name: None if child is None else _shallow(child, copied, originals) for name, child in module._modules.items()
    }
    return new


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
    generators = _generators(device_of(model)) if guarded else []
    states = [generator.get_state() for generator in generators]
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def _generators(device: torch.device) -> list[torch.Generator]:
    generators = [torch.default_generator]
    if device.type == "cuda":
        index = device.index if device.index is not None else torch.cuda.current_device()
        generators.append(torch.cuda.default_generators[index])
    return generators


# How many of the leading dimensions of the input a mask distinguishes; None: every element has its own.
_DROPOUTS: dict[Callable, int | None] = {F.dropout: None, F.dropout1d: 2, F.dropout2d: 2, F.dropout3d: 2}


class _SeededDropout(TorchFunctionMode):
    """While active on a thread, dropout draws its masks from a generator of its own: the same for the same question."""

    def __init__(self) -> None:
        super().__init__()
        self._generator = seeded(0, "dropout")

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Replace active dropout; everything else goes its way."""
        kwargs = kwargs or {}
        if func not in _DROPOUTS:
            return func(*args, **kwargs)
        given = dict(zip(("input", "p", "training", "inplace"), args, strict=False)) | kwargs
        x, p = given["input"], given.get("p", 0.5)
        if not given.get("training", True) or not 0 < p < 1:
            return func(*args, **kwargs)
        own = _DROPOUTS[func]
        shape = x.shape if own is None else (*x.shape[:own], *[1] * (x.ndim - own))
        kept = (torch.rand(shape, generator=self._generator, dtype=torch.float32, device="cpu") >= p).to(
            x.device, x.dtype
        )
        return x.mul_(kept / (1 - p)) if given.get("inplace", False) else x * (kept / (1 - p))
