"""Quantize attributions to 16-bit codes on the device, so that only a small copy goes to the host."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from saliency_widgets.attribution import Attribution, Reduction
from saliency_widgets.render.quantize import LEVELS, ZERO, Quantized


def frame_of(attribution: Attribution, reduction: Reduction, sample: int = 0) -> Quantized:
    """Reduce to what is painted and quantize, on the device of the values.

    Args:
        attribution: The attribution.
        reduction: How signs and channels are reduced.
        sample: The index of the sample in the batch.
    """
    values = attribution.values[sample : sample + 1]
    frame = attribution.features.frame(values, reduction, attribution.input_shape)
    return coded(frame, signed=reduction.signed)


def coded(values: Tensor, *, signed: bool, high: float | None = None) -> Quantized:
    """Quantize one map, on its device.

    Args:
        values: Shape (H, W); without ``signed``, none below zero.
        signed: Whether zero becomes the middle code.
        high: The value of the highest code, for maps that share one scale. Default: the map's largest absolute value.

    Raises:
        ValueError: The values contain NaN, or are too large for a scale.
    """
    if values.dtype in (torch.float16, torch.bfloat16):
        values = values.float()
    # Quantized before the scale is read, so that both are copied in one transfer.
    top = values.abs().max() if high is None else values.new_full((), high)
    bottom = -top if signed else torch.zeros_like(top)
    # In place, because a tenth of the time of an update is spent here.
    steps = (values - bottom).div_(top - bottom).mul_(LEVELS).add_(0.5).floor_().clamp_(0, LEVELS)
    flat = torch.where(top == bottom, ZERO if signed else 0, steps)
    # Copied as int16, because uint16 lacks kernels; flipping the top bit undoes the shift.
    codes = flat.sub_(32768).to(torch.int16)
    scale, moved = _on_host(torch.cat([top[None].view(torch.int16), codes.flatten()])).split(
        [top.element_size() // 2, codes.numel()]
    )
    high = float(scale.view(top.dtype)) if high is None else high
    low = -high if signed else 0.0
    if not high - low <= torch.finfo(values.dtype).max:
        raise ValueError(
            f"The map reaches {high:g}, which no color scale can show. Check the model's outputs for this input: a "
            f"score or a gradient overflows."
        )
    return Quantized(moved.view(values.shape).numpy().view(np.uint16) ^ np.uint16(0x8000), low, high, signed)


def _on_host(codes: Tensor) -> Tensor:
    """Copy to the host; from a CUDA device through pinned memory on a side stream, so that only the copy is awaited."""
    if not codes.is_cuda:
        return codes.cpu()
    host = torch.empty(codes.shape, dtype=codes.dtype, device="cpu", pin_memory=True)
    side = _side_stream(codes.device)
    side.wait_stream(torch.cuda.current_stream(codes.device))
    with torch.cuda.stream(side):
        host.copy_(codes, non_blocking=True)
        codes.record_stream(side)
    side.synchronize()
    return host


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
