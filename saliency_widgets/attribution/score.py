"""The score: one number per sample from a model's output, for a class and on a scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from saliency_widgets.attribution.arrays import check_dense
from saliency_widgets.attribution.errors import OneForAll
from saliency_widgets.params import Param

Scale = Literal["logit", "probability", "log_probability", "value"]
SCORE = Param(
    "score",
    default="logit",
    kind="choice",
    choices=get_args(Scale),
    advanced=True,
    help="The number that is explained: the class's logit, its probability, the logarithm of that, or a plain value.",
)
Target = int | str | Tensor | Sequence[Any] | Callable[[Any], Tensor] | None


_NAMES = ("logits", "out", "scores", "output", "predictions")


def scores_in(output: Any, rows: int | None = None) -> Tensor:
    """Return the tensor of scores inside a model's output, in its own shape.

    Args:
        output: A tensor; an object, mapping or dataclass with a tensor under one of the usual names ("logits", "out",
            "scores", "output", "predictions"); or any of these, a tuple or a list, of which the first tensor with
            N rows is taken, or else the first tensor.
        rows: N, if available.

    Raises:
        TypeError: The output contains no tensor.
    """
    scores = output
    if not isinstance(scores, Tensor):
        parts = _fields(output)
        named = [parts[name] for name in _NAMES if isinstance(parts.get(name), Tensor)]
        tensors = [value for value in parts.values() if isinstance(value, Tensor)]
        whole = [value for value in tensors if value.ndim > 0 and rows in (None, value.shape[0])]
        scores = next(iter([*named, *whole, *tensors]), None)
    if not isinstance(scores, Tensor):
        raise TypeError(
            f"target: the model returned a {type(output).__name__} with no tensor of scores in it. "
            f"Pass target= a function from that output to one number per sample."
        )
    return scores


def notes_on(output: Any, rows: int) -> tuple[str, ...]:
    """Return notes for the user on how the scores were read from a model's output."""
    notes = []
    scores = scores_in(output, rows)
    if is_dense(scores):
        notes.append(
            "The model scores each position of the image: the class's mean over all of them is explained. Pass "
            "target= a function of the output to explain only some of them."
        )
    parts = {} if isinstance(output, Tensor) else _fields(output)
    alike = [name for name, part in parts.items() if isinstance(part, Tensor) and part.shape[:1] == (rows,)]
    alike = [name for name in alike if parts[name].ndim in (1, 2) and parts[name].is_floating_point()]
    if len(alike) > 1 and not any(name in _NAMES for name in alike):
        notes.append(
            f"The model returns {len(alike)} tensors that could be scores ({', '.join(map(str, alike))}); the first is "
            f"explained. Pass target= a function from the output for another: lambda out: out[{alike[-1]!r}][:, 0]."
        )
    return tuple(notes)


def _fields(output: Any) -> dict[Any, Any]:
    """Return the parts of a model's output by name or position."""
    if isinstance(output, Mapping):
        return dict(output)
    if hasattr(output, "_asdict"):
        return output._asdict()
    if isinstance(output, (tuple, list)):
        return dict(enumerate(output))
    values = {field.name: getattr(output, field.name) for field in fields(output)} if is_dataclass(output) else {}
    return values | {name: getattr(output, name) for name in _NAMES if hasattr(output, name)}


def is_dense(scores: Tensor) -> bool:
    """Return whether the scores are per position of an image, (N, K, H, W), as in segmentation."""
    return scores.ndim == 4


def logits_of(output: Any, rows: int | None = None, position: Tensor | None = None) -> Tensor:
    """Return the class scores inside a model's output: see :func:`scores_in`.

    Args:
        output: The model's output.
        rows: N, if available.
        position: The position of each row whose scores are returned, shape (N,), for scores of shape (N, T, K).

    Returns:
        The scores, shape (N, K); (N,) outputs become (N, 1), and (N, K, H, W) outputs are averaged over positions.

    Raises:
        TypeError: The output contains no tensor, or one that doesn't hold real numbers.
        ValueError: The scores have another shape, or another number of rows.
    """
    return _over_positions(_formed(_at(scores_in(output, rows), position), rows))


def _at(scores: Tensor, position: Tensor | None) -> Tensor:
    """Return the scores (N, K) at the position of each row."""
    if position is None:
        return scores
    check_dense(scores, "model", returned=True)
    if scores.ndim != 3 or len(scores) != len(position):
        raise ValueError(
            f"model: for {len(position)} texts, it returned scores of shape {tuple(scores.shape)}, instead of (texts, "
            f"tokens, classes) as before."
        )
    return scores[torch.arange(len(position), device=scores.device), position.to(scores.device)]


