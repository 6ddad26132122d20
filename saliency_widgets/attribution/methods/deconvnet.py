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
    blank="nothing positive comes back through the ReLUs",
)
def deconvnet(query: Query) -> Iterator[Estimate]:
    r"""The model run backwards, keeping what is positive: it paints what excites it, and hardly depends on the class.

    At each ReLU y = f(x) the backward rule is

    .. math:: g_x = \max(g_y, 0)

    whatever x was: what the ReLU cut off in the forward pass plays no part. Where nothing but ReLUs bends the model
    (no max-pooling), every image gets the same map for a class; where max-pooling does, the map is close to a
    reconstruction of the image that says little of the class (Nie, Zhang and Patel, "A Theoretical Explanation for
    Perplexing Behaviors of Backpropagation-based Visualizations", 2018): read it beside another method. The same
    activations are reached as by Guided Backprop.

    Source: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2014.

    Yields:
        One estimate; values of shape (B, ...).

    Raises:
        ValueError: The model ran no ReLU, so the rule would change nothing.
    """
    values, score = query.gradient(query.inputs, rule="deconvnet")
    yield Estimate(values, score=score)
