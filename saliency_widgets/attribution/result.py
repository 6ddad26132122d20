"""The result of an attribution, with everything needed to repeat it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from saliency_widgets import render
from saliency_widgets.attribution.reduction import CHANNEL, Reduction


@dataclass(frozen=True, repr=False, eq=False)
class Attribution:
    """Which inputs moved the score, and how far.

    Attributes:
        values: Signed attribution, shape (B, ...) as the model sees the inputs; a class activation map keeps its
            layer's resolution, (B, 1, h, w), and names the ``layer``.
        settings: Keyword arguments that repeat it: ``sw.attribute(model, inputs, **settings)``.
        score: The explained score of each sample, shape (B,), where the method computed it.
        delta: Completeness error sum(values) - (F(x) - F(x')), shape (B,), for Integrated Gradients.
        standard_error: Of each value, where samples were averaged.
        evaluations: Gradients of the model spent per sample.
        layer: The layer whose resolution the values have, or None.
        input_shape: Shape of what the model saw, (B, ...).
        notes: What a reader should know before believing it.
        default_sign: The part of the values the method's paper shows.
        done: Units of work behind it; below ``total`` it is a running estimate.
        total: Units of work in all.
        unit: What these units are.
        transformed: Whether the input went through a transform of the caller's.
    """

    values: Tensor
    settings: Mapping[str, Any]
    score: Tensor | None
    delta: Tensor | None
    standard_error: Tensor | None
    evaluations: int
    layer: str | None
    input_shape: tuple[int, ...]
    notes: tuple[str, ...] = ()
    default_sign: str = "absolute"
    done: int = 1
    total: int = 1
    unit: str = "passes"
    transformed: bool = False

    @property
    def method(self) -> str:
        """The method's name."""
        return self.settings["method"]

    @property
    def complete(self) -> bool:
        """Whether all the work asked for is in it."""
        return self.done >= self.total

    def saliency_map(
        self,
        *,
        sign: str | None = None,
        channels: str = CHANNEL.default,
        clip: tuple[float, float] | None = None,
        sample: int = 0,
    ) -> np.ndarray:
        """The map as the screen shows it, before colour.

        Args:
            sign: "absolute", "positive", "negative", "signed", "squared"; the method's own choice unless given.
            channels: "max", "mean", "sum" or "L2".
            clip: Percentiles that become 0 and 1; the display's default unless given.
            sample: Which sample of the batch.

        Returns:
            Shape (H, W) of the input, float64 in [0, 1]; for "signed", 0.5 is zero.

        Raises:
            ValueError: An unknown sign or channel rule, a sample that isn't there, or values that are no picture's.
        """
        if not 0 <= sample < len(self.values):
            raise ValueError(f"sample: expected 0 to {len(self.values) - 1}, got {sample!r}.")
        reduction = Reduction(sign or self.default_sign, channels)
        height, width = self.input_shape[-2:]
        values = reduction(self.values[sample : sample + 1], (height, width))[0].cpu().double().numpy()
        quantised = render.quantise(values, signed=reduction.signed)
        percentiles = clip or next(param.default for param in render.DISPLAY if param.name == "clip")
        limits = render.clip_limits(quantised.codes, quantised.signed, percentiles)
        return render.strength(quantised.codes, quantised.signed, limits)

    def to_code(self) -> str:
        """Python that repeats it; what can't be written down is named as a variable."""
        return code_of(self.settings, transformed=self.transformed)

    def __repr__(self) -> str:
        """Provenance in one line; never the numbers."""
        told = ", ".join(f"{name}={_written(name, value)}" for name, value in self.settings.items())
        state = "" if self.complete else f", {self.done} of {self.total} {self.unit}"
        return f"Attribution({tuple(self.values.shape)}, {told}{state})"


def code_of(settings: Mapping[str, Any], *, transformed: bool) -> str:
    """The call of ``sw.attribute`` with these settings as Python source."""
    opening = ["import saliency_widgets as sw", "", "attribution = sw.attribute(", "    model,", "    inputs,"]
    through = ["    transform=transform,"] if transformed else []
    lines = [f"    {name}={_written(name, value)}," for name, value in settings.items()]
    return "\n".join([*opening, *through, *lines, ")"])


def _written(name: str, value: Any) -> str:
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    if isinstance(value, (tuple, list)) and all(isinstance(v, (int, float, str)) for v in value):
        return repr(value)
    return name