def _formed(scores: Tensor, rows: int | None) -> Tensor:
    """Check the scores and return them in shape (N, K) or (N, K, H, W)."""
    check_dense(scores, "model", returned=True)
    if scores.dtype == torch.bool:
        raise TypeError("model: expected scores from it, got booleans. Return the numbers they were computed from.")
    if scores.is_complex():
        raise TypeError("target: the model's output is complex. Pass target= a function to one real number per sample.")
    if scores.ndim == 0 and rows == 1:
        scores = scores[None]  # squeezed by the model
    if scores.ndim == 1:
        scores = scores[:, None]
    if scores.ndim == 0:
        raise OneForAll(
            f"model: it returned a single number, without dimensions, for {rows or 'several'} inputs. It must return "
            f"scores for each row of its batch (an extra squeeze() or sum()?). If it accepts only one row at a time, "
            f"pass chunk_size=1."
        )
    if scores.ndim != 2 and not is_dense(scores):
        raise ValueError(
            f"target: the model's output has shape {tuple(scores.shape)}; (samples, classes) or (samples, classes, "
            f"height, width) was expected. Pass target= an index into one sample's output, a tuple of "
            f"{max(1, scores.ndim - 1)} integers, or a function from the output to one number per sample, for "
            f"example lambda out: out[:, 0, 3]."
        )
    if rows is not None and scores.shape[0] != rows:
        raise ValueError(
            f"model: it returned {scores.shape[0]} rows of scores for {rows} inputs. "
            f"It must return scores for each row of its batch (does a squeeze, a mean or a view with a fixed "
            f"number drop the batch dimension?). If it accepts a limited number of rows at a time, pass chunk_size=1. "
            f"If the rows are parts of one sample (nodes of a graph, steps of a sequence), pass target= a function of "
            f"the output to one number for all of them, such as lambda out: out[0, 1]."
        )
    if not scores.shape[1]:
        raise ValueError(
            f"model: expected scores of at least one class, got shape {tuple(scores.shape)}. Check its last layer."
        )
    return scores


def _over_positions(scores: Tensor) -> Tensor:
    return scores.mean((2, 3)) if is_dense(scores) else scores


@dataclass(frozen=True)
class Score:
    """A function from the model's output to one number per sample.

    Attributes:
        scale: ``"logit"``, ``"probability"``, ``"log_probability"`` or ``"value"``.
        target: The class of each sample, shape (B,); an index into each sample's output, shape (B, D); or a function
            from the model's output to shape (N,).
        contrast: Another class or index per sample whose score is subtracted, of the target's shape, or None.
        binary: Whether two classes have names: a single logit z is then the score of class 1, and -z that of class 0.
        squashed: Whether the model's outputs are already probabilities: see :func:`~.survey.survey`.
        position: The position of each sample whose class is scored, shape (B,), for outputs of shape (B, T, K).
    """

    scale: Scale
    target: Tensor | Callable[[Any], Tensor]
    contrast: Tensor | None = None
    binary: bool = False
    squashed: bool = False
    position: Tensor | None = None

    @property
    def of_classes(self) -> bool:
        """Whether the target is a class of :func:`logits_of`, as opposed to an index or a function."""
        return isinstance(self.target, Tensor) and self.target.ndim == 1

    def index(self, classes: Tensor) -> Tensor:
        """Return classes, shape (B,), with their positions if there are any, shape (B, 2)."""
        return classes if self.position is None else torch.stack([self.position.to(classes.device), classes], 1)

    def of(self, samples: Tensor) -> Score:
        """Return the score of a selection of the samples.

        Args:
            samples: Indices of the samples, which may repeat, shape (N,).
        """
        again = {
            name: tensor[samples.to(tensor.device)]
            for name in ("target", "contrast", "position")
            if isinstance(tensor := getattr(self, name), Tensor)
        }
        return replace(self, **again)

    def tiled(self, times: int) -> Score:
        """Return the same score for a batch that repeats the samples block by block."""
        if not isinstance(self.target, Tensor):
            return self
        return self.of(torch.arange(len(self.target), device="cpu").repeat(times))

    def __call__(self, output: Any, rows: int) -> Tensor:
        """Return the scores, shape (rows,)."""
        if not isinstance(self.target, Tensor):
            return _checked(self.target(output), rows)
        if self.of_classes:
            # Scaled before averaging: a segmentation gets the mean probability, not the probability of mean logits.
            scores = _over_positions(self._scaled(_formed(_at(scores_in(output, rows), self.position), rows)))
        else:
            scores = self._scaled(_indexable(scores_in(output, rows), rows, self.target.shape[1]))
        picked = _pick(scores, self.target)
        return picked if self.contrast is None else picked - _pick(scores, self.contrast)

    def total(self, output: Any, rows: int) -> Tensor:
        """Return the total score of rows that form one sample, shape (1,): their sum, or the target function's result.

        Raises:
            ValueError: The function doesn't return a single number.
        """
        if isinstance(self.target, Tensor):
            return self(output, rows).sum()[None]
        value = self.target(output)
        if isinstance(value, Tensor):
            check_dense(value, "target", returned=True)
        if not isinstance(value, Tensor) or not is_single(value):
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise ValueError(f"target: the function must return one number for all {rows} rows; got {got}.")
        return value.flatten()[:1]

    def _scaled(self, logits: Tensor) -> Tensor:
        if self.squashed and self.scale in ("probability", "log_probability"):
            pair = self.binary and logits.shape[1] == 1
            shares = torch.cat([1 - logits, logits], 1) if pair else logits
            return shares if self.scale == "probability" else shares.log()
        if self.binary and logits.shape[1] == 1:
            logits = torch.cat([-logits, logits], 1)
            scale = {"probability": Tensor.sigmoid, "log_probability": F.logsigmoid}.get(self.scale)
            return logits if scale is None else scale(logits)
        if self.scale == "probability":
            return probabilities(logits)
        if self.scale == "log_probability":
            return F.logsigmoid(logits) if logits.shape[1] == 1 else logits.log_softmax(1)
        return logits


