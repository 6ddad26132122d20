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
    """Return a separate generator for each (seed, stream), without reading or changing the global random state."""
    digest = hashlib.blake2b(repr((int(seed), *stream)).encode(), digest_size=7).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest, "big"))


def normal_noise(like: Tensor, seed: int, samples: range) -> Tensor:
    """Return standard normal noise for a range of samples.

    Args:
        like: The inputs, shape (B, ...). Every row of a batch gets the same noise, so that an image's map
            doesn't depend on the other images.
        seed: The seed.
        samples: The numbers of the K samples.

    Returns:
        Noise of shape (K, 1, ...), in the type and on the device of ``like``. It is drawn on the CPU in float32, so
        that it is the same on all devices and in all types.
    """
    drawn = [torch.randn(like.shape[1:], generator=seeded(seed, k), dtype=torch.float32, device="cpu") for k in samples]
    return torch.stack(drawn)[:, None].to(like)
