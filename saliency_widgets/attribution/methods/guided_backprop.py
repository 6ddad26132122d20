"""Guided backpropagation."""

from __future__ import annotations

from collections.abc import Iterator

from saliency_widgets.attribution.query import Query
from saliency_widgets.attribution.registry import Estimate, method


@method(
    title="Guided Backprop",
    unit="passes",
    pointwise=True,
    needs=("relu",),
    aliases=("gbp", "guided_backpropagation"),
    blank="no positive signal passes back through the ReLUs",
)
def guided_backprop(query: Query) -> Iterator[Estimate]:
    r"""A gradient that is cut off at every ReLU where it is negative: sharp, but hardly dependent on the class.

    At each ReLU y = f(x) the backward rule is

    .. math:: g_x = f'(x) \max(g_y, 0)

    with f' the activation's slope: 0 or 1 for ReLU, 0 outside (0, 6) for ReLU6, the slope below zero for LeakyReLU,
    PReLU and RReLU. The rule covers all ways of writing them: modules, functions, tensor methods, and hardtanh, clamp,
    threshold and maximum from zero; smooth activations keep their gradient. The map shows edges that the model could
    use, and changes little when the model's upper layers are randomized (Adebayo et al., "Sanity Checks for Saliency
    Maps", 2018): compare it with another method.

    Source: Springenberg, Dosovitskiy, Brox and Riedmiller, "Striving for Simplicity: The All Convolutional Net", 2014.

    Yields:
        One estimate; values of shape (B, ...).

    Raises:
        ValueError: The model ran no ReLU, so the rule would change nothing.
    """
    values, score = query.gradient(query.inputs, rule="guided")
    yield Estimate(values, score=score)
