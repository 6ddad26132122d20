"""SmoothGrad and its variants: a gradient method averaged over noisy copies of the input."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

from torch import Tensor

from saliency_widgets.attribution.nonfinite import locate_nonfinite
from saliency_widgets.attribution.numerics.moments import Chunk, Moments
from saliency_widgets.attribution.numerics.noise import SEED, normal_noise
from saliency_widgets.attribution.numerics.stopping import describe_stop
from saliency_widgets.attribution.query import CHUNK_SIZE, Query, constant_inputs
from saliency_widgets.attribution.registry import Estimate, get_method, method, methods
from saliency_widgets.params import MANY, Param

NOISE_LEVEL = Param(
    "noise_level",
    default=0.15,
    low=0.0,
    high=1.0,
    maximum=math.inf,
    unit="of the input's range",
    help="Standard deviation of the added noise, as a fraction of the input's max - min. More noise makes the map "
    "smoother; too much explains a different image.",
)
N_SAMPLES = Param(
    "n_samples",
    default=50,
    low=1,
    high=500,
    maximum=MANY,
    kind="int",
    label="Sample count",
    unit="samples",
    continued=True,
    help="The number of noisy copies to average. The error falls with its square root.",
)
TOLERANCE = Param(
    "tolerance",
    default=0.0,
    low=0.0,
    high=1.0,
    maximum=math.inf,
    advanced=True,
    continued=True,
    help="Stop as soon as the sampling error, the mean standard error over the mean size of the values, is below this; "
    "0 takes all samples.",
)
STATISTIC = Param(
    "statistic",
    default="mean",
    kind="choice",
    choices=("mean", "squared", "variance"),
    help="Mean is SmoothGrad; squared averages the squares; variance (VarGrad) shows where the samples disagree.",
)
BASE = Param(
    "base",
    default="gradient",
    kind="choice",
    choices=lambda: [name for name, entry in methods().items() if entry.pointwise],
    help="The method that is averaged.",
)


def noisy(query: Query, noise_level: float, seed: int, samples: range) -> Tensor:
    """Return noisy copies of the inputs.

    Args:
        query: The model and its inputs, shape (B, ...).
        noise_level: Standard deviation of the noise, as a fraction of each sample's range.
        seed: The seed of the noise.
        samples: The numbers of the K copies.

    Returns:
        The copies, shape (K, B, ...).
    """
    return query.inputs + query.noise_scale() * noise_level * normal_noise(query.inputs, seed, samples)


@method(
    title="SmoothGrad",
    unit="samples",
    params=(NOISE_LEVEL, N_SAMPLES, STATISTIC, BASE, TOLERANCE, SEED, CHUNK_SIZE),
    aliases=("sg", "smooth_gradient", "noise_tunnel", "vargrad"),
    blank="the maps of all noisy copies are zero, or, for the variance, all the same",
)
def smoothgrad(
    query: Query,
    noise_level: float,
    n_samples: int,
    statistic: str,
    base: str,
    tolerance: float,
    seed: int,
    chunk_size: int | None,
) -> Iterator[Estimate]:
    r"""The average gradient over noisy copies of the input: the same quantity with less speckle.

    With samples g_k = grad F(x + s z_k), z_k standard normal, s = noise_level (max x - min x) per sample:

    .. math:: \text{mean: } \tfrac1n \sum g_k \quad \text{squared: } \tfrac1n \sum g_k^2 \quad
        \text{variance: } \tfrac1{n-1} \sum (g_k - \bar g)^2

    Sample k of a seed is the same noise at every noise level and sample count. Means and variances are merged
    chunk by chunk (Chan, Golub and LeVeque 1979), which avoids cancellation. The sampling error is reported for each
    value (``standard_error``), and for the whole map as the rank correlation between even and odd samples
    (``agreement``). With a ``tolerance``, sampling stops as soon as the mean standard error, relative to the mean
    magnitude of the values, is within it in every row of a batch.

    Sources: Smilkov, Thorat, Kim, Viégas and Wattenberg, "SmoothGrad: removing noise by adding noise", 2017; squared:
    Hooker, Erhan, Kindermans and Kim, "A Benchmark for Interpretability Methods in Deep Neural Networks", 2019;
    VarGrad: Adebayo et al., "Local Explanation Methods for Deep Neural Networks Lack Sensitivity to Parameter
    Values", 2018.

    Yields:
        Running estimates; values of shape (B, ...); ``standard_error`` for the statistics "mean" and "squared".
    """
    if statistic == "variance" and n_samples < 2:
        raise ValueError("n_samples: a variance needs at least 2 samples, got 1.")
    inner = get_method(base)
    constant = constant_inputs(query) if noise_level > 0 else []
    why = "noise is a fraction of each sample's max - min, which is 0 there"
    quiet = (f"No noise was added to {', '.join(constant)}: {why}.",) if constant else ()
    moments = Moments(query.inputs)
    estimated = statistic != "variance"  # the error of a variance is not estimated

    def drawn(samples: range) -> Chunk:
        inputs = noisy(query, noise_level, seed, samples)
        copies = f"for noisy copies of the inputs, at a noise level of {noise_level:g}"
        with locate_nonfinite(query, "noise_level", (), copies, "Lower noise_level."):
            (estimate,) = inner.run(query.on(inputs.flatten(0, 1)), **inner.check_params({}))
        values = estimate.values.view_as(inputs)
        return moments.of(values**2 if statistic == "squared" else values, samples.start)

    for samples in query.chunks(n_samples, chunk_size):
        moments.add(query.once((samples.start, samples.stop), partial(drawn, samples)))
        error = moments.relative_error if estimated else None
        enough = tolerance > 0 and error is not None and bool((error <= tolerance).all())
        notes = quiet
        if tolerance > 0 and error is not None and (enough or moments.count == n_samples):
            notes += (describe_stop(enough, moments.count, "samples", "the sampling error is", error, tolerance),)
        yield Estimate(
            moments.mean if estimated else moments.variance,
            done=moments.count,
            total=moments.count if enough else n_samples,
            evaluations=moments.count,
            standard_error=moments.standard_error if estimated else None,
            agreement=moments.agreement if estimated else None,
            notes=notes,
        )
        if enough:
            return
