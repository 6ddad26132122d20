"""Expected Gradients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from saliency_widgets.attribution.arrays import as_numbers
from saliency_widgets.attribution.baselines import NAMED
from saliency_widgets.attribution.methods.integrated_gradients import TOLERANCE
from saliency_widgets.attribution.methods.smoothgrad import N_SAMPLES, constant
from saliency_widgets.attribution.numerics.completeness import unaccounted
from saliency_widgets.attribution.numerics.moments import Moments
from saliency_widgets.attribution.numerics.noise import SEED, seeded
from saliency_widgets.attribution.registry import Estimate, method
from saliency_widgets.params import Param
from saliency_widgets.runtime.arguments import Arguments, Part
from saliency_widgets.runtime.autograd import blaming
from saliency_widgets.runtime.batching import CHUNK_SIZE
from saliency_widgets.runtime.runner import Call

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
    aliases=("eg", "shap", "gradient_shap", "gradient_explainer"),
    blank="the gradients between the baselines and the input are zero, or the baselines equal the input",
)
def expected_gradients(
    call: Call, n_samples: int, baselines: object, seed: int, chunk_size: int | None
) -> Iterator[Estimate]:
    r"""Integrated Gradients averaged over many baselines, so that none decides what counts as nothing.

    .. math:: a_i = E_{x', t} \left[ (x_i - x'_i) \, \frac{\partial F(x' + t (x - x'))}{\partial x_i} \right]

    with t uniform in [0, 1] and x' drawn from ``baselines``: a name, a tensor (K, ...) of K inputs, or a list of both.
    Of several inputs, a mapping from their names to these, or a tuple with one for each: where several have K rows,
    row k of all of them is one baseline, and one that is alone goes with each.
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
    flat = ", ".join(_still(call, pool))
    notes = (f"No noise stands for {flat}: it lies between a sample's min and max, which are one.",) if flat else ()
    score = call.scores(call.inputs)
    moments = Moments(call.inputs)
    known: dict[int, Tensor] = {}  # the score of each baseline that was drawn; fresh noise counts from -1 down
    drawn = torch.zeros_like(score)
    missed: list[Tensor] = []  # by each draw, shape (n, B)
    for samples in call.chunks(n_samples, chunk_size):
        picks, starts, times = [], [], []
        for k in samples:
            generator = seeded(seed, "expected gradients", k)
            times.append(torch.rand((), generator=generator, dtype=torch.float64, device="cpu"))
            noise = int(torch.randint(2**31, (), generator=generator, device="cpu"))
            pick = int(torch.randint(len(pool), (), generator=generator, device="cpu"))
            start = pool[pick]
            fresh = any(x is None for x in (start if isinstance(start, tuple) else (start,)))
            picks.append(-1 - k if fresh else pick)
            starts.append(_start(call, start, noise))
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
        totals = (way * gradients.view_as(way)).flatten(2).sum(2)
        missed.append((totals - score + torch.stack([known[pick] for pick in picks])).double())
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
                *(_unaccounted(call, moments.mean, delta, score, missed) if moments.count == n_samples else ()),
            ),
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


Entry = Tensor | tuple[Tensor | None, ...] | None
"""A baseline that is drawn: as methods see inputs, or a tuple with one for each input; None is fresh noise."""


def _start(call: Call, entry: Entry, seed: int) -> Tensor:
    """A baseline of each sample, of the inputs' shape."""
    if entry is None:
        return call.baseline("noise", seed)
    if isinstance(entry, Tensor):
        return entry.expand_as(call.inputs)
    fresh = {part.name: "noise" for part, x in zip(call.parts, entry, strict=True) if x is None}
    pieces = zip(call.split(call.baseline(fresh, seed)), entry, strict=True)
    return torch.cat([(noise if x is None else x.expand_as(noise)).reshape(call.batch, -1) for noise, x in pieces], 1)


def _still(call: Call, pool: Sequence[Entry] | Tensor) -> list[str]:
    """The inputs that are compared with noise, and have no range for it to lie in."""
    if isinstance(pool, Tensor):
        return []
    fresh = [x for x in pool if not isinstance(x, Tensor)]
    names = set(constant(call)) if fresh else set()
    if not call.parts:
        return [] if call.pixels is not None else [*names]
    each = [part for k, part in enumerate(call.parts) if any(x is None or x[k] is None for x in fresh)]
    return [part.name for part in each if part.pixels is None and part.name in names]


