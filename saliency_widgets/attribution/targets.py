"""From a model's output to one number per sample: which class, and on which scale."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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


def logits_of(output: Any, rows: int | None = None) -> Tensor:
    """The tensor of class scores inside whatever a model returns.

    Args:
        output: A tensor, an object with ``.logits``, a mapping with ``"logits"``, or a tuple, list or mapping
            whose first tensor it is.
        rows: N, where it is known.

    Returns:
        The scores, shape (N, K); (N,) outputs become (N, 1).

    Raises:
        TypeError: There is no tensor to be found.
        ValueError: The scores have more than two dimensions, or another number of rows.
    """
    found = output
    if not isinstance(found, Tensor) and hasattr(found, "logits"):
        found = found.logits
    elif isinstance(found, Mapping):
        found = found.get("logits", next((v for v in found.values() if isinstance(v, Tensor)), None))
    elif isinstance(found, (tuple, list)):
        found = next((v for v in found if isinstance(v, Tensor)), None)
    if not isinstance(found, Tensor):
        raise TypeError(
            f"target: the model returned a {type(output).__name__} with no tensor of scores in it. "
            f"Pass target= a function from that output to one number per sample."
        )
    if found.ndim == 1:
        found = found[:, None]
    if found.ndim != 2:
        raise ValueError(
            f"target: the model's output has shape {tuple(found.shape)}; (samples, classes) was expected. "
            f"Pass target= a function from the output to one number per sample, "
            f"for example lambda out: out[:, 3].mean((1, 2))."
        )
    if rows is not None and found.shape[0] != rows:
        raise ValueError(
            f"model: it returned {found.shape[0]} rows of scores for {rows} inputs. "
            f"A model to be explained must score each row of its batch."
        )
    return found


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

    def tiled(self, times: int) -> Score:
        """The same score for a batch that repeats the samples block by block."""
        again = {
            name: tensor.repeat(times)
            for name in ("target", "contrast")
            if isinstance(tensor := getattr(self, name), Tensor)
        }
        return replace(self, **again)

    def __call__(self, output: Any, rows: int) -> Tensor:
        """Scores of ``rows`` samples, shape (rows,); the samples may be repeated block by block."""
        if not isinstance(self.target, Tensor):
            return _checked(self.target(output), rows)
        scores = self._scaled(logits_of(output, rows))
        picked = self._pick(scores, self.target)
        return picked if self.contrast is None else picked - self._pick(scores, self.contrast)

    def _pick(self, scores: Tensor, classes: Tensor) -> Tensor:
        classes = classes.to(scores.device).repeat(scores.shape[0] // len(classes))
        return scores.gather(1, classes[:, None])[:, 0]

    def _scaled(self, logits: Tensor) -> Tensor:
        single = logits.shape[1] == 1  # one logit: a binary model
        if self.scale == "probability":
            return logits.sigmoid() if single else logits.softmax(1)
        if self.scale == "log_probability":
            return F.logsigmoid(logits) if single else logits.log_softmax(1)
        return logits


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
