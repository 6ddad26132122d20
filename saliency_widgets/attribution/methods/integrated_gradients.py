"""Integrated Gradients."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from saliency_widgets.attribution.baselines import BASELINE
from saliency_widgets.attribution.nonfinite import check_integration_path
from saliency_widgets.attribution.numerics.adaptive import AdaptiveTrapezoid
from saliency_widgets.attribution.numerics.completeness import unaccounted
from saliency_widgets.attribution.numerics.float16_store import Half, full, full_precision_count
from saliency_widgets.attribution.numerics.noise import SEED
from saliency_widgets.attribution.numerics.quadrature import RULES, coarse_to_fine
from saliency_widgets.attribution.numerics.stopping import describe_stop
from saliency_widgets.attribution.query import CHUNK_SIZE, Query
from saliency_widgets.attribution.registry import Estimate, method
from saliency_widgets.params import Param

N_STEPS = Param(
    "n_steps",
    default=64,
    low=1,
    high=1024,
    maximum=100_000,
    kind="int",
    scale="log2",
    label="IG steps",
    unit="steps",
    continued=True,
    help="Steps on the path from the baseline to the input. Enough when the completeness delta is small and the map "
    "no longer changes.",
)
TOLERANCE = Param(
    "tolerance",
    default=0.05,
    low=0.0,
    high=1.0,
    maximum=math.inf,
    continued=True,
    help="Adaptive steps end once the estimated relative error of the map has been below this twice in a row; "
    "0 takes all steps.",
)
ADAPTIVE = "adaptive"
QUADRATURE = Param(
    "quadrature",
    default=ADAPTIVE,
    kind="choice",
    choices=(ADAPTIVE, *RULES),
    advanced=True,
    continued=True,
    help="Where on the path gradients are computed. Adaptive adds nodes where the map changes, and ends when it no "
    "longer does; the others have fixed nodes.",
)
_ROUND = 8


@method(
    title="Integrated Gradients",
    unit="gradients",
    params=(N_STEPS, BASELINE, TOLERANCE, QUADRATURE, SEED, CHUNK_SIZE),
    aliases=("ig", "intgrad", "path_integrated_gradients"),
    blank="the gradients are zero all along the path from the baseline, or the input equals the baseline",
    additive=True,
)
def integrated_gradients(
    query: Query,
    n_steps: int,
    baseline: object,
    tolerance: float,
    quadrature: str,
    seed: int,
    chunk_size: int | None,
) -> Iterator[Estimate]:
    r"""The gradients on the path from a baseline to the input, summed: they account for the whole change of the score.

    .. math:: a_i = (x_i - x'_i) \int_0^1 \frac{\partial F(x' + t (x - x'))}{\partial x_i} \, dt

    approximated by nodes t_j and weights w_j that sum to 1. Completeness: the exact values sum to F(x) - F(x');
    the difference is reported as ``delta`` and never distributed over the values.

    "adaptive", the default, is a nested trapezoid rule that bisects intervals where the map still changes or
    completeness fails, see :class:`.AdaptiveTrapezoid`. It stops when ``map_error``, the estimated relative error of
    the map, was within ``tolerance`` in two consecutive rounds, or after n + 1 gradients, and notes the reason. If more
    than ``tolerance`` of the score's change is then missing, a note gives the likely cause. The other rules take n + 1
    gradients ("trapezoid", "clenshaw_curtis") or n ("midpoint", "gauss_legendre"), regardless of the tolerance. They
    visit nodes coarse to fine, and each estimate is the weighted mean over those visited.

    Gradients are stored, so that more steps only add to them. For float32 inputs, those beyond the first 40 MiB (69
    nodes for an image of 224 x 224) are stored and used in 16 bits, with each value rounded by at most 2^-11 of itself:
    the relative error of the map from this is less than 5e-4, and usually a tenth of that. See
    :class:`~saliency_widgets.attribution.numerics.float16_store.Half`.

    Source: Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", 2017.

    Yields:
        Running estimates; values of shape (B, ...), in units of score; ``delta`` of shape (B,), and ``map_error``.
    """
    start = query.baseline(baseline, seed)
    if quadrature == ADAPTIVE:
        yield from _adaptive(query, start, baseline, n_steps, tolerance, chunk_size)
    else:
        yield from _fixed(query, start, baseline, quadrature, n_steps, tolerance, chunk_size)


def _gradients(
    query: Query, start: Tensor, baseline: object, nodes: Tensor, *, first: int
) -> tuple[Tensor | Half, Tensor]:
    """Return the gradients, (K, B, ...), and scores, (K, B), at nodes t, (K,), or (K, B) if each sample has its own.

    ``first`` is the number of the first node, from which it follows whether the gradients are stored as halves.
    """
    whole = full_precision_count(query.inputs)
    halved = whole is not None and first >= whole

    def work() -> tuple[Tensor | Half, Tensor]:
        path = query.inputs - start
        t = nodes.to(path).view(len(nodes), -1, *[1] * (path.ndim - 1))
        with check_integration_path(query, start, baseline):
            gradients, scores = query.gradient((start + t * path).flatten(0, 1))
        gradients = gradients.view(len(nodes), *path.shape)
        return Half.of(gradients) if halved else gradients, scores.view(len(nodes), -1)

    return query.once(("nodes", halved, *nodes.flatten().tolist()), work)


def _adaptive(
    query: Query, start: Tensor, baseline: object, n_steps: int, tolerance: float, chunk_size: int | None
) -> Iterator[Estimate]:
    rule = AdaptiveTrapezoid(query.inputs - start, n_steps, _ROUND)
    score: Tensor | None = None
    within = torch.zeros(len(query.inputs), dtype=torch.int64, device="cpu")  # consecutive rounds
    while len(nodes := rule.ask()):
        parts, scores = zip(
            *[
                _gradients(query, start, baseline, nodes[part.start : part.stop], first=rule.done)
                for part in query.chunks(len(nodes), chunk_size, first=())
            ],
            strict=True,
        )
        score = scores[0][0] if score is None else score
        rule.tell(parts, torch.cat(scores))
        error = rule.error
        if error is not None and tolerance > 0:
            within = torch.where(error <= tolerance, within + 1, 0)
            rule.rest(within >= 2)
        enough = bool((within >= 2).all())
        last = enough or rule.done == n_steps + 1
        notes: tuple[str, ...] = ()
        if last and tolerance > 0 and rule.delta is not None:
            missing = unaccounted(
                rule.values, rule.delta, score, tolerance, error=error, settled=enough, precision=query.precision
            )
            what = "the map's error is estimated at"
            notes = (missing,) if missing else ()
            if error is not None:
                notes = (describe_stop(enough, rule.done, "gradients", what, error, tolerance, missing),)
        yield Estimate(
            rule.values,
            done=rule.done,
            total=rule.done if last else n_steps + 1,
            evaluations=rule.done,
            score=score,
            delta=rule.delta,
            map_error=None if error is None else error.to(query.inputs.device),
            notes=notes,
        )
        if last:
            return


def _fixed(
    query: Query,
    start: Tensor,
    baseline: object,
    quadrature: str,
    n_steps: int,
    tolerance: float,
    chunk_size: int | None,
) -> Iterator[Estimate]:
    path = query.inputs - start
    nodes, weights = RULES[quadrature](n_steps)
    order = coarse_to_fine(len(nodes))
    nodes, weights = nodes[order], weights[order]
    ends = {}  # the score at both ends of the path, which are the first two nodes of some rules
    if nodes[0] != 1:
        with check_integration_path(query, start, baseline):
            ends = {1.0: query.scores(query.inputs), 0.0: query.scores(start)}
    wide = torch.promote_types(path.dtype, torch.float32)  # sums of many nodes lose accuracy in half precision
    total = torch.zeros_like(path, dtype=wide)
    done = 0
    for chunk in query.chunks(len(nodes), chunk_size, first=(1,)):
        gradients, scores = _gradients(query, start, baseline, nodes[chunk.start : chunk.stop], first=chunk.start)
        w = weights[chunk.start : chunk.stop].to(total)
        total += torch.tensordot(w, full(gradients).to(wide), dims=1)
        ends |= {float(nodes[j]): scores[j - done] for j in chunk if nodes[j] in (0, 1) and float(nodes[j]) not in ends}
        done += len(chunk)
        values = path * total / float(weights[:done].sum())
        delta = values.flatten(1).sum(1) - (ends[1.0] - ends[0.0]) if len(ends) == 2 else None
        values = values.to(path.dtype)
        missing = ""
        if done == len(nodes) and tolerance > 0 and delta is not None:
            missing = unaccounted(values, delta, ends[1.0], tolerance, precision=query.precision)
        yield Estimate(
            values, done=done, total=len(nodes), evaluations=done, score=ends.get(1.0), delta=delta,
            notes=(missing,) if missing else (),
        )  # fmt: skip