def _unaccounted(call: Call, values: Tensor, delta: Tensor, score: Tensor, missed: list[Tensor]) -> tuple[str, ...]:
    """The note on what of the score's change is missing, where that is more than too few draws explain."""
    errors = torch.cat(missed)
    if len(errors) < _FEW or not bool((delta.abs() > _BEYOND * errors.std(0) / len(errors) ** 0.5).any()):
        return ()
    exact = torch.zeros_like(delta)  # more draws would bring none of it
    text = unaccounted(values, delta, score, TOLERANCE.default, error=exact, precision=call.precision, unit="samples")
    return (text,) if text else ()


_FEW, _BEYOND = 8, 5.0  # draws, whose spread says little below; standard errors, which a heavy tail underestimates


def _pool(value: Any, call: Call, seed: int) -> Sequence[Entry] | Tensor:
    """What baselines are drawn from, each broadcastable to the inputs.

    Raises:
        TypeError: Baselines of no known kind.
        ValueError: None at all, an unknown name, a shape that doesn't fit, or as many of one input as of no other.
    """
    if not call.parts and not isinstance(value, Mapping):
        return _entries(value, call, seed, None)
    named = (call.arguments or Arguments()).by_input(value, "baselines")
    if named is None:
        return _entries(value, call, seed, None)
    if not call.parts:
        return _entries(next(iter(named.values()), None), call, seed, None)
    pools = [_entries(named.get(part.name), call, seed, part) for part in call.parts]
    count = max(map(len, pools))
    if any(len(pool) not in (1, count) for pool in pools):
        counts = {part.name: len(pool) for part, pool in zip(call.parts, pools, strict=True)}
        raise ValueError(
            f"baselines: row k of each input's is drawn together, so that each must have as many rows, or one; got "
            f"{counts}."
        )
    return [tuple(pool[k % len(pool)] for pool in pools) for k in range(count)]


_DEEPEST = 8  # of lists in lists


def _entries(value: Any, call: Call, seed: int, part: Part | None, depth: int = 0) -> Sequence[Tensor | None] | Tensor:
    """The baselines of all inputs as methods see them, or those of one of several in its own shape."""
    if isinstance(value, (list, tuple)):
        if not value:
            raise ValueError("baselines: the list is empty. Give at least one, or leave it out for noise.")
        if depth == _DEEPEST:
            raise ValueError("baselines: the lists lie in each other without end. Pass one list.")
        return [entry for item in value for entry in _entries(item, call, seed, part, depth + 1)]
    if value is None or isinstance(value, str):
        name = BASELINES.check(value) or default_baselines(call)
        rows = None if call.columns is None else call.columns.rows
        if rows is not None and name == BACKGROUND:
            return rows.to(call.inputs)[:, None]
        if name == BACKGROUND:
            raise ValueError("baselines: there is no background. Pass background= rows of your data.")
        if name in (None, "noise"):
            return [None]
        try:
            whole = call.baseline(name if part is None else {part.name: name}, seed)
        except ValueError as error:
            raise ValueError(str(error).replace("baseline:", "baselines:", 1)) from error
        return [whole if part is None else call.split(whole)[call.parts.index(part)]]
    if not hasattr(value, "__array__"):
        raise TypeError(
            f"baselines: expected a name, a tensor of several inputs or a list of both, got a {type(value).__name__}."
        )
    stack = as_numbers(value, "baselines")
    seen = call.inputs if call.parts else call.split(call.inputs)[0]  # one number for each sample has shape (B,)
    one = tuple(seen.shape[1:]) if part is None else part.shape
    if stack.shape == one:
        stack = stack[None]
    if stack.ndim == 0 or tuple(stack.shape[1:]) != one or not len(stack):
        raise ValueError(_misshapen(stack, one, call, part))
    stack = stack.detach().to(call.inputs)
    if not torch.isfinite(stack).all():
        raise ValueError("baselines: they hold NaN or infinite values. Remove those inputs, or mend them.")
    return list(stack[:, None])


def _misshapen(stack: Tensor, one: tuple[int, ...], call: Call, part: Part | None) -> str:
    if call.parts and part is None:
        names = ", ".join(f"{part.name!r}: {('K', *part.shape)}".replace("'K'", "K") for part in call.parts)
        return (
            f"baselines: each of the inputs has its own. Pass a mapping from names to stacks, {{{names}}}, or a tuple "
            f"of them; got one of shape {tuple(stack.shape)}."
        )
    of = "" if part is None else f" for {part.name!r}"
    wanted = f"(K, {', '.join(map(str, one))})".replace(", )", ",)")
    return (
        f"baselines: expected a stack of shape {wanted}{of}, K inputs as the model sees them, got shape "
        f"{tuple(stack.shape)}. Put them through the transform and torch.stack them."
    )
