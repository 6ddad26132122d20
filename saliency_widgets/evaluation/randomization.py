"""Whether a map depends on what the model has learnt: its weights are replaced by random ones, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saliency_widgets.attribution.errors import Cancelled
from saliency_widgets.attribution.numerics.noise import seeded
from saliency_widgets.evaluation.similarity import spearman, ssim
from saliency_widgets.params import MANY, Param
from saliency_widgets.runtime.layers.hooks import tensor_in
from saliency_widgets.runtime.model.isolation import private_copy
from saliency_widgets.runtime.runner import Runner

STAGES = Param(
    "stages",
    default=8,
    low=1,
    high=64,
    maximum=MANY,
    kind="int",
    unit="stages",
    help="In how many steps all layers are randomized, from the output to the input.",
)
_SMALL = 56  # pixels of a thumbnail
_ALIKE = 0.5  # a map that orders the places like this, with half of the layers random, has not looked at them


@dataclass(frozen=True, eq=False)
class Randomization:
    """Maps of models whose last layers were randomized, and how alike they are to the model's own.

    Attributes:
        layers: The layer that each stage reached, from the output; the first, "", is the model itself.
        similarity: Rank correlation (Spearman) of the maps' sizes with the model's own; NaN where one is constant.
        structure: Structural similarity (SSIM) with it; NaN where one is constant or not an image's.
        maps: The maps, small.
        total: How many stages there will be, the model itself among them.
    """

    layers: tuple[str, ...]
    similarity: tuple[float, ...]
    structure: tuple[float, ...]
    maps: tuple[Tensor, ...]
    total: int

    @property
    def done(self) -> int:
        """How many stages there are."""
        return len(self.layers)

    @property
    def complete(self) -> bool:
        """Whether all layers were randomized."""
        return self.done >= self.total

    @property
    def halfway(self) -> float:
        """The rank correlation where the upper half of the layers is random; NaN before, and where one is constant.

        There the model knows no class any more, while its lowest layers still find edges: that is where methods part.
        """
        middle = self.total // 2  # of the stages, the first of which is the model itself
        return self.similarity[middle] if self.done > middle else float("nan")

    @property
    def reacts(self) -> bool | None:
        """Whether the map is another one with the upper half of the layers random; None where it can't be told."""
        return None if self.halfway != self.halfway else abs(self.halfway) < _ALIKE


def randomization(
    runner: Runner, explain: Callable[[Runner], Tensor], *, stages: int = STAGES.default, seed: int = 0
) -> Iterator[Randomization]:
    """Randomize the weights from the output towards the input, on a private copy, and explain each time.

    A map that stays as it was shows the image, as an edge detector does, and not what the model has learnt: Guided
    Backprop is the known case, which hardly depends on the layers near the output. Each weight is drawn anew from a
    normal distribution with the mean and the spread of its own tensor, so that the signal keeps its size; what
    BatchNorm has measured stays, and so do scripted modules.

    Source: Adebayo, Gilmer, Muelly, Goodfellow, Hardt and Kim, "Sanity Checks for Saliency Maps", 2018 (cascading
    randomization).

    Args:
        runner: The model and its one sample.
        explain: From a question to its map, shape (H, W) or (F,).
        stages: In how many steps.
        seed: Of the weights.

    Yields:
        The comparison up to one more stage.

    Raises:
        ValueError: The model has no weights.
    """
    copied = private_copy(runner.passes.model)
    private = replace(runner.plain, passes=replace(runner.passes.plain, model=copied), results=None)
    layers = _layers(private)
    if not layers:
        raise ValueError("model: it has no weights to be randomized, so the check does not apply.")
    own = explain(runner)
    counts = sorted({round(len(layers) * k / stages) for k in range(1, stages + 1)} - {0})
    told = Randomization(("",), (1.0 if _varies(own) else float("nan"),), (1.0,), (_small(own),), 1 + len(counts))
    yield told
    done = 0
    for count in counts:
        for path, module in layers[done:count]:
            _randomize(module, seed, path)
        done = count
        try:
            found = explain(private)
        except Cancelled:
            raise
        except ValueError:  # random weights may give no numbers, or no gradient: there is no map to compare
            found = torch.zeros_like(own)
        told = replace(
            told,
            layers=(*told.layers, layers[count - 1][0]),
            similarity=(*told.similarity, spearman(own.abs(), found.abs())),
            structure=(*told.structure, ssim(own, found) if own.ndim == 2 else float("nan")),
            maps=(*told.maps, _small(found)),
        )
        yield told


def _varies(values: Tensor) -> bool:
    return bool(values.max() > values.min())


def _layers(runner: Runner) -> list[tuple[str, nn.Module]]:
    """The modules with weights of their own, the last to run first; those that were not seen to run at the end."""
    seen: dict[str, None] = {}

    def ran(path: str, output: Any) -> None:
        tensor = tensor_in(output)
        if tensor is not None and tensor.requires_grad:  # it depends on the inputs
            seen.pop(path, None)
            seen[path] = None

    runner.passes.watch(ran)
    named = dict(runner.passes.model.named_modules())
    order = [*reversed(seen), *(path for path in reversed(named) if path not in seen)]
    return [(path, named[path]) for path in order if path in named and _has_weights(named[path])]


def _has_weights(module: nn.Module) -> bool:
    # Scripted modules can't be copied: their weights are the caller's.
    return not isinstance(module, torch.jit.ScriptModule) and any(True for _ in module.parameters(recurse=False))


def _randomize(module: nn.Module, seed: int, path: str) -> None:
    with torch.no_grad():
        for name, weight in module.named_parameters(recurse=False):
            if weight.is_floating_point():
                generator = seeded(seed, "weights", path, name)
                drawn = torch.randn(weight.shape, generator=generator, dtype=torch.float32, device="cpu").to(weight)
                spread = weight.std() if weight.numel() > 1 else weight.abs().mean()
                weight.copy_(weight.mean() + spread * drawn)


def _small(values: Tensor) -> Tensor:
    if values.ndim != 2 or max(values.shape) <= _SMALL:
        return values
    scale = _SMALL / max(values.shape)
    size = [max(1, round(side * scale)) for side in values.shape]
    return F.interpolate(values[None, None].float(), size=size, mode="area")[0, 0]
