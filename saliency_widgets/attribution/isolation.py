"""The caller's model, random state and grad mode are left as they were found."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch
from torch import Tensor, nn

# Two worker threads must not save and restore the same statistics crosswise.
_TRAINING = threading.RLock()


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
def left_as_found(model: nn.Module) -> Iterator[None]:
    """Run the model with gradients on, and put back whatever running it changes.

    Buffers (BatchNorm statistics, counters) and the random state are restored; parameters, ``.grad``,
    ``requires_grad``, flags and hooks are never touched. It brackets ONE pass of the model, so that a model being
    trained in another cell between two chunks is not rolled back.
    """
    training = is_training(model)
    with contextlib.ExitStack() as stack:
        if training:
            stack.enter_context(_TRAINING)
        stack.enter_context(_random_as_found(model, training))
        stack.enter_context(_buffers_as_found(model, training))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        yield


@contextlib.contextmanager
def _random_as_found(model: nn.Module, training: bool) -> Iterator[None]:
    # A worker thread shares torch's random state with the caller's running cell. It may put the state back
    # only where the model itself draws from it, or it would undo the caller's own draws.
    guarded = training or threading.current_thread() is threading.main_thread()
    generators = _generators(device_of(model)) if guarded else []
    states = [generator.get_state() for generator in generators]
    try:
        if training:  # dropout: the same mask for the same question
            for generator in generators:
                generator.manual_seed(0)
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


@contextlib.contextmanager
def _buffers_as_found(model: nn.Module, training: bool) -> Iterator[None]:
    found = [(module, name, buffer) for module in model.modules() for name, buffer in module._buffers.items()]
    saved = [None if buffer is None else (buffer.detach().clone(), _version(buffer)) for *_, buffer in found]
    try:
        yield
    finally:
        for (module, name, buffer), copy in zip(found, saved, strict=True):
            if module._buffers.get(name) is not buffer:
                module._buffers[name] = buffer
            if buffer is not None and copy is not None:
                _restore(buffer, *copy, thorough=training)


def _restore(buffer: Tensor, saved: Tensor, version: int | None, thorough: bool) -> None:
    """Copy back what has changed. Writes through ``.data`` leave the version as it was, so look at the content."""
    if _version(buffer) == version and (version is not None and not thorough):
        return
    if not torch.equal(buffer, saved):
        with torch.inference_mode(buffer.is_inference()), torch.no_grad():
            buffer.copy_(saved)


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version


def _generators(device: torch.device) -> list[torch.Generator]:
    generators = [torch.default_generator]
    if device.type == "cuda":
        index = device.index if device.index is not None else torch.cuda.current_device()
        generators.append(torch.cuda.default_generators[index])
    return generators
