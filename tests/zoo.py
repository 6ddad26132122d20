"""Tiny models of many architectures, in float64 and eval mode, with the expected map of each method.

Expected maps are computed from the raw model: gradients by autograd, layers by plain hooks, the ReLU rules by replacing
torch's relu, blurs by SciPy's cosine transform.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import scipy.fft
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from toys import images, rows

import saliency_widgets as sw
from saliency_widgets.attribution.numerics.noise import normal_noise, seeded

Targets = list[int] | Callable[[Any], Tensor]


@dataclass(frozen=True)
class Kind:
    """One architecture.

    Attributes:
        model: Creates the model.
        inputs: The model's inputs, two samples.
        target: The class of each sample, or a function of the output.
        relu: Whether the model has a ReLU.
        layer: The default layer of class activation maps; None if the model has no spatial layer.
        grid: Reshapes that layer's output to (N, channels, height, width).
        behind: If that layer is not a module: from (model, inputs) to the layer's output and a function that computes
            the model's output from it.
        scores: Reads scores of shape (N, classes) from the output.
        time: The dimension of time in a signal, each channel of which has a range; None for other inputs.
    """

    model: Callable[[], nn.Module]
    inputs: Tensor | dict[str, Tensor]
    target: Targets
    relu: bool = True
    layer: str | None = None
    grid: Callable[[Tensor], Tensor] = lambda output: output
    behind: Callable[[Any, Tensor], tuple[Tensor, Callable[[Tensor], Any]]] | None = None
    scores: Callable[[Any], Tensor] = lambda output: output
    time: int | None = None

    @property
    def x(self) -> Tensor:
        """The explained input, or all inputs flattened and concatenated."""
        if isinstance(self.inputs, dict):
            return torch.cat([value.flatten(1) for value in self.inputs.values()], 1)
        return self.inputs

    @property
    def image(self) -> bool:
        """Whether the explained input is a single image."""
        return self.x.ndim == 4

    def output(self, model: nn.Module, x: Tensor) -> Any:
        """Return the model's output for explained inputs (N, ...)."""
        if not isinstance(self.inputs, dict):
            return model(x)
        sizes = [value[0].numel() for value in self.inputs.values()]
        pieces = zip(self.inputs.items(), x.split(sizes, 1), strict=True)
        return model(**{name: piece.reshape(-1, *value.shape[1:]) for (name, value), piece in pieces})

    def read(self, output: Any) -> Tensor:
        """Return the score of each sample, (N,), from the model's output."""
        if callable(self.target):
            return self.target(output)
        scores = self.scores(output)
        return scores[torch.arange(len(scores)), self.target]

    def score(self, model: nn.Module, x: Tensor) -> Tensor:
        """Return the score of each sample, (N,), for explained inputs (N, ...)."""
        return self.read(self.output(model, x))

    def parts(self, x: Tensor) -> list[Tensor]:
        """Split explained inputs (N, ...) into one tensor for each of the model's inputs, flat if there are several."""
        if not isinstance(self.inputs, dict):
            return [x]
        return list(x.split([value[0].numel() for value in self.inputs.values()], 1))


# ---- convolutions


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 5, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(80, 4),
    )


class FunctionalCNN(nn.Module):
    """A network of functions, without submodules."""

    def __init__(self) -> None:
        super().__init__()
        self.w1, self.b1 = nn.Parameter(torch.randn(6, 3, 3, 3) / 4), nn.Parameter(torch.randn(6) / 4)
        self.w2 = nn.Parameter(torch.randn(5, 6, 3, 3) / 6)
        self.w3 = nn.Parameter(torch.randn(45, 4) / 6)

    def last_convolution(self, x: Tensor) -> Tensor:
        return F.conv2d(F.relu(F.conv2d(x, self.w1, self.b1, padding=1)), self.w2, stride=2)

    def behind(self, maps: Tensor) -> Tensor:
        return F.relu(maps).flatten(1) @ self.w3

    def forward(self, x: Tensor) -> Tensor:
        return self.behind(self.last_convolution(x))


class MadeInside(FunctionalCNN):
    """Creates its modules inside ``forward``."""

    def last_convolution(self, x: Tensor) -> Tensor:
        first = nn.Conv2d(3, 6, 3, padding=1)
        first.weight, first.bias = self.w1, self.b1
        return F.conv2d(nn.Sequential(first, nn.ReLU())(x), self.w2, stride=2)

    def behind(self, maps: Tensor) -> Tensor:
        return nn.Sequential(nn.ReLU(inplace=True), nn.Flatten())(maps) @ self.w3


