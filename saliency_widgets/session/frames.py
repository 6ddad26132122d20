"""Quantize attributions to 16-bit codes on the device, so that only a small copy goes to the host."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saliency_widgets.attribution import Attribution, Reduction
from saliency_widgets.render.quantize import LEVELS, ZERO, Quantized

STEPS = 1000
"""The number of steps of a table of levels, from the smallest to the largest level of a map."""


def _compute(_key: Hashable, work: Callable[[], Any]) -> Any:
    return work()


def frame_of(
    attribution: Attribution,
    reduction: Reduction,
    sample: int = 0,
    *,
    entire: bool = False,
    once: Callable[[Hashable, Callable[[], Any]], Any] = _compute,
) -> Quantized:
    """Reduce to what is painted and quantize, on the device of the values.

    If only a part of the map is painted, such as planes of a volume, it is one row, followed by the :func:`levels_of`
    the whole map. They define one color scale for all parts.

    Args:
        attribution: The attribution.
        reduction: How signs and channels are reduced.
        sample: The index of the sample in the batch.
        entire: Whether the row holds the whole map instead of the part, in the order of its axes.
        once: Stores what several parts of a map share, under a key.
    """
    values, features = attribution.values[sample : sample + 1], attribution.features
    if not features.partial:
        return coded(features.frame(values, reduction, attribution.input_shape), signed=reduction.signed)

    def work() -> tuple[Tensor, Tensor]:
        whole = features.reduce(values, reduction, attribution.input_shape)[0]
        return whole, levels_of(whole, signed=reduction.signed)

    whole, levels = once(("whole", reduction.sign, reduction.channels), work)
    row = whole.flatten() if entire else features.part(whole, reduction)
    return coded(torch.cat([row, levels])[None], signed=reduction.signed)


def levels_of(values: Tensor, *, signed: bool) -> Tensor:
    """Return the values of a map's levels at 1001 percentiles, which are 0.1 percent apart.

    Item k is the smallest level that at least max(1, ceil(k n / 1000)) of the n values don't exceed, as in
    :func:`saliency_widgets.render.clip_limits`; by magnitude, if ``signed``. The last item is the largest value, so
    that these values and any part of the map are quantized as the whole map is.

    Args:
        values: The map, of any shape.
        signed: Whether values are ranked by magnitude.

    Returns:
        Shape (1001,).
    """
    values = values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
    top = values.abs().max()
    if not bool(top > 0):  # zeros, or NaN, which is reported when they are quantized
        return top.expand(STEPS + 1)
    most, low = (ZERO, -top) if signed else (LEVELS, 0 * top)
    codes = (values - low).div_(top - low).mul_(LEVELS).add_(0.5).floor_().clamp_(0, LEVELS).to(torch.int32).flatten()
    counts = torch.bincount((codes - ZERO).abs_() if signed else codes, minlength=most + 1)
    count = values.numel()
    ranks = [max(1, -(-k * count // STEPS)) for k in range(STEPS + 1)]  # rounded up
    levels = torch.searchsorted(counts.cumsum(0), torch.tensor(ranks, device=values.device))
    return levels.to(values) / most * top


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
