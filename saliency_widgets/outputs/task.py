"""Tasks: the targets that a model's output offers, their names, and the display of predictions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple

from torch import Tensor

from saliency_widgets.attribution.positions import Positions
from saliency_widgets.attribution.score import Scale, Score, in_classes
from saliency_widgets.outputs.class_names import short_names

Loss = Literal["cross-entropy", "squared error", "change of the score"]


class Prediction(NamedTuple):
    """One number of a model's output, prepared for display."""

    target: int
    label: str
    value: float


@dataclass(frozen=True)
class Task(ABC):
    """The meaning of a model's output, such as :class:`~.classification.Classification`, and the scale of the score.

    Attributes:
        scale: See :class:`~saliency_widgets.attribution.score.Score`.
        class_names: The names of the targets in order, if available.
        binary: Whether the caller named two classes, so that a single number stands for both.
        squashed: Whether the model returns probabilities already.
        outputs: The number of outputs per sample; None before the model was run.
        positions: The positions at which the model scores classes, for texts.
        shares: Whether predictions are probabilities that sum to one.
        loss: The loss between predictions and labels.
    """

    scale: Scale
    class_names: tuple[str, ...] | None = None
    binary: bool = False
    squashed: bool = False
    outputs: int | None = None
    positions: Positions | None = None
    shares: ClassVar[bool]
    loss: ClassVar[Loss]

    @property
    def paired(self) -> bool:
        """Whether a single number stands for two classes; False before the model was run."""
        return self.binary and self.outputs == 1

    def logits(self, scores: Tensor) -> Tensor:
        """Return the logits of the targets, shape (B, K), from the model's scores: see :func:`.in_classes`."""
        return in_classes(scores, self.binary, self.squashed)

    def score(self, target: Tensor | Callable[[Any], Tensor], contrast: Tensor | None = None) -> Score:
        """Return the score of a resolved target: see :func:`~saliency_widgets.outputs.selection.resolve`."""
        return Score(self.scale, target, contrast, self.binary, self.squashed)

    def label(self, target: Any, *, short: bool = False) -> str:
        """Return the name of a target.

        Args:
            target: The number of an output, an index as a tuple, or a function.
            short: Whether to use only the first of several synonyms: see :func:`~.class_names.short_names`.
        """
        if isinstance(target, tuple) and self.positions is not None:
            return self.positions.label(self.label(target[1], short=short), target[0])
        if isinstance(target, tuple):
            return f"output[{', '.join(map(str, target))}]"
        if not isinstance(target, int):
            return "custom target"
        if self.class_names is None:
            return self._numbered(target)
        return (self._short_names if short else self.class_names)[target]

    def opposite(self, target: Any) -> str:
        """Return the name of the other class if a single number stands for two classes, else an empty string."""
        return self.class_names[1 - target] if self.paired and self.class_names and isinstance(target, int) else ""

    @cached_property
    def _short_names(self) -> list[str]:
        if self.positions is not None:  # a comma is a token, and separates no synonyms
            return list(self.class_names or ())
        return short_names(self.class_names or ())

    @abstractmethod
    def _numbered(self, target: int) -> str:
        """Return a name for an output that has none."""

    @abstractmethod
    def default(self, scores: Tensor) -> Tensor:
        """Return the default target of each sample, shape (B,).

        Args:
            scores: The model's scores, shape (B, K).

        Raises:
            ValueError: There is no natural default.
        """

    @abstractmethod
    def predictions(self, logits: Tensor, most: int) -> list[Prediction]:
        """Return the numbers of a prediction to display, in order.

        Args:
            logits: The logits of one sample, shape (K,): see :meth:`logits`.
            most: The maximum number of them.
        """

    @abstractmethod
    def text(self, value: float) -> str:
        """Format the value of a prediction."""

    @abstractmethod
    def read_labels(self, labels: Any, rows: int, classes: int) -> Tensor:
        """Check the correct outputs of samples, for the loss.

        Args:
            labels: A Series, an array, a tensor or a list.
            rows: N, the number of samples.
            classes: K, the number of logits.

        Returns:
            The labels, shape (N,).

        Raises:
            TypeError: The labels have an unsupported type.
            ValueError: Labels are missing, too many or too few, or don't fit.
        """