class Block(nn.Module):
    """A residual block with an in-place addition and one in-place ReLU that runs twice."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.relu(self.conv1(x)))
        y += x
        return self.relu(y)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(Block(6), Block(6))
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class Dense(nn.Module):
    """Each layer takes the outputs of all previous layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3 + 4 * i, 4, 3, padding=1) for i in range(3))
        self.join = nn.Conv2d(15, 5, 1)
        self.head = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        seen = [x]
        for layer in self.layers:
            seen.append(layer(torch.cat(seen, 1)).relu())
        return self.head(F.avg_pool2d(self.join(torch.cat(seen, 1)), 8).flatten(1))


class UNet(nn.Module):
    """A segmentation network with three classes for each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 6, 3, padding=1)
        self.deep = nn.Conv2d(6, 8, 3, padding=1)
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.head = nn.Conv2d(12, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = F.relu(self.down(x))
        coarse = F.relu(self.deep(F.max_pool2d(fine, 2)))
        return self.head(torch.cat([fine, F.relu(self.up(coarse))], 1))


class Gated(nn.Module):
    """Squeeze and excitation, SiLU and a sigmoid: no ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 2, 1), nn.SiLU(), nn.Conv2d(2, 6, 1))
        self.last = nn.Conv2d(6, 5, 3, stride=2)
        self.head = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.conv(x))
        x = x * self.gate(x).sigmoid()
        return self.head(F.hardswish(self.last(x)).mean((2, 3)))


class Normalized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.norm2 = nn.Conv2d(6, 5, 3, bias=False), nn.BatchNorm2d(5)
        self.head = nn.Linear(5, 4)
        for norm in (self.norm1, self.norm2):
            nn.init.normal_(norm.running_mean, std=0.2)
            nn.init.uniform_(norm.running_var, 0.5, 2)
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.normal_(norm.bias, std=0.2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return self.head(F.relu(self.norm2(self.conv2(x))).mean((2, 3)))


class Tied(nn.Module):
    """A convolution that runs twice under two names, and a head whose weight is the transpose of another layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.conv = nn.Conv2d(3, 5, 1), nn.Conv2d(5, 5, 3, padding=1)
        self.again = self.conv
        self.mix, self.head = nn.Linear(4, 5, bias=False), nn.Linear(5, 4, bias=False)
        self.head.weight = nn.Parameter(self.mix.weight.T)

    def forward(self, x: Tensor) -> Tensor:
        x = self.again(self.conv(self.enter(x)).relu()).relu()
        return self.head(self.mix(self.head(x.mean((2, 3)))))


class Detector(nn.Module):
    """Returns a dict of boxes, scores and labels for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU())
        self.boxes, self.classes = nn.Conv2d(6, 4, 1), nn.Conv2d(6, 3, 1)
        nn.init.constant_(self.classes.bias, 0.5)

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        maps = self.backbone(x)
        result = []
        for boxes, scores in zip(self.boxes(maps), self.classes(maps).sigmoid(), strict=True):
            best = scores.flatten(1).amax(1)
            result.append({"boxes": boxes.flatten(1).T, "scores": best, "labels": best.argsort()})
        return result


def confidence(result: list[dict[str, Tensor]]) -> Tensor:
    """Return a detector's score for its second class."""
    return torch.stack([one["scores"][1] for one in result])


# ---- tokens


class Attention(nn.Module):
    """A transformer block with handwritten single-head self-attention and a ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_all, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.to_all(self.norm1(x)).chunk(3, -1)
        x = x + self.out((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v)
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """A vision transformer with torch's encoder; only the class token is read."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 2, stride=2)
        self.token, self.position = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 17, 8) / 2)
        layer = nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch(x).flatten(2).mT
        tokens = torch.cat([self.token.expand(len(x), -1, -1), patches], 1) + self.position
        return self.head(self.norm(self.encoder(tokens))[:, 0])


class Registers(nn.Module):
    """A vision transformer with four register tokens before the patches; reads the mean over the patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 2, stride=2)
        self.registers, self.position = nn.Parameter(torch.randn(1, 4, 8)), nn.Parameter(torch.randn(1, 24, 8) / 2)
        self.blocks = nn.ModuleList(Attention(8) for _ in range(2))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2) + self.position
        x = torch.cat([self.registers.expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, 4:].mean(1))


class Window(nn.Module):
    """A residual two-layer network at each position, channels last."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.norm(x + x.roll(1, 1) / 2))


