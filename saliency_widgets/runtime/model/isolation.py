"""Isolated passes, which leave the caller's model, random state and grad mode unchanged."""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
from collections import ChainMap
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm

from saliency_widgets.runtime.checkpointing import without_reentrant_checkpoints
from saliency_widgets.runtime.model.model_copy import Copier, ModelCopy
from saliency_widgets.runtime.model.rng import SeededRandom
from saliency_widgets.runtime.model.walker import modules_of


def is_training(model: nn.Module) -> bool:
    """Return whether any part of the model is in training mode (dropout active, BatchNorm learning)."""
    return any(map(training, modules_of(model)))


def training(module: nn.Module) -> bool:
    """Return whether a module is in training mode; a frozen script has no mode and computes as in eval mode."""
    return getattr(module, "training", False)


BETWEEN_LAYERS = "dropout between recurrent layers"  # always off in our passes


def unlike_in_eval(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Return the kinds of layers in training mode that compute something else in eval mode, with their paths."""
    kinds: dict[str, Callable[[nn.Module], bool]] = {
        "dropout": lambda m: isinstance(m, _DropoutNd) and m.p > 0,
        "BatchNorm": lambda m: isinstance(m, _BatchNorm),
        "InstanceNorm with running statistics": lambda m: isinstance(m, _InstanceNorm) and m.track_running_stats,
        BETWEEN_LAYERS: lambda m: isinstance(m, nn.RNNBase) and m.dropout > 0 and m.num_layers > 1,
        "dropout of attention weights": lambda m: isinstance(m, nn.MultiheadAttention) and m.dropout > 0,
        "RReLU": lambda m: isinstance(m, nn.RReLU) and m.lower != m.upper,
        "stochastic depth": lambda m: type(m).__name__ in ("StochasticDepth", "DropPath"),
    }
    named = [(path or "the model itself", module) for path, module in model.named_modules() if training(module)]
    paths = {kind: tuple(path for path, module in named if test(module)) for kind, test in kinds.items()}
    return {kind: where for kind, where in paths.items() if where}


def is_scripted(model: nn.Module) -> bool:
    """Return whether any part of the model is scripted, traced or exported, which hides its layers and ReLUs."""
    return any(isinstance(module, torch.jit.ScriptModule) or is_exported(module) for module in model.modules())


def is_exported(module: nn.Module) -> bool:
    """Return whether a module comes from torch.export: a graph of operators without the original modules."""
    if not isinstance(module, torch.fx.GraphModule):
        return False
    return any(isinstance(node.target, torch._ops.OpOverload) for node in module.graph.nodes)


def quantized_layers(model: nn.Module) -> tuple[str, ...]:
    """Return the paths of the layers that compute with integers and have no gradient, including scripted ones."""
    return tuple(path for path, module in model.named_modules() if _is_quantized(module))


def _is_quantized(module: nn.Module) -> bool:
    kind = type(module)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(module, torch.jit.ScriptModule) and hasattr(module, "_c"):
        name = module._c._type().qualified_name() or ""
    # FloatFunctional and reference layers are prepared for quantization, but compute in floats.
    if ".quantized." in name and not name.endswith(("Params", "FloatFunctional")) and ".reference." not in name:
        return True
    graph = getattr(module, "graph", None) if isinstance(module, torch.fx.GraphModule) else None
    return graph is not None and any("quantize_per_" in str(node.target) for node in graph.nodes)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's first parameter or buffer with values (not on "meta"), by default the CPU."""
    first = next((t for t in itertools.chain(model.parameters(), model.buffers()) if not t.is_meta), None)
    return torch.device("cpu") if first is None else first.device


def dtype_of(model: nn.Module) -> torch.dtype | None:
    """Return the floating dtype of most of the model's weights, or else of its buffers; None if it has neither."""
    for tensors in (model.parameters(), model.buffers()):
        counts: dict[torch.dtype, int] = {}
        for tensor in tensors:
            # 8-bit floats are a storage format; nothing computes in them.
            if tensor.is_floating_point() and tensor.element_size() > 1:
                counts[tensor.dtype] = counts.get(tensor.dtype, 0) + tensor.numel()
        if counts:
            return max(counts, key=counts.__getitem__)
    return None


@contextlib.contextmanager
def isolated_copy(model: nn.Module, seed: int = 0) -> Iterator[nn.Module]:
    """Yield a copy to run instead of the model, with gradients on; changes to the copy never reach the model.

    Args:
        model: The caller's model.
        seed: The seed of the random numbers.
    """
    with isolated(ModelCopy(model), model, seed) as copied:
        yield copied


@contextlib.contextmanager
def isolated(copied: ModelCopy, model: nn.Module, seed: int = 0) -> Iterator[nn.Module]:
    """Yield a copy of the model's modules for one pass, isolated from the caller's state.

    The copy shares the parameters. Its buffers (BatchNorm statistics, counters), hooks and attributes are its own,
    including the small objects and closures that these hold. So the model can be trained in another cell at the same
    time without either disturbing the other's buffers. Random numbers (dropout, noise layers) come from a separate
    generator, and the caller's autocast is off.

    Scripted modules can't be copied and are run themselves; their buffers are restored, attributes that forward writes
    to are not. Numbers from Python's and NumPy's global generators are only reproducible on the main thread.
    """
    with _buffers_restored(copied.scripted), undisturbed(model, seed), without_reentrant_checkpoints():
        _COPIERS[id(copied.module)] = Copier(ChainMap({}, copied.memo))
        try:
            yield copied.module
        finally:
            _COPIERS.pop(id(copied.module), None)  # a scripted module is its own copy, perhaps in two passes


def private_copy(model: nn.Module) -> nn.Module:
    """Return a copy of the model with its own weights, for checks that change them; scripted parts are shared."""
    return ModelCopy(model, clone_weights).module


@contextlib.contextmanager
def undisturbed(model: nn.Module, seed: int = 0) -> Iterator[None]:
    """Turn gradients on and autocast off, seed the random numbers, and restore the caller's state afterwards.

    Args:
        model: The model, for its device.
        seed: The seed of the random numbers.
    """
    device = device_of(model).type
    with (
        _random_state_restored(model, seed),
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(device, enabled=False) if device in _AUTOCAST else contextlib.nullcontext(),
        SeededRandom(seed),
    ):
        yield


_AUTOCAST = ("cpu", "cuda")
_COPIERS: dict[int, Copier] = {}  # of the running passes, by the id of their copy


def rebind(model_copy: nn.Module, function: Any) -> Any:
    """Return a function that reads what the copy's hooks store, where the original reads what the model's store."""
    copier = _COPIERS.get(id(model_copy))
    return function if copier is None else copier.counterpart(function)


def clone_weights(model_copy: nn.Module) -> None:
    """Give a copy its own weights, tied as before, for code that changes them.

    Scripted modules keep the caller's weights, and recurrent layers still compute with the shared ones.
    """
    _exchange(model_copy, lambda weight: nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad))


