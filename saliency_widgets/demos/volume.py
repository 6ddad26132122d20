"""Generated scans with a planted nodule, and a small 3-D network that detects it, trained on the spot."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saliency_widgets.attribution.numerics.noise import seeded

SIDE = 32
_SCANS, _STEPS, _BATCH = 192, 240, 16
_CANDIDATES = 128  # for the scan that demonstrates the network
_WITH_VESSEL = 0.75  # a share of the scans; the others teach that a scan without anything is clear
_MARGIN = 7  # voxels between a nodule's center and the border


@dataclass(frozen=True)
class Scans:
    """A network that detects a nodule in a volume, and scans that demonstrate it.

    Attributes:
        model: A small 3-D convolutional network in eval mode. It takes scans, (N, 1, 32, 32, 32).
        scan: A scan with a nodule in the middle and a vessel, shape (32, 32, 32).
        without: The same scan without the nodule.
        nodule: The voxels of the nodule, booleans (32, 32, 32).
        vessel: The voxels of the vessel, which is as bright but tells nothing.
        class_names: The classes, "clear" and "nodule".
    """

    model: nn.Module
    scan: Tensor
    without: Tensor
    nodule: Tensor
    vessel: Tensor
    class_names: tuple[str, str] = ("clear", "nodule")


def scans(seed: int = 0) -> Scans:
    """Train a small network in seconds to tell a nodule from a vessel.

    Each scan is smooth noise, most with a vessel, a bright tube through the volume. Half of the scans have a nodule: a
    ball that is as bright as the tube. So brightness alone doesn't give the class; the shape does.

    Args:
        seed: The random seed for the scans and the weights.
    """
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv3d(1, 8, 5, stride=2, padding=2), nn.ReLU(),
            nn.Conv3d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv3d(16, 16, 3, padding=1), nn.ReLU(),
            nn.AdaptiveMaxPool3d(1), nn.Flatten(), nn.Linear(16, 2),
        )  # fmt: skip
        generator = seeded(seed, "scans")
        labels = torch.arange(_SCANS) % 2
        ground, nodules, vessels = _drawn(_SCANS, generator)
        tubes = vessels * (torch.rand(_SCANS, 1, 1, 1, generator=generator) < _WITH_VESSEL)
        volumes = (ground + torch.maximum(nodules * labels.view(-1, 1, 1, 1), tubes))[:, None]
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(_STEPS):
            chosen = torch.randint(_SCANS, (_BATCH,), generator=generator)
            optimizer.zero_grad()
            F.cross_entropy(model(volumes[chosen]), labels[chosen]).backward()
            optimizer.step()
    model.requires_grad_(False)
    ground, nodules, vessels = _drawn(_CANDIDATES, generator)
    middle = nodules[:, SIDE // 2, SIDE // 2, SIDE // 2].argmax()  # an explorer opens there
    ground, nodule, vessel = ground[middle], nodules[middle], vessels[middle]
    scan, without = ground + torch.maximum(nodule, vessel), ground + vessel
    return Scans(model.eval(), scan, without, nodule > 0.5, vessel > 0.5)


def _drawn(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return smooth noise, balls and tubes, each of shape (count, 32, 32, 32); the ball doesn't touch the tube."""
    coarse = torch.randn(count, 1, *[SIDE // 6] * 3, generator=generator)
    ground = 0.12 * F.interpolate(coarse, size=(SIDE,) * 3, mode="trilinear", align_corners=False)[:, 0]
    ground = ground + 0.04 * torch.randn(count, SIDE, SIDE, SIDE, generator=generator)
    radius = 4 + torch.rand(count, 1, 1, 1, generator=generator)
    center = _MARGIN + (SIDE - 2 * _MARGIN) * torch.rand(count, 3, 1, 1, 1, generator=generator)
    axes = torch.meshgrid(*[torch.arange(SIDE, dtype=torch.float32)] * 3, indexing="ij")
    offsets = torch.stack([axis - center[:, k] for k, axis in enumerate(axes)], 1)
    # The tube has a random direction, and passes the ball at a distance.
    direction = F.normalize(torch.randn(count, 3, generator=generator), dim=1)[..., None, None, None]
    aside = torch.cross(direction, torch.randn(count, 3, 1, 1, 1, generator=generator), dim=1)
    apart = (4 + 4 * torch.rand(count, 1, 1, 1, 1, generator=generator) + radius[:, None]) * F.normalize(aside, dim=1)
    beyond = offsets - apart
    across = beyond - (beyond * direction).sum(1, keepdim=True) * direction
    return ground, 0.6 * _soft(offsets, radius), 0.6 * _soft(across, radius / 2)


def _soft(offsets: Tensor, radius: Tensor) -> Tensor:
    """Return 1 within a radius and 0 beyond, with an edge of about two voxels."""
    return torch.sigmoid(2 * (radius - offsets.norm(dim=1)))
