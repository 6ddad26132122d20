"""The numerical precision of passes, if the caller chose one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from saliency_widgets.params import unknown

PRECISIONS = ("full", "tf32", "bfloat16")
_TYPES = {"full": "ieee", "tf32": "tf32"}


def check_precision_name(precision: Any) -> str | None:
    """Return the precision if its name is valid, on any device.

    Raises:
        TypeError: It is not a string.
        ValueError: It is not the name of a precision.
    """
    if precision is None:
        return None
    if not isinstance(precision, str):
        raise TypeError(f"precision: expected one of {PRECISIONS} or None, got a {type(precision).__name__}.")
    if precision not in PRECISIONS:
        raise ValueError(unknown("precision", precision, list(PRECISIONS)))
    return precision


def check_precision(precision: Any, device: torch.device) -> str | None:
    """Return the precision if its name is valid and the device supports it.

    Raises:
        TypeError: It is not a string.
        ValueError: It is not the name of a precision, or the device doesn't support it.
    """
    precision = check_precision_name(precision)
    if precision == "tf32" and device.type != "cuda":
        raise ValueError(
            f"precision: 'tf32' is only available on CUDA devices, but the model is on {str(device)!r}. "
            f"Omit it, or move the model."
        )
    return precision


@contextlib.contextmanager
def computing(precision: str | None, device: torch.device) -> Iterator[None]:
    """Compute passes in this block, forward and backward, in a precision.

    Torch's TF32 setting is global: while a pass runs, it applies to other threads too.

    Args:
        precision: None leaves torch's settings unchanged; "full" is float32 throughout; "tf32" multiplies float32
            numbers with 11 significant bits; "bfloat16" is torch's autocast.
        device: The device of the passes.
    """
    if precision == "bfloat16":
        with torch.autocast(device.type, dtype=torch.bfloat16):
            yield
    elif precision is None or device.type != "cuda":
        yield
    else:
        with float32_as(_TYPES[precision]):
            yield


@contextlib.contextmanager
def float32_as(kind: str) -> Iterator[None]:
    """Set torch's switches for float32 products on CUDA devices to "ieee" or "tf32", and restore them afterwards."""
    before = [(room, name, getattr(room, name)) for room, name in _SWITCHES]
    try:
        for room, name, _ in before:
            setattr(room, name, kind if name == "fp32_precision" else kind == "tf32")
        yield
    finally:
        for room, name, value in before:
            setattr(room, name, value)


def _switches() -> list[tuple[Any, str]]:
    """Return the switches of torch 2.9, which can be restored to inherited values, or else the older ones."""
    rooms = [torch.backends.cuda.matmul, *(getattr(torch.backends.cudnn, k, None) for k in ("conv", "rnn"))]
    try:
        assert all(isinstance(room.fp32_precision, str) for room in rooms)  # type: ignore[union-attr]
    except (AttributeError, AssertionError):
        return [(torch.backends.cuda.matmul, "allow_tf32"), (torch.backends.cudnn, "allow_tf32")]
    return [(room, "fp32_precision") for room in rooms]


_SWITCHES = _switches()
