"""Backward rules for ReLU, applied while a block of code runs, without touching the model.

A function mode sees every call that torch dispatches on this thread, whether a module, a function or a tensor
method made it: nn.ReLU, F.relu, x.relu_(), nn.ReLU6, hardtanh and clamp from zero alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_UNBOUNDED = float("inf")


class _GuidedReLU(torch.autograd.Function):
    """Forward: min(max(x, 0), high). Backward: the gradient, where it and the input are positive."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, high: float) -> Tensor:
        ctx.save_for_backward((x > 0) & (x < high))
        return x.clamp(min=0) if high == _UNBOUNDED else x.clamp(0, high)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (passed,) = ctx.saved_tensors
        return grads[0].clamp(min=0) * passed, None


def _bound(args: tuple, kwargs: dict, position: int, name: str, default: Any) -> Any:
    return args[position] if len(args) > position else kwargs.get(name, default)


# The upper bound of a call that is a form of ReLU; None where it is something else.


def _relu(_args: tuple, _kwargs: dict) -> float | None:
    return _UNBOUNDED


def _relu6(_args: tuple, _kwargs: dict) -> float | None:
    return 6.0


def _hardtanh(args: tuple, kwargs: dict) -> float | None:
    return _from_zero(_bound(args, kwargs, 1, "min_val", -1.0), _bound(args, kwargs, 2, "max_val", 1.0))


def _clamp(args: tuple, kwargs: dict) -> float | None:
    return _from_zero(_bound(args, kwargs, 1, "min", None), _bound(args, kwargs, 2, "max", None))


def _clamp_min(args: tuple, kwargs: dict) -> float | None:
    return _from_zero(_bound(args, kwargs, 1, "min", None), None)


def _from_zero(low: Any, high: Any) -> float | None:
    if isinstance(low, Tensor) or isinstance(high, Tensor) or low is None or low != 0:
        return None
    return _UNBOUNDED if high is None else float(high)


# For each form of ReLU: how its upper bound is read, and where it says "in place": never, always, or a flag's position.
_FORMS: dict[Callable, tuple[Callable[[tuple, dict], float | None], bool | int]] = {
    F.relu: (_relu, 1),
    F.relu6: (_relu6, 1),
    F.hardtanh: (_hardtanh, 3),
    F.hardtanh_: (_hardtanh, True),
    **dict.fromkeys((torch.relu, Tensor.relu), (_relu, False)),
    **dict.fromkeys((torch.relu_, Tensor.relu_), (_relu, True)),
    **dict.fromkeys((torch.clamp, Tensor.clamp, torch.clip, Tensor.clip), (_clamp, False)),
    **dict.fromkeys((torch.clamp_, Tensor.clamp_, torch.clip_, Tensor.clip_), (_clamp, True)),
    **dict.fromkeys((torch.clamp_min, Tensor.clamp_min), (_clamp_min, False)),
    **dict.fromkeys((torch.clamp_min_, Tensor.clamp_min_), (_clamp_min, True)),
}


class GuidedReLU(TorchFunctionMode):
    """While active on a thread, every ReLU passes back positive gradients only.

    Attributes:
        calls: How many ReLUs were met.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Send the forms of ReLU to the guided rule, everything else on its way."""
        kwargs = kwargs or {}
        read, in_place = _FORMS.get(func, (None, False))
        x = args[0] if args else kwargs.get("input")
        if read is None or not isinstance(x, Tensor) or not x.requires_grad or "out" in kwargs:
            return func(*args, **kwargs)
        high = read(args, kwargs)
        if high is None:
            return func(*args, **kwargs)
        self.calls += 1
        result = _GuidedReLU.apply(x, high)
        if not isinstance(in_place, bool):
            in_place = bool(_bound(args, kwargs, in_place, "inplace", False))
        return x.copy_(result) if in_place else result  # type: ignore[arg-type]
