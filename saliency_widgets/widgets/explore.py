"""The function that creates an explorer for a model and an input."""

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
    """Explore interactively which pixels, or which parts of another input, a model's output depends on.

    Args:
        model: A ``torch.nn.Module`` that scores each sample of a batch. Call ``model.eval()`` first.
        inputs: One image: a PIL image, a path, an array (H, W, 3) of uint8, a tensor (C, H, W) or (1, C, H, W). Or one
            row of a table: a Series, a DataFrame of one row, a mapping from names to values, an array or a tensor (F,).
            For a model with several inputs: a tuple of inputs, or a mapping from their names. A row is copied. With
            ``tokenizer=``, one text, or its ids. With ``sampling_rate=``, ``channel_names=`` or ``time_axis=``, one
            signal, (C, T), (T, C) or (T,).
        target: A class index or name, None for the top prediction, a tuple that indexes one sample's output, or a
            function from the model's output to one number per sample.
        labels: The labels of the background's rows: class indices or names, or values with ``score="value"``. With
            labels, the shuffle test reports the change of the loss.
        method: The initial method: one of ``sw.methods()``, "captum." followed by the name of a class of
            ``captum.attr``, or a captum object.
        methods: Captum methods to add to the menu, each with sliders for its numeric arguments.
        score: "logit", "probability", "log_probability", or "value" for regression.
        **params: Parameters of the initial method. For an image also "sign", "channels" and display settings such as
            "opacity", "clip" and "colormap"; for a row also "top", the number of bars.

    Returns:
        The explorer, a widget. As the last line of a cell it is displayed, with an image and a text that show without a
        kernel (see :func:`~saliency_widgets.static_output`).

    Raises:
        TypeError: An argument has the wrong type or is unknown.
        ValueError: An argument is out of range, the input does not fit the model, or the model failed.
    """
    return Explorer(model, inputs, target=target, labels=labels, method=method, methods=methods, score=score, **params)
