"""Colors for missing pixels from their neighbors'."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from saliency_widgets.attribution.numerics.noise import normal_noise

_TOLERANCE = 3e-4  # of the image's range; the pixels are then off by less than the noise that is added, in the mean
_ROUNDS = 400


def noisy_linear(image: Tensor, masks: Tensor, spread: Tensor, seed: int = 0, noise: float = 0.01) -> Tensor:
    r"""The image with its masked pixels replaced by what their neighbors tell of them, and a little noise.

    The color of each masked pixel is the mean of its neighbors', masked ones too:

    .. math:: x_p = \sum_{q \in N(p)} w_{pq} x_q, \quad w = \tfrac16 \text{ beside it, } \tfrac1{12} \text{ diagonally,}

    renormalized at the border: a linear system, symmetric and positive, that is solved by conjugate gradients from a
    first guess by averages of ever coarser blocks. What the mask looked like can hardly be read off the result, which
    is what a model may otherwise react to. A mask that covers everything leaves the mean color.

    Source: Rong, Leemann, Borisov, Kasneci and Kasneci, "A Consistent and Efficient Evaluation Strategy for
    Attribution Methods", 2022 (ROAD).

    Args:
        image: Shape (1, C, H, W).
        masks: True where pixels are missing, shape (K, H, W).
        spread: The image's range max - min, broadcastable to it.
        seed: Of the noise.
        noise: Its standard deviation, as a part of the range.

    Returns:
        Shape (K, C, H, W); known pixels are the image's own, bit for bit.
    """
    missing = masks[:, None]
    hole = missing.to(image)
    known = torch.where(missing, 0, image)
    whole = missing.flatten(1).all(1)
    guess = torch.where(missing, _coarse(known, 1 - hole), 0)
    solved = _solve(hole, known, guess, float(spread.max()) * _TOLERANCE)
    solved = torch.where(whole.view(-1, 1, 1, 1), image.mean((2, 3), keepdim=True), solved)
    solved = solved + noise * spread * normal_noise(image, seed, range(1))[0]
    return torch.where(missing, solved, image)


def _neighbors(values: Tensor) -> Tensor:
    """The weighted sum of the eight neighbors of each pixel, none beyond the border.

    Weights 1 2 1 across times 1 2 1 down, without the middle, over 12: slices take a seventh of a convolution's time.
    """
    padded = F.pad(values, (1, 1, 1, 1))
    across = (2 * padded[..., 1:-1]).add_(padded[..., :-2]).add_(padded[..., 2:])
    down = (2 * across[..., 1:-1, :]).add_(across[..., :-2, :]).add_(across[..., 2:, :])
    return down.sub_(values, alpha=4).mul_(1 / 12)


def _coarse(known: Tensor, weight: Tensor) -> Tensor:
    """A first guess: means of blocks, each from the known pixels inside, or else from blocks of twice the size."""
    means = known / weight.clamp(min=torch.finfo(known.dtype).tiny)
    if min(known.shape[-2:]) < 2 or bool((weight > 0).all()):
        return means
    size = known.shape[-2:]
    half = [F.avg_pool2d(part, 2, ceil_mode=True, count_include_pad=False) for part in (known, weight)]
    wider = F.interpolate(_coarse(*half), size=size, mode="bilinear", align_corners=False)
    return torch.where(weight > 0, means, wider)


def _solve(hole: Tensor, known: Tensor, guess: Tensor, tolerance: float) -> Tensor:
    """Conjugate gradients, with the diagonal as preconditioner; each image and channel for itself."""
    diagonal = _neighbors(torch.ones_like(known[:1, :1]))

    def product(values: Tensor) -> Tensor:
        return hole * (diagonal * values - _neighbors(values))

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum((2, 3), keepdim=True)

    tiny = torch.finfo(known.dtype).tiny
    found = guess
    rest = hole * _neighbors(known) - product(found)
    step = scaled = rest / diagonal
    size = dot(rest, scaled)
    for _ in range(_ROUNDS):
        if float(rest.abs().max()) <= tolerance:
            break
        ahead = product(step)
        length = size / dot(step, ahead).clamp(min=tiny)
        found, rest = found.addcmul(length, step), rest.addcmul_(length, ahead, value=-1)
        scaled = rest / diagonal
        before, size = size, dot(rest, scaled)
        step = torch.addcmul(scaled, size / before.clamp(min=tiny), step)
    return found