class Swin(nn.Module):
    """Channels last, with patch merging."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 6, 2, stride=2)
        self.first, self.merge, self.second = Window(6), nn.Linear(24, 10), Window(10)
        self.head = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.patch(x).permute(0, 2, 3, 1))
        quarters = [x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
        return self.head(self.second(self.merge(torch.cat(quarters, -1))).mean((1, 2)))


class MixerBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.over_patches = nn.Sequential(nn.Linear(16, 12), nn.GELU(), nn.Linear(12, 16))
        self.over_channels = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.over_patches(self.norm1(x).mT).mT
        return x + self.over_channels(self.norm2(x))


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 2, stride=2)
        self.blocks = nn.Sequential(MixerBlock(), MixerBlock())
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.patch(x).flatten(2).mT).mean(1))


# ---- sequences, rows, several inputs, and other outputs


class Recurrent(nn.Module):
    """The last state of an LSTM or a GRU; dropout between its layers does nothing in eval mode."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.rnn, self.head = kind(3, 5, num_layers=2, batch_first=True, dropout=0.3), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])


def table() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))


class Signal(nn.Module):
    """Sound: (N, 1, T)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv1d(1, 4, 3, stride=2), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).relu().mean(2))


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.row = nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.Linear(4, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, image: Tensor, table: Tensor) -> Tensor:
        return self.head(F.relu(self.conv(image)).mean((2, 3)) * F.relu(self.row(table)))


class InDict(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = cnn()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"features": x.flatten(1), "logits": self.net(x)}


@dataclass
class Outcome:
    loss: Tensor | None
    scores: Tensor


class InDataclass(InDict):
    def forward(self, x: Tensor) -> Outcome:
        return Outcome(None, self.net(x))


def _behind(model: Any, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    return model.last_convolution(x), model.behind


def _patches(height: int, width: int, before: int = 0) -> Callable[[Tensor], Tensor]:
    """Return a function from tokens (N, T, K) to their patches as (N, K, height, width)."""
    return lambda tokens: torch.stack(
        [tokens[:, before + i * width : before + (i + 1) * width].mT for i in range(height)], 2
    )


_IMAGES = images()
_BOTH = {"image": images(1), "table": rows(2)}

KINDS: dict[str, Kind] = {
    "CNN of modules": Kind(cnn, _IMAGES, [1, 3], layer="4"),
    "CNN of functions": Kind(FunctionalCNN, _IMAGES, [1, 3], layer="conv2d #2", behind=_behind),
    "modules made inside forward": Kind(MadeInside, _IMAGES, [1, 3], layer="conv2d #2", behind=_behind),
    "residual": Kind(Residual, _IMAGES, [0, 2], layer="blocks"),
    "dense": Kind(Dense, _IMAGES, [1, 3], layer="join"),
    "U-Net": Kind(UNet, _IMAGES, [1, 2], layer="up", scores=lambda out: out.mean((2, 3))),
    "U-Net in a region": Kind(UNet, _IMAGES, lambda out: out[:, 1, 2:5, 2:5].mean((1, 2)), layer="up"),
    "ViT with a class token": Kind(
        ViT, _IMAGES, [1, 3], relu=False, layer="encoder.layers.0", grid=_patches(4, 4, before=1)
    ),
    "ViT with registers": Kind(
        Registers, images(0, 2, 3, 8, 12), [1, 3], layer="blocks.1", grid=_patches(4, 6, before=4)
    ),
    "Swin": Kind(Swin, _IMAGES, [1, 3], layer="second", grid=lambda output: output.permute(0, 3, 1, 2)),
    "Mixer": Kind(Mixer, _IMAGES, [1, 3], relu=False, layer="blocks", grid=_patches(4, 4)),
    "LSTM": Kind(lambda: Recurrent(nn.LSTM), rows(3, 2, 6, 3), [0, 2], relu=False, time=1),
    "GRU": Kind(lambda: Recurrent(nn.GRU), rows(4, 2, 6, 3), [0, 2], relu=False, time=1),
    "table": Kind(table, rows(5, 2, 5), [0, 2]),
    "signal": Kind(Signal, rows(6, 2, 1, 16), [0, 2], layer="conv", grid=lambda output: output[:, :, None], time=2),
    "two inputs": Kind(TwoInputs, _BOTH, [0, 2], layer="conv"),
    "output in a dict": Kind(InDict, _IMAGES, [1, 3], layer="net.4", scores=lambda out: out["logits"]),
    "output in a dataclass": Kind(InDataclass, _IMAGES, [1, 3], layer="net.4", scores=lambda out: out.scores),
    "gates": Kind(Gated, _IMAGES, [1, 3], relu=False, layer="last"),
    "BatchNorm": Kind(Normalized, _IMAGES, [1, 3], layer="norm2"),
    "detector": Kind(Detector, _IMAGES, confidence, layer="classes"),
    "one module twice": Kind(Tied, _IMAGES, [1, 3], layer="conv"),
}


def made(name: str, seed: int = 0) -> nn.Module:
    """Create a model of one architecture, in float64 and eval mode."""
    torch.manual_seed(seed)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # for modules created inside forward
    try:
        return KINDS[name].model().eval()
    finally:
        torch.set_default_dtype(default)


# ---- expected maps

STEPS, SAMPLES = 6, 5


def explain(case: Kind, model: nn.Module, method: str, **more: Any) -> sw.Attribution:
    """Return the package's attribution, with the numbers of steps and samples that the expected maps below use."""
    sizes = {"n_steps": STEPS, "n_samples": SAMPLES, "chunk_size": 4}
    expected = {param.name for param in sw.methods()[method].params}
    settings = {name: value for name, value in sizes.items() if name in expected}
    if method == "expected_gradients":
        settings["baselines"] = other_input(case)
    return sw.attribute(model, case.inputs, method=method, target=case.target, **settings, **more)


