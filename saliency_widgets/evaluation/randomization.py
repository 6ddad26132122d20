"""Model randomization: check whether a map depends on the learned weights, by randomizing them layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saliency_widgets.attribution.errors import Cancelled
from saliency_widgets.attribution.numerics.noise import SEED, seeded
from saliency_widgets.evaluation.explanation import Explanation
from saliency_widgets.evaluation.registry import Running, defined, trust_test
from saliency_widgets.evaluation.similarity import CONSTANT, spearman, ssim
from saliency_widgets.params import count_param
from saliency_widgets.runtime.layers.hooks import tensor_in
from saliency_widgets.runtime.model.isolation import private_copy
from saliency_widgets.runtime.runner import Runner

STAGES = count_param(
    "stages", 8, 1, 64, "The number of steps in which all layers are randomized, from the output to the input."
)
_SMALL = 56  # pixels of a thumbnail
_ALIKE = 0.5  # a rank correlation above this, with half of the layers random, means that the map ignores the weights


@dataclass(frozen=True, eq=False)
class Randomization(Running):
    """Maps of models whose last layers were randomized, and their similarity to the original map.

    Attributes:
        layers: The last layer randomized in each stage, counted from the output; "" first, for the unchanged model.
        similarity: Rank correlation (Spearman) of absolute values with the original map; NaN if a map is constant.
        structure: Structural similarity (SSIM) with the original map; NaN if a map is constant or of a single axis.
        maps: Thumbnails of the maps.
    """

    layers: tuple[str, ...]
    similarity: tuple[float, ...]
    structure: tuple[float, ...]
    maps: tuple[Tensor, ...]

    @property
    def halfway(self) -> float:
        """The rank correlation with the upper half of the layers random; NaN before that, or if a map is constant.

        At this point the model no longer recognizes any class, but its lowest layers still detect edges. This is where
        methods differ most.
        """
        middle = self.total // 2  # the first stage is the unchanged model
        return self.similarity[middle] if self.done > middle else float("nan")

    @property
    def reacts(self) -> bool | None:
        """Return whether the map changes when the upper half of the layers is random; None if ``halfway`` is NaN."""
        return None if self.halfway != self.halfway else abs(self.halfway) < _ALIKE


def randomization(
    runner: Runner, explain: Callable[[Runner], Tensor], *, stages: int = STAGES.default, seed: int = 0
) -> Iterator[Randomization]:
    """Randomize the weights of a private copy from the output towards the input, and recompute the map each time.

    A map that does not change shows the image, as an edge detector would, and not what the model has learned. Guided
    Backprop is the well-known example: it hardly depends on the layers near the output. Each weight is redrawn from a
    normal distribution with the mean and standard deviation of its tensor, so that signals keep their size. BatchNorm
    statistics and scripted modules are left unchanged.

    Source: Adebayo, Gilmer, Muelly, Goodfellow, Hardt and Kim, "Sanity Checks for Saliency Maps", 2018 (cascading
    randomization).

    Args:
        runner: The model and its one sample.
        explain: Maps a runner to a map, shape (H, W) or (F,).
        stages: The number of steps.
        seed: The seed of the weights.

    Yields:
        The comparison, extended by one stage each time.

    Raises:
        ValueError: The model has no weights.
    """
    copied = private_copy(runner.passes.model)
    private = replace(runner.plain, passes=replace(runner.passes.plain, model=copied), results=None)
    layers = _layers(private)
    if not layers:
        raise ValueError("model: it has no weights to randomize, so this test does not apply.")
    original = explain(runner)
    counts = sorted({round(len(layers) * k / stages) for k in range(1, stages + 1)} - {0})
    itself = 1.0 if _varies(original) else float("nan")
    estimate = Randomization(("",), (itself,), (1.0,), (_small(original),), total=1 + len(counts))
    yield estimate
    done = 0
    for count in counts:
        for path, module in layers[done:count]:
            _randomize(module, seed, path)
        done = count
        try:
            randomized = explain(private)
        except Cancelled:
            raise
        except ValueError:  # random weights may give NaN or no gradient, and therefore no map
            randomized = torch.zeros_like(original)
        estimate = replace(
            estimate,
            layers=(*estimate.layers, layers[count - 1][0]),
            similarity=(*estimate.similarity, spearman(original.abs(), randomized.abs())),
            structure=(*estimate.structure, ssim(original, randomized) if original.ndim > 1 else float("nan")),
            maps=(*estimate.maps, _small(randomized)),
            done=estimate.done + 1,
        )
        yield estimate


def _varies(values: Tensor) -> bool:
    return bool(values.max() > values.min())


def _layers(runner: Runner) -> list[tuple[str, nn.Module]]:
    """Return the modules with weights in reverse order of execution, then those that never processed the inputs."""
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
    # Scripted modules can't be copied, so their weights are those of the caller's model.
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
    if values.ndim == 3:  # of each column of a volume, the value of the largest magnitude
        values = torch.where(values.amax(0) >= -values.amin(0), values.amax(0), values.amin(0))
    if values.ndim != 2 or max(values.shape) <= _SMALL:
        return values
    scale = _SMALL / max(values.shape)
    size = [max(1, round(side * scale)) for side in values.shape]
    return F.interpolate(values[None, None].float(), size=size, mode="area")[0, 0]


def _why(result: Randomization) -> str:
    constant = result.similarity[0] != result.similarity[0]
    return CONSTANT if constant else "with random weights the map is constant, or could not be computed."


@trust_test(
    "randomization",
    title="Random weights",
    params=(STAGES, SEED),
    how_to_read="From left to right more layers get random weights, starting at the output. A map that shows what the "
    "model has learned falls towards 0; one that stays near 1 shows the {noun}, regardless of the model. Orange: rank "
    "correlation; blue: structural similarity (SSIM).",
    needs=("map",),
    columns={
        "randomized_half": lambda result: defined(result.halfway, _why(result)),
        "randomized": lambda result: defined(result.similarity[-1], _why(result)),
    },
    view="randomization",
)
def run(explanation: Explanation, stages: int, seed: int) -> Iterator[Randomization]:
    """Randomize the weights layer by layer, and compare the maps."""
    explain = explanation.explain
    yield from randomization(explanation.runner("map"), explain, stages=stages, seed=seed)
