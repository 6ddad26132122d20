"""Deconvnet."""

from __future__ import annotations

from collections.abc import Iterator

from saliency_widgets.attribution.query import Query
from saliency_widgets.attribution.registry import Estimate, method


@method(
    title="Deconvnet",
    unit="passes",
    pointwise=True,
    needs=("relu",),
    aliases=("deconv", "deconvolution"),
    blank="no positive signal passes back through the ReLUs",
)
def deconvnet(query: Query) -> Iterator[Estimate]:
    r"""A backward pass that keeps positive signals: it shows what activates the model, and hardly depends on the class.

    At each ReLU y = f(x) the backward rule is

    .. math:: g_x = \max(g_y, 0)

    independent of x: it ignores which units the ReLU zeroed in the forward pass. If ReLUs are the model's only
    nonlinearity (no max-pooling), every image gets the same map for a class; with max-pooling, the map is close to a
    reconstruction of the image and says little about the class (Nie, Zhang and Patel, "A Theoretical Explanation for
    Perplexing Behaviors of Backpropagation-based Visualizations", 2018): compare it with another method. It applies
    to the same activations as Guided Backprop.

    Source: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2014.

    Yields:
        One estimate; values of shape (B, ...).

    Raises:
        ValueError: The model ran no ReLU, so the rule would change nothing.
    """
    values, score = query.gradient(query.inputs, rule="deconvnet")
    yield Estimate(values, score=score)
