"""Signals as inputs: channels over time, as recordings of sensors."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from saliency_widgets.attribution import Kind, Reduction
from saliency_widgets.attribution.arrays import as_numbers
from saliency_widgets.attribution.baselines import noise, zero
from saliency_widgets.attribution.features import Features
from saliency_widgets.attribution.kind import NUMBERS, Baseline
from saliency_widgets.attribution.registry import Method
from saliency_widgets.inputs.options import Options
from saliency_widgets.inputs.prepared import Prepared, prepare
from saliency_widgets.inputs.signal.axes import AUTO, FIRST, LAST, TIME_AXES, comes_first, read_axes
from saliency_widgets.params import brief, check_choice, check_text

_OTHERS = ("slices", "transform", "tokenizer", "explain", "feature_names")


@dataclass(frozen=True)
class SignalFeatures(Features):
    """The samples of each channel.

    Attributes:
        time_first: Whether time is before the channels in the model's input, shape (B, T, C).
    """

    time_first: bool = False
    channels_title = ""  # each channel has a lane

    @property
    def read_as(self) -> dict[str, str]:
        """The option of the axis of time."""
        return {"time_axis": FIRST if self.time_first else LAST}

    def sign_for(self, method: Method) -> str:
        """Return both signs if the values add up to the score, or else the sign of the method's paper."""
        return "signed" if method.additive else method.sign

    def reduce(self, values: Tensor, reduction: Reduction, shape: tuple[int, ...]) -> Tensor:
        """Apply the sign to each value; the values of a layer are interpolated over time, the same for all channels.

        Args:
            values: Shape (B, C, T), (B, T, C) or (B, T), as the inputs; or of a layer, (B, K, 1, t) or (B, K, C, t).
            reduction: The sign; ``channels`` applies only to the channels of a layer.
            shape: The shape of the model's input.

        Returns:
            Shape (B, C, T).

        Raises:
            ValueError: The values belong neither to the inputs nor to a layer over time.
        """
        return self._lanes_of(values, reduction, shape).expand(-1, self._size(shape)[0], -1)

    def frame(self, values: Tensor, reduction: Reduction, shape: tuple[int, ...]) -> Tensor:
        """Return one row for each channel, or a single row if the values belong to a layer."""
        return self._lanes_of(values, reduction, shape)[0]

    def _lanes_of(self, values: Tensor, reduction: Reduction, shape: tuple[int, ...]) -> Tensor:
        if values.shape[1:] == shape[1:]:
            lanes = self.lanes(values)
            return reduction(lanes[:, None], (lanes.shape[1], lanes.shape[2]))
        channels, samples = self._size(shape)
        for grid in (values, values.mT) if values.ndim == 4 else ():  # a layer over channels and time, or the reverse
            if grid.shape[2] in (1, channels):
                return reduction(grid, (grid.shape[2], samples))
        rows = f"1 or {channels} rows" if channels > 1 else "1 row"
        raise ValueError(
            f"values: expected one per sample of the signal, of shape {tuple(shape[1:])}, or those of a layer over "
            f"time, with {rows}, got shape {tuple(values.shape[1:])}. Read the numbers from .values."
        )

    def _size(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return the numbers of channels and of samples of the model's input."""
        if len(shape) == 2:
            return 1, shape[1]
        return (shape[2], shape[1]) if self.time_first else (shape[1], shape[2])

    def lanes(self, inputs: Tensor) -> Tensor:
        """Return inputs, or values in their shape, as (B, C, T)."""
        if inputs.ndim == 2:
            return inputs[:, None]
        return inputs.transpose(1, 2) if self.time_first else inputs


@dataclass(frozen=True, eq=False)
class SignalKind(Kind):
    """A signal: channels over time, shape (C, T), (T, C) or (T,).

    Attributes:
        features: The samples of each channel.
        sampling_rate: Samples per second; None if unknown.
        channel_names: The names of the channels.
        others: Other signals, as the model's input, shape (N, ...).
    """

    name = noun = "signal"
    feature = "sample"
    interpolated = True
    mark = "A strong color"
    drawn = True
    one_size = False
    features: SignalFeatures = field(default_factory=SignalFeatures)  # pyright: ignore[reportIncompatibleVariableOverride]
    sampling_rate: float | None = None
    channel_names: tuple[str, ...] = ()
    others: Tensor | None = None

    @staticmethod
    def accepts(inputs: Any, options: Options) -> bool:  # noqa: ARG004
        """Return whether an option of signals is set."""
        return any(value is not None for value in (options.sampling_rate, options.channel_names, options.time_axis))

    @staticmethod
    def prepare(
        model: nn.Module, inputs: Any, options: Options, *, device: torch.device, dtype: torch.dtype | None
    ) -> Prepared:
        """Read a signal as the model takes it: see :func:`prepare_signal`."""
        return prepare_signal(model, inputs, options, device=device, dtype=dtype)

    @property
    def state(self) -> tuple[Any, ...]:
        """The axis of time, and the other signals."""
        return self.features, self.others

    @property
    def default_fill(self) -> str:
        """The default fill: a straight line between the ends."""
        return "neighbors"

    @property
    def background(self) -> Tensor | None:
        """Other signals as the model's input, shape (N, ...); None without a background."""
        return self.others

    @property
    def baselines(self) -> Mapping[str, Baseline]:
        """The baselines by name: zero, and the mean and the first value of each channel, and noise in its range."""
        return {"zero": zero, "mean": self._mean, "first": self._first, "noise": self._noise}

    def why_no_baseline(self, name: str, inputs: Tensor) -> str:  # noqa: ARG002
        """Return an error message that names the baselines of signals."""
        return f"baseline: {name!r} isn't defined for signals. Use one of {list(self.baselines)}, or a tensor."

    def spread(self, inputs: Tensor) -> Tensor:
        """Return the range max - min of each channel, because channels may have different units."""
        lanes = self.features.lanes(inputs)
        return self._as_input(lanes.amax(2, keepdim=True) - lanes.amin(2, keepdim=True), inputs)

    def shape_of(self, inputs: Tensor) -> tuple[int, ...]:
        """Return the numbers of channels and of samples."""
        return tuple(self.features.lanes(inputs).shape[1:])

    def reduce(self, values: Tensor, reduction: Reduction, inputs: Tensor) -> Tensor:
        """Reduce values to one for each sample of each channel, shape (B, C, T)."""
        return self.features.reduce(values, reduction, tuple(inputs.shape))

    def broadcast(self, masks: Tensor) -> Tensor:
        """Turn masks of channels and samples, shape (K, C, T), into masks of the model's inputs."""
        return masks.transpose(1, 2) if self.features.time_first else masks

    def bridge(self, inputs: Tensor, masks: Tensor) -> Tensor:
        """Replace each masked interval of a channel by a straight line between the samples at its ends.

        At the beginning and the end of the signal, the line is constant; a channel that is masked entirely becomes its
        mean.

        Args:
            inputs: One sample, shape (1, ...).
            masks: True where samples are replaced, shape (K, C, T).

        Returns:
            Shape (K, ...).
        """
        lanes = self.features.lanes(inputs).expand(masks.shape)
        length = masks.shape[2]
        time = torch.arange(length, device=masks.device)
        before = torch.where(masks, -1, time).cummax(2).values  # the last sample that stays, -1 if there is none
        after = torch.where(masks, length, time).flip(2).cummin(2).values.flip(2)
        left = lanes.gather(2, torch.where(before < 0, after, before).clamp(max=length - 1))
        right = lanes.gather(2, torch.where(after == length, before, after).clamp(min=0))
        share = (time - before).to(lanes) / (after - before).clamp(min=1)
        line = torch.lerp(left, right, share)
        line = torch.where(masks.all(2, keepdim=True), lanes.mean(2, keepdim=True), line)
        return self._as_input(torch.where(masks, line, lanes), inputs)

    def _as_input(self, lanes: Tensor, inputs: Tensor) -> Tensor:
        """Return lanes (K, C, T) in the dimensions of the model's input."""
        if inputs.ndim == 2:
            return lanes[:, 0]
        return lanes.transpose(1, 2) if self.features.time_first else lanes

    def _mean(self, inputs: Tensor, _seed: int) -> Tensor:
        mean = self.features.lanes(inputs).mean(2, keepdim=True)
        return self._as_input(mean, inputs).expand_as(inputs).clone()

    def _first(self, inputs: Tensor, _seed: int) -> Tensor:
        return self._as_input(self.features.lanes(inputs)[..., :1], inputs).expand_as(inputs).clone()

    def _noise(self, inputs: Tensor, seed: int) -> Tensor:
        lanes = self.features.lanes(inputs)
        low, high = (self._as_input(end, inputs) for end in (lanes.amin(2, keepdim=True), lanes.amax(2, keepdim=True)))
        return noise(inputs, seed, low, high)


def prepare_signal(
    model: nn.Module, inputs: Any, options: Options, *, device: torch.device, dtype: torch.dtype | None
) -> Prepared:
    """Read a signal in the form that the model takes.

    Args:
        model: The model.
        inputs: Numbers of shape (T,), (C, T) or (T, C), or a batch of them.
        options: The options, among them the sampling rate, the names of the channels and the axis of time.
        device: The model's device.
        dtype: The model's dtype; None for the inputs' type.

    Raises:
        TypeError: The inputs hold no numbers, or an option has an unsupported type.
        ValueError: The signal is empty, has NaN, is too short or has the wrong number of channels for the model; or an
            option doesn't fit.
    """
    for name in _OTHERS:
        if getattr(options, name) is not None:
            raise ValueError(
                f"{name}: it doesn't apply to a signal. Omit it, or omit sampling_rate=, channel_names= and time_axis=."
            )
    if isinstance(inputs, Mapping) or (isinstance(inputs, (list, tuple)) and any(map(_is_array, inputs))):
        raise TypeError("inputs: sampling_rate=, channel_names= and time_axis= need a single array or tensor.")
    rate = _rate(options.sampling_rate)
    time_axis = check_choice("time_axis", AUTO if options.time_axis is None else options.time_axis, TIME_AXES)
    numbers = as_numbers(inputs, "inputs")
    if not numbers.is_floating_point():
        numbers = numbers.to(torch.get_default_dtype())
    if not numbers.numel() or numbers.ndim not in (1, 2, 3):
        raise ValueError(
            f"inputs: expected a signal of shape (T,), (C, T) or (T, C), or a batch of them, got shape "
            f"{tuple(numbers.shape)}."
        )
    signal = numbers.to(device=device, dtype=dtype if dtype is not None else numbers.dtype)
    rows, time_first, notes = read_axes(model, signal.nan_to_num(), time_axis)
    kind = SignalKind(SignalFeatures(time_first=time_first), rate)
    lanes = kind.features.lanes(rows)
    names = _names(options.channel_names, lanes.shape[1])
    kind = replace(kind, channel_names=names)
    _check_finite(kind, signal.view_as(rows))
    prepared = prepare(signal.view_as(rows), device=device, dtype=dtype, batched=True)
    background = _background(options.background, rows, device)
    kind = replace(kind, others=background)
    return replace(prepared, kind=kind, notes=(*notes, *prepared.notes), read_as=kind.features.read_as)


def as_signal(model: nn.Module, prepared: Prepared) -> Prepared:
    """Return an input of three dimensions without a kind as a signal, and anything else unchanged."""
    tensor = prepared.tensor
    if prepared.kind is not NUMBERS or tensor.ndim != 3 or prepared.arguments is not None:
        return prepared
    if not tensor.is_floating_point():
        return prepared
    time_first, notes = comes_first(model, tensor)
    names = _names(None, tensor.shape[2 if time_first else 1])
    kind = SignalKind(SignalFeatures(time_first=time_first), channel_names=names)
    return replace(prepared, kind=kind, notes=(*prepared.notes, *notes), read_as=kind.features.read_as)


def _is_array(item: Any) -> bool:
    return hasattr(item, "__array__") and getattr(item, "ndim", 0) > 0


def _rate(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"sampling_rate: expected a number of samples per second, got a {type(value).__name__}.")
    number: Any = value
    if not 0 < number <= sys.float_info.max:  # a comparison, because float() of a huge integer overflows
        raise ValueError(f"sampling_rate: expected a positive number of samples per second, got {brief(value)}.")
    return float(number)


def _names(names: Any, channels: int) -> tuple[str, ...]:
    if names is None:
        return tuple(f"channel {k}" for k in range(channels)) if channels > 1 else ("signal",)
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise TypeError(f"channel_names: expected a list of names, got a {type(names).__name__}.")
    checked = tuple(check_text("channel_names", name) for name in names)
    if len(checked) != channels:
        raise ValueError(
            f"channel_names: expected {channels}, one for each channel, got {len(checked)}. If the axes of the signal "
            f"are the other way around, pass time_axis='first' or 'last'."
        )
    return checked


def _check_finite(kind: SignalKind, signal: Tensor) -> None:
    bad = (~torch.isfinite(kind.features.lanes(signal))).nonzero()
    if len(bad):
        _, channel, sample = bad[0].tolist()
        at = "" if kind.sampling_rate is None else f" ({sample / kind.sampling_rate:.3g} s)"
        raise ValueError(
            f"inputs: {len(bad)} of {signal.numel()} numbers are NaN or infinite, the first in "
            f"{kind.channel_names[channel]!r} at sample {sample}{at}. Interpolate them, or cut them off."
        )


def _background(background: Any, rows: Tensor, device: torch.device) -> Tensor | None:
    if background is None:
        return None
    stack = as_numbers(background, "background")
    if stack.ndim == rows.ndim - 1 and rows.ndim == 3 and rows.shape[1] == 1:
        stack = stack[:, None]
    if stack.ndim != rows.ndim or stack.shape[1:] != rows.shape[1:] or not len(stack):
        raise ValueError(
            f"background: expected other signals of the same shape, (N, {', '.join(map(str, rows.shape[1:]))}), got "
            f"{tuple(stack.shape)}."
        )
    if not torch.isfinite(stack).all():
        raise ValueError("background: it holds NaN or infinite values. Remove or fix them.")
    return stack.to(device=device, dtype=rows.dtype).clone()
