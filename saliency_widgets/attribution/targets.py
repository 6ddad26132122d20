"""From a model's output to one number per sample: which class, and on which scale."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from saliency_widgets.params import Param, unknown

Scale = Literal["logit", "probability", "log_probability", "value"]
SCORE = Param(
    "score",
    default="logit",
    kind="choice",
    choices=get_args(Scale),
    advanced=True,
    help="The number that is explained: the class's logit, its probability, the logarithm of that, or a plain value.",
)
Target = int | str | Tensor | Sequence[int] | Callable[[Any], Tensor] | None


_NAMES = ("logits", "out", "scores", "output", "predictions")


def scores_in(output: Any, rows: int | None = None) -> Tensor:
    """The tensor of scores inside whatever a model returns, in its own shape.

    Args:
        output: A tensor; an object with ``.logits``; a mapping or a dataclass with one of the usual names ("logits",
            "out", "scores", "output", "predictions"); or any of these or a tuple or list with a tensor of N rows,
            the first of which it is.
        rows: N, where it is known.

    Raises:
        TypeError: There is no tensor to be found.
    """
    found = output
    if not isinstance(found, Tensor):
        parts = _fields(output)
        named = [parts[name] for name in _NAMES if isinstance(parts.get(name), Tensor)]
        tensors = [value for value in parts.values() if isinstance(value, Tensor)]
        whole = [value for value in tensors if value.ndim > 0 and rows in (None, value.shape[0])]
        found = next(iter([*named, *whole, *tensors]), None)
    if not isinstance(found, Tensor):
        raise TypeError(
            f"target: the model returned a {type(output).__name__} with no tensor of scores in it. "
            f"Pass target= a function from that output to one number per sample."
        )
    return found


def notes_on(output: Any, rows: int) -> tuple[str, ...]:
    """What a reader should know of how the scores were found in a model's output."""
    notes = []
    found = scores_in(output, rows)
    if is_dense(found):
        notes.append(
            "The model scores each position of the picture: the class's mean over all of them is explained. Pass "
            "target= a function from the output for a part of them."
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
    """What a model's output is made of, by name or place."""
    if isinstance(output, Mapping):
        return dict(output)
    if hasattr(output, "_asdict"):
        return output._asdict()
    if isinstance(output, (tuple, list)):
        return dict(enumerate(output))
    found = {field.name: getattr(output, field.name) for field in fields(output)} if is_dataclass(output) else {}
    return found | {name: getattr(output, name) for name in _NAMES if hasattr(output, name)}


def is_dense(scores: Tensor) -> bool:
    """Whether there are class scores for each position of a picture, (N, K, H, W), as in segmentation."""
    return scores.ndim == 4


def logits_of(output: Any, rows: int | None = None) -> Tensor:
    """The class scores inside whatever a model returns: see :func:`scores_in`.

    Returns:
        The scores, shape (N, K); (N,) outputs become (N, 1), and (N, K, H, W) their mean over the positions.

    Raises:
        TypeError: There is no tensor to be found.
        ValueError: The scores have another form, or another number of rows.
    """
    return _over_positions(_formed(scores_in(output, rows), rows))


def _formed(found: Tensor, rows: int | None) -> Tensor:
    """The scores, (N, K) or (N, K, H, W)."""
    if found.is_complex():
        raise TypeError("target: the model's output is complex. Pass target= a function to one real number per sample.")
    if found.ndim == 0 and rows == 1:
        found = found[None]  # squeezed by the model
    if found.ndim == 1:
        found = found[:, None]
    if found.ndim != 2 and not is_dense(found):
        raise ValueError(
            f"target: the model's output has shape {tuple(found.shape)}; (samples, classes) or (samples, classes, "
            f"height, width) was expected. Pass target= a function from the output to one number per sample, "
            f"for example lambda out: out[:, 0, 3]."
        )
    if rows is not None and found.shape[0] != rows:
        raise ValueError(
            f"model: it returned {found.shape[0]} rows of scores for {rows} inputs. "
            f"A model to be explained must score each row of its batch (does a squeeze, a mean or a view with a fixed "
            f"number drop the batch dimension?). Where it takes only so many rows at a time, pass chunk_size=1."
        )
    return found


def _over_positions(scores: Tensor) -> Tensor:
    return scores.mean((2, 3)) if is_dense(scores) else scores


@dataclass(frozen=True)
class Score:
    """One number per sample, read off the model's output.

    Attributes:
        scale: ``"logit"``, ``"probability"``, ``"log_probability"`` or ``"value"``.
        target: Class per sample, shape (B,); or a function from the model's output to shape (N,).
        contrast: Another class per sample whose score is subtracted, shape (B,), or None.
    """

    scale: Scale
    target: Tensor | Callable[[Any], Tensor]
    contrast: Tensor | None = None

    def of(self, samples: Tensor) -> Score:
        """The score of some samples, which may be repeated.

        Args:
            samples: Which, shape (N,).
        """
        again = {
            name: tensor[samples.to(tensor.device)]
            for name in ("target", "contrast")
            if isinstance(tensor := getattr(self, name), Tensor)
        }
        return replace(self, **again)

    def tiled(self, times: int) -> Score:
        """The same score for a batch that repeats the samples block by block."""
        if not isinstance(self.target, Tensor):
            return self
        return self.of(torch.arange(len(self.target), device="cpu").repeat(times))

    def __call__(self, output: Any, rows: int) -> Tensor:
        """The scores, shape (rows,)."""
        if not isinstance(self.target, Tensor):
            return _checked(self.target(output), rows)
        # Scaled first: of a segmentation, the mean probability and not that of the mean logits.
        scores = _over_positions(self._scaled(_formed(scores_in(output, rows), rows)))
        picked = _pick(scores, self.target)
        return picked if self.contrast is None else picked - _pick(scores, self.contrast)

    def _scaled(self, logits: Tensor) -> Tensor:
        if self.scale == "probability":
            return probabilities(logits)
        if self.scale == "log_probability":
            return F.logsigmoid(logits) if logits.shape[1] == 1 else logits.log_softmax(1)
        return logits


def probabilities(logits: Tensor) -> Tensor:
    """The probabilities of the classes, shape (N, K, ...) as the logits; one logit is a binary model's."""
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)


