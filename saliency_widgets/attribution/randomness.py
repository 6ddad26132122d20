"""Random numbers that a model draws while it is explained: from a generator of its own, never from torch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from saliency_widgets.attribution.noise import seeded

# How many of the leading dimensions of the input a mask distinguishes; None: every element has its own.
_DROPOUTS: dict[Callable, int | None] = {F.dropout: None, F.dropout1d: 2, F.dropout2d: 2, F.dropout3d: 2}
_DRAWS = (torch.rand, torch.randn, torch.randint, torch.randperm, torch.normal, torch.bernoulli, torch.multinomial)
_LIKE = {torch.rand_like: torch.rand, torch.randn_like: torch.randn}
_IN_PLACE = {
    getattr(Tensor, name): name
    for name in ("normal_", "uniform_", "bernoulli_", "exponential_", "random_", "log_normal_", "cauchy_", "geometric_")
}
_METHODS = {Tensor.bernoulli: torch.bernoulli, Tensor.multinomial: torch.multinomial}


def draws(func: Callable, args: tuple, kwargs: dict) -> bool:
    """Whether a call draws random numbers from torch's own generator."""
    if kwargs.get("generator") is not None:
        return False
    if func in _DROPOUTS:
        given = _dropout_of(args, kwargs)
        return bool(given["training"]) and 0 < given["p"] < 1
    return func in _METHODS or func in _DRAWS or func in _LIKE or func in _IN_PLACE


def _dropout_of(args: tuple, kwargs: dict) -> dict[str, Any]:
    given = dict(zip(("input", "p", "training", "inplace"), args, strict=False)) | kwargs
    return {"p": 0.5, "training": True, "inplace": False, **given}


class OwnRandomness(TorchFunctionMode):
    """While active on a thread, random numbers come from one seeded generator: the same for the same question.

    Numbers are drawn on the CPU and moved, so that all devices see the same ones.

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
        """Replace draws and active dropout; everything else goes its way."""
        kwargs = kwargs or {}
        if func in _DROPOUTS:
            return self._dropout(func, args, kwargs)
        if kwargs.get("generator") is not None or "out" in kwargs:
            return func(*args, **kwargs)
        func = _METHODS.get(func, func)
        if func in _DRAWS:
            device = next((a.device for a in args if isinstance(a, Tensor)), None)
            return self._drawn(func, args, {"device": device, **kwargs})
        if func in _LIKE:
            like, *rest = args or (kwargs.pop("input"),)
            given = {"dtype": like.dtype, "device": like.device, **kwargs}
            given.pop("memory_format", None)
            return self._drawn(_LIKE[func], (tuple(like.shape), *rest), given)
        if func in _IN_PLACE and not args[0].is_meta:
            own = torch.empty(args[0].shape, dtype=args[0].dtype, device="cpu")
            given = [a.cpu() if isinstance(a, Tensor) else a for a in args[1:]]
            getattr(own, _IN_PLACE[func])(*given, **kwargs, generator=self._generator)
            return args[0].copy_(own)
        return func(*args, **kwargs)

    def _drawn(self, func: Callable, args: tuple, kwargs: dict) -> Any:
        wanted = kwargs.pop("device", None)
        device = torch.get_default_device() if wanted is None else torch.device(wanted)
        args = tuple(a.cpu() if isinstance(a, Tensor) else a for a in args)
        made = {"device": "cpu"} if not any(isinstance(a, Tensor) for a in args) else {}
        return func(*args, **kwargs, **made, generator=self._generator).to(device)

    def _dropout(self, func: Callable, args: tuple, kwargs: dict) -> Any:
        if not draws(func, args, kwargs):
            return func(*args, **kwargs)
        given = _dropout_of(args, kwargs)
        x, p = given["input"], given["p"]
        own = _DROPOUTS[func]
        shape = x.shape if own is None else (*x.shape[:own], *[1] * (x.ndim - own))
        drawn = torch.rand(shape, generator=self._generator, dtype=torch.float32, device="cpu")
        kept = (drawn >= p).to(x.device, x.dtype)
        return x.mul_(kept / (1 - p)) if given["inplace"] else x * (kept / (1 - p))
