"""Fills: what replaces removed pixels of an image, or removed features of a row.

The fill affects the result as much as the choice of pixels does. A black patch adds an edge and a shape of its own, a
blurred one keeps the colors, and the neighbors' colors leave the least trace.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from saliency_widgets.attribution.baselines import BASELINE
from saliency_widgets.attribution.nonfinite import locate_nonfinite
from saliency_widgets.evaluation.imputation import noisy_linear
from saliency_widgets.params import Param
from saliency_widgets.runtime.runner import Runner

NEIGHBORS = "neighbors"
FILL = Param(
    "fill",
    default="blur",
    kind="open",
    choices=(*BASELINE.options(), NEIGHBORS),
    help="What replaces the removed pixels or features: black or white, the image's mean color, a blurred copy, "
    "noise, or the neighbors' colors.",
)


def map_shape(runner: Runner) -> tuple[int, ...]:
    """Return the shape of a map or mask: (H, W) of an image, (F,) of a row."""
    return runner.kind.shape_of(runner.inputs)


def check_masks(runner: Runner, masks: Tensor) -> Tensor:
    """Bring masks to the model's device, with a leading axis.

    Args:
        runner: The model and its one sample.
        masks: Truth values, shape (H, W) for images or (F,) for rows, or K of them.

    Returns:
        Shape (K, H, W) or (K, F), on the model's device.

    Raises:
        ValueError: The size differs from the inputs'.
    """
    expected = map_shape(runner)
    if masks.ndim == len(expected):
        masks = masks[None]
    if tuple(masks.shape[1:]) != expected:
        raise ValueError(
            f"mask: expected the size of what the model sees, {expected}, got {tuple(masks.shape[1:])}. "
            f"A mask of the original image must go through the same resize and crop."
        )
    return masks.to(device=runner.inputs.device, dtype=torch.bool)


def default_fill(runner: Runner) -> str:
    """Return the default fill: "blur" for an image, "mean" for a row with a background, otherwise "zero"."""
    return runner.kind.default_fill


def filling(runner: Runner, fill: Any, seed: int = 0) -> Callable[[Tensor], Tensor]:
    """Return a function that removes masked pixels or features from the sample.

    Args:
        runner: The model and its one sample, shape (1, ...).
        fill: A name (see ``FILL``); a tensor that broadcasts to the inputs, or a function from them to one.
        seed: Of "noise", and of the noise on "neighbors".

    Returns:
        A function from K masks, see :func:`check_masks`, to K copies of the sample with the marked part filled,
        shape (K, ...).

    Raises:
        TypeError, ValueError: The fill doesn't fit. The function raises for a mask that doesn't.
    """
    fill = FILL.check(fill)
    neighbors = isinstance(fill, str) and fill == NEIGHBORS
    if neighbors and not runner.kind.drawn:
        raise ValueError("fill: 'neighbors' are those of a pixel, and these inputs are no image. Use 'mean'.")

    @functools.cache
    def replacement() -> Tensor:
        if not isinstance(fill, str):
            return runner.baseline(fill, seed)
        return runner.once(("fill", fill, seed), lambda: runner.baseline(fill, seed))  # a blur takes as long as a pass

    def filled(masks: Tensor) -> Tensor:
        masks = check_masks(runner, masks)
        if neighbors:
            return noisy_linear(runner.inputs, masks, runner.noise_scale(), seed)
        return torch.where(runner.kind.broadcast(masks), replacement(), runner.inputs)

    return filled


def outcomes_of(runner: Runner, variants: Tensor, fill: Any) -> tuple[Tensor, Tensor]:
    """Return the scores and class scores of filled copies, see :meth:`.Runner.outcomes`.

    Raises:
        NotFinite: They aren't finite.
    """
    name = repr(fill) if isinstance(fill, str) else f"the {type(fill).__name__}"
    with locate_nonfinite(
        runner, "fill", (), f"where {name} is filled in", "Choose another fill, such as 'mean' or 'blur'."
    ):
        return runner.outcomes(variants)
