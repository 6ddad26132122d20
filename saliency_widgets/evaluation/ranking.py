"""Ranks of a map's pixels or features, and chance maps for comparison."""

from __future__ import annotations

import torch
from torch import Tensor

from saliency_widgets.attribution.numerics.noise import seeded
from saliency_widgets.params import Param

CHANCE = Param(
    "chance",
    default="moved",
    kind="choice",
    choices=("moved", "scattered"),
    help="What to compare a map with: the same map moved elsewhere (mirrored at random and shifted with "
    "wrap-around), which is just as smooth; or single parts drawn at random.",
)


def ranks_of(values: Tensor, seed: int = 0) -> Tensor:
    """Return the rank of each value, the largest first; equal values are ordered at random.

    Args:
        values: Shape (H, W), (D, H, W) or (F,).
        seed: The seed of that random order.

    Returns:
        Whole numbers from 0, in the same shape.
    """
    flat = values.detach().flatten().cpu()
    drawn = torch.randperm(len(flat), generator=seeded(seed, "ties"), device="cpu")
    order = drawn[flat[drawn].argsort(descending=True, stable=True)]
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order))
    return ranks.view(values.shape)


def by_chance(values: Tensor, draw: int, *, seed: int = 0, chance: str = CHANCE.default) -> Tensor:
    """Return a chance map or mask: the same values, moved elsewhere.

    Args:
        values: Shape (H, W), (D, H, W) or (F,).
        draw: The index of the draw.
        seed: The seed of all draws.
        chance: How to draw: see ``CHANCE``. The features of a row have no neighbors and are always scattered.
    """
    generator = seeded(seed, "chance", draw)
    if values.ndim == 1 or CHANCE.check(chance) == "scattered":
        order = torch.randperm(values.numel(), generator=generator, device="cpu").to(values.device)
        return values.flatten()[order].view(values.shape)
    flipped = [side for side in range(values.ndim) if bool(torch.randint(2, (1,), generator=generator, device="cpu"))]
    shifts = [int(torch.randint(size, (1,), generator=generator, device="cpu")) for size in values.shape]
    return values.flip(flipped).roll(shifts, tuple(range(values.ndim)))


def top(values: Tensor, share: float) -> Tensor:
    """Return a mask of the largest values.

    Args:
        values: Shape (H, W), (D, H, W) or (F,).
        share: The fraction of all values, from 0 to 1; at least one value.
    """
    return ranks_of(values) < max(1, round(share * values.numel()))
