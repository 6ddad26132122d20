"""``sw.attribute``: compute an attribution."""

from __future__ import annotations

from typing import Any

from torch import nn

from saliency_widgets.attribution import Attribution, get_method
from saliency_widgets.attribution.registry import DEFAULT
from saliency_widgets.attribution.score import SCORE
from saliency_widgets.inputs.options import split_options, takes_options
from saliency_widgets.session.compute import compute
from saliency_widgets.session.problem import Problem
from saliency_widgets.session.request import Request


@takes_options()
def attribute(
    model: nn.Module,
    inputs: Any,
    *,
    method: Any = DEFAULT,
    target: Any = None,
    score: str = SCORE.default,
    contrast: Any = None,
    **params: Any,
) -> Attribution:
    """Explain which inputs moved the model's output.

    The model, the random state and the grad mode are left unchanged, on success and on error.

    Args:
        model: Any ``torch.nn.Module`` that scores each row of a batch. Its output may be a tensor, or a tensor inside a
            tuple, a mapping, a dataclass or an object with ``.logits``.
        inputs: An image (PIL, path, or uint8 array), a tensor of shape (C, H, W) or (N, C, H, W), rows of numbers, rows
            of a table (a DataFrame, a Series, or a mapping from names to values), or a list of images of equal size.
            For a model with several inputs, a tuple or a mapping from input names, in which shape (N,) is one number
            per sample. They may be nested in lists, tuples, mappings and dataclasses, and are named by their path, such
            as "batch.x". Values with one row per sample are batched with the samples; others are passed unchanged. With
            ``tokenizer=``, a text, several texts, or ids. With ``sampling_rate=``, ``channel_names=`` or
            ``time_axis=``, a signal (C, T), (T, C) or (T,), or a batch of them.
        method: One of :func:`methods`, "captum." followed by the name of a class of ``captum.attr``, or an object of
            such a class (see :func:`from_captum`).
        target: A class index or name, None for the top prediction, or a list or tensor with one index per input. A
            tuple with one number per dimension of an input's output is an index into that output, such as (class, row,
            column) for segmentation; a list of tuples has one for each input. Or a function from the model's output to
            one number per input, or to a single number if the rows influence each other (nodes of a graph).
        score: "logit", "probability", "log_probability", or "value" for regression.
        contrast: A class whose score is subtracted from the target's score.
        **params: The method's parameters; see ``sw.methods()``.

    Returns:
        The attribution, with everything needed to repeat it. If the rows of a batch influence each other, they are
        explained as one sample, ``score`` and ``delta`` have shape (1,), and a note reports this.

    Raises:
        TypeError: An argument has the wrong type, or the method doesn't have one of the parameters.
        ValueError: An argument is out of range, an input doesn't fit the model, the model failed, or a target function
            returns one score per row although the rows influence each other.
    """
    options, params = split_options(params)
    request = Request.of(method, params, target=target, score=score, contrast=contrast)
    problem = Problem(model, inputs, gradients=get_method(method).gradients, **options)
    # The problem was created just now, so the model's weights need not be checked for changes.
    *_, last = compute(problem, request, version=problem.last_version)
    return last