def other_input(case: Kind) -> Tensor:
    """Return another input of the same shape, (1, ...)."""
    return case.x[:1].flip(-1) * 0.7


def raw_gradient(case: Kind, model: nn.Module, x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(case.score(model, leaf).sum(), leaf)[0]


def gradient(case: Kind, model: nn.Module) -> Tensor:
    return raw_gradient(case, model, case.x)


def input_x_gradient(case: Kind, model: nn.Module) -> Tensor:
    return case.x * raw_gradient(case, model, case.x)


def noise(case: Kind) -> Tensor:
    """Return SmoothGrad's noise: 0.15 times the range of each sample of each input or channel, times normal noise."""
    if case.time is not None:
        ranges = case.x.amax(case.time, keepdim=True) - case.x.amin(case.time, keepdim=True)
        return 0.15 * ranges * normal_noise(case.x, 0, range(SAMPLES))
    ranges = [
        torch.stack([piece.max() - piece.min() for piece in part]).view(-1, *[1] * (part.ndim - 1)).expand_as(part)
        for part in case.parts(case.x)
    ]
    return 0.15 * torch.cat(ranges, 1) * normal_noise(case.x, 0, range(SAMPLES))


def smoothgrad(case: Kind, model: nn.Module) -> Tensor:
    return torch.stack([raw_gradient(case, model, case.x + z) for z in noise(case)]).mean(0)


def integrated_gradients(case: Kind, model: nn.Module) -> Tensor:
    """The trapezoid rule from a baseline of zeros, which is black for images."""
    along = [raw_gradient(case, model, case.x * float(t)).numpy() for t in np.linspace(0, 1, STEPS + 1)]
    return case.x * torch.from_numpy(np.trapezoid(along, dx=1 / STEPS, axis=0))


def expected_gradients(case: Kind, model: nn.Module) -> Tensor:
    """One random position on the path from the other input for each draw, the same for the whole batch."""
    start = other_input(case)
    path = case.x - start
    generators = [seeded(0, "expected gradients", k) for k in range(SAMPLES)]
    times = [float(torch.rand((), generator=generator, dtype=torch.float64)) for generator in generators]
    return torch.stack([path * raw_gradient(case, model, start + t * path) for t in times]).mean(0)


def blurred(x: Tensor, sigma: float) -> Tensor:
    """Blur images: scale each cosine frequency as a Gaussian does."""
    frequencies = [np.pi * np.arange(n) / n for n in x.shape[-2:]]
    squares = frequencies[0][:, None] ** 2 + frequencies[1][None] ** 2
    spectrum = scipy.fft.dctn(x.numpy(), axes=(-2, -1), norm="ortho")
    return torch.from_numpy(scipy.fft.idctn(spectrum * np.exp(-(sigma**2) * squares / 2), axes=(-2, -1), norm="ortho"))


def blur_ig(case: Kind, model: nn.Module) -> Tensor:
    strongest = 0.2 * min(case.x.shape[-2:])
    seen = [blurred(case.x, strongest * (1 - j / STEPS)) for j in range(STEPS + 1)]
    slopes = [raw_gradient(case, model, x) for x in seen]
    parts = [(slopes[j] + slopes[j + 1]) / 2 * (seen[j + 1] - seen[j]) for j in range(STEPS)]
    return torch.stack(parts).sum(0)


def at_layer(case: Kind, model: nn.Module) -> tuple[Tensor, Tensor]:
    """Return the layer's activation and gradient, (N, channels, height, width)."""
    if case.behind is not None:
        activation, behind = case.behind(model, case.x)
        leaf = activation.detach().requires_grad_()
        score = case.read(behind(leaf.clone()))
    else:
        runs = []

        def cut(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            runs.append(output.detach().requires_grad_())
            return runs[-1].clone()

        assert case.layer is not None
        handle = model.get_submodule(case.layer).register_forward_hook(cut)
        score = case.score(model, case.x)
        handle.remove()
        leaf = runs[-1]
    (slope,) = torch.autograd.grad(score.sum(), leaf)
    return case.grid(leaf.detach()), case.grid(slope)


def grad_cam(case: Kind, model: nn.Module) -> Tensor:
    activation, slope = at_layer(case, model)
    return torch.einsum("nkij,nk->nij", activation, slope.mean((2, 3)))[:, None]


def grad_cam_plus_plus(case: Kind, model: nn.Module) -> Tensor:
    activation, slope = at_layer(case, model)
    alpha = slope**2 / (2 * slope**2 + slope**3 * activation.sum((2, 3), keepdim=True))
    weights = (alpha.nan_to_num() * slope.clamp(min=0)).sum((2, 3))
    return torch.einsum("nkij,nk->nij", activation, weights)[:, None]


def layer_cam(case: Kind, model: nn.Module) -> Tensor:
    activation, slope = at_layer(case, model)
    return (slope.clamp(min=0) * activation).sum(1, keepdim=True)


class Rectified(torch.autograd.Function):
    """A ReLU that passes back only positive gradients; if guided, only where its input was positive."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, guided: bool) -> Tensor:
        ctx.save_for_backward(x)
        ctx.guided = guided
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        g = g * (g > 0)
        return (g * (x > 0) if ctx.guided else g), None


def rectified(case: Kind, model: nn.Module, guided: bool) -> Tensor:
    """Return the gradient with torch's relu replaced by ``Rectified``."""
    with pytest.MonkeyPatch.context() as patch:
        for namespace in (torch, F, Tensor):
            patch.setattr(namespace, "relu", lambda x, inplace=False: Rectified.apply(x, guided))
        return raw_gradient(case, model, case.x)


def guided_backprop(case: Kind, model: nn.Module) -> Tensor:
    return rectified(case, model, guided=True)


def deconvnet(case: Kind, model: nn.Module) -> Tensor:
    return rectified(case, model, guided=False)


def guided_grad_cam(case: Kind, model: nn.Module) -> Tensor:
    seen = grad_cam(case, model).clamp(min=0)
    mask = F.interpolate(seen, size=case.x.shape[-2:], mode="bilinear", align_corners=False)
    return guided_backprop(case, model) * mask


ORACLES: dict[str, Callable[[Kind, nn.Module], Tensor]] = {
    oracle.__name__: oracle
    for oracle in (
        *(gradient, input_x_gradient, smoothgrad, integrated_gradients, expected_gradients, blur_ig),
        *(grad_cam, grad_cam_plus_plus, layer_cam, guided_backprop, deconvnet, guided_grad_cam),
    )
}


# ---- methods that do not apply

NO_RELU = r"method: (Guided Backprop|Deconvnet) changes the gradient at ReLUs, and this model ran none.*Use 'gradient'"
NO_LAYER = r"layer: no layer of this model has a spatial output.*Use a gradient method such as 'integrated_gradients'"
NO_IMAGE = r"method: Blur-IG needs images \(N, C, H, W\), got inputs of shape.*Use 'integrated_gradients'"
NO_ONE_IMAGE = r"method: Guided Grad-CAM needs images \(N, C, H, W\), got inputs of shape.*use 'guided_backprop'"


def reason(case: Kind, method: str) -> str | None:
    """Return the pattern of the error if a method does not apply to an architecture; None if it does."""
    needs = sw.methods()[method].needs
    if method == "blur_ig" and not case.image:
        return NO_IMAGE
    if method == "guided_grad_cam" and not case.image:
        return NO_ONE_IMAGE
    if "layer" in needs and case.layer is None:
        return NO_LAYER
    return NO_RELU if "relu" in needs and not case.relu else None
