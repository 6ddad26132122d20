"""A model that fails once, at a chosen spot and time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Custom(BaseException):
    """An error of a user's code, whose constructor takes more than a message."""

    def __init__(self, code: int, *, more: str) -> None:
        super().__init__(f"{code} {more}")


class SilentError(Exception):
    """An exception that can't be converted to text."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


ERRORS: tuple[Callable[[], BaseException], ...] = (
    lambda: ValueError("no"), lambda: RuntimeError("no"), lambda: torch.OutOfMemoryError("no"), MemoryError,
    lambda: SystemExit(1), KeyboardInterrupt, GeneratorExit, lambda: Custom(1, more="x"), StopIteration,
    RecursionError, AssertionError, StopAsyncIteration, asyncio.CancelledError, lambda: KeyError(3), SilentError,
    lambda: BaseExceptionGroup("many", [KeyboardInterrupt(), SystemExit()]), lambda: OSError(5, "no"),
)  # fmt: skip

RETURNS: tuple[Callable[[Tensor], Any], ...] = (
    lambda out: out * float("nan"), lambda out: out + float("inf"), lambda out: out[:, :1], lambda out: out[0],
    lambda out: torch.cat([out, out]), lambda out: out.sum(), lambda out: out.detach(), lambda out: out.long(),
    lambda out: out[:0], lambda out: None, lambda out: "scores", lambda out: {}, lambda out: [1, 2],
    lambda out: out.to(torch.complex64), lambda out: out[..., None, None], lambda out: torch.zeros(()),
)  # fmt: skip

SPOTS = ("forward", "hook", "backward", "target")


class Trouble:
    """A failure that happens once, at one spot, after some passes. All copies of a model share it."""

    def __init__(self) -> None:
        self.spot, self.left, self.happened = "", 0, False
        self.cause: Callable[[Any], Any] = lambda value: value

    def __copy__(self) -> Trouble:
        return self

    def __deepcopy__(self, memo: Any) -> Trouble:
        return self

    def arm(self, spot: str, passes: int, cause: Callable[[Any], Any]) -> None:
        self.left, self.cause, self.happened, self.spot = passes, cause, False, spot

    def disarm(self) -> bool:
        """Prevent the failure from now on; return whether it has happened."""
        self.spot = ""
        return self.happened

    def at(self, spot: str, value: Any) -> Any:
        """Return a value that passes a spot, or let the failure happen."""
        if spot != self.spot:
            return value
        self.left -= 1
        if self.left >= 0:
            return value
        self.spot, self.happened = "", True
        return self.cause(value)


class Through(torch.autograd.Function):
    """The identity, with a backward pass that can fail."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, trouble: Trouble) -> Tensor:
        ctx.trouble = trouble
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, None]:
        return ctx.trouble.at("backward", gradient), None


class Troubled(nn.Module):
    """A model with a user's hook, and spots where it can fail."""

    def __init__(self, body: nn.Module, trouble: Trouble) -> None:
        super().__init__()
        self.body, self.trouble = body, trouble
        next(iter(body.children())).register_forward_hook(lambda _module, _inputs, out: trouble.at("hook", out))

    def forward(self, x: Tensor) -> Tensor:
        return self.trouble.at("forward", self.body(Through.apply(x, self.trouble)))


def raising(error: BaseException) -> Any:
    """Raise an error in an expression."""
    raise error
