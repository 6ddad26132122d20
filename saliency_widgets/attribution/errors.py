"""Exceptions that a computation raises, and how to recognize that memory ran out."""

from __future__ import annotations

import torch


class Cancelled(Exception):  # noqa: N818 - not an error: a newer request replaced this one
    """Raised inside a computation whose result is no longer needed."""


class ModelChanged(ValueError):  # noqa: N818 - it names what happened
    """The model's weights changed during a computation and made it fail."""


class Unread(ValueError):  # noqa: N818 - it names what happened
    """The score does not depend on the tensor that it should be differentiated with respect to."""


class OneForAll(ValueError):  # noqa: N818 - it names what happened
    """The model or the target function returned one number for a whole batch instead of one per row."""


class NotFinite(ValueError):  # noqa: N818 - it names what happened
    """Scores or gradients are NaN or infinite.

    Attributes:
        what: The quantity that is not finite, such as "score".
    """

    def __init__(self, message: str, what: str = "score") -> None:
        super().__init__(message)
        self.what = what


class NeedsGradients(ValueError):  # noqa: N818 - it names what happened
    """The model fails with frozen weights, under no_grad or with autograd.grad, but may run with ``.backward()``."""


NO_MEMORY = "Memory ran out, even for a pass of a single row."
LESS_MEMORY = (
    "Explain a smaller input, such as a part of a volume or a shorter text, or free memory; on a GPU, device='cpu' may "
    "have more of it. Passes of several rows are split automatically."
)
# torch's wording where it raises no OutOfMemoryError: for host memory, and on Apple devices.
_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _OUT_OF_MEMORY)
