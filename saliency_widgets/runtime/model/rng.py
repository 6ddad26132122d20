"""Random numbers that a model draws while it is explained: from a separate seeded generator, never from torch's."""

from __future__ import annotations

import functools
import math
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from saliency_widgets.attribution.numerics.noise import seeded
from saliency_widgets.runtime.cancellation import call_checked
from saliency_widgets.runtime.gradient_layout import MISREADING, guarded

# The number of leading input dimensions that the mask distinguishes (None: every element has its own entry), and
# whether dropped elements get the value that preserves mean and variance after a SELU.
_DROPOUTS: dict[Callable, tuple[int | None, bool]] = {
    **dict.fromkeys((F.dropout, torch.dropout, torch.dropout_), (None, False)),
    **dict.fromkeys((F.dropout1d, F.dropout2d, F.dropout3d), (2, False)),
    **dict.fromkeys((F.alpha_dropout, torch.alpha_dropout, torch.alpha_dropout_), (None, True)),
    **dict.fromkeys((F.feature_alpha_dropout, torch.feature_alpha_dropout, torch.feature_alpha_dropout_), (2, True)),
}
_SATURATED = -1.7580993408473766  # SELU at minus infinity
_RRELUS = (F.rrelu, torch.rrelu, torch.rrelu_)
# They take their generator as a positional argument only.
_POSITIONAL = tuple(getattr(torch, name) for name in ("poisson", "binomial", "_standard_gamma", "_sample_dirichlet"))
_DRAWS = (
    *(torch.rand, torch.randn, torch.randint, torch.randperm, torch.normal),
    *(torch.bernoulli, torch.multinomial),
    *_POSITIONAL,
)
_LIKE = {torch.rand_like: torch.rand, torch.randn_like: torch.randn, torch.randint_like: torch.randint}
_IN_PLACE = {
    getattr(Tensor, name): name
    for name in ("normal_", "uniform_", "bernoulli_", "exponential_", "random_", "log_normal_", "cauchy_", "geometric_")
}
_METHODS = {Tensor.bernoulli: torch.bernoulli, Tensor.multinomial: torch.multinomial}
_INITIAL = (nn.init.uniform_, nn.init.normal_, nn.init.kaiming_uniform_)
# Python functions that draw inside (a backward pass: in hooks), where the mode is off while it handles their call.
_COMPOSED = (
    *(F.gumbel_softmax, F.multi_head_attention_forward),
    *(torch.autograd.grad, torch.autograd.backward, Tensor.backward),
)

# Everything that may draw, or whose gradient needs a guard: one lookup lets all other calls pass.
_LOOKED_AT = frozenset(
    (*MISREADING, *_DROPOUTS, *_RRELUS, *_DRAWS, *_LIKE, *_IN_PLACE, *_METHODS, *_INITIAL, *_COMPOSED)
) | {F.scaled_dot_product_attention}
_DROPOUT = {"input": None, "p": 0.5, "training": True, "inplace": False}
_RRELU = {"input": None, "lower": 1 / 8, "upper": 1 / 3, "training": False, "inplace": False}
_ATTENTION = {"query": None, "key": None, "value": None, "attn_mask": None, "dropout_p": 0.0, "is_causal": False}


def draws(func: Callable, args: tuple, kwargs: dict) -> bool:
    """Return whether a call draws random numbers from torch's own generator."""
    if kwargs.get("generator") is not None:
        return False
    if func in _DROPOUTS:
        call = _arguments(_DROPOUT, args, kwargs)
        return bool(call["training"]) and 0 < call["p"] < 1
    if func in _RRELUS:
        return bool(_arguments(_RRELU, args, kwargs)["training"])
    if func is F.scaled_dot_product_attention:
        return _arguments(_ATTENTION, args, kwargs)["dropout_p"] > 0
    return func in _METHODS or func in _DRAWS or func in _LIKE or func in _IN_PLACE or func is F.gumbel_softmax


def _arguments(defaults: dict[str, Any], args: tuple, kwargs: dict) -> dict[str, Any]:
    renamed = {"training" if name == "train" else name: value for name, value in kwargs.items()}
    return {**defaults, **dict(zip(defaults, args, strict=False)), **renamed}


@functools.cache
def _opened(func: Any) -> Callable:
    """Return a torch function without its checks for overrides, so that the mode sees the calls inside it."""
    checks = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
    fresh = {**func.__globals__, **dict.fromkeys(checks, lambda *_: False)}
    body = types.FunctionType(func.__code__, fresh, func.__name__, func.__defaults__, func.__closure__)
    body.__kwdefaults__ = func.__kwdefaults__
    return body


# Code that runs with gradients on inside a backward pass repeats a forward pass, and would draw new numbers.
_RECOMPUTED = (
    "model: it draws random numbers (dropout, noise) in a part that is recomputed in the backward pass "
    "(torch.utils.checkpoint), where the numbers would differ. Call model.eval(), or pass a copy of the model without "
    "checkpointing (gradient_checkpointing_disable(), if available)."
)


