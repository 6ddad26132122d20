"""Integrated Gradients."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from saliency_widgets.attribution.baselines import BASELINE
from saliency_widgets.attribution.call import Call
from saliency_widgets.attribution.method import Estimate, method
from saliency_widgets.attribution.noise import SEED
from saliency_widgets.attribution.quadrature import RULES, coarse_to_fine
from saliency_widgets.attribution.schedule import CHUNK_SIZE, chunks
from saliency_widgets.params import Param

N_STEPS = Param(
    "n_steps",
    default=64,
    low=1,
    high=1024,
    kind="int",
    scale="log2",
    label="IG steps",
    unit="steps",
    continued=True,
    help="Steps on the way from the baseline to the input. Enough when the completeness delta is small and the map "
    "no longer changes.",
)
QUADRATURE = Param(
    "quadrature",
    default="trapezoid",
    kind="choice",
    choices=tuple(RULES),
    advanced=True,
    continued=True,
    help="Where on the way gradients are taken. Trapezoid is nested: doubling the steps keeps all old ones.",
)


@method(
    title="Integrated Gradients",
    unit="gradients",
    params=(N_STEPS, BASELINE, QUADRATURE, SEED, CHUNK_SIZE),
)
def integrated_gradients(
    call: Call, n_steps: int, baseline: object, quadrature: str, seed: int, chunk_size: int | None
) -> Iterator[Estimate]:
    r"""The gradients on the way from a baseline to the input, added up: they account for the whole score.

    .. math:: a_i = (x_i - x'_i) \int_0^1 \frac{\partial F(x' + t (x - x'))}{\partial x_i} \, dt

    approximated by nodes t_j and weights w_j that sum to 1. Completeness: the exact values sum to F(x) - F(x');
    what is missing is reported as ``delta`` and never distributed. ``n_steps`` steps take n + 1 gradients with the
    trapezoid rule and n with the others. Until all nodes are in, the estimate is their weighted mean, coarse to fine.

    Source: Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", 2017.

    Yields:
        Running estimates; values of shape (B, ...), in units of score; ``delta`` of shape (B,).
    """
    start = call.baseline(baseline, seed)
    way = call.inputs - start
    nodes, weights = RULES[quadrature](n_steps)
    order = coarse_to_fine(len(nodes))
    nodes, weights = nodes[order], weights[order]
    ends = {}  # the score at both ends of the way: the trapezoid's first two nodes
    if nodes[0] != 1:
        ends = {1.0: call.scores(call.inputs), 0.0: call.scores(start)}
    wide = torch.promote_types(way.dtype, torch.float32)  # in half precision sums of many nodes drift away
    total = torch.zeros_like(way, dtype=wide)
    done = 0
    for chunk in chunks(len(nodes), call.rows(chunk_size), call.batch):
        t = nodes[chunk.start : chunk.stop].to(way).view(-1, *[1] * way.ndim)
        w = weights[chunk.start : chunk.stop].to(total)
        gradients, scores = call.gradient((start + t * way).flatten(0, 1))
        total += torch.tensordot(w, gradients.view(len(chunk), *way.shape).to(wide), dims=1)
        scores = scores.view(len(chunk), -1)
        ends |= {float(nodes[j]): scores[j - done] for j in chunk if nodes[j] in (0, 1) and float(nodes[j]) not in ends}
        done += len(chunk)
        values = way * total / float(weights[:done].sum())
        delta = values.flatten(1).sum(1) - (ends[1.0] - ends[0.0]) if len(ends) == 2 else None
        values = values.to(way.dtype)
        yield Estimate(values, done=done, total=len(nodes), evaluations=done, score=ends.get(1.0), delta=delta)
