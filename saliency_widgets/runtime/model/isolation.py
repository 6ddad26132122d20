"""The caller's model, random state and grad mode are left as they were found."""

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
    """Whether any part of the model is in training mode (dropout active, BatchNorm learning)."""
    return any(map(training, modules_of(model)))


def training(module: nn.Module) -> bool:
    """Whether a module is in training mode; a frozen script has no mode, and computes as in eval mode."""
    return getattr(module, "training", False)


BETWEEN_LAYERS = "dropout between recurrent layers"  # which passes of ours never have


def unlike_in_eval(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """The kinds of layers in training mode that compute something else in eval mode, and where they are."""
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
    """Whether any part of the model is scripted, traced or exported, and hides its layers and ReLUs."""
    return any(isinstance(module, torch.jit.ScriptModule) or is_exported(module) for module in model.modules())


def is_exported(module: nn.Module) -> bool:
    """Whether it is the module of a program of torch.export: a graph of operators, with the modules gone."""
    if not isinstance(module, torch.fx.GraphModule):
        return False
    return any(isinstance(node.target, torch._ops.OpOverload) for node in module.graph.nodes)


def quantized_layers(model: nn.Module) -> tuple[str, ...]:
    """The paths of the layers that compute with whole numbers, and have no gradient; scripted ones too."""
    return tuple(path for path, module in model.named_modules() if _is_quantized(module))


def _is_quantized(module: nn.Module) -> bool:
    kind = type(module)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(module, torch.jit.ScriptModule) and hasattr(module, "_c"):
        name = module._c._type().qualified_name() or ""
    # Float functions stand ready to be quantized; reference layers compute in floats.
    if ".quantized." in name and not name.endswith(("Params", "FloatFunctional")) and ".reference." not in name:
        return True
    graph = getattr(module, "graph", None) if isinstance(module, torch.fx.GraphModule) else None
    return graph is not None and any("quantize_per_" in str(node.target) for node in graph.nodes)


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's first parameter or buffer that holds numbers; the CPU where it has none."""
    first = next((t for t in itertools.chain(model.parameters(), model.buffers()) if not t.is_meta), None)
    return torch.device("cpu") if first is None else first.device


def dtype_of(model: nn.Module) -> torch.dtype | None:
    """The floating type that most of the model's weights have, or else its buffers; None where it has neither."""
    for tensors in (model.parameters(), model.buffers()):
        counts: dict[torch.dtype, int] = {}
        for tensor in tensors:
            # Nothing computes in 8 bits: such weights are only kept so.
            if tensor.is_floating_point() and tensor.element_size() > 1:
                counts[tensor.dtype] = counts.get(tensor.dtype, 0) + tensor.numel()
        if counts:
            return max(counts, key=counts.__getitem__)
    return None


@contextlib.contextmanager
def isolated_copy(model: nn.Module, seed: int = 0) -> Iterator[nn.Module]:
    """A module to run in the model's stead, with gradients on; nothing that happens to it happens to the model.

    Args:
        model: The caller's model.
        seed: Of the random numbers.
    """
    with isolated(ModelCopy(model), model, seed) as copied:
        yield copied


@contextlib.contextmanager
def isolated(copied: ModelCopy, model: nn.Module, seed: int = 0) -> Iterator[nn.Module]:
    """A pass of a copy.

    It shares the parameters, and has its own buffers (BatchNorm statistics, counters), hooks and attributes, with the
    small objects and the closures that these hold. So the model can be trained in another cell meanwhile: neither
    disturbs the other's buffers. It draws random numbers (dropout, noise layers) from a generator of its own and
    computes in its own precision, whatever autocast the caller is under.

    What can't be copied (scripted modules) is run itself, and its buffers are put back; plain attributes that its
    forward writes to are not. Numbers that Python's and NumPy's own generators draw repeat on the main thread only.
    """
    with _buffers_restored(copied.scripted), undisturbed(model, seed), without_reentrant_checkpoints():
        _COPIERS[id(copied.module)] = Copier(ChainMap({}, copied.memo))
        try:
            yield copied.module
        finally:
            _COPIERS.pop(id(copied.module), None)  # a scripted module stands for itself, in two passes perhaps


def private_copy(model: nn.Module) -> nn.Module:
    """A copy of the model with weights of its own, for checks that change them; scripted parts are the caller's."""
    return ModelCopy(model, clone_weights).module


@contextlib.contextmanager
def undisturbed(model: nn.Module, seed: int = 0) -> Iterator[None]:
    """Gradients on, precision and random numbers our own; the caller's random state as found afterwards.

    Args:
        model: Tells the device.
        seed: Of the random numbers.
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
_COPIERS: dict[int, Copier] = {}  # of the passes under way, by the id of their copy


def rebind(model_copy: nn.Module, function: Any) -> Any:
    """A function that reads what the model's hooks keep, reading what those of the copy keep."""
    copier = _COPIERS.get(id(model_copy))
    return function if copier is None else copier.counterpart(function)


def clone_weights(model_copy: nn.Module) -> None:
    """Give a copy weights of its own, tied as they were, for code that changes them.

    Scripted modules keep theirs; recurrent layers compute with the shared ones.
    """
    _exchange(model_copy, lambda weight: nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad))


def freeze(model_copy: nn.Module, instead: Callable[[nn.Parameter], nn.Parameter | None] | None = None) -> None:
    """From here on only what depends on the inputs requires a gradient; parameters of other kinds stay as they are.

    Args:
        model_copy: It.
        instead: What stands for a weight, if anything does.
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
    """Give a copy parameters of its own that need gradients as the model's do, and hold the same numbers.

    For models that differentiate in forward, or whose autograd functions accumulate into parameters.
    """

    def part(weight: nn.Parameter) -> nn.Parameter:
        if type(weight) is not nn.Parameter:
            return weight
        return nn.Parameter(weight.detach(), requires_grad=weight.requires_grad)

    _exchange(model_copy, part)


def has_private_weights(model_copy: nn.Module) -> bool:
    """Whether all parameters of a thawed copy that need a gradient are its own, and none is the caller's."""
    others = any(type(weight) is not nn.Parameter and weight.requires_grad for weight in model_copy.parameters())
    return not others and not is_scripted(model_copy)


def _exchange(model_copy: nn.Module, make: Callable[[nn.Parameter], nn.Parameter]) -> None:
    """Put other parameters into a copy, tied as they were; scripted modules keep theirs."""
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
    # Python's and NumPy's numbers have a seed too, so that a map repeats.
    # A worker thread shares torch's random state with the caller's running cell: putting it back from there
    # would make the caller draw the same numbers twice, and so would a seed.
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
