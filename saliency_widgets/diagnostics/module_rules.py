"""Findings from a model's modules before it runs: modes, devices, hidden layers, parts without a gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from saliency_widgets.attribution.query import CHUNK_SIZE
from saliency_widgets.attribution.registry import Need, methods
from saliency_widgets.diagnostics.report import Finding
from saliency_widgets.runtime.model.isolation import (
    BETWEEN_LAYERS,
    device_of,
    is_exported,
    quantized_layers,
    training,
    unlike_in_eval,
)

HALF = {torch.float16, torch.bfloat16}


def of_modules(model: nn.Module) -> Iterator[Finding]:
    """Yield the findings about a model that need no pass."""
    named = [(path or "the model itself", module) for path, module in model.named_modules()]

    def where(test: Callable[[nn.Module], bool]) -> tuple[str, ...]:
        return tuple(path for path, module in named if test(module))

    unlike = unlike_in_eval(model)
    dropouts, norms = unlike.pop("dropout", ()), unlike.pop("BatchNorm", ())
    between = unlike.pop(BETWEEN_LAYERS, ())
    if dropouts:
        yield Finding(
            "Dropout is active: parts of the model are disabled at random.",
            dropouts,
            remedy="Call model.eval().",
        )
    if between:
        yield Finding(
            "Dropout between recurrent layers is active in training mode, but maps are computed without it.",
            between,
            remedy="Call model.eval(), so that the model and its explanation match.",
            severity="caution",
        )
    if norms:
        yield Finding(
            "BatchNorm is in training mode: it normalizes with the statistics of the batch, so the samples, and the "
            "noisy or interpolated copies of one, influence each other.",
            norms,
            remedy="Call model.eval().",
        )
    for kind, places in unlike.items():
        yield Finding(
            f"In training mode, {kind} makes the model behave differently than at inference.",
            places,
            remedy="Call model.eval().",
        )
    if not (dropouts or between or norms or unlike or is_exported(model)) and training(model):
        yield Finding(
            "The model is in training mode, but has no known layer that behaves differently there.",
            remedy="Call model.eval(), unless the model's code needs training mode.",
            severity="caution",
        )
    stateless = where(lambda m: isinstance(m, _BatchNorm) and not m.training and m.running_mean is None)
    if stateless:
        yield Finding(
            "BatchNorm has no running statistics: even in eval mode the rows of a batch influence each other.",
            stateless,
            in_chunks(),
            "Explain one input at a time with chunk_size=1.",
        )
    scripted = where(lambda m: is_script(m) or is_exported(m))
    if scripted:
        yield Finding(
            "The model is scripted, traced or exported: its layers and ReLUs are not accessible.",
            scripted[:1],
            (*needing("relu"), *(n for n in needing("layer") if n not in needing("relu"))),
            "Pass the original module, from before torch.jit or torch.export.",
        )
    quantized = quantized_layers(model)
    if quantized:
        yield Finding(
            "The model is quantized: its integer operations have no gradient.",
            tuple(path or "the model itself" for path in quantized),
            remedy="Explain the float model from before quantization, or use a method that needs no gradient, such as "
            "'captum.FeatureAblation'.",
        )
    if device_of(model).type == "cpu" and torch.cuda.is_available():
        yield Finding("The model is on the CPU, but a GPU is available.", remedy="Pass device='cuda'.", severity="slow")
    half = {p.dtype for p in model.parameters()} & HALF
    if half:
        yield Finding(
            f"The model computes in {', '.join(str(t).removeprefix('torch.') for t in half)}: small gradients "
            f"underflow, and differences have two or three digits.",
            remedy="Pass a copy in full precision: copy.deepcopy(model).float().",
            severity="caution",
        )


def needing(need: Need) -> tuple[str, ...]:
    """Return the names of the methods that have a certain need."""
    return tuple(name for name, entry in methods().items() if need in entry.needs)


def in_chunks() -> tuple[str, ...]:
    """Return the names of the methods that run several rows in one pass."""
    return tuple(name for name, entry in methods().items() if CHUNK_SIZE in entry.params)


def is_script(module: nn.Module) -> bool:
    """Return whether a module itself is scripted or traced."""
    return isinstance(module, torch.jit.ScriptModule)