def in_classes(logits: Tensor, binary: bool, squashed: bool = False) -> Tensor:
    """Return the logits of the classes, shape (N, K, ...), with a binary model's single logit z as the pair (0, z).

    The softmax of the pair is (1 - sigmoid(z), sigmoid(z)), and its larger element is the more probable class.

    Args:
        logits: The model's logits, shape (N, K, ...).
        binary: Whether two classes have names.
        squashed: Whether they are probabilities, to be inverted to the logits of their softmax, or sigmoid.
    """
    if squashed:
        bounded = logits.clamp(min=torch.finfo(logits.dtype).tiny)
        logits = bounded.log() if logits.shape[1] > 1 else bounded.log() - (1 - logits).clamp(min=_SMALL).log()
    return torch.cat([torch.zeros_like(logits), logits], 1) if binary and logits.shape[1] == 1 else logits


_SMALL = 1e-30
SQUASHED = (
    "The model's outputs are probabilities already (it ends in a softmax or a sigmoid), and score='logit' explains "
    "them as they are. For the logits, explain the model without its last layer."
)


def probabilities(logits: Tensor) -> Tensor:
    """Return the probabilities of the classes, of the logits' shape (N, K, ...); a single logit is a binary model's."""
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)


def _indexable(scores: Tensor, rows: int, numbers: int) -> Tensor:
    """Check that an index of this many numbers selects one score of each sample, and return the scores."""
    check_dense(scores, "model", returned=True)
    if scores.ndim != numbers + 1 or scores.shape[0] != rows:
        raise ValueError(
            f"target: an index of {numbers} numbers needs an output of shape (samples, ...) with {numbers} further "
            f"dimensions; for {rows} inputs the model returned shape {tuple(scores.shape)}."
        )
    return scores


def _pick(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the score of each sample's class, or at its index."""
    targets = targets.to(scores.device)
    if targets.ndim == 1:
        return scores.gather(1, targets[:, None])[:, 0]
    return scores[(torch.arange(len(targets), device=scores.device), *targets.unbind(1))]


def is_single(value: Tensor) -> bool:
    """Return whether a tensor holds a single number, possibly expanded."""
    return value.numel() == 1 or (value.numel() > 0 and not any(value.stride()))


def is_function(target: Any) -> bool:
    """Return whether a target is a function of the model's output, which needs no classes."""
    return callable(target) and not isinstance(target, Tensor)


def _checked(scores: Any, rows: int) -> Tensor:
    if isinstance(scores, Tensor):
        check_dense(scores, "target", returned=True)
    alone = rows == 1 and isinstance(scores, Tensor) and scores.shape == ()
    if not alone and (not isinstance(scores, Tensor) or tuple(scores.shape) not in ((rows,), (rows, 1))):
        got = f"shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else f"a {type(scores).__name__}"
        kind = OneForAll if isinstance(scores, Tensor) and scores.numel() == 1 else ValueError
        raise kind(f"target: the function must return one number per sample, a tensor of shape ({rows},); got {got}.")
    return scores.reshape(rows)
