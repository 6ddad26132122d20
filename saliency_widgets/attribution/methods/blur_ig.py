"""Blur-IG."""

from __future__ import annotations

import math
from bisect import bisect, insort
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from saliency_widgets.attribution.methods.integrated_gradients import N_STEPS, TOLERANCE
from saliency_widgets.attribution.nonfinite import locate_nonfinite
from saliency_widgets.attribution.numerics.completeness import unaccounted
from saliency_widgets.attribution.numerics.quadrature import coarse_to_fine
from saliency_widgets.attribution.query import CHUNK_SIZE, Query
from saliency_widgets.attribution.registry import Estimate, method
from saliency_widgets.params import Param

BLUR_LEVEL = Param(
    "blur_level",
    default=0.2,
    low=0.01,
    high=1.0,
    maximum=math.inf,
    unit="of the shorter side",
    help="Standard deviation of the strongest blur, where the path to the image begins, as a fraction of its shorter "
    "side. Structure that survives that blur gets no attribution.",
)


_OPEN = 1024  # steps up to which the coarse-to-fine order has no limit on open gaps


@method(
    title="Blur-IG",
    unit="gradients",
    params=(N_STEPS, BLUR_LEVEL, CHUNK_SIZE),
    needs=("image",),
    aliases=("blur_integrated_gradients",),
    blank="the gradients are zero all the way from the blurred image, or the blur changes nothing",
)
def blur_ig(query: Query, n_steps: int, blur_level: float, chunk_size: int | None) -> Iterator[Estimate]:
    r"""The gradients on the path from a blurred image to the sharp one, summed: no baseline color can hide a feature.

    With L(s) the image blurred by a Gaussian of standard deviation s pixels:

    .. math:: a_i = \int_{s_{max}}^0 \frac{\partial F(L(s))}{\partial x_i} \, \frac{d L_i(s)}{d s} \, ds
        \approx \sum_j \tfrac12 (g_j + g_{j+1}) (L(s_{j+1}) - L(s_j))_i

    with g_j the gradient at L(s_j), in equal steps of s. The sum needs no derivative of L, and is exact for linear
    and quadratic F at any number of steps. The blur is exact as well: each cosine frequency w of the image, mirrored
    at its edges, is multiplied by exp(-s^2 w^2 / 2). Completeness: the exact values sum to F(x) - F(L(s_max)); the
    error is reported as ``delta``. Nodes are visited coarse to fine, and each estimate is the sum over those visited;
    until both ends are, it is the gradient at x times x - L(s_max). The gradients and images at both ends of each open
    gap are stored: at most half of them, and no more than about 800 of each.

    Source: Xu, Venugopalan and Sundararajan, "Attribution in Scale and Space", 2020.

    Yields:
        Running estimates; values of shape (B, C, H, W), in units of score; ``delta`` of shape (B,).

    Raises:
        ValueError: The inputs are not images.
    """
    if query.inputs.ndim != 4:
        raise ValueError(
            f"method: Blur-IG needs images (N, C, H, W), got inputs of shape {tuple(query.inputs.shape)}. "
            f"Use 'integrated_gradients'."
        )
    blurred = scale_space(query.inputs)
    strongest = blur_level * min(query.inputs.shape[-2:])
    order = coarse_to_fine(n_steps + 1, most=None if n_steps <= _OPEN else _OPEN // 2)
    integral = _Trapezoid(n_steps, start=blurred(strongest), end=query.inputs)
    ends: dict[int, Tensor] = {}
    done = 0
    for chunk in query.chunks(len(order), chunk_size, first=(1,)):
        nodes = order[chunk.start : chunk.stop]
        images = torch.stack([blurred(strongest * (1 - node / n_steps)) for node in nodes])
        with locate_nonfinite(query, "blur_level", (), "for blurred copies of the image", "Lower blur_level."):
            gradients, scores = query.gradient(images.flatten(0, 1))
        for node, *seen in zip(nodes, gradients.view_as(images), images, strict=True):
            integral.add(node, *seen)
        rows = zip(nodes, scores.view(len(nodes), -1), strict=True)
        ends |= {node: row for node, row in rows if node in (0, n_steps)}
        done += len(nodes)
        values = integral.values
        delta = values.flatten(1).sum(1) - (ends[n_steps] - ends[0]) if 0 in ends else None
        missing = ""
        if done == len(order) and delta is not None:
            missing = unaccounted(values, delta, ends[n_steps], TOLERANCE.default, precision=query.precision)
        yield Estimate(
            values, done=done, total=len(order), evaluations=done, score=ends[n_steps], delta=delta,
            notes=(missing,) if missing else (),
        )  # fmt: skip


def scale_space(images: Tensor) -> Callable[[float], Tensor]:
    """Return a function that blurs the images, shape (B, C, H, W), by a Gaussian of a standard deviation in pixels.

    Images are mirrored at the edges, so that nothing enters from outside and each channel's mean is unchanged.
    """
    height, width = images.shape[-2:]
    tiled = images.to(torch.promote_types(images.dtype, torch.float32))
    for side in (-1, -2):
        tiled = torch.cat([tiled, tiled.flip(side)], side)
    spectrum = torch.fft.rfft2(tiled)
    rows = torch.fft.fftfreq(2 * height, dtype=torch.float64, device="cpu")
    columns = torch.fft.rfftfreq(2 * width, dtype=torch.float64, device="cpu")
    squares = (2 * math.pi) ** 2 * (rows[:, None] ** 2 + columns**2)

    def blurred(sigma: float) -> Tensor:
        if sigma == 0:
            return images
        damping = torch.exp(-0.5 * sigma**2 * squares).to(tiled)
        return torch.fft.irfft2(spectrum * damping, s=(2 * height, 2 * width))[..., :height, :width].to(images)

    return blurred


class _Trapezoid:
    """The trapezoid sum over the nodes so far, in order of blur: mean gradient times the change of the image.

    Only nodes at the ends of gaps that will still be filled are stored.

    Args:
        n_steps: The last node, which must be added first; node 0 must be added second.
        start: The image at node 0.
        end: The image at the last node.

    Attributes:
        values: The sum; a new tensor after each addition.
    """

    def __init__(self, n_steps: int, start: Tensor, end: Tensor) -> None:
        self._n_steps = n_steps
        self._path = end - start
        self._order: list[int] = []
        self._seen: set[int] = set()
        self._held: dict[int, tuple[Tensor, Tensor]] = {}
        self.values = torch.zeros_like(start)

    def add(self, node: int, gradient: Tensor, image: Tensor) -> None:
        """Add a node, which splits one interval of the sum into two."""
        gap = self._n_steps + 2
        if node == self._n_steps:
            self.values = gradient * self._path
        elif node == 0:
            self.values = (gradient + self._held[self._n_steps][0]) / 2 * self._path
        else:
            position = bisect(self._order, node)
            left, right = self._order[position - 1], self._order[position]
            (g0, x0), (g1, x1) = self._held[left], self._held[right]
            change = gradient * (x1 - x0) + g0 * (image - x1) + g1 * (x0 - image)
            self.values = self.values + change / 2
            gap = right - left
        self._seen.add(node)
        if gap > 2:
            insort(self._order, node)
            self._held[node] = gradient, image
        for end in (node - 1, node + 1):  # a node between filled gaps is no longer needed
            if end in self._held and {max(end - 1, 0), min(end + 1, self._n_steps)} <= self._seen:
                self._order.remove(end)
                del self._held[end]
