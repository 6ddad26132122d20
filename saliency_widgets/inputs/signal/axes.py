"""The axes of a signal: which are samples, channels and time, as far as the model shows it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from saliency_widgets.attribution.score import scores_in
from saliency_widgets.runtime.errors import cause_of, failing_layer
from saliency_widgets.runtime.model.isolation import isolated_copy

AUTO, FIRST, LAST = "auto", "first", "last"
TIME_AXES = (AUTO, FIRST, LAST)
_CHANNELS_FIRST = (nn.Conv1d, nn.ConvTranspose1d, nn.BatchNorm1d, nn.InstanceNorm1d, nn.GroupNorm)
_CHANNELS_LAST = (nn.RNNBase, nn.Linear, nn.LayerNorm, nn.MultiheadAttention, nn.TransformerEncoderLayer)


def read_axes(model: nn.Module, signal: Tensor, time_axis: str) -> tuple[Tensor, bool, tuple[str, ...]]:
    """Read a signal as a batch that the model runs on.

    Args:
        model: The model.
        signal: Shape (T,), (C, T), (T, C), or with a batch dimension.
        time_axis: One of ``TIME_AXES``.

    Returns:
        The batch, shape (B, C, T), (B, T, C) or (B, T); whether time is before the channels; notes on what was assumed.

    Raises:
        ValueError: The model runs on none of the forms that the signal may have.
    """
    failures: list[str] = []
    ran: list[Tensor] = []  # the first forms that the model takes, up to one with scores
    scored = False
    candidates = _candidates(signal, time_axis)
    while not scored and (candidate := next(candidates, None)) is not None:
        reason, scored = _try(model, candidate)
        if reason:
            failures.append(reason)
        else:
            ran.append(candidate)
    if not ran:
        raise ValueError(_unfit(model, signal, failures[0]))
    rows = ran[-1] if scored else ran[0]
    if rows.ndim == 2:
        return rows, False, ()
    if time_axis != AUTO:
        return rows, time_axis == FIRST, ()
    if signal.ndim == 1:
        return rows, rows.shape[2] == 1, ()
    return rows, *comes_first(model, rows)


def _candidates(signal: Tensor, time_axis: str) -> Iterator[Tensor]:
    """Yield the batches that a signal may be, the most common first."""
    if signal.ndim == 3:
        yield signal
    elif signal.ndim == 2:
        yield signal[None]
        yield signal  # signals without an axis of channels
    else:
        forms = {LAST: signal[None, None], FIRST: signal[None, :, None]}
        if time_axis == AUTO:
            yield from (forms[LAST], signal[None], forms[FIRST])
        else:
            yield from (forms[time_axis], signal[None])


def _try(model: nn.Module, rows: Tensor) -> tuple[str, bool]:
    """Return why the model fails on a batch, "" if it doesn't, and whether it returns a row of scores per sample."""
    with isolated_copy(model) as copied, torch.no_grad():
        try:
            output = copied(rows)
        except Exception as error:
            layer = failing_layer(copied, error.__traceback__)
            where = f"layer {layer!r}" if layer else "its forward"
            return f"{where} raised {type(error).__name__}: {cause_of(error)}", False
    try:
        scores = scores_in(output, len(rows))
    except (TypeError, ValueError):
        return "", False
    return "", scores.ndim in (1, 2) and len(scores) == len(rows)


def _unfit(model: nn.Module, signal: Tensor, reason: str) -> str:
    """Return the message for a signal that the model doesn't run on."""
    shape = tuple(signal.shape)
    if signal.ndim > 1 and not _try(model, signal.mT if signal.ndim == 3 else signal.mT[None])[0]:
        other = "x.mT" if signal.ndim == 3 else "x.T"
        return f"inputs: the model takes the two axes of the signal, {shape}, in the other order. Pass {other}."
    return (
        f"inputs: the model can't take a signal of shape {shape}; {reason}. Check the number of channels, and whether "
        f"the signal is too short."
    )


def comes_first(model: nn.Module, rows: Tensor) -> tuple[bool, tuple[str, ...]]:
    """Return whether the model reads (B, T, C) instead of (B, C, T), and a note if it doesn't show which.

    The first layer that takes the signal and has an axis of channels decides: a convolution has it in the middle, a
    recurrent or attention layer at the end. A linear layer may mix the channels or the samples, so it leaves a note.

    Args:
        model: The model.
        rows: The batch, of three dimensions.
    """
    seen: list[tuple[bool, bool]] = []  # whether time comes first, and whether that is certain

    def watch(module: nn.Module, args: tuple[Any, ...]) -> None:
        inputs = args[0] if args else None
        decides = isinstance(module, (*_CHANNELS_FIRST, *_CHANNELS_LAST))
        if seen or not decides or not isinstance(inputs, Tensor) or inputs.ndim != 3:
            return
        same, swapped = inputs.shape == rows.shape, inputs.shape == rows.mT.shape
        if same and swapped:
            same = torch.equal(inputs, rows) or not torch.equal(inputs, rows.mT)
        if same or swapped:
            seen.append((isinstance(module, _CHANNELS_LAST) == same, not isinstance(module, nn.Linear)))

    with isolated_copy(model) as copied, torch.no_grad():
        for module in copied.modules():
            if not isinstance(module, torch.jit.ScriptModule):
                module.register_forward_pre_hook(watch)
        try:
            copied(rows)
        except Exception:  # the error is reported when the model is explained
            seen.clear()
    first, certain = seen[0] if seen else (False, False)
    if certain:
        return first, ()
    samples, channels = rows.shape[1:] if first else rows.mT.shape[1:]
    return first, (
        f"The input was read as {_count(channels, 'channel')} of {_count(samples, 'sample')}. Pass "
        f"time_axis={LAST if first else FIRST!r} if it is {_count(samples, 'channel')} of "
        f"{_count(channels, 'sample')}.",
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
