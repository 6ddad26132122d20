"""A bug in torch's backward of BatchNorm, which misreads gradients, and hooks that change their layout to avoid it.

On the CPU, torch's backward of BatchNorm assumes that the gradient has the memory layout of the input if the strides of
both suggest the same layout. If a dimension has size 1, the strides may suggest a layout other than the actual one: the
gradient of one sample that continues as tokens, ``norm(x).flatten(2).transpose(1, 2)``, is channels last, but its
strides suggest otherwise. Its numbers then go to the wrong positions, in eval and in training mode, without an error.
InstanceNorm runs as a BatchNorm of one sample internally.

The output of both has the layout of the input, so a gradient with the layout of the output is read correctly.
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
    """Yield a torch function under all its names, including the overloads that exported programs call."""
    packet = getattr(torch.ops.aten, name)
    yield from (getattr(torch, name), packet, *(getattr(packet, overload) for overload in packet.overloads()))


_OF_ONE_SAMPLE = frozenset((F.instance_norm, *_forms("instance_norm")))
MISREADING = frozenset((F.batch_norm, *_OF_ONE_SAMPLE, *(form for name in _NAMES for form in _forms(name))))
"""The functions whose backward may misread its gradient."""

Hook = Callable[[tuple[Tensor | None, ...]], tuple[Tensor | None, ...] | None]


def guarded(func: Callable, result: Any) -> Any:
    """Return the result of one of these functions, hooked so that its gradient gets the output's memory layout."""
    output = result[0] if isinstance(result, (tuple, list)) else result
    # With fewer dimensions, only one layout exists; if no dimension has size 1, the strides identify the layout.
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
