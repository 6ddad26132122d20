"""Kinds of input, with the properties that methods and trust tests need: baselines, range, features.

:class:`Kind` itself covers numbers of any shape. ``saliency_widgets/inputs`` has the more specific kinds: images and
rows of a table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from saliency_widgets.attribution.arrays import as_numbers
from saliency_widgets.attribution.baselines import BACKGROUND, BASELINE, PixelRange, mean, median, noise, zero
from saliency_widgets.attribution.columns import Columns
from saliency_widgets.attribution.errors import out_of_memory
from saliency_widgets.attribution.features import PIXELS, Features
from saliency_widgets.attribution.positions import Positions
from saliency_widgets.attribution.reduction import Reduction
from saliency_widgets.params import brief, is_truth_value

Baseline = Callable[[Tensor, int], Tensor]
"""A function from inputs (B, ...) and a seed to the baseline of each sample, a new tensor of the same shape."""


class Kind:
    """Numbers of any shape.

    Attributes:
        name: "numbers", "image", "table" or another.
        noun: The word for one input, in texts.
        feature: The word for what one value of a map belongs to, in texts.
        interpolated: Whether removed features can be filled from their neighbors.
        mark: The phrase for a large value, in texts.
        pixels: The model's input for black and white pixels; None if unknown, and for anything but images.
        columns: The columns of the table that the inputs are rows of; None for anything else.
        drawn: Whether attributions are drawn as a map over the input.
        one_size: Whether inputs that are measured together must have one size, as preprocessing gives images.
        positions: The positions at which the model scores classes, for texts; None if it scores the whole input.
        features: What the values of an attribution are reduced to.
        ignored: The features that the model is told to ignore, such as padding, shape (B, ...); None without any.
        cautions: What the check-up says about the input: pairs of a problem and a remedy, in one sentence each.
    """

    name: ClassVar[str] = "numbers"
    noun: ClassVar[str] = "input"
    feature: ClassVar[str] = "feature"
    interpolated: ClassVar[bool] = False
    mark: ClassVar[str] = "A large value"
    drawn: ClassVar[bool] = False
    one_size: ClassVar[bool] = True
    pixels: PixelRange | None = None
    columns: Columns | None = None
    features: Features = PIXELS
    positions: Positions | None = None

    @property
    def ignored(self) -> Tensor | None:  # noqa: D102
        return None

    @property
    def cautions(self) -> tuple[tuple[str, str], ...]:  # noqa: D102
        return ()

    @property
    def state(self) -> tuple[Any, ...]:
        """All that results depend on besides the model's arguments, for the keys of stored results."""
        return self.pixels, self.columns

    @property
    def default_fill(self) -> str:
        """The default replacement for removed features, see :mod:`saliency_widgets.evaluation.fills`."""
        return "zero"

    @property
    def background(self) -> Tensor | None:
        """Other rows of the table as model input, shape (N, F); None without a background."""
        return None

    # ---- baselines

    @property
    def baselines(self) -> Mapping[str, Baseline]:
        """The baselines by name, the default first."""
        return {"zero": zero, "mean": mean, "median": median, "noise": noise}

    @property
    def default_pool(self) -> str:
        """The source of baselines if none are passed: the rows of the background if available, otherwise noise."""
        return "noise" if self.background is None else BACKGROUND

    @property
    def bounded(self) -> bool:
        """Whether noise has a fixed range instead of the range of each sample."""
        return False

    @property
    def zero_note(self) -> str:
        """Why zero is the default baseline, in words; empty if that needs no explanation."""
        return ""

    def why_no_baseline(self, name: str, inputs: Tensor) -> str:
        """Return the error message for the name of a baseline that these inputs don't have."""
        if name == "blur":
            return f"baseline: 'blur' needs images (N, C, H, W), got shape {tuple(inputs.shape)}. Use 'mean'."
        return f"baseline: {name!r} means {name} pixels, but these inputs are not images. Use 'zero' or a tensor."

    def encode(self, rows: Any, argument: str) -> Tensor:  # noqa: ARG002
        """Convert pandas rows of a table into the model's input.

        Raises:
            TypeError: The inputs are not rows of a table.
            ValueError: Columns are missing, or a value can't be used.
        """
        raise TypeError(f"{argument}: a pandas row needs inputs that are rows of a table. Pass a tensor.")

    # ---- noise

    def spread(self, inputs: Tensor) -> Tensor:
        """Return the range max - min of each sample's inputs, broadcastable to them."""
        flat = inputs.reshape(len(inputs), -1)
        return (flat.amax(1) - flat.amin(1)).view(-1, *[1] * (inputs.ndim - 1))

    # ---- features

    def shape_of(self, inputs: Tensor) -> tuple[int, ...]:
        """Return the shape of one sample's features, which is also the shape of its map and its mask."""
        return tuple(inputs.shape[1:])

    def reduce(self, values: Tensor, reduction: Reduction, inputs: Tensor) -> Tensor:  # noqa: ARG002
        """Reduce values to one per feature.

        Args:
            values: The values, shape (B, ...).
            reduction: The reduction for images; other kinds use the absolute value.
            inputs: The model's input.

        Returns:
            One value per feature, shape (B, *shape_of(inputs)).
        """
        return (values if values.ndim > 1 else values[:, None]).abs()

    def broadcast(self, masks: Tensor) -> Tensor:
        """Reshape masks of features, shape (K, *shape_of), to broadcast to K inputs."""
        return masks

    def bridge(self, inputs: Tensor, masks: Tensor) -> Tensor | None:  # noqa: ARG002
        """Return copies of one sample, shape (K, ...), with masked features interpolated from their neighbors.

        None for images, whose neighbors are those of a plane.
        """
        return None

    def image_of(self, inputs: Tensor) -> np.ndarray | None:  # noqa: ARG002
        """Return the first sample as an image for display, uint8 (H, W, 3); None if it is not an image."""
        return None


