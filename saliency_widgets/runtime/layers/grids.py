"""Positions of the rows and columns that a convolution, pooling or resizing returns, from those of its operand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def reach_of(name: str, args: tuple[Any, ...]) -> tuple[int, int]:
    """Return the rows and columns of padding that a convolution or pooling needs to preserve the size."""
    if "convolution" in name or name == "thnn_conv2d":
        kernel, stride, dilation = args[1].shape[2:], args[3], args[5] if len(args) > 5 else [1, 1]
    elif "pool2d" in name and "adaptive" not in name and "unpool" not in name:
        kernel, stride, dilation = args[1], (*args[2:3], args[1])[0] or args[1], [1, 1]
    else:
        return 0, 0
    kernel, stride, dilation = (
        list(value) * 2 if len(value) == 1 else list(value) for value in (kernel, stride, dilation)
    )
    return tuple(dilation[i] * (kernel[i] - 1) + stride[i] - 1 for i in (0, 1))  # type: ignore[return-value]


def grid_over(channels: Tensor, shape: Sequence[int], reach: Sequence[int], size: tuple[float, float]) -> Tensor | None:
    """Return a grid of a given shape over the extent of another one, (N, 1, h, w); None if that is not a grid."""
    for rows, columns in ((2, 3), (3, 2)):  # the second is for a transposed image
        vertical = _axis(channels.real, rows, shape[rows - 2], reach[rows - 2], size[0])
        horizontal = _axis(channels.imag, columns, shape[columns - 2], reach[columns - 2], size[1])
        if vertical is not None and horizontal is not None:
            return torch.complex(*torch.broadcast_tensors(vertical, horizontal))
    return None


def _axis(coordinate: Tensor, dim: int, length: int, reach: int, size: float) -> Tensor | None:
    """Return new centers along an axis, (N, 1, length, 1) or (N, 1, 1, length); None if the old are not a grid's."""
    other = 5 - dim
    missing = coordinate.isnan()
    low = coordinate.masked_fill(missing, torch.inf).amin((1, other))
    high = coordinate.masked_fill(missing, -torch.inf).amax((1, other))
    first, last, times = _even_lines(low[0].masked_fill(missing[0].all(0).all(other - 2), torch.nan))
    before, after = first // times, (low.shape[1] - 1 - last) // times
    low, high = low[:, first : last + 1], high[:, first : last + 1]
    if last < first or bool((high - low > 1e-3 * size).any()):
        return None
    low = low[:, ::times]
    if low.shape[1] == 1:
        inner = bool(((low - size / 2).abs() < size / 16).all())
        if before or after or (length > 1 and not inner):
            return None
        start, end = torch.zeros_like(low[:, 0]), torch.full_like(low[:, 0], size)
        if length == 1:
            start = end = low[:, 0]
    else:
        steps = low.diff(dim=1)
        step = steps.mean(1)
        if bool(((steps - step[:, None]).abs() > 0.1 * step[:, None].abs() + 1e-3).any()):
            return None
        if before + after <= reach:  # it only preserves the size
            before, after = 0, 0
        start, end = low[:, 0] - (before + 0.5) * step, low[:, -1] + (after + 0.5) * step
    centers = start[:, None] + (end - start)[:, None] * (
        torch.arange(length, dtype=torch.float32, device="cpu") + 0.5
    ) / length  # fmt: skip
    return centers[:, None, :, None] if dim == 2 else centers[:, None, None, :]


def _even_lines(lines: Tensor) -> tuple[int, int, int]:
    """Return the first and last index of the longest run of evenly spaced lines, and how often each line repeats.

    Lines are rows or columns. Those around the run are padding: NaN, or a repeated part of the image.
    """
    values = lines.tolist()
    times = next((n for n in range(1, len(values)) if values[n] != values[0]), 1) if values else 1
    times = times if len(values) % times == 0 and lines.unflatten(0, (-1, times)).std(1, correction=0).sum() == 0 else 1
    values = values[::times]
    best, first = (0, -1), 0
    for i in range(len(values)):
        if values[i] != values[i]:  # NaN
            first = i + 1
            continue
        step = values[i] - values[i - 1]
        if i - first >= 1 and step == 0:
            first = i
        elif i - first >= 2 and abs(step - (values[i - 1] - values[i - 2])) > 0.1 * abs(step) + 1e-3:
            first = i - 1
        if i - first > best[1] - best[0]:
            best = first, i
    return best[0] * times, (best[1] + 1) * times - 1, times
