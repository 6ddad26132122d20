"""What an input is, as methods and trust tests need it: its baselines, its range, its features.

:class:`Kind` itself stands for numbers of any shape. ``saliency_widgets/inputs`` has the kinds that know more: images
and rows of a table.
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
from saliency_widgets.attribution.reduction import Reduction
from saliency_widgets.params import brief, is_truth_value

Baseline = Callable[[Tensor, int], Tensor]
"""From inputs (B, ...) and a seed to the baseline of each sample, a tensor of its own of the same shape."""


class Kind:
    """Numbers of any shape.

    Attributes:
        name: "numbers", "image" or "table".
        noun: What one is called.
        mark: What a large value looks like.
        pixels: What black and white pixels look like to the model; None if unknown, and for anything but images.
        columns: The columns of the table that the inputs are rows of; None for anything else.
        drawn: Whether its values are a map that is painted over what is explained.
    """

    name: ClassVar[str] = "numbers"
    noun: ClassVar[str] = "input"
    mark: ClassVar[str] = "A large value"
    drawn: ClassVar[bool] = False
    pixels: PixelRange | None = None
    columns: Columns | None = None

    @property
    def default_fill(self) -> str:
        """What replaces removed features by default, see :mod:`saliency_widgets.evaluation.fills`."""
        return "zero"

    @property
    def background(self) -> Tensor | None:
        """Other inputs as the model sees them, shape (N, F)."""
        return None

    # ---- baselines

    @property
    def baselines(self) -> Mapping[str, Baseline]:
        """The baselines by name, the default first."""
        return {"zero": zero, "mean": mean, "median": median, "noise": noise}

    @property
    def default_pool(self) -> str:
        """What baselines are drawn from if none are passed: the rows of the background, or noise."""
        return "noise" if self.background is None else BACKGROUND

    @property
    def bounded(self) -> bool:
        """Whether noise has a range of its own, and not that of each sample."""
        return False

    @property
    def zero_note(self) -> str:
        """Why zero is the default baseline, if a reader could take it for something else."""
        return ""

    def why_no_baseline(self, name: str, inputs: Tensor) -> str:
        """Return the message for the name of a baseline that these inputs don't have."""
        if name == "blur":
            return f"baseline: 'blur' needs images (N, C, H, W), got shape {tuple(inputs.shape)}. Use 'mean'."
        return f"baseline: {name!r} means {name} pixels, and these inputs are no image. Use 'zero' or a tensor."

    def encode(self, rows: Any, argument: str) -> Tensor:  # noqa: ARG002
        """Bring rows of a table, as pandas has them, into the form that the model sees.

        Raises:
            TypeError: The inputs are no rows of a table.
            ValueError: Columns are missing, or a value can't be used.
        """
        raise TypeError(f"{argument}: a row of pandas goes with inputs that are one. Pass what the model sees.")

    # ---- noise

    def spread(self, inputs: Tensor) -> Tensor:
        """The range max - min of each sample's inputs, broadcastable to them."""
        flat = inputs.reshape(len(inputs), -1)
        return (flat.amax(1) - flat.amin(1)).view(-1, *[1] * (inputs.ndim - 1))

    # ---- features

    def shape_of(self, inputs: Tensor) -> tuple[int, ...]:
        """The shape of the features of one sample, by which a map and a mask go."""
        return tuple(inputs.shape[1:])

    def reduce(self, values: Tensor, reduction: Reduction, inputs: Tensor) -> Tensor:  # noqa: ARG002
        """Reduce values to one for each feature.

        Args:
            values: Shape (B, ...).
            reduction: What is shown of an image; the size of anything else.
            inputs: What the model sees.

        Returns:
            Shape (B, *shape_of(inputs)).
        """
        return (values if values.ndim > 1 else values[:, None]).abs()

    def broadcast(self, masks: Tensor) -> Tensor:
        """Masks of features, shape (K, *shape_of), as masks that broadcast to K inputs."""
        return masks

    def image_of(self, inputs: Tensor) -> np.ndarray | None:  # noqa: ARG002
        """The first sample as an image to look at, uint8 (H, W, 3); None if it is no image."""
        return None


NUMBERS = Kind()


def baseline_of(value: Any, inputs: Tensor, kind: Kind = NUMBERS, seed: int = 0) -> Tensor:
    """The baseline of each sample.

    Args:
        value: A name ("black", "white", "mean", "median", "blur", "noise", "zero"), a tensor that broadcasts to the
            inputs, a function from the inputs to such a tensor, or None for the first of ``kind.baselines``. For rows
            of a table, also a Series or a DataFrame of one row.
        inputs: What the model sees, shape (B, ...).
        kind: What they are.
        seed: The seed of "noise": uniform between black and white, within each column's range in the background, or
            between each sample's own least and largest number. It is the same for all samples.

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
                f"baseline: {name!r} of whole numbers or truth values is none of them. Use 'zero', or a tensor of them."
            )
        if name not in kind.baselines:
            raise ValueError(kind.why_no_baseline(name, inputs))
        return kind.baselines[name](inputs, seed)
    if hasattr(value, "iloc"):  # a row as people have it
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
        raise ValueError(f"baseline: the inputs are {inputs.dtype}, and it holds other numbers than these can be.")
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
    """Call the caller's function; what it raises becomes an error about ``baseline``."""
    try:
        return function(inputs.clone())
    except Exception as error:
        if out_of_memory(error):
            raise
        raise ValueError(
            f"baseline: the function raised {type(error).__name__} for the inputs, of shape {tuple(inputs.shape)}: "
            f"{str(error).rstrip('.')}. It gets what the model sees and must give a tensor that broadcasts to it."
        ) from error


def _number(value: Real) -> Tensor:
    try:
        return torch.tensor(value, dtype=torch.float64, device="cpu")
    except OverflowError:
        raise ValueError(f"baseline: {brief(value)} is too large a number.") from None
