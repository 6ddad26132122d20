"""``sw.ablate``: run the model without a region of its input."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from saliency_widgets.attribution import Attribution
from saliency_widgets.attribution.arrays import as_numbers
from saliency_widgets.attribution.numerics.noise import SEED
from saliency_widgets.attribution.registry import DEFAULT
from saliency_widgets.attribution.score import SCORE
from saliency_widgets.evaluation.ablation import DRAWS, Ablation
from saliency_widgets.evaluation.ablation import ablate as ablations
from saliency_widgets.evaluation.ranking import top
from saliency_widgets.inputs.options import takes_options
from saliency_widgets.params import brief
from saliency_widgets.session.compute import neutral_modes
from saliency_widgets.session.problem import Problem
from saliency_widgets.session.request import Request

_LEVELS = ({0, 1}, {0, 255})


def one_sample(problem: Problem) -> None:
    """Check that a problem has exactly one sample.

    Raises:
        ValueError: It has several samples, or several inputs that are explained together.
    """
    if len(problem.tensor) != 1:
        raise ValueError(f"inputs: this check needs one input, got a batch of {len(problem.tensor)}. Pass one.")
    if problem.parts:
        raise ValueError(f"explain: this check covers one input. Pass explain= one of {list(problem.parts)}.")


def mask_of(mask: Any, share: float | None, problem: Problem) -> Tensor:
    """Read a mask as a boolean tensor.

    Args:
        mask: A boolean array or tensor (or one of 0 and 1, or 0 and 255), a black-and-white image, or an attribution,
            whose top ``share`` is used.
        share: The fraction of an attribution's map to select.
        problem: The model and the input.

    Raises:
        TypeError: The mask has an unsupported type.
        ValueError: Its numbers are not booleans, or the share is missing, out of range, or passed with another mask.
    """
    if share is not None and not (isinstance(share, (int, float)) and not isinstance(share, bool) and 0 < share <= 1):
        raise ValueError(f"top: expected a share of the map above 0 and at most 1, such as 0.05; got {brief(share)}.")
    if isinstance(mask, Attribution):
        if share is None:
            raise ValueError("top: expected the share of the attribution to remove. top=0.05 is its strongest 5%.")
        return top(problem.map_of(mask.values, problem.kind.features.reduction(mask.default_sign)), share)
    if share is not None:
        raise ValueError("top: it applies only to an attribution. Omit it: the mask already defines the region.")
    if isinstance(mask, Image.Image):
        mask = np.asarray(mask.convert("L"))
    if not isinstance(mask, Tensor) and not hasattr(mask, "__array__") and not isinstance(mask, (list, tuple)):
        raise TypeError(f"mask: expected a boolean array or an attribution, got a {type(mask).__name__}.")
    numbers = as_numbers(mask, "mask")
    if numbers.dtype != torch.bool and not any(set(numbers.unique().tolist()) <= levels for levels in _LEVELS):
        raise ValueError(
            "mask: expected booleans, got other numbers. Pass mask > threshold, or the attribution with top=0.05."
        )
    return numbers.bool()


@takes_options()
def ablate(  # noqa: PLR0913
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
    **options: Any,
) -> Ablation:
    """Run the model with a region removed and, for comparison, with equally large regions removed elsewhere.

    Args:
        model: Any ``torch.nn.Module``; it is not changed.
        inputs: One input, as for :func:`attribute`.
        mask: The region to remove: booleans, shape (H, W) as the model sees the image, (F,) for a row, (T,) for a text,
            (C, T) for a signal or (D, H, W) for a volume; a black-and-white image; or an :class:`Attribution` with
            ``top``.
        fill: The replacement: "blur", "mean", "black", "white", "noise", "zero", "neighbors", a tensor, or a function
            from input to tensor; for a text, also a token by its role, such as "mask". Default: "blur" for an image or
            a volume, "neighbors" for a signal, "mean" for a row with a background, the mask token for a text (or else
            its default baseline), otherwise "zero".
        top: The fraction of an attribution's map to remove, largest values first.
        draws: The number of regions of the same size and shape to remove elsewhere.
        seed: The seed of the draws and of a random fill.
        target: As for :func:`attribute`.
        score: As for :func:`attribute`.
        contrast: As for :func:`attribute`.
        **options: "transform", "class_names" and so on, as for :func:`attribute`.

    Returns:
        The scores before and after, those of the draws elsewhere, and the image that the model saw.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: The mask has the wrong size or is empty, or an argument is out of range.
    """
    problem = Problem(model, inputs, **options)
    one_sample(problem)
    region = mask_of(mask, top, problem)
    request = Request.of(DEFAULT, {}, target=target, score=score, contrast=contrast)
    with neutral_modes():
        resolved, _ = problem.resolve(request)
        runner = problem.runner(resolved)
        fill = runner.kind.default_fill if fill is None else fill
        *_, result = ablations(runner, region, fill=fill, draws=DRAWS.check(draws), seed=SEED.check(seed))
    return replace(result, image=problem.kind.image_of(result.inputs), class_names=problem.task().class_names)