class SeededRandom(TorchFunctionMode):
    """A mode in which random numbers come from one seeded generator, so that the same request draws the same numbers.

    Numbers are drawn on the CPU and moved, so that all devices see the same ones. This mode sees every call of a pass,
    and a second mode would take longer than many calls do, so it also applies the guards of :mod:`~.gradient_layout`.

    Args:
        seed: The generator's seed.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self._seed = seed
        self._made: torch.Generator | None = None

    @property
    def _generator(self) -> torch.Generator:
        if self._made is None:
            self._made = seeded(self._seed, "dropout")
        return self._made

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Replace calls that draw random numbers, guard gradients that are misread, and run the rest unchanged."""
        if func not in _LOOKED_AT:
            return call_checked(func, args, kwargs)
        kwargs = kwargs or {}
        if func in MISREADING:
            return guarded(func, call_checked(func, args, kwargs))
        if func in _COMPOSED:
            with self:
                return _opened(func)(*args, **kwargs)
        if func in _INITIAL:
            return self._initial(func, **kwargs)
        if not draws(func, args, kwargs):
            return call_checked(func, args, kwargs)
        if torch._C._current_graph_task_id() != -1 and torch.is_grad_enabled():
            raise ValueError(_RECOMPUTED)
        kwargs.pop("generator", None)
        if func in _DROPOUTS:
            return self._dropout(func, _arguments(_DROPOUT, args, kwargs))
        if func in _RRELUS:
            return self._rrelu(func, _arguments(_RRELU, args, kwargs))
        if func is F.scaled_dot_product_attention:
            return self._attention(**_arguments(_ATTENTION, args, kwargs))
        if func in _IN_PLACE:
            return self._filled(args[0], _IN_PLACE[func], args[1:], kwargs)
        out = kwargs.pop("out", None)
        func = _METHODS.get(func, func)
        if func in _LIKE:
            like, *rest = args or (kwargs.pop("input"),)
            kwargs.pop("memory_format", None)
            kwargs = {"dtype": like.dtype, "device": like.device, **kwargs}
            func, args = _LIKE[func], (*rest, tuple(like.shape))
        drawn = self._drawn(func, args, kwargs if out is None else {"dtype": out.dtype, "device": out.device, **kwargs})
        return drawn if out is None else out.resize_(drawn.shape).copy_(drawn)

    def _drawn(self, func: Callable, args: tuple, kwargs: dict) -> Any:
        """Draw on the CPU, for the device of the tensors among the arguments, or else for the requested device."""
        present = next((a.device for a in (*args, *kwargs.values()) if isinstance(a, Tensor)), None)
        wanted = kwargs.pop("device", None)
        device = present or (torch.get_default_device() if wanted is None else torch.device(wanted))
        args = tuple(a.cpu() if isinstance(a, Tensor) else a for a in args)
        kwargs = {name: a.cpu() if isinstance(a, Tensor) else a for name, a in kwargs.items()}
        if present is None:
            kwargs["device"] = "cpu"
        else:
            kwargs.pop("dtype", None)
        if func in _POSITIONAL:
            return func(*args, self._generator, **kwargs).to(device)
        return func(*args, **kwargs, generator=self._generator).to(device)

    def _filled(self, x: Tensor, name: str, args: tuple, kwargs: dict) -> Tensor:
        if x.is_meta:
            return x
        fresh = torch.empty(x.shape, dtype=x.dtype, device="cpu")
        args = tuple(a.cpu() if isinstance(a, Tensor) else a for a in args)
        return x.copy_(getattr(fresh, name)(*args, **kwargs, generator=self._generator))

    def _initial(self, func: Any, tensor: Tensor, **kwargs: Any) -> Tensor:
        fresh = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
        func(fresh, **{**kwargs, "generator": kwargs.get("generator") or self._generator})
        with torch.no_grad():
            return tensor.copy_(fresh)

    def _mask(self, shape: Any, p: float, like: Tensor) -> Tensor:
        drawn = torch.rand(shape, generator=self._generator, dtype=torch.float32, device="cpu")
        return (drawn >= p).to(like.device, like.dtype)

    def _dropout(self, func: Any, call: dict[str, Any]) -> Tensor:
        x, p = call["input"], call["p"]
        leading, saturating = _DROPOUTS[func]
        mask = self._mask(x.shape if leading is None else (*x.shape[:leading], *[1] * (x.ndim - leading)), p, x)
        in_place = call["inplace"] or func.__name__.endswith("_")
        if not saturating:
            return x.mul_(mask / (1 - p)) if in_place else x * (mask / (1 - p))
        scale = ((1 - p) * (1 + p * _SATURATED**2)) ** -0.5
        result = scale * (x * mask + _SATURATED * (1 - mask)) - scale * _SATURATED * p
        return x.copy_(result) if in_place else result

    def _rrelu(self, func: Any, call: dict[str, Any]) -> Tensor:
        x, lower, upper = call["input"], call["lower"], call["upper"]
        drawn = torch.rand(x.shape, generator=self._generator, dtype=torch.float32, device="cpu").to(x)
        result = torch.where(x >= 0, x, x * (lower + (upper - lower) * drawn))
        return x.copy_(result) if call["inplace"] or func.__name__.endswith("_") else result

    def _attention(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, dropout_p: float, is_causal: bool,
        scale: float | None = None, enable_gqa: bool = False,
    ) -> Tensor:  # fmt: skip
        """Compute attention by its definition, with a mask drawn from the seeded generator."""
        if enable_gqa:
            times = query.shape[-3] // key.shape[-3]
            key, value = (t.repeat_interleave(times, -3) for t in (key, value))
        weights = query @ key.transpose(-2, -1) * (scale or 1 / math.sqrt(query.shape[-1]))
        if is_causal:
            attn_mask = torch.ones(weights.shape[-2:], dtype=torch.bool, device=weights.device).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            weights = weights.masked_fill(~attn_mask, float("-inf"))
        elif attn_mask is not None:
            weights = weights + attn_mask
        weights = weights.softmax(-1)
        return weights * self._mask(weights.shape, dropout_p, weights) / (1 - dropout_p) @ value
