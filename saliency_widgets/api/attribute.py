"""``sw.attribute``: one map, from Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from saliency_widgets.attribution import Attribution, get_method
from saliency_widgets.attribution.registry import DEFAULT
from saliency_widgets.attribution.score import SCORE
from saliency_widgets.inputs import Explain
from saliency_widgets.session.compute import compute
from saliency_widgets.session.problem import Problem
from saliency_widgets.session.request import Request


def attribute(
    model: nn.Module,
    inputs: Any,
    *,
    method: Any = DEFAULT,
    target: Any = None,
    score: str = SCORE.default,
    contrast: Any = None,
    transform: Any = None,
    class_names: Any = None,
    explain: Explain = None,
    device: torch.device | str | None = None,
    fold: bool = True,
    precision: str | None = None,
    cuda_graphs: bool = False,
    feature_names: Sequence[str] | None = None,
    background: Any = None,
    **params: Any,
) -> Attribution:
    """Which inputs moved the model's output.

    The model, the random state and the grad mode are left as they were found, on success and on error.

    Args:
        model: Any ``torch.nn.Module`` that scores each row of a batch. Its output may be a tensor, or one inside a
            tuple, a mapping, a dataclass or an object with ``.logits``.
        inputs: An image (PIL, path, array of uint8), a tensor (C, H, W) or (N, C, H, W), rows of numbers, rows of a
            table (a DataFrame, a Series, a mapping from names to values), or a list of images of one size. Of a
            model with several inputs: a tuple, or a mapping from their names, in which shape (N,) is one number for
            each sample; they may lie inside lists, tuples, mappings and dataclasses, and go by their path, "batch.x".
            What has as many rows as there are samples is repeated with them, anything else is given as it is.
        method: One of :func:`methods`; "captum." and the name of a class of ``captum.attr``; or such an object,
            see :func:`from_captum`.
        target: A class index or name, None for the top prediction, or a list or tensor of one index per input. A tuple
            of as many numbers as one input's output has dimensions is an index into it, (class, row, column) of a
            segmentation; a list of tuples has one for each input. Or a function from the model's output to one number
            per input; where the rows influence each other (nodes of a graph), to one number for all of them.
        score: "logit", "probability", "log_probability", or "value" for regression.
        contrast: Explain the target's score minus this class's score.
        transform: From ``inputs`` to what the model takes: a function, torchvision weights, a Hugging Face image
            processor, or a timm data config; of rows of a table, a fitted scaler or ColumnTransformer.
        class_names: Names of the classes in order, or by index, so that targets can be named; torchvision weights;
            the model's own (``config.id2label`` and the like) unless given. Two names for a model of one logit z: z is
            the score of class 1, and -z that of class 0; without them, z is target 0.
        explain: Which of several inputs, by name, path ("xs.0"), the beginning of paths ("xs") or position, or a list
            of them; all that have a gradient and a row for each sample unless given. Several are explained together:
            see :meth:`Attribution.part`.
        device: Where to compute; the model's own device unless given.
        fold: Whether to fold BatchNorms into the convolutions before them, on a private copy, and to lay out channels
            last, where that gives the model's own scores: the same map but for rounding, sooner.
        precision: None computes as torch is set; "full" in float32 throughout; "tf32" (on CUDA devices) and "bfloat16"
            less exactly, by how much is told in ``notes``, and sooner on GPUs (bfloat16 is slower on most CPUs).
        cuda_graphs: Whether passes whose shape comes again are recorded on a CUDA device and replayed, which saves the
            launches that small passes wait for.
        feature_names: The columns' names, of rows of a table that don't have them.
        background: Other rows of the table, such as the training data: baselines "mean" and "median" are theirs, noise
            is in proportion to each column's range in them, and Expected Gradients draw from them.
        **params: The method's parameters, see ``sw.methods()``.

    Returns:
        The attribution, with everything needed to repeat it. Where the rows of a batch influence each other, they are
        explained as one sample, and ``score`` and ``delta`` have shape (1,); a note says so.

    Raises:
        TypeError: An argument of the wrong type, or a parameter that the method doesn't have.
        ValueError: An argument out of range, an input that doesn't fit, a function as target that gives a score for
            each of several rows that influence each other, or a model that failed.
    """
    request = Request.of(method, params, target=target, score=score, contrast=contrast)
    problem = Problem(
        model, inputs, transform=transform, class_names=class_names, explain=explain, device=device, fold=fold,
        precision=precision, cuda_graphs=cuda_graphs, feature_names=feature_names, background=background,
        gradients=get_method(method).gradients,
    )  # fmt: skip
    # The model was read just now: whether it has changed since needs no look at all weights.
    *_, last = compute(problem, request, version=problem.last_version)
    return last
