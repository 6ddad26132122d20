"""``sw.ablate``: what the model says without a region, from Python."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from saliency_widgets.attribution import Attribution, Reduction
from saliency_widgets.attribution.arrays import as_numbers
from saliency_widgets.attribution.numerics.noise import SEED
from saliency_widgets.attribution.registry import DEFAULT
from saliency_widgets.attribution.score import SCORE
from saliency_widgets.evaluation.ablation import DRAWS, Ablation
from saliency_widgets.evaluation.ablation import ablate as ablations
from saliency_widgets.evaluation.fills import default_fill
from saliency_widgets.evaluation.ranking import top
from saliency_widgets.params import brief
from saliency_widgets.session.compute import alone
from saliency_widgets.session.explanation import reduced
from saliency_widgets.session.problem import Problem
from saliency_widgets.session.request import Request

if TYPE_CHECKING:
    pass

_LEVELS = ({0, 1}, {0, 255})


def one_sample(problem: Problem) -> None:
    """Look whether there is one sample, as these checks are about one.

    Raises:
        ValueError: There are more, or several inputs that are explained together.
    """
    if len(problem.tensor) != 1:
        raise ValueError(f"inputs: this check is about one input, got a batch of {len(problem.tensor)}. Pass one.")
    if problem.parts:
        raise ValueError(f"explain: this check is about one input. Pass explain= one of {list(problem.parts)}.")


def mask_of(mask: Any, share: float | None, problem: Problem) -> Tensor:
    """A mask in whatever form people have it, as truth values.

    Args:
        mask: An array or tensor of truth values (or of 0 and 1, or 0 and 255), a black and white image, or an
            attribution of which the top ``share`` is meant.
        share: How much of an attribution.
        problem: What it is a mask of.

    Raises:
        TypeError: It is of no known kind.
        ValueError: Numbers that are no truth values, a share that is missing or out of range, or another size.
    """
    if share is not None and not (isinstance(share, (int, float)) and not isinstance(share, bool) and 0 < share <= 1):
        raise ValueError(f"top: expected a share of the map above 0 and at most 1, such as 0.05; got {brief(share)}.")
    if isinstance(mask, Attribution):
        if share is None:
            raise ValueError("top: of an attribution, say how much is taken away: top=0.05 is its strongest 5 %.")
        return top(reduced(mask.values, Reduction(mask.default_sign), problem.size), share)
    if share is not None:
        raise ValueError("top: it goes with an attribution; a mask says itself what is taken away.")
    if isinstance(mask, Image.Image):
        mask = np.asarray(mask.convert("L"))
    if not isinstance(mask, Tensor) and not hasattr(mask, "__array__") and not isinstance(mask, (list, tuple)):
        raise TypeError(f"mask: expected an array of truth values or an attribution, got a {type(mask).__name__}.")
    numbers = as_numbers(mask, "mask")
    if numbers.dtype != torch.bool and not any(set(numbers.unique().tolist()) <= levels for levels in _LEVELS):
        raise ValueError(
            "mask: expected truth values, and there are other numbers in it. Say what counts: mask > threshold, or "
            "pass the attribution with top=0.05."
        )
    return numbers.bool()


def ablate(
    model: nn.Module,
    inputs: Any,
    mask: Any,
    *,
    fill: Any = None,
    top: float | None = None,
    draws: int = DRAWS.default,
    seed: int = SEED.default,
    target: Any = None,
    score: str = SCORE.default,
    contrast: Any = None,
    **given: Any,
) -> Ablation:
    """What the model says without a region, beside what it says without as much elsewhere.

    Args:
        model: Any ``torch.nn.Module``; it is left as it was found.
        inputs: One input, as for :func:`attribute`.
        mask: What is taken away: truth values of shape (H, W) of what the model sees ((F,) for a row), a black and
            white image, or an :class:`Attribution` with ``top``.
        fill: What is put there: "blur", "mean", "black", "white", "noise", "zero", "neighbors", a tensor, or a
            function from the input to one. Unless it is said, "blur" in an image, the background's "mean" in a row, or
            else "zero".
        top: The share of an attribution that is taken away, its strongest places.
        draws: How many regions of the same size and shape are taken away elsewhere.
        seed: Of the draws, and of what is random in the fill.
        target: As for :func:`attribute`.
        score: As for :func:`attribute`.
        contrast: As for :func:`attribute`.
        **given: "transform", "class_names", "explain", "device", "fold" and "precision", as for :func:`attribute`.

    Returns:
        Scores before and after, those of the draws elsewhere, and the image that the model saw.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: A mask of another size, an empty one, or an argument out of range.
    """
    problem = Problem(model, inputs, **given)
    one_sample(problem)
    chosen = mask_of(mask, top, problem)
    request = Request.of(DEFAULT, {}, target=target, score=score, contrast=contrast)
    with alone():
        resolved, _ = problem.resolve(request)
        runner = problem.runner(resolved)
        fill = default_fill(runner) if fill is None else fill
        *_, found = ablations(runner, chosen, fill=fill, draws=DRAWS.check(draws), seed=SEED.check(seed))
    names = None if problem.class_names is None else tuple(problem.class_names)
    return replace(found, image=problem.image_of(found.inputs), class_names=names)
