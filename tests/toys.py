"""Small models with known attributions, and helpers that many tests share."""

from __future__ import annotations

import base64
import concurrent.futures as cf
import functools
import gc
import inspect
import json
import re
import reprlib
import threading
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as module_hooks

from saliency_widgets.attribution import Attribution, Score
from saliency_widgets.inputs.prepared import kind_of
from saliency_widgets.render import unpack_codes
from saliency_widgets.runtime.layers.hooks import tensor_in
from saliency_widgets.runtime.passes import Passes
from saliency_widgets.runtime.runner import Runner
from saliency_widgets.session.compute import compute
from saliency_widgets.session.problem import Problem
from saliency_widgets.session.request import Request


def alive(reference: weakref.ref) -> bool:
    """Return whether an object survives ``gc.collect()``, which does nothing while another thread is collecting."""
    gc.collect()
    return reference() is not None


def read_page(path: Path) -> tuple[dict[str, Any], list[bytes]]:
    """Return the state stored in a saved page, and its unpacked blocks of bytes."""
    text = path.read_text()
    (packed,) = re.findall(r'<script type="text/plain" id="sw-archive">(.*?)</script>', text, re.DOTALL)
    whole = zlib.decompress(base64.b64decode(packed))
    size = int.from_bytes(whole[:4], "little")
    result, at, blocks = json.loads(whole[4 : 4 + size]), 4 + size, []
    for length, packing, width in result["bytes"]:
        block, at = whole[at : at + length], at + length
        if packing != "raw":
            block = unpack_codes(packing, block, (length // (2 * width), width)).astype("<u2").tobytes()
        blocks.append(block)
    assert at == len(whole)
    return result, blocks


def settled(condition: Callable[[], bool]) -> bool:
    """Return whether a condition becomes true within 20 seconds, as workers take a moment to end."""
    waiting = threading.Event()
    return any(condition() or waiting.wait(0.05) for _ in range(400))


def each(names: str | tuple[str, ...], cases: Iterable[Any], ids: Any = None) -> Callable[[Callable], Callable]:
    """Parametrize like ``pytest.mark.parametrize``, but in one test: for small cases that need not run alone.

    All cases run even if some fail, and the error names those that failed. Fixtures are set up once for all cases.

    Args:
        names: The argument names.
        cases: The argument values; tuples if there are several names.
        ids: The names of the cases in the error: a list, or a function of a value.
    """
    arguments = [name.strip() for name in names.split(",")] if isinstance(names, str) else [*names]
    listed = [case if len(arguments) > 1 else (case,) for case in cases]
    if not listed:
        raise ValueError(f"{names}: there are no cases.")

    def title(k: int) -> str:
        if isinstance(ids, (list, tuple)):
            return str(ids[k])
        return ", ".join(reprlib.repr(value) if ids is None else str(ids(value)) for value in listed[k])

    def decorate(test: Callable) -> Callable:
        @functools.wraps(test)
        def all_cases(**fixtures: Any) -> None:
            errors = []
            for k, case in enumerate(listed):
                try:
                    test(**fixtures, **dict(zip(arguments, case, strict=True)))
                except Exception as error:
                    error.add_note(f"Case {k} of {len(listed)}, {', '.join(arguments)} = {title(k)}")
                    errors.append(error)
            if len(errors) > 1:
                raise ExceptionGroup(f"{len(errors)} of {len(listed)} cases failed", errors)
            if errors:
                raise errors[0]

        signature = inspect.signature(test)
        others = [parameter for name, parameter in signature.parameters.items() if name not in arguments]
        all_cases.__signature__ = signature.replace(parameters=others)  # type: ignore[attr-defined]
        return all_cases

    return decorate


class Formula(nn.Module):
    """A function of rows (N, F) as a model with one output per row, in float64 by default."""

    def __init__(self, formula: Callable[[Tensor], Tensor], dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.formula = formula
        self.one = nn.Parameter(torch.ones((), dtype=dtype))  # the model's dtype is read from it

    def forward(self, x: Tensor) -> Tensor:
        return self.formula(x)[:, None]


def power(exponent: int) -> Formula:
    """sum_i x_i^exponent."""
    return Formula(lambda x: (x**exponent).sum(1))


def linear(weights: Tensor, bias: float = 0.0) -> nn.Linear:
    """w . x + b."""
    model = nn.Linear(len(weights), 1, dtype=weights.dtype)
    with torch.no_grad():
        model.weight.copy_(weights[None])
        model.bias.fill_(bias)
    return model


def mlp(seed: int = 0, features: int = 4, classes: int = 3, activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(features, 8), activation(), nn.Linear(8, 8), activation(), nn.Linear(8, classes)
    ).double()


def conv_net(seed: int = 0, channels: int = 3, classes: int = 4, activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    """A convolutional network with two activations for images (N, channels, 8, 8), in float64 and eval mode."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(channels, 6, 3, padding=1),
        activation(),
        nn.Conv2d(6, 5, 3, stride=2, padding=1),
        activation(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(20, classes),
    )
    return model.double().eval()


def rows(seed: int = 0, *shape: int) -> Tensor:
    return torch.randn(shape or (2, 4), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def images(seed: int = 0, *shape: int) -> Tensor:
    """Random images in [0, 1), shape (N, C, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape or (2, 3, 8, 8), generator=generator, dtype=torch.float64)


def estimates(
    model: nn.Module, inputs: Any, method: str, *, check: Callable[[], None] | None = None, **settings: Any
) -> Iterator[Attribution]:
    """Yield all running estimates; ``sw.attribute`` returns the last one."""
    about = {name: settings.pop(name) for name in ("target", "score", "contrast") if name in settings}
    return compute(Problem(model, inputs), Request.of(method, settings, **about), check)


def runner(model: nn.Module, inputs: Tensor, target: int = 0) -> Runner:
    passes = Passes(model, inputs, Score("logit", torch.full((len(inputs),), target)))
    return Runner(passes, kind=kind_of(inputs))


def far(result: Tensor, expected: Tensor) -> float:
    """Return the largest difference, relative to the largest expected value."""
    assert result.shape == expected.shape
    return float((result - expected).abs().max() / expected.abs().max().clamp(min=1e-300))


_GLOBAL_HOOKS = [name for name in vars(module_hooks) if name.startswith("_global") and "hooks" in name]


def state_of(model: nn.Module) -> dict[str, Any]:
    """Return the state of a model and of torch that an attribution must not change, comparable with ``==``."""
    return {
        "parameters": {
            name: (
                id(p),
                p._version,
                _bytes(p),
                p.requires_grad,
                None if p.grad is None else (id(p.grad), _bytes(p.grad)),
            )
            for name, p in model.named_parameters()
        },
        "buffers": {name: (id(b), _bytes(b)) for name, b in model.named_buffers()},
        "modules": {
            path: (type(module), module.training, sorted(vars(module)), _hooks(module))
            for path, module in model.named_modules()
        },
        "global hooks": {name: list(getattr(module_hooks, name) or ()) for name in _GLOBAL_HOOKS},
        "random state": _bytes(torch.get_rng_state()),
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "default type": torch.get_default_dtype(),
        "function modes": torch._C._len_torch_function_stack(),
        "anomalies": torch.is_anomaly_enabled(),
    }


def _hooks(module: nn.Module) -> dict[str, list]:
    return {
        name: list(value.items()) for name, value in vars(module).items() if "hooks" in name and isinstance(value, dict)
    }


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


class Tally:
    """Counters that a model's passes update. Passes run a copy of the model, which shares this object."""

    def __init__(self) -> None:
        self.passes = 0
        self.alive = 0
        self.most_alive = 0

    def __copy__(self) -> Tally:
        """Return itself, so that copies of the model update the same counters."""
        return self


class Shared(list):
    """A list that hooks append to in all passes; a plain list would be copied with the model."""

    def __copy__(self) -> Shared:
        return self


def tallied(name: str) -> property:
    """Return a property that reads and writes an attribute of the module's ``tally``."""
    return property(lambda self: getattr(self.tally, name), lambda self, value: setattr(self.tally, name, value))


def output_of(model: nn.Module, layer: str, x: Tensor) -> Tensor:
    """Return the output of a layer of the original model, or the first tensor in it."""
    seen: list[Any] = []
    hook = model.get_submodule(layer).register_forward_hook(lambda _m, _i, output: seen.append(tensor_in(output)))
    with torch.no_grad():
        model(x)
    hook.remove()
    return seen[-1]


def interrupt_once(monkeypatch, owner, name):
    """Raise KeyboardInterrupt in the next call of a method, as Ctrl-C at that moment would."""
    method = getattr(owner, name)

    def interrupt(*_arguments):
        monkeypatch.setattr(owner, name, method)
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, name, interrupt)


def values_on_page(explorer):
    """The values that the page decodes from the frame, shape (rows, columns)."""
    frame = explorer.view.frame
    codes = np.frombuffer(frame["codes"], np.uint16).reshape(frame["height"], frame["width"])
    return frame["low"] + codes / 65534 * (frame["high"] - frame["low"])


class Counting(cf.Executor):
    """Computes cells immediately and counts them."""

    cells = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> cf.Future:
        self.cells += 1
        future: cf.Future = cf.Future()
        future.set_result(fn(*args, **kwargs))
        return future
