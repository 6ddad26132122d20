"""The function that people call: an explorer of any model and input."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from saliency_widgets.attribution.registry import DEFAULT
from saliency_widgets.attribution.score import SCORE
from saliency_widgets.inputs import Explain
from saliency_widgets.widgets.explorer import Explorer


def explore(  # noqa: PLR0913
    model: nn.Module,
    inputs: Any,
    *,
    target: Any = None,
    transform: Any = None,
    class_names: Any = None,
    feature_names: Sequence[str] | None = None,
    background: Any = None,
    labels: Any = None,
    explain: Explain = None,
    device: torch.device | str | None = None,
    method: Any = DEFAULT,
    methods: Iterable[Any] = (),
    score: str = SCORE.default,
    fold: bool = True,
    precision: str | None = None,
    cuda_graphs: bool = False,
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
        transform: Converts ``inputs`` to the model's input: a function, torchvision weights, a Hugging Face image
            processor, or a timm data config; for rows, a fitted scikit-learn scaler or ColumnTransformer, whose one-hot
            groups are summed back to their column.
        class_names: Names of the classes in order, a mapping from index to name, or torchvision weights; the model's
            names (such as ``config.id2label``) by default. For a binary model with one logit, both classes' names: a
            high logit means class 1.
        feature_names: The names of the features, for a row without names.
        background: Other rows of the table, such as the training data: used for baselines, Expected Gradients, the
            what-if sliders, noise and the shuffle test.
        labels: The labels of the background's rows, class indices or names, or values with ``score="value"``: the
            shuffle test then reports the change of the loss.
        explain: Which of several inputs is shown, by name or position. Default: the first image.
        device: Where to compute. Default: the model's device.
        method: The initial method: one of ``sw.methods()``, "captum." and the name of a class of ``captum.attr``, or
            an object of captum's.
        methods: More captum methods for the menu, each with sliders for its numeric arguments.
        score: "logit", "probability", "log_probability", or "value" for regression.
        fold: Whether BatchNorms may be folded into convolutions for speed: see :func:`attribute`.
        precision: None, "full", "tf32" or "bfloat16": see :func:`attribute`.
        cuda_graphs: Whether passes are recorded on a CUDA device and replayed: see :func:`attribute`.
        **params: Parameters of the initial method. For an image, "sign" and "channels", and display settings such as
            "opacity", "clip" and "colormap"; for a row, "top", the number of bars.

    Returns:
        The explorer, a widget: displayed by the last line of a cell, with an image and a text for readers without a
        kernel (see :func:`~saliency_widgets.static_output`).

    Raises:
        TypeError: An argument of the wrong type, or an unknown one.
        ValueError: An argument out of range, an input that doesn't fit, or a model that failed.
    """
    return Explorer(
        model, inputs, target=target, transform=transform, class_names=class_names, feature_names=feature_names,
        background=background, labels=labels, explain=explain, device=device, method=method, methods=methods,
        score=score, fold=fold, precision=precision, cuda_graphs=cuda_graphs, **params,
    )  # fmt: skip
