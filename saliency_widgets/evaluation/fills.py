"""Fills: replacements for removed pixels of an image, or removed features of a row.

The fill affects the result as much as the choice of pixels does. A black patch adds an edge and a new shape, a blurred
one keeps the colors, and the neighbors' colors leave the least trace.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from saliency_widgets.attribution.baselines import BASELINE
from saliency_widgets.attribution.nonfinite import locate_nonfinite
from saliency_widgets.attribution.numerics.noise import normal_noise
from saliency_widgets.params import Param
from saliency_widgets.runtime.runner import Runner

NEIGHBORS = "neighbors"
FILL = Param(
    "fill",
    default="blur",
    kind="open",
    choices=(*BASELINE.options(), NEIGHBORS),
    help="What replaces the removed part: a color of an image, the mean, a blurred copy, noise, values between the "
    "neighbors', or a token of a text.",
)
_TOLERANCE = 3e-4  # of the image's range: the mean error is then below the added noise
_ROUNDS = 400


def check_masks(runner: Runner, masks: Tensor) -> Tensor:
    """Move masks to the model's device, as truth values with a leading axis.

    Args:
        runner: The model and its one sample.
        masks: Truth values, shape (H, W) for images or (F,) for rows, or K of them.

    Returns:
        Shape (K, H, W) or (K, F), on the model's device.

    Raises:
        ValueError: The size differs from that of the inputs.
    """
    expected = runner.kind.shape_of(runner.inputs)
    if masks.ndim == len(expected):
        masks = masks[None]
    if tuple(masks.shape[1:]) != expected:
        raise ValueError(
            f"mask: expected one value for each {runner.kind.feature} of the model's input, {expected}, got "
            f"{tuple(masks.shape[1:])}. If the input is resized or cropped, the mask must be, too."
        )
    return masks.to(device=runner.inputs.device, dtype=torch.bool)


def filling(runner: Runner, fill: Any, seed: int = 0) -> Callable[[Tensor], Tensor]:
    """Return a function that removes masked pixels or features from the sample.

    Args:
        runner: The model and its one sample, shape (1, ...).
        fill: A name (see ``FILL``), a tensor that broadcasts to the inputs, or a function from the inputs to a tensor.
        seed: The seed of "noise", and of the noise added to "neighbors".

    Returns:
        A function from K masks (see :func:`check_masks`) to K copies of the sample with the masked part filled,
        shape (K, ...).

    Raises:
        TypeError, ValueError: The fill does not fit. The function raises ValueError for a mask of the wrong size.
    """
    fill = FILL.check(fill)
    neighbors = isinstance(fill, str) and fill == NEIGHBORS
    if neighbors and not runner.kind.interpolated:
        raise ValueError("fill: 'neighbors' needs inputs with neighbors, such as images or signals. Use 'mean'.")

    @functools.cache
    def replacement() -> Tensor:
        if not isinstance(fill, str):
            return runner.baseline(fill, seed)
        return runner.once(("fill", fill, seed), lambda: runner.baseline(fill, seed))  # a blur takes as long as a pass

    def filled(masks: Tensor) -> Tensor:
        masks = check_masks(runner, masks)
        if neighbors:
            bridged = runner.kind.bridge(runner.inputs, masks)
            return noisy_linear(runner.inputs, masks, runner.noise_scale(), seed) if bridged is None else bridged
        return torch.where(runner.kind.broadcast(masks), replacement(), runner.inputs)

    return filled


def outcomes_of(runner: Runner, variants: Tensor, fill: Any) -> tuple[Tensor, Tensor]:
    """Return the scores and class scores of filled copies, see :meth:`.Runner.outcomes`.

    Raises:
        NotFinite: The scores aren't finite.
    """
    name = repr(fill) if isinstance(fill, str) else f"the {type(fill).__name__}"
    with locate_nonfinite(
        runner, "fill", (), f"after filling with {name}", "Choose another fill, such as 'mean' or 'blur'."
    ):
        return runner.outcomes(variants)


# ---- the fill "neighbors"


def noisy_linear(image: Tensor, masks: Tensor, spread: Tensor, seed: int = 0, noise: float = 0.01) -> Tensor:
    r"""Return the image with its masked pixels interpolated from their neighbors, plus a little noise.

    The color of each masked pixel is the weighted mean of its neighbors, including masked ones:

    .. math:: x_p = \sum_{q \in N(p)} w_{pq} x_q, \quad w = \tfrac16 \text{ adjacent, } \tfrac1{12} \text{ diagonal,}

    renormalized at the border. This linear system is symmetric and positive definite. It is solved by conjugate
    gradients, starting from averages of coarser and coarser blocks. The result hardly reveals the shape of the mask, to
    which a model might otherwise react. A mask that covers everything leaves the mean color.

    Source: Rong, Leemann, Borisov, Kasneci and Kasneci, "A Consistent and Efficient Evaluation Strategy for
    Attribution Methods", 2022 (ROAD).

    Args:
        image: Shape (1, C, H, W).
        masks: True where pixels are missing, shape (K, H, W).
        spread: The image's range max - min, broadcastable to the image.
        seed: The seed of the noise.
        noise: The standard deviation of the noise, as a fraction of the range.

    Returns:
        Shape (K, C, H, W); pixels outside the masks are bitwise unchanged.
    """
    missing = masks[:, None]
    hole = missing.to(image)
    observed = torch.where(missing, 0, image)
    whole = missing.flatten(1).all(1)
    guess = torch.where(missing, _coarse(observed, 1 - hole), 0)
    solved = _solve(hole, observed, guess, float(spread.max()) * _TOLERANCE)
    solved = torch.where(whole.view(-1, 1, 1, 1), image.mean((2, 3), keepdim=True), solved)
    solved = solved + noise * spread * normal_noise(image, seed, range(1))[0]
    return torch.where(missing, solved, image)


def _neighbors(values: Tensor) -> Tensor:
    """Return the weighted sum of the eight neighbors of each pixel, with zeros beyond the border.

    The weights are the outer product of (1, 2, 1) with itself, without the center, over 12. Slicing takes a seventh of
    the time of a convolution.
    """
    padded = F.pad(values, (1, 1, 1, 1))
    across = (2 * padded[..., 1:-1]).add_(padded[..., :-2]).add_(padded[..., 2:])
    down = (2 * across[..., 1:-1, :]).add_(across[..., :-2, :]).add_(across[..., 2:, :])
    return down.sub_(values, alpha=4).mul_(1 / 12)


def _coarse(observed: Tensor, weight: Tensor) -> Tensor:
    """Return a first guess: block means of the observed pixels, from larger blocks where a block has none."""
    means = observed / weight.clamp(min=torch.finfo(observed.dtype).tiny)
    if min(observed.shape[-2:]) < 2 or bool((weight > 0).all()):
        return means
    size = observed.shape[-2:]
    half = [F.avg_pool2d(part, 2, ceil_mode=True, count_include_pad=False) for part in (observed, weight)]
    wider = F.interpolate(_coarse(*half), size=size, mode="bilinear", align_corners=False)
    return torch.where(weight > 0, means, wider)


def _solve(hole: Tensor, observed: Tensor, guess: Tensor, tolerance: float) -> Tensor:
    """Solve by conjugate gradients with a diagonal preconditioner, for each image and channel separately."""
    diagonal = _neighbors(torch.ones_like(observed[:1, :1]))

    def product(values: Tensor) -> Tensor:
        return hole * (diagonal * values - _neighbors(values))

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum((2, 3), keepdim=True)

    tiny = torch.finfo(observed.dtype).tiny
    solution = guess
    residual = hole * _neighbors(observed) - product(solution)
    step = scaled = residual / diagonal
    size = dot(residual, scaled)
    for _ in range(_ROUNDS):
        if float(residual.abs().max()) <= tolerance:
            break
        applied = product(step)
        length = size / dot(step, applied).clamp(min=tiny)
        solution, residual = solution.addcmul(length, step), residual.addcmul_(length, applied, value=-1)
        scaled = residual / diagonal
        before, size = size, dot(residual, scaled)
        step = torch.addcmul(scaled, size / before.clamp(min=tiny), step)
    return solution