NUMBERS = Kind()


def baseline_of(value: Any, inputs: Tensor, kind: Kind = NUMBERS, seed: int = 0) -> Tensor:
    """Return the baseline of each sample.

    Args:
        value: A name ("black", "white", "mean", "median", "blur", "noise", "zero"), a tensor that broadcasts to the
            inputs, a function from the inputs to such a tensor, or None for the first of ``kind.baselines``. For rows
            of a table, also a Series or a DataFrame of one row.
        inputs: The model's input, shape (B, ...).
        kind: The kind of the inputs.
        seed: The seed of "noise", which is uniform between black and white, within each column's range in the
            background, or between each sample's smallest and largest number. All samples share one draw.

    Returns:
        A tensor of the inputs' shape, type and device.

    Raises:
        TypeError: ``value`` has an unsupported type.
        ValueError: An unknown name, a function that raises, a shape that doesn't fit, or numbers that aren't finite.
    """
    value = next(iter(kind.baselines)) if value is None else value
    if isinstance(value, str):
        name = BASELINE.check(value)
        if name not in ("zero", "black", "white") and not inputs.is_floating_point():
            raise ValueError(
                f"baseline: {name!r} isn't defined for integer or boolean inputs. Use 'zero' or a tensor of their type."
            )
        if name not in kind.baselines:
            raise ValueError(kind.why_no_baseline(name, inputs))
        return kind.baselines[name](inputs, seed)
    if hasattr(value, "iloc"):  # a pandas row
        value = kind.encode(value, "baseline")
    if callable(value) and not isinstance(value, Tensor):
        value = _call(value, inputs)
    if isinstance(value, Real) and not isinstance(value, bool):
        value = _number(value)
    if is_truth_value(value) or not (isinstance(value, Tensor) or hasattr(value, "__array__")):
        raise TypeError(
            f"baseline: expected a name, a tensor or a function that returns one, got a {type(value).__name__}."
        )
    value = as_numbers(value, "baseline")
    if not inputs.is_floating_point() and bool((value.to(inputs) != value).any()):
        raise ValueError(f"baseline: the inputs are {inputs.dtype}, but it has values that this type can't represent.")
    try:
        tensor = value.detach().to(inputs).expand_as(inputs).clone()
    except RuntimeError as error:
        raise ValueError(
            f"baseline: shape {tuple(value.shape)} doesn't broadcast to the inputs' shape {tuple(inputs.shape)}."
        ) from error
    if not torch.isfinite(tensor).all():
        raise ValueError("baseline: it holds NaN or infinite values.")
    return tensor


def _call(function: Callable[[Tensor], Any], inputs: Tensor) -> Any:
    """Call the caller's function; report its exceptions as errors of ``baseline``."""
    try:
        return function(inputs.clone())
    except Exception as error:
        if out_of_memory(error):
            raise
        raise ValueError(
            f"baseline: the function raised {type(error).__name__} for the inputs, of shape {tuple(inputs.shape)}: "
            f"{str(error).rstrip('.')}. It receives the model's input and must return a tensor that broadcasts to it."
        ) from error


def _number(value: Real) -> Tensor:
    try:
        return torch.tensor(value, dtype=torch.float64, device="cpu")
    except OverflowError:
        raise ValueError(f"baseline: {brief(value)} is too large a number.") from None
