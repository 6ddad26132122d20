"""Plain gradient saliency."""

from __future__ import annotations

from collections.abc import Iterator

from saliency_widgets.attribution.query import Query
from saliency_widgets.attribution.registry import Estimate, method


@method(
    title="Gradient",
    unit="passes",
    pointwise=True,
    aliases=("saliency", "vanilla", "vanilla_gradient", "gradients", "backprop"),
)
def gradient(query: Query) -> Iterator[Estimate]:
    r"""How fast the score changes with a small change of each input.

    .. math:: a_i = \partial F(x) / \partial x_i

    Source: Simonyan, Vedaldi and Zisserman, "Deep Inside Convolutional Networks: Visualising Image Classification
    Models and Saliency Maps", 2013.

    Yields:
        One estimate; values of shape (B, ...), in units of score per unit of input.
    """
    values, score = query.gradient(query.inputs)
    yield Estimate(values, score=score)