def _pick(scores: Tensor, classes: Tensor) -> Tensor:
    return scores.gather(1, classes.to(scores.device)[:, None])[:, 0]


def is_function(target: Any) -> bool:
    """Whether a target is a function from the model's output, which needs no classes."""
    return callable(target) and not isinstance(target, Tensor)


def _told_by(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The caller's function; what it raises is retold as an error of ``target``."""

    def told(output: Any) -> Any:
        try:
            return function(output)
        except Exception as error:
            raise ValueError(
                f"target: the function raised {type(error).__name__} for the model's output: {error}. "
                f"It gets what the model returns and must give one number per sample."
            ) from error

    return told


def _checked(scores: Any, rows: int) -> Tensor:
    if not isinstance(scores, Tensor) or tuple(scores.shape) not in ((rows,), (rows, 1)):
        got = f"shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else f"a {type(scores).__name__}"
        raise ValueError(
            f"target: the function must return one number per sample, a tensor of shape ({rows},); got {got}."
        )
    return scores.reshape(rows)


def class_index(target: Any, classes: int, class_names: Sequence[str] | None = None, argument: str = "target") -> int:
    """The index of one class given by number or by name.

    Args:
        target: A class index, or a class name: exact, or a part that only one name contains.
        classes: How many classes the model scores.
        class_names: Their names in order, if known.
        argument: The argument's name, for the error.

    Raises:
        TypeError: It is neither a whole number nor a name.
        ValueError: It is out of range, unknown or ambiguous.
    """
    if isinstance(target, str):
        return _named(target, class_names, argument)
    if isinstance(target, bool) or not hasattr(target, "__index__"):
        raise TypeError(f"{argument}: expected a class index, a class name or None, got a {type(target).__name__}.")
    index = operator.index(target)
    if not 0 <= index < classes:
        raise ValueError(f"{argument}: class {index} is out of range, the model scores classes 0 to {classes - 1}.")
    return index


def _named(name: str, class_names: Sequence[str] | None, argument: str) -> int:
    if class_names is None:
        raise ValueError(f"{argument}: got the class name {name!r}, but no class_names= were given.")
    lowered = [str(n).lower() for n in class_names]
    wanted = name.strip().lower()
    hits = [i for i, n in enumerate(lowered) if n == wanted] or [
        i for i, n in enumerate(lowered) if wanted and wanted in n
    ]
    if not hits:
        raise ValueError(unknown(argument, name, [str(n) for n in class_names]))
    if len(hits) > 1:
        several = ", ".join(f"{i} ({class_names[i]})" for i in hits[:5])
        raise ValueError(f"{argument}: {name!r} fits {len(hits)} classes: {several}. Pass the index.")
    return hits[0]


def resolve(
    target: Target,
    logits: Tensor | None,
    batch: int,
    *,
    score: str = SCORE.default,
    contrast: Target = None,
    class_names: Sequence[str] | None = None,
) -> Score:
    """Turn what the caller said into a :class:`Score`.

    Args:
        target: A class index, a name, indices of shape (B,), a function, or None for the top prediction.
        logits: The model's scores of the inputs, shape (B, K); not needed where ``target`` is a function.
        batch: B, the number of samples.
        score: The scale.
        contrast: A second class, subtracted.
        class_names: Names of the classes in order.

    Raises:
        TypeError: ``target`` is of no known kind.
        ValueError: A class out of range, an unknown name, or a scale that doesn't fit.
    """
    scale = cast(Scale, SCORE.check(score))
    if not isinstance(target, Tensor) and callable(target):
        if contrast is not None:
            raise ValueError("contrast: it can't be combined with target= a function; subtract inside the function.")
        if scale not in ("logit", "value"):
            raise ValueError(
                f"score: {scale!r} can't be combined with target= a function; compute it inside the function, for "
                f"example lambda out: out.softmax(1)[:, 3]."
            )
        return Score(scale, _told_by(target))
    if logits is None:
        raise ValueError("target: the model's scores are needed to resolve it.")
    if target is None and scale == "value" and logits.shape[1] > 1:
        raise ValueError(
            f"target: the model returns {logits.shape[1]} values; with score='value' say which one by its index."
        )
    top = logits.argmax(1)
    picked = top if target is None else _indices(target, batch, logits.shape[1], class_names, "target")
    other = None if contrast is None else _indices(contrast, batch, logits.shape[1], class_names, "contrast")
    if other is not None and bool((picked.to(other.device) == other).any()):
        raise ValueError(
            "contrast: it is the class of target itself, and the difference is zero. Choose another class."
        )
    return Score(scale, picked.to(logits.device), None if other is None else other.to(logits.device))


def _indices(target: Any, batch: int, classes: int, class_names: Sequence[str] | None, argument: str) -> Tensor:
    if hasattr(target, "tolist"):  # tensors and arrays, numbers among them
        target = target.tolist()
    if not isinstance(target, Sequence) or isinstance(target, str):
        return torch.full((batch,), class_index(target, classes, class_names, argument), device="cpu")
    nested = any(isinstance(item, Sequence) and not isinstance(item, str) for item in target)
    if len(target) != batch or nested:
        got = "a nested list" if nested else str(len(target))
        raise ValueError(f"{argument}: expected one class for each of the {batch} inputs, got {got}.")
    return torch.tensor([class_index(item, classes, class_names, argument) for item in target], device="cpu")
