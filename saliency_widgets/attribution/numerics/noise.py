"""Seeded noise: sample k of a seed is the same noise at every noise level, sample count and chunk size."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from saliency_widgets.params import Param

SEED = Param(
    "seed",
    default=0,
    low=0,
    high=2**31 - 1,
    kind="int",
    advanced=True,
    help="The same seed gives the same noise, at every noise level and sample count.",
)


def seeded(seed: int, *stream: int | str) -> torch.Generator:
    """A generator of its own for each (seed, stream): the global random state is neither read nor moved."""
    digest = hashlib.blake2b(repr((int(seed), *stream)).encode(), digest_size=7).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest, "big"))


def normal_noise(like: Tensor, seed: int, samples: range) -> Tensor:
    """Standard normal noise for the given samples.

    Args:
        like: The inputs, shape (B, ...). Every row of a batch gets the same noise, so that an image's map
            doesn't depend on the images beside it.
        seed: The seed.
        samples: Which samples, K of them.

    Returns:
        Shape (K, 1, ...), in the type and on the device of ``like``. Drawn on the CPU in float32, so that all
        devices and types see the same noise.
    """
    drawn = [torch.randn(like.shape[1:], generator=seeded(seed, k), dtype=torch.float32, device="cpu") for k in samples]
    return torch.stack(drawn)[:, None].to(like)
