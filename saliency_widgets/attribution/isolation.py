"""The caller's model, random state and grad mode are left as they were found."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch
from torch import Tensor, nn


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
    buffers = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    versions = [_version(buffer) for _, _, buffer, _ in buffers]
    # A worker thread shares torch's random state with the caller's running cell. It may put the state back
    # only where the model itself draws from it, or it would undo the caller's own draws.
    training = is_training(model)
    guard_random = training or threading.current_thread() is threading.main_thread()
    generators = _generators(device_of(model)) if guard_random else []
    states = [generator.get_state() for generator in generators]
    if training:  # dropout: the same mask for the same question
        for generator in generators:
            generator.manual_seed(0)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        with torch.no_grad():
            for (module, name, buffer, saved), version in zip(buffers, versions, strict=True):
                module._buffers[name] = buffer
                if _version(buffer) != version or version is None:
                    buffer.copy_(saved)


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version


def _generators(device: torch.device) -> list[torch.Generator]:
    generators = [torch.default_generator]
    if device.type == "cuda":
        index = device.index if device.index is not None else torch.cuda.current_device()
        generators.append(torch.cuda.default_generators[index])
    return generators
