"""What stands where something was taken away: of an image some pixels, of a row some features.

What is put there decides the answer as much as what is taken away: a black patch is an edge and a shape by itself, a
blurred one keeps the colors, neighbors' colors leave as little trace as can be.
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
    help="What is put where something is taken away: black or white pixels, the image's mean color, a blurred copy, "
    "noise, or the neighbors' colors.",
)


def places_of(runner: Runner) -> tuple[int, ...]:
    """The shape of what can be marked: (H, W) of an image, (F,) of a row."""
    return tuple(runner.passes.size or runner.inputs.shape[1:])


def check_masks(runner: Runner, masks: Tensor) -> Tensor:
    """Which places are taken away, in the form that is computed with.

    Args:
        runner: The model and its one sample.
        masks: Truth values, shape (H, W) for images or (F,) for rows, or K of them.

    Returns:
        Shape (K, H, W) or (K, F), on the model's device.

    Raises:
        ValueError: Another size than the inputs.
    """
    expected = places_of(runner)
    if masks.ndim == len(expected):
        masks = masks[None]
    if tuple(masks.shape[1:]) != expected:
        raise ValueError(
            f"mask: expected the size of what the model sees, {expected}, got {tuple(masks.shape[1:])}. "
            f"A mask of the original image must go through the same resize and crop."
        )
    return masks.to(device=runner.inputs.device, dtype=torch.bool)


def default_fill(runner: Runner) -> str:
    """What is put there where nobody says: "blur" in an image, the background's "mean" in a row, or else "zero"."""
    if runner.passes.size is not None:
        return FILL.default
    return "zero" if runner.columns is None or runner.columns.rows is None else "mean"


def filling(runner: Runner, fill: Any, seed: int = 0) -> Callable[[Tensor], Tensor]:
    """A way to take something away from the sample.

    Args:
        runner: The model and its one sample, shape (1, ...).
        fill: A name (see ``FILL``); a tensor that broadcasts to the inputs, or a function from them to one.
        seed: Of "noise", and of the noise on "neighbors".

    Returns:
        A function from K masks, see :func:`check_masks`, to K copies of the sample without what they mark, (K, ...).

    Raises:
        TypeError, ValueError: A fill that doesn't fit; and the function, a mask that doesn't.
    """
    fill = FILL.check(fill)
    neighbors = isinstance(fill, str) and fill == NEIGHBORS
    if neighbors and runner.inputs.ndim != 4:
        raise ValueError("fill: 'neighbors' are those of a pixel, and these inputs are no image. Use 'mean'.")

    @functools.cache
    def instead() -> Tensor:
        if not isinstance(fill, str):
            return runner.baseline(fill, seed)
        return runner.once(("fill", fill, seed), lambda: runner.baseline(fill, seed))  # a blur takes as long as a pass

    def filled(masks: Tensor) -> Tensor:
        masks = check_masks(runner, masks)
        if neighbors:
            return noisy_linear(runner.inputs, masks, runner.noise_scale(), seed)
        return torch.where(masks[:, None] if runner.inputs.ndim == 4 else masks, instead(), runner.inputs)

    return filled


def outcomes_of(runner: Runner, variants: Tensor, fill: Any) -> tuple[Tensor, Tensor]:
    """The scores and class scores of filled copies, see :meth:`.Runner.outcomes`.

    Raises:
        NotFinite: They aren't finite.
    """
    name = repr(fill) if isinstance(fill, str) else f"the {type(fill).__name__}"
    with locate_nonfinite(
        runner, "fill", (), f"where {name} is filled in", "Choose another fill, such as 'mean' or 'blur'."
    ):
        return runner.outcomes(variants)
