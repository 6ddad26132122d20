"""The interface between a method and the model: scores, gradients and activations for any rows of inputs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from torch import Tensor

from saliency_widgets.attribution.arrays import on_host
from saliency_widgets.attribution.input_parts import InputPart, split_parts
from saliency_widgets.params import MANY, Param

T = TypeVar("T")
Rule = Literal["guided", "deconvnet"]
"""A backward rule for ReLUs: see :mod:`saliency_widgets.runtime.relu_rules`."""

CHUNK_SIZE = Param(
    "chunk_size",
    default=None,
    low=1,
    high=1024,
    maximum=MANY,
    kind="int",
    scale="log2",
    optional=True,
    advanced=True,
    continued=True,
    unit="rows",
    help="Rows in one pass of the model. By default, 16 on a CPU and 32 elsewhere; lower it when memory runs out.",
)

LAYER = Param(
    "layer",
    default=None,
    kind="layer",
    optional=True,
    help="The layer whose channels are weighted. By default, the last one with a spatial output: "
    "deeper layers are coarser and more class-specific.",
)

BY_POSITION = "by position"
RESHAPE = Param(
    "reshape",
    default=BY_POSITION,
    kind="open",
    choices=(BY_POSITION, "channels first", "channels last", "tokens"),
    advanced=True,
    label="Layer layout",
    help="How the layer's output is read as channels on a grid: by default, from where its values lie on the image. "
    "Tokens that are not patches of it (class, distillation, registers, detection) are dropped.",
)


@dataclass(frozen=True)
class LayerPoint:
    """A layer's channels on a grid, and the gradient of the score with respect to them.

    Attributes:
        activation: A, shape (B, K, h, w), or (B, K, d, h, w) for volumes.
        gradient: dF / dA, of the same shape.
        score: F, shape (B,).
        layer: The layer's path.
        notes: Notes for the user.
    """

    activation: Tensor
    gradient: Tensor
    score: Tensor
    layer: str
    notes: tuple[str, ...] = ()

    @property
    def grid(self) -> tuple[int, ...]:
        """The dimensions of the grid."""
        return tuple(range(2, self.activation.ndim))


class BaselinePool(Protocol):
    """A pool of baselines to draw from.

    Attributes:
        size: The number of baselines.
        constant: The names of the inputs that are compared with noise whose range is 0.
    """

    size: int
    constant: list[str]

    def draw(self, index: int, seed: int) -> Tensor:
        """Return a baseline for each sample, of the inputs' shape; ``seed`` is used if it is fresh noise."""
        ...

    def is_noise(self, index: int) -> bool:
        """Return whether a baseline, or a part of it, is fresh noise for each sample."""
        ...

    def describe(self, index: int) -> str:
        """Describe a baseline in words."""
        ...


class Query(Protocol):
    """A model bound to inputs and to one score per sample.

    Rows are variants of the inputs, shape (K * B, ...): K blocks of the B samples.

    Attributes:
        inputs: The inputs to explain, shape (B, ...); several inputs explained together lie side by side, (B, F).
        parts: The inputs that are explained together; empty for a single input.
        precision: The model's numerical precision, "full", "tf32" or "bfloat16"; None if left to torch.
    """

    @property
    def inputs(self) -> Tensor: ...  # noqa: D102
    @property
    def parts(self) -> tuple[InputPart, ...]: ...  # noqa: D102
    @property
    def precision(self) -> str | None: ...  # noqa: D102

    def scores(self, rows: Tensor) -> Tensor:
        """Return the scores of rows, shape (K * B,), without gradients."""
        ...

    def gradient(self, rows: Tensor, rule: Rule | None = None) -> tuple[Tensor, Tensor]:
        """Return the gradient of the score with respect to rows, of their shape, and the scores, shape (K * B,).

        Args:
            rows: The rows to evaluate, shape (K * B, ...).
            rule: A backward rule for the model's ReLUs.

        Raises:
            ValueError: The model failed, its score doesn't depend on the inputs or isn't finite, or it has no ReLU
                for the rule to change.
        """
        ...

    def at_layer(self, layer: str | None, reshape: Any = BY_POSITION) -> LayerPoint:
        """Return a layer's activation for the inputs, and the gradient of the score with respect to it.

        Args:
            layer: The layer's path, or None for the last spatial layer on which the score depends.
            reshape: How to read the layer's output as channels on a grid: see ``RESHAPE``; or a function from the
                output to shape (B, K, h, w).

        Raises:
            ValueError: The layer does not exist, or its output is not spatial.
        """
        ...

    def baseline(self, value: Any, seed: int) -> Tensor:
        """Return the baseline of each sample, shape (B, ...): see :func:`.kind.baseline_of`."""
        ...

    def baseline_pool(self, value: Any, seed: int) -> BaselinePool:
        """Return the pool that baselines are drawn from: see :class:`.BaselinePool`."""
        ...

    def noise_scale(self) -> Tensor:
        """Return max - min of each sample's inputs, broadcastable to them; with a background, of each feature there."""
        ...

    def chunks(self, total: int, size: int | None, first: Sequence[int] = (1, 3)) -> list[range]:
        """Split ``total`` evaluations of each sample into ranges, one for each pass of the model.

        Args:
            total: The number of evaluations.
            size: The maximum number of rows in one pass; None to choose it by device.
            first: The number of evaluations in each of the first passes, small for an early estimate.
        """
        ...

    def once(self, key: Hashable, work: Callable[[], T]) -> T:
        """Return the result of work that a larger setting would repeat, cached under a key.

        Args:
            key: Everything that the result depends on besides the request; its ``continued`` parameters don't count.
            work: A function that returns a number, or tensors, alone or in tuples, that are never modified.
        """
        ...

    def on(self, rows: Tensor) -> Query:
        """Return the same query for other inputs, shape (K * B, ...)."""
        ...


def constant_inputs(query: Query) -> list[str]:
    """Return the names of the inputs whose range is 0 in every sample: noise proportional to it vanishes."""
    names = [part.name for part in query.parts] or ["the input"]
    scale = query.noise_scale().expand_as(query.inputs)
    moving = on_host(*[piece.any() for piece in split_parts(query.parts, scale)])
    return [name for name, moves in zip(names, moving, strict=True) if not bool(moves)]
