"""A planted artifact: a classifier trained on images whose label leaks through a watermark."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saliency_widgets.attribution.numerics.noise import seeded

_SIZE, _MARK, _EDGE = 48, 7, 3
_STEPS, _BATCH = 120, 48


@dataclass(frozen=True)
class Planted:
    """A classifier of balls and boxes that relies on a watermark, and images that demonstrate it.

    Attributes:
        model: A small convolutional network in eval mode.
        image: A box with the watermark of the balls, uint8 (48, 48, 3): the model predicts "ball".
        without: The same box without the watermark: the model predicts "box".
        mark: The position of the watermark, booleans (48, 48).
        class_names: The classes, "box" and "ball".
    """

    model: nn.Module
    image: np.ndarray
    without: np.ndarray
    mark: np.ndarray
    class_names: tuple[str, str] = ("box", "ball")


def planted(seed: int = 0) -> Planted:
    """Train a small network in seconds, on images in which every ball carries a watermark.

    The images are noisy and the shapes faint, while the mark is always visible, so the network learns the mark. It is
    nearly always right on images from the same source, so a test set from that source would not reveal the problem.

    Source of the idea: Lapuschkin et al., "Unmasking Clever Hans predictors and assessing what machines really learn",
    2019 (horses that were recognized by a photographer's copyright mark).

    Args:
        seed: The random seed for the images and the weights.
    """
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=2, padding=2), nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
            nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(16, 2),
        )  # fmt: skip
        generator = seeded(seed, "planted")
        optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
        for _ in range(_STEPS):
            labels = torch.randint(2, (_BATCH,), generator=generator)
            images = _drawn(labels, generator)
            marked = _marked(images, labels == 1, generator)[0]
            optimizer.zero_grad()
            F.cross_entropy(model(marked), labels).backward()
            optimizer.step()
    model.requires_grad_(False)
    box = _drawn(torch.zeros(1, dtype=torch.long), generator)
    marked, where = _marked(box, torch.ones(1, dtype=torch.bool), generator)
    return Planted(model.eval(), _bytes(marked), _bytes(box), where[0].numpy())


def _drawn(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Draw faint shapes on a noisy background, shape (N, 3, 48, 48) in [0, 1]."""
    count = len(labels)
    ground = 0.3 + 0.3 * torch.rand(count, 3, 1, 1, generator=generator)
    middle = 14 + 20 * torch.rand(count, 2, 1, 1, generator=generator)
    size = 7 + 4 * torch.rand(count, 1, 1, generator=generator)
    y, x = torch.meshgrid(torch.arange(_SIZE), torch.arange(_SIZE), indexing="ij")
    down, across = y - middle[:, 0], x - middle[:, 1]
    ball = down**2 + across**2 < size**2
    box = (down.abs() < 0.9 * size) & (across.abs() < 0.9 * size)
    shape = torch.where(labels.bool().view(-1, 1, 1), ball, box)[:, None]
    noise = 0.12 * torch.randn(count, 3, _SIZE, _SIZE, generator=generator)
    return (ground + 0.2 * shape + noise).clamp(0, 1)


def _marked(images: Tensor, which: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the images with a white ring in a random corner of those in ``which``, and its position, (N, 48, 48)."""
    ring = torch.ones(_MARK, _MARK)
    ring[1:-1, 1:-1] = 0
    ring[3, 3] = 1
    marked, where = images.clone(), torch.zeros(len(images), _SIZE, _SIZE, dtype=torch.bool)
    ends = (_EDGE, _SIZE - _EDGE - _MARK)
    for k, corner in enumerate(torch.randint(4, (len(images),), generator=generator).tolist()):
        if which[k]:
            top, left = ends[corner // 2], ends[corner % 2]
            window = marked[k, :, top : top + _MARK, left : left + _MARK]
            window.copy_(torch.where(ring > 0, 1.0, window))
            where[k, top : top + _MARK, left : left + _MARK] = True
    return marked, where


def _bytes(images: Tensor) -> np.ndarray:
    return (images[0] * 255).round().to(torch.uint8).movedim(0, -1).numpy()
