"""The measured models, their bare gradient, and the images."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from saliency_widgets.demos import classifier, sample_image

# Photographs that come with scikit-image (four) and scikit-learn (two).
IMAGES = ("chelsea", "coffee", "astronaut", "rocket", "china", "flower")


class Block(nn.Module):
    """A residual block of two convolutions."""

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.around = nn.Sequential()
        if stride > 1 or inputs != channels:
            self.around = nn.Sequential(nn.Conv2d(inputs, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.around(x))


class ResNet18(nn.Module):
    """He et al., "Deep Residual Learning for Image Recognition", 2016; untrained, which doesn't affect speed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn = nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(3, 2, 1)
        widths = [64, 64, 64, 128, 128, 256, 256, 512, 512]
        pairs = itertools.pairwise(widths)
        self.blocks = nn.Sequential(*(Block(a, b, 1 if a == b else 2) for a, b in pairs))
        self.fc = nn.Linear(512, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.pool(F.relu(self.bn(self.conv(x)))))
        return self.fc(x.mean((2, 3)))


class Encoder(nn.Module):
    """A layer of a vision transformer: one head of attention, and two linear layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        x = x + self.out((q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1) @ v)
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """A model of the size of Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021; untrained."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.layers = nn.Sequential(*(Encoder(width) for _ in range(depth)))
        self.head = nn.Linear(width, 1000)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.patches(x).flatten(2).mT).mean(1))


def model_of(name: str, device: str = "cpu") -> nn.Module:
    """ "EfficientNet-Lite0", pretrained, "ResNet-18", "ViT-B" (0.3 GB) or "ViT-L" (1.2 GB)."""
    if name == "EfficientNet-Lite0":
        return classifier().model.to(device)
    torch.manual_seed(0)
    sizes = {"ViT-B": (768, 12), "ViT-L": (1024, 24)}
    return (ViT(*sizes[name]) if name in sizes else ResNet18()).eval().to(device)


def input_of(name: str = "chelsea", device: str = "cpu") -> Tensor:
    """A preprocessed image, shape (1, 3, 224, 224)."""
    if name in ("china", "flower"):
        from sklearn.datasets import load_sample_image

        image = Image.fromarray(np.asarray(load_sample_image(f"{name}.jpg")))
    else:
        image = sample_image(name)
    return classifier().transform(image)[None].to(device)


def tuned_by_hand(model: nn.Module) -> nn.Module:
    """A copy that is tuned by hand: frozen, BatchNorms fused by torch's function, channels last."""
    made = copy.deepcopy(model).requires_grad_(False)
    modules = dict(made.named_modules())
    before: str | None = None
    for path, module in list(modules.items()):
        if isinstance(module, nn.BatchNorm2d) and before is not None:
            fused = fuse_conv_bn_eval(modules[before], module)
            _put(made, before, fused)
            _put(made, path, nn.Identity())
        before = path if isinstance(module, nn.Conv2d) else None if isinstance(module, nn.BatchNorm2d) else before
    return made.to(memory_format=torch.channels_last)


def _put(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


def bare_gradient(model: nn.Module, target: int) -> Callable[[Tensor], Tensor]:
    """A function from rows to their gradients, without overhead."""

    def gradient(rows: Tensor) -> Tensor:
        leaf = rows.contiguous(memory_format=torch.channels_last).requires_grad_(True)
        return torch.autograd.grad(model(leaf)[:, target].sum(), leaf)[0]

    return gradient
