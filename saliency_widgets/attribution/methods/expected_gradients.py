"""Expected Gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from saliency_widgets.attribution.baselines import NAMED, as_numbers
from saliency_widgets.attribution.call import Call
from saliency_widgets.attribution.differentiation import blaming
from saliency_widgets.attribution.method import Estimate, method
from saliency_widgets.attribution.methods.smoothgrad import N_SAMPLES
from saliency_widgets.attribution.moments import Moments
from saliency_widgets.attribution.noise import SEED, seeded
from saliency_widgets.attribution.schedule import CHUNK_SIZE
from saliency_widgets.params import Param

BACKGROUND = "background"
BASELINES = Param(
    "baselines",
    default=None,
    kind="open",
    choices=("noise", BACKGROUND, *(name for name in NAMED if name != "noise")),
    optional=True,
    help="The inputs that stand for 'nothing there', one drawn for each sample: a stack of your data is best. The rows "
    "of the background where there is one, and otherwise fresh uniform noise for each sample, unless given.",
)


@method(
    title="Expected Gradients",
    unit="samples",
    params=(N_SAMPLES, BASELINES, SEED, CHUNK_SIZE),
    aliases=("eg", "shap", "gradient_shap"),
    blank="the gradients between the baselines and the input are zero, or the baselines equal the input",
)
def expected_gradients(
    call: Call, n_samples: int, baselines: object, seed: int, chunk_size: int | None
) -> Iterator[Estimate]:
    r"""Integrated Gradients averaged over many baselines, so that none decides what counts as nothing.

    .. math:: a_i = E_{x', t} \left[ (x_i - x'_i) \, \frac{\partial F(x' + t (x - x'))}{\partial x_i} \right]

    with t uniform in [0, 1] and x' drawn from ``baselines``: a name, a tensor (K, ...) of K inputs, or a list of both.
    "background", the default for rows that have one, are its rows. "noise", the default otherwise, is drawn anew for
    each sample: uniform between black and white where these are told, between each row's min and max otherwise.
    Sample k of a seed is the same draw at every sample count, and the same for all rows of a batch. Completeness: the
    exact values sum to F(x) - E[F(x')]; ``delta`` is what is missing to the mean of F over the baselines drawn so far.
    That takes one more forward pass for each new baseline.

    Source: Erion, Janizek, Sturmfels, Lundberg and Lee, "Improving performance of deep learning models with axiomatic
    attribution priors and expected gradients", 2021.

    Yields:
        Running estimates; values of shape (B, ...), in units of score; ``standard_error`` of the mean; ``delta`` of
        shape (B,).

    Raises:
        TypeError: Baselines of no known kind.
        ValueError: No baselines, an unknown name, a shape that doesn't fit, or numbers that aren't finite.
    """
    pool = _pool(baselines, call, seed)
    score = call.scores(call.inputs)
    moments = Moments(call.inputs)
    known: dict[int, Tensor] = {}  # the score of each baseline that was drawn; fresh noise counts from -1 down
    drawn = torch.zeros_like(score)
    for samples in call.chunks(n_samples, chunk_size):
        picks, starts, times = [], [], []
        for k in samples:
            generator = seeded(seed, "expected gradients", k)
            times.append(torch.rand((), generator=generator, dtype=torch.float64, device="cpu"))
            noise = int(torch.randint(2**31, (), generator=generator, device="cpu"))
            pick = int(torch.randint(len(pool), (), generator=generator, device="cpu"))
            start = pool[pick]
            picks.append(-1 - k if start is None else pick)
            starts.append(call.baseline("noise", noise) if start is None else start.expand_as(call.inputs))
        named = [(f"at {_described(pick, baselines, call)}", start) for pick, start in zip(picks, starts, strict=True)]
        blame = partial(blaming, call, "baselines", named, "on the way from the baselines to the inputs", _REMEDY)
        new = {pick: start for pick, start in zip(picks, starts, strict=True) if pick not in known}
        if new:
            with blame():
                known |= zip(new, call.scores(torch.cat(list(new.values()))).view(len(new), -1), strict=True)
        drawn += torch.stack([known[pick] for pick in picks]).sum(0)
        start = torch.stack(starts)
        way = call.inputs - start
        t = torch.stack(times).to(way).view(-1, *[1] * call.inputs.ndim)
        with blame():
            gradients, _ = call.gradient((start + t * way).flatten(0, 1))
        moments.add(moments.of(way * gradients.view_as(way), samples.start))
        yield Estimate(
            moments.mean,
            done=moments.count,
            total=n_samples,
            evaluations=moments.count,
            score=score,
            delta=moments.mean.flatten(1).sum(1) - (score - drawn / moments.count),
            standard_error=moments.standard_error,
            agreement=moments.agreement,
        )


_REMEDY = "Leave it out, or mend it: the model must give numbers for each of them."


def _described(pick: int, baselines: Any, call: Call) -> str:
    """What a drawn baseline is called; fresh noise counts from -1 down."""
    if pick < 0:
        return "a baseline of uniform noise"
    if isinstance(baselines, str) and baselines != BACKGROUND:
        return f"the baseline {baselines!r}"
    rows = call.columns is not None and call.columns.rows is not None and baselines in (None, BACKGROUND)
    return f"row {pick} of the background" if rows else f"number {pick} of the baselines"


def default_baselines(call: Call) -> str:
    """What baselines are drawn from where none are given: the rows of a background, or noise."""
    return "noise" if call.columns is None or call.columns.rows is None else BACKGROUND


def _pool(value: Any, call: Call, seed: int) -> Sequence[Tensor | None] | Tensor:
    """What baselines are drawn from, each broadcastable to the inputs; None is fresh noise."""
    if isinstance(value, (list, tuple)):
        if not value:
            raise ValueError("baselines: the list is empty. Give at least one, or leave it out for noise.")
        return [entry for item in value for entry in _pool(item, call, seed)]
    if value is None or isinstance(value, str):
        name = BASELINES.check(value) or default_baselines(call)
        rows = None if call.columns is None else call.columns.rows
        if rows is not None and name == BACKGROUND:
            return rows.to(call.inputs)[:, None]
        if name == BACKGROUND:
            raise ValueError("baselines: there is no background. Pass background= rows of your data.")
        try:
            return [None if name == "noise" else call.baseline(name, seed)]
        except ValueError as error:
            raise ValueError(str(error).replace("baseline:", "baselines:", 1)) from error
    if not hasattr(value, "__array__"):
        raise TypeError(
            f"baselines: expected a name, a tensor of several inputs or a list of both, got a {type(value).__name__}."
        )
    stack = as_numbers(value, "baselines")
    one = tuple(call.inputs.shape[1:])
    if stack.shape == one:
        stack = stack[None]
    if tuple(stack.shape[1:]) != one or not len(stack):
        raise ValueError(
            f"baselines: expected a stack of shape (K, {', '.join(map(str, one))}), K inputs as the model sees them, "
            f"got shape {tuple(stack.shape)}. Put them through the transform and torch.stack them."
        )
    stack = stack.detach().to(call.inputs)
    if not torch.isfinite(stack).all():
        raise ValueError("baselines: they hold NaN or infinite values. Remove those inputs, or mend them.")
    return list(stack[:, None])
