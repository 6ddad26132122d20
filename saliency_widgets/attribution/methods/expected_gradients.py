"""Expected Gradients."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from saliency_widgets.attribution.baselines import BASELINES
from saliency_widgets.attribution.methods.integrated_gradients import TOLERANCE
from saliency_widgets.attribution.methods.smoothgrad import N_SAMPLES
from saliency_widgets.attribution.nonfinite import locate_nonfinite
from saliency_widgets.attribution.numerics.completeness import unaccounted
from saliency_widgets.attribution.numerics.moments import Moments
from saliency_widgets.attribution.numerics.noise import SEED, seeded
from saliency_widgets.attribution.query import CHUNK_SIZE, Query
from saliency_widgets.attribution.registry import Estimate, method


@method(
    title="Expected Gradients",
    unit="samples",
    params=(N_SAMPLES, BASELINES, SEED, CHUNK_SIZE),
    aliases=("eg", "shap", "gradient_shap", "gradient_explainer"),
    blank="the gradients between the baselines and the input are zero, or the baselines equal the input",
    additive=True,
)
def expected_gradients(
    query: Query, n_samples: int, baselines: object, seed: int, chunk_size: int | None
) -> Iterator[Estimate]:
    r"""Integrated Gradients averaged over many baselines, so that no single one defines what counts as nothing.

    .. math:: a_i = E_{x', t} \left[ (x_i - x'_i) \, \frac{\partial F(x' + t (x - x'))}{\partial x_i} \right]

    with t uniform in [0, 1] and x' drawn from ``baselines``: a name, a tensor (K, ...) of K inputs, or a list of both.
    For several inputs, pass a mapping from their names to these, or a tuple with one for each: if several have K rows,
    row k of all of them forms one baseline, and a single row is combined with each. "background" means the rows of the
    background, and is the default if one was passed. "noise", the default otherwise, is drawn for each sample: uniform
    between black and white if these are known, otherwise between each row's min and max. Sample k of a seed is the
    same draw at every sample count and for all rows of a batch. Completeness: the exact values sum to F(x) - E[F(x')];
    ``delta`` is the error of that sum, with the mean of F over the baselines drawn so far, which takes one extra
    forward pass for each new baseline.

    Source: Erion, Janizek, Sturmfels, Lundberg and Lee, "Improving performance of deep learning models with axiomatic
    attribution priors and expected gradients", 2021.

    Yields:
        Running estimates; values of shape (B, ...), in units of score; ``standard_error`` of the mean; ``delta`` of
        shape (B,).

    Raises:
        TypeError: ``baselines`` has an unsupported type.
        ValueError: No baselines, an unknown name, a shape that doesn't fit, or numbers that aren't finite.
    """
    pool = query.baseline_pool(baselines, seed)
    flat = ", ".join(pool.constant)
    notes = (f"Noise has no range for {flat}: each sample's min and max are equal.",) if flat else ()
    score = query.scores(query.inputs)
    moments = Moments(query.inputs)
    scores: dict[int, Tensor] = {}  # by index of each baseline drawn so far; fresh noise has -1, -2, ...
    drawn = torch.zeros_like(score)
    missed: list[Tensor] = []  # completeness error of each draw, shape (n, B)
    for samples in query.chunks(n_samples, chunk_size):
        picks, starts, times, points = [], [], [], []
        for k in samples:
            generator = seeded(seed, "expected gradients", k)
            times.append(torch.rand((), generator=generator, dtype=torch.float64, device="cpu"))
            noise = int(torch.randint(2**31, (), generator=generator, device="cpu"))
            pick = int(torch.randint(pool.size, (), generator=generator, device="cpu"))
            picks.append(-1 - k if pool.is_noise(pick) else pick)
            starts.append(pool.draw(pick, noise))
            points.append((f"at {pool.describe(pick)}", starts[-1]))
        elsewhere = "on the integration path from the baselines to the inputs"
        locate = partial(locate_nonfinite, query, "baselines", points, elsewhere, _REMEDY)
        new = {pick: start for pick, start in zip(picks, starts, strict=True) if pick not in scores}
        if new:
            with locate():
                scores |= zip(new, query.scores(torch.cat(list(new.values()))).view(len(new), -1), strict=True)
        drawn += torch.stack([scores[pick] for pick in picks]).sum(0)
        start = torch.stack(starts)
        path = query.inputs - start
        t = torch.stack(times).to(path).view(-1, *[1] * query.inputs.ndim)
        with locate():
            gradients, _ = query.gradient((start + t * path).flatten(0, 1))
        moments.add(moments.of(path * gradients.view_as(path), samples.start))
        totals = (path * gradients.view_as(path)).flatten(2).sum(2)
        missed.append((totals - score + torch.stack([scores[pick] for pick in picks])).double())
        delta = moments.mean.flatten(1).sum(1) - (score - drawn / moments.count)
        yield Estimate(
            moments.mean,
            done=moments.count,
            total=n_samples,
            evaluations=moments.count,
            score=score,
            delta=delta,
            standard_error=moments.standard_error,
            agreement=moments.agreement,
            notes=(
                *notes,
                *(_unaccounted(query, moments.mean, delta, score, missed) if moments.count == n_samples else ()),
            ),
        )


_REMEDY = "Remove or correct it: the model must return finite scores for every baseline."


def _unaccounted(query: Query, values: Tensor, delta: Tensor, score: Tensor, missed: list[Tensor]) -> tuple[str, ...]:
    """Return a note on the missing part of the score's change, if that is more than sampling error explains."""
    errors = torch.cat(missed)
    if len(errors) < _FEW or not bool((delta.abs() > _BEYOND * errors.std(0) / len(errors) ** 0.5).any()):
        return ()
    exact = torch.zeros_like(delta)  # more draws would not reduce it
    text = unaccounted(values, delta, score, TOLERANCE.default, error=exact, precision=query.precision, unit="samples")
    return (text,) if text else ()


_FEW, _BEYOND = 8, 5.0  # draws needed for a useful spread; standard errors, which heavy tails underestimate
