"""A backward pass of torch's that misreads its gradient, and hooks that lay out gradients so that it can't.

On the CPU, torch's backward of BatchNorm reads a gradient as laid out in memory like the input where both suggest the
same layout. Where a dimension has size 1, the layout that strides suggest may be another than the one they have: the
gradient of one sample that goes on as tokens, ``norm(x).flatten(2).transpose(1, 2)``, lies channels last and suggests
otherwise. Its numbers then go to the wrong positions, in eval and in training mode, without an error. InstanceNorm is
a BatchNorm of one sample inside.

The output of both is laid out like the input, so a gradient that is laid out like the output is read right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_NAMES = (
    *("batch_norm", "native_batch_norm"),
    *("_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "_batch_norm_impl_index"),
)


def _forms(name: str) -> Iterator[Callable]:
    """A function of torch's under all its names; exported programs call the overloads."""
    packet = getattr(torch.ops.aten, name)
    yield from (getattr(torch, name), packet, *(getattr(packet, overload) for overload in packet.overloads()))


_OF_ONE_SAMPLE = frozenset((F.instance_norm, *_forms("instance_norm")))
MISREADING = frozenset((F.batch_norm, *_OF_ONE_SAMPLE, *(form for name in _NAMES for form in _forms(name))))
"""The functions whose backward may misread its gradient."""

Hook = Callable[[tuple[Tensor | None, ...]], tuple[Tensor | None, ...] | None]


def guarded(func: Callable, result: Any) -> Any:
    """The result of one of these functions, whose gradient will be laid out in memory as the output is."""
    output = result[0] if isinstance(result, (tuple, list)) else result
    # With fewer dimensions there is one layout; where none has size 1, strides say which one it is.
    if output.ndim > 3 and (1 in output.shape or func in _OF_ONE_SAMPLE) and output.requires_grad and output.is_cpu:
        output.grad_fn.register_prehook(_contiguous if output.is_contiguous() else _LAST[output.ndim])
    return result


def _contiguous(gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...] | None:
    first = gradients[0]
    return None if first is None or first.is_contiguous() else (first.contiguous(), *gradients[1:])


def _channels_last(layout: torch.memory_format) -> Hook:
    def lay_out(gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...] | None:
        first = gradients[0]
        if first is None or first.is_contiguous(memory_format=layout):
            return None
        return first.contiguous(memory_format=layout), *gradients[1:]

    return lay_out


_LAST = {4: _channels_last(torch.channels_last), 5: _channels_last(torch.channels_last_3d)}
