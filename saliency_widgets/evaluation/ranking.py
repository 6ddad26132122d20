"""Which places come first: of a map, and of maps that know nothing."""

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
    help="What a map is compared with: itself moved elsewhere (shifted around the edges and mirrored at random), which "
    "is as smooth as it is; or single places drawn at random.",
)


def ranks_of(values: Tensor, seed: int = 0) -> Tensor:
    """The rank of each place, the largest value first; equal values in an order drawn at random.

    Args:
        values: Shape (H, W) or (F,).
        seed: Of that order.

    Returns:
        Whole numbers from 0, of the same shape.
    """
    flat = values.detach().flatten().cpu()
    drawn = torch.randperm(len(flat), generator=seeded(seed, "ties"), device="cpu")
    order = drawn[flat[drawn].argsort(descending=True, stable=True)]
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order))
    return ranks.view(values.shape)


def by_chance(values: Tensor, draw: int, *, seed: int = 0, chance: str = CHANCE.default) -> Tensor:
    """A map, or a mask, that knows nothing: as much of it as of the given one, elsewhere.

    Args:
        values: Shape (H, W) or (F,).
        draw: Which draw it is.
        seed: Of all of them.
        chance: See ``CHANCE``; the features of a row have no neighbors, and are always scattered.
    """
    generator = seeded(seed, "chance", draw)
    if values.ndim == 1 or CHANCE.check(chance) == "scattered":
        order = torch.randperm(values.numel(), generator=generator, device="cpu").to(values.device)
        return values.flatten()[order].view(values.shape)
    turned = [side for side in (0, 1) if bool(torch.randint(2, (1,), generator=generator, device="cpu"))]
    shifts = [int(torch.randint(size, (1,), generator=generator, device="cpu")) for size in values.shape]
    return values.flip(turned).roll(shifts, (0, 1))


def top(values: Tensor, share: float) -> Tensor:
    """The places with the largest values, as a mask.

    Args:
        values: Shape (H, W) or (F,).
        share: How many of all places, from 0 to 1; at least one.
    """
    return ranks_of(values) < max(1, round(share * values.numel()))
