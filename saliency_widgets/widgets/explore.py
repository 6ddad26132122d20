"""The function that people call: an explorer of any model and input."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from saliency_widgets.attribution.registry import DEFAULT
from saliency_widgets.attribution.score import SCORE
from saliency_widgets.inputs.options import takes_options
from saliency_widgets.widgets.explorer import Explorer


@takes_options()
def explore(
    model: nn.Module,
    inputs: Any,
    *,
    target: Any = None,
    labels: Any = None,
    method: Any = DEFAULT,
    methods: Iterable[Any] = (),
    score: str = SCORE.default,
    **params: Any,
) -> Explorer:
    """Explore live which pixels, or which features of a row, moved a model's output.

    Args:
        model: Any ``torch.nn.Module`` that scores each row of a batch; call ``model.eval()`` first.
        inputs: One image: PIL image, path, array (H, W, 3) of uint8, tensor (C, H, W) or (1, C, H, W). Or one row of
            a table: a Series, a DataFrame of one row, a mapping from names to values, an array or a tensor (F,). For a
            model with several inputs: a tuple of them, or a mapping from their names. A row is copied.
        target: A class index or name, None for the top prediction, a tuple as an index into one sample's output, or a
            function from the model's output to one number per sample.
        labels: The labels of the background's rows, class indices or names, or values with ``score="value"``: the
            shuffle test then reports the change of the loss.
        method: The initial method: one of ``sw.methods()``, "captum." and the name of a class of ``captum.attr``, or
            an object of captum's.
        methods: More captum methods for the menu, each with sliders for its numeric arguments.
        score: "logit", "probability", "log_probability", or "value" for regression.
        **params: Parameters of the initial method. For an image, "sign" and "channels", and display settings such as
            "opacity", "clip" and "colormap"; for a row, "top", the number of bars.

    Returns:
        The explorer, a widget: displayed by the last line of a cell, with an image and a text for readers without a
        kernel (see :func:`~saliency_widgets.static_output`).

    Raises:
        TypeError: An argument of the wrong type, or an unknown one.
        ValueError: An argument out of range, an input that doesn't fit, or a model that failed.
    """
    return Explorer(model, inputs, target=target, labels=labels, method=method, methods=methods, score=score, **params)
