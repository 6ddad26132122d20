"""Exceptions of a computation, and what it means when memory runs out."""

from __future__ import annotations

import torch


class Cancelled(Exception):  # noqa: N818 - not an error: a newer request replaced this one
    """Raised inside a computation whose result is no longer wanted."""


class ModelChanged(ValueError):  # noqa: N818 - it names what happened
    """The model's weights changed in the middle of a computation, which failed for it."""


class Unread(ValueError):  # noqa: N818 - it names what happened
    """The score does not depend on what it was to be differentiated by."""


class OneForAll(ValueError):  # noqa: N818 - it names what happened
    """One number came for a whole batch, and not one for each row."""


class NotFinite(ValueError):  # noqa: N818 - it names what happened
    """Scores or gradients are NaN or infinite.

    Attributes:
        what: Which of them.
    """

    def __init__(self, message: str, what: str = "score") -> None:
        super().__init__(message)
        self.what = what


class NeedsGradients(ValueError):  # noqa: N818 - it names what happened
    """The model doesn't run with frozen weights, under no_grad or with autograd.grad; with ``.backward()`` it may."""


# What torch says where it raises no OutOfMemoryError: of host memory, and on Apple's devices.
_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _OUT_OF_MEMORY)
