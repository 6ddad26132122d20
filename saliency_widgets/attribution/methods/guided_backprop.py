"""Guided backpropagation."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from saliency_widgets.attribution.call import Call
from saliency_widgets.attribution.method import Estimate, method
from saliency_widgets.attribution.relu_rules import GuidedReLU


@method(title="Guided Backprop", unit="passes", pointwise=True, needs=("relu",))
def guided_backprop(call: Call) -> Iterator[Estimate]:
    r"""A gradient that stops at every ReLU where it is negative: sharp, but it hardly depends on the class.

    At each ReLU y = max(x, 0) the backward rule is

    .. math:: g_x = g_y \, [x > 0] \, [g_y > 0]

    All forms of ReLU are reached: modules, functions, tensor methods, ReLU6, hardtanh and clamp from zero. It shows
    edges that the model could use, and changes little when the model's upper layers are replaced by random ones
    (Adebayo et al., "Sanity Checks for Saliency Maps", 2018): read it beside another method.

    Source: Springenberg, Dosovitskiy, Brox and Riedmiller, "Striving for Simplicity: The All Convolutional Net", 2014.

    Yields:
        One estimate; values of shape (B, ...).

    Raises:
        ValueError: The model has no ReLU, so the rule would change nothing.
    """
    with GuidedReLU() as rule:
        values, score = call.gradient(call.inputs)
    if not rule.calls and any(isinstance(module, torch.jit.ScriptModule) for module in call.model.modules()):
        raise ValueError(
            "method: Guided Backprop can't see the ReLUs of a scripted or traced model. Pass the original module, from "
            "before torch.jit."
        )
    if not rule.calls:
        raise ValueError(
            "method: Guided Backprop changes the gradient at ReLUs, and this model ran none (GELU, SiLU and other "
            "smooth activations have no such rule). Use 'gradient' or 'integrated_gradients'."
        )
    yield Estimate(values, score=score)