def freeze(model_copy: nn.Module, instead: Callable[[nn.Parameter], nn.Parameter | None] | None = None) -> None:
    """Turn off the gradients of a copy's weights, so that only inputs require them; parameter subclasses keep theirs.

    Args:
        model_copy: The copy.
        instead: Returns the replacement of a weight, or None to freeze the weight itself.
    """

    def frozen(weight: nn.Parameter) -> nn.Parameter:
        other = None if instead is None else instead(weight)
        if other is not None:
            return other
        if type(weight) is not nn.Parameter or not weight.requires_grad:
            return weight
        return nn.Parameter(weight.detach(), requires_grad=False)

    _exchange(model_copy, frozen)
    for module in modules_of(model_copy):
        if isinstance(module, nn.RNNBase):
            module._flat_weights = [getattr(module, name) for name in module._flat_weights_names]


def thaw(model_copy: nn.Module) -> None:
    """Give a copy its own parameters, which share the model's memory and require gradients as the model's do.

    For models that differentiate in forward, or whose autograd functions accumulate into parameters.
    """

    def part(weight: nn.Parameter) -> nn.Parameter:
        if type(weight) is not nn.Parameter:
            return weight
        return nn.Parameter(weight.detach(), requires_grad=weight.requires_grad)

    _exchange(model_copy, part)


def has_private_weights(model_copy: nn.Module) -> bool:
    """Return whether all parameters of a thawed copy that require a gradient are its own, none the caller's."""
    others = any(type(weight) is not nn.Parameter and weight.requires_grad for weight in model_copy.parameters())
    return not others and not is_scripted(model_copy)


def _exchange(model_copy: nn.Module, make: Callable[[nn.Parameter], nn.Parameter]) -> None:
    """Replace the parameters of a copy, tied as before; scripted modules keep theirs."""
    made: dict[int, nn.Parameter] = {}
    for module in modules_of(model_copy):
        if not module._parameters or isinstance(module, torch.jit.ScriptModule):
            continue
        for name, weight in module._parameters.items():
            if weight is not None:
                if id(weight) not in made:
                    made[id(weight)] = make(weight)
                module._parameters[name] = made[id(weight)]


@contextlib.contextmanager
def _buffers_restored(modules: list[nn.Module]) -> Iterator[None]:
    saved = [(buffer, buffer.detach().clone()) for module in modules for buffer in module.buffers()]
    try:
        yield
    finally:
        for buffer, copy in saved:
            if not torch.equal(buffer, copy):
                with torch.inference_mode(buffer.is_inference()), torch.no_grad():
                    buffer.copy_(copy)


@contextlib.contextmanager
def _random_state_restored(model: nn.Module, seed: int) -> Iterator[None]:
    # Python's and NumPy's generators are seeded too, so that a map is reproducible. Nothing is seeded or restored on a
    # worker thread, which shares torch's random state with the caller's running cell: the caller would draw the same
    # numbers twice.
    guarded = threading.current_thread() is threading.main_thread()
    if not guarded:
        yield
        return
    generators = _generators(device_of(model))
    states = [generator.get_state() for generator in generators]
    plain, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002 - the one that models draw from
    try:
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        random.setstate(plain)
        np.random.set_state(arrays)  # noqa: NPY002


def _generators(device: torch.device) -> list[torch.Generator]:
    generators = [torch.default_generator]
    if device.type == "cuda":
        index = device.index if device.index is not None else torch.cuda.current_device()
        generators.append(torch.cuda.default_generators[index])
    return generators
