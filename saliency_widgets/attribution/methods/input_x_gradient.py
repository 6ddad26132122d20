"""Input times gradient."""

from __future__ import annotations

from collections.abc import Iterator

from saliency_widgets.attribution.query import Query
from saliency_widgets.attribution.registry import Estimate, method


@method(
    title="Input × Gradient",
    unit="passes",
    pointwise=True,
    aliases=("gradient_x_input", "gradient_times_input", "input_times_gradient", "input*gradient", "grad*input"),
    blank="the gradient is zero wherever the input is not",
    additive=True,
)
def input_x_gradient(query: Query) -> Iterator[Estimate]:
    r"""The gradient multiplied by the input: exact for a linear model without bias.

    .. math:: a_i = x_i \, \partial F(x) / \partial x_i

    The input is the model's own, after any transform: after a normalizing one, zero is the mean color, not black.

    Source: Shrikumar, Greenside, Shcherbina and Kundaje, "Not Just a Black Box: Learning Important Features Through
    Propagating Activation Differences", 2016.

    Yields:
        One estimate; values of shape (B, ...), in units of score.
    """
    values, score = query.gradient(query.inputs)
    yield Estimate(values * query.inputs, score=score)
