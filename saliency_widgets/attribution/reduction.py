"""Reduction of signed values per channel to one number per pixel, on the device of the values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from saliency_widgets.params import Param

SIGNS: dict[str, Callable[[Tensor], Tensor]] = {
    "absolute": lambda values: values.abs(),
    "positive": lambda values: values.clamp(min=0),
    "negative": lambda values: values.neg().clamp(min=0),
    "signed": lambda values: values,
    "squared": lambda values: values.square(),
}


def _largest(values: Tensor) -> Tensor:
    high, low = values.amax(1), values.amin(1)
    return torch.where(high >= -low, high, low)


def _norm(values: Tensor) -> Tensor:
    return values.square().sum(1).sqrt() * values.sum(1).sign()


CHANNELS: dict[str, Callable[[Tensor], Tensor]] = {
    "max": _largest,
    "mean": lambda values: values.mean(1),
    "sum": lambda values: values.sum(1),
    "L2": _norm,
}

SIGN = Param(
    "sign",
    default="absolute",
    kind="choice",
    choices=tuple(SIGNS),
    help="Which part is shown: how strong (absolute, squared), what is evidence for the class (positive), against it "
    "(negative), or both in two colors (signed).",
)
CHANNEL = Param(
    "channels",
    default="max",
    kind="choice",
    choices=tuple(CHANNELS),
    label="Channels",
    help="How the color channels become one number: the largest, the mean, the sum, or the Euclidean norm (L2).",
)


def unseen(values: Tensor, sign: str) -> str:
    """Explain why a map under this sign shows nothing although its values are not zero; empty if it shows something.

    Args:
        values: The values, shape (B, ...).
        sign: One of ``SIGNS``.
    """
    return emptiness(values, sign)[1][0]


def emptiness(values: Tensor, *signs: str) -> tuple[bool, list[str]]:
    """Return whether all values are zero, and the :func:`unseen` text of each sign, with one copy from the device.

    Args:
        values: The values, shape (B, ...).
        signs: Names from ``SIGNS``.
    """
    flat = values.detach().flatten(1)
    some, *shown = torch.stack([flat.any(1), *(SIGNS[sign](flat).any(1) for sign in signs)]).tolist()
    hidden = [[k for k, there in enumerate(some) if there and not under[k]] for under in shown]
    words = [_hidden(samples, len(flat), sign) if samples else "" for samples, sign in zip(hidden, signs, strict=True)]
    return not any(some), words


def _hidden(samples: list[int], of: int, sign: str) -> str:
    which = "" if of == 1 else f" of sample{'s' * (len(samples) > 1)} {', '.join(map(str, samples[:8]))}"
    which += " and others" * (len(samples) > 8)
    if sign == "squared":
        return f"The values{which} are so small that their squares are zero: choose sign='absolute'."
    are, against, other = {
        "positive": ("negative", "is evidence against the target", "negative"),
        "negative": ("positive", "is evidence for the target", "positive"),
    }[sign]
    return (
        f"Every value{which} is {are} or zero: all of it {against}, and with sign={sign!r} the map shows "
        f"nothing. Choose sign='signed' or sign={other!r}, or another target."
    )


@dataclass(frozen=True)
class Reduction:
    """A reduction of values to a map: first the sign, channel by channel, then the channels.

    Attributes:
        sign: "absolute", "positive", "negative" (its magnitude), "signed" or "squared".
        channels: "max" (largest magnitude, with its sign), "mean", "sum" or "L2" (with the sign of the sum).
    """

    sign: str = SIGN.default
    channels: str = CHANNEL.default

    def __post_init__(self) -> None:
        SIGN.check(self.sign)
        CHANNEL.check(self.channels)

    @property
    def signed(self) -> bool:
        """Whether the map shows both signs."""
        return self.sign == "signed"

    def __call__(self, values: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the maps of a batch.

        Args:
            values: Signed values, shape (B, C, h, w).
            size: The size (H, W) of the maps; coarser values are interpolated bilinearly.

        Returns:
            Maps, shape (B, H, W).
        """
        if values.ndim != 4:
            raise ValueError(f"values: a map needs shape (B, C, H, W), got {tuple(values.shape)}.")
        maps = CHANNELS[self.channels](SIGNS[self.sign](values))
        if tuple(maps.shape[-2:]) != tuple(size):
            maps = F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
        return maps
