"""Checks whether the rows of a batch are independent samples or parts of one (nodes of a graph, sequence steps)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from saliency_widgets.attribution.errors import Cancelled, OneForAll
from saliency_widgets.attribution.numerics.noise import seeded
from saliency_widgets.attribution.score import is_function, is_single, scores_in
from saliency_widgets.runtime.model.isolation import is_training, rebind
from saliency_widgets.runtime.model.walker import modules_of
from saliency_widgets.runtime.passes import Passes

_ONE_FOR_ALL = (
    "The model, or the function that was passed as target=, returns one number for a whole batch, so copies of the "
    "input run one at a time, which is slower."
)
_MIXED = (
    "Other rows in the batch change the score of the input (attention, a softmax or a recurrence along the batch "
    "dimension?), so copies of the input run one at a time. If this is unintended, look for batch_first."
)
COUPLED = "The rows influence each other, as nodes of a graph or steps of a sequence do"
_SUM = (
    f"{COUPLED}: they are not independent samples. The sum of their scores is explained; score and delta refer to it. "
    f"To explain one row, pass target= a function that returns one number, such as lambda out: out[0, 1]."
)
_ONE = f"{COUPLED}: all rows are explained together; score and delta refer to the number that target= returns."


_SURE = ("probability", "log_probability")  # saturated values hide the influence of other rows
_MOST = 32  # rows that are checked
_UNSEEN = (
    "A row's score changes without the other rows, though no gradient connects them (detach, no_grad): maps don't show "
    "this influence, and the completeness delta doesn't include it."
)


def by_samples(passes: Passes, scores: Tensor | None = None) -> tuple[Passes, tuple[str, ...]]:
    """Return passes of independent samples: of all rows as one sample, if the rows influence each other.

    The rows count as samples if half of them, 32 at most, and a single row score the same without the others, which
    costs a forward pass of each. Otherwise the gradients decide: see :func:`coupled`.

    Args:
        passes: The model and its rows.
        scores: The scores of the rows, if known.

    Returns:
        The same passes, or passes with all rows as one sample, see :attr:`.Passes.joint`; and notes for the user.

    Raises:
        ValueError: The rows influence each other, and the target is a function that returns a score for each row,
            several inputs are explained together, or a row is a single number.
    """
    if passes.batch == 1:
        return passes, ()
    if is_function(passes.score.target):
        return _by_function(passes)
    apart = _apart(passes, scores)
    if apart:
        return passes, ()
    if coupled(passes):
        return _together(passes), (_SUM,)
    return passes, (_UNSEEN,) if apart is False and _settled(passes) else ()


def coupled(passes: Passes, read: Callable[[Any], Tensor | None] | None = None) -> bool:
    """Return whether the score of a row depends on another row.

    If scores are independent, the gradient of their weighted sum is the gradient of their sum, times the weight of each
    row. The weights are powers of two, so that multiplying by them is exact. BatchNorm layers run in eval mode: rows
    that only a BatchNorm in training mode couples are samples.

    Args:
        passes: The model and its rows.
        read: A function from the model's output to one number for each row; by default, the score of the passes.
    """
    try:
        with passes.isolated() as model:
            for module in model.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
            leaf = passes.inputs.detach().requires_grad_(True)
            rows = range(passes.batch)
            scores = passes.score_rows(model, leaf, rows) if read is None else read(passes.output(model, leaf, rows))
            if scores is None:
                return True
            order = torch.randperm(passes.batch, generator=seeded(0, "weights of rows"), device="cpu")
            weights = 2.0 ** (order % 7 - 3).to(scores)  # shuffled, because groups of rows might share a period
            plain, weighted = (
                torch.autograd.grad(one.sum(), leaf, retain_graph=True) for one in (scores, weights * scores)
            )
    except Cancelled:
        raise
    except Exception:
        return False  # the method's own pass reports the error, or is split if memory runs out
    expected = plain[0] * weights.to(leaf).view(-1, *[1] * (leaf.ndim - 1))
    rounding = _rounding(passes, leaf) * float(expected.abs().max())
    return bool(((weighted[0] - expected).abs() > rounding).any())


def why_apart(passes: Passes, rows: Tensor) -> str:
    """Return why copies of the one sample may not share a pass; empty if they may.

    They may not if they change each other's scores, as a softmax or attention over the batch does, or if all of them
    get a single score.

    Args:
        passes: The model and one sample.
        rows: Copies of the sample that would share a pass, shape (K, ...). The last one is also run alone, because
            the influence of a model that runs forward over the rows, such as a recurrent network, reaches it.
    """
    if passes.score.scale in _SURE:
        passes = replace(passes, score=replace(passes.score, scale="logit"))
    pair = torch.stack([rows[0], rows[-1]])
    try:
        with passes.isolated() as model, torch.no_grad():
            alone = passes.plain.score_rows(model, pair[1:], range(1))
    except Cancelled:
        raise
    except Exception:
        return ""  # the method's own pass reports the error
    try:
        with passes.isolated() as model, torch.no_grad():
            together = passes.plain.score_rows(model, pair, range(2))
    except Cancelled:
        raise
    except OneForAll:
        return _ONE_FOR_ALL
    except Exception:
        return ""
    if not bool((together[1] - alone[0]).abs() > _rounding(passes, together) * together.abs().max()):
        return ""
    mixed = coupled(passes.on(pair)) if pair.is_floating_point() else _settled(passes)
    return _MIXED if mixed else ""


def _rounding(passes: Passes, like: Tensor) -> float:
    """Return the relative tolerance for equal numbers, from the coarsest type that they may have been computed in."""
    weights = (weight for module in modules_of(passes.model) for weight in module._parameters.values())
    types = {t.dtype for t in (like, passes.inputs, *weights) if t is not None and t.is_floating_point()}
    return min(1e3 * max((torch.finfo(kind).eps for kind in types), default=0.0), 1e-2)


def _apart(passes: Passes, scores: Tensor | None) -> bool | None:
    """Return whether half of the rows, and one row alone, score the same without the others.

    The half is drawn at random, so that parts of one sample, such as the instances of a bag, are mostly separated,
    wherever they are in the batch. None if rows can't run alone, such as graph nodes whose edges refer to other rows.
    """
    if passes.score.scale in _SURE:
        passes, scores = replace(passes, score=replace(passes.score, scale="logit")), None
    drawn = torch.randperm(passes.batch, generator=seeded(0, "rows"), device="cpu")[: min(passes.batch // 2, _MOST)]
    try:
        together = passes.scores(passes.inputs) if scores is None else scores
        rounding = _rounding(passes, together) * together.abs().max()
        for rows in (sorted(drawn.tolist()), [passes.batch // 2]):
            with passes.isolated() as model, torch.no_grad():
                alone = passes.plain.score_rows(model, passes.inputs[rows], rows)
            if bool(((alone - together[rows]).abs() > rounding).any()):
                return False
    except Cancelled:
        raise
    except Exception:
        return None
    return True


def _settled(passes: Passes) -> bool:
    """Return whether a row's score depends only on the model's inputs: no training mode, no random draws."""
    if is_training(passes.model):
        return False
    return torch.equal(passes.scores(passes.inputs), passes.scores(passes.inputs, seed=1))


def _by_function(passes: Passes) -> tuple[Passes, tuple[str, ...]]:
    """Handle a target that is a function: one number for all rows makes them one sample if they are coupled."""
    try:
        with passes.isolated() as model, torch.no_grad():
            output = passes.output(model, passes.inputs, range(passes.batch))
            value = rebind(model, passes.score.target)(output)  # type: ignore[operator]
    except Cancelled:
        raise
    except Exception:
        return passes, ()  # the method's own pass reports the error
    if not isinstance(value, Tensor):
        return passes, ()
    listed = isinstance(output, (list, tuple)) and len(output) == passes.batch  # of each sample, as from detectors
    if is_single(value) and not listed and coupled(passes, lambda output: _by_row(output, passes.batch)):
        return _together(passes), (_ONE,)
    each = tuple(value.shape) in ((passes.batch,), (passes.batch, 1))
    if each and not _apart(passes, value.reshape(-1)) and coupled(passes):
        raise ValueError(
            f"target: the function returns a score for each of the {passes.batch} rows. {COUPLED}, so one map can't "
            f"separate these scores. Return one number, such as out[0, 1] for one row or out[:, 1].sum() for their sum."
        )
    return passes, ()


def _by_row(output: Any, rows: int) -> Tensor | None:
    """Return one number for each row of the model's output; None if the output has no such rows."""
    try:
        scores = scores_in(output, rows)
    except TypeError:
        return None
    if scores.ndim == 0 or len(scores) != rows or not scores.is_floating_point():
        return None
    flat = scores.flatten(1)
    # Weighted, because the plain sum after a softmax is always 1.
    return flat @ torch.linspace(1, 2, flat.shape[1], device=flat.device, dtype=flat.dtype)


def _together(passes: Passes) -> Passes:
    if passes.arguments is not None and any(part.shape == () for part in passes.arguments.parts):
        raise ValueError(
            f"inputs: {COUPLED}, and each row is a single number. Pass shape (N, 1), and let the model squeeze it."
        )
    if passes.parts:
        names = [part.name for part in passes.parts]
        raise ValueError(f"explain: {COUPLED}, so only one input can be explained at a time. Choose one of {names}.")
    return replace(passes, inputs=passes.inputs[None], joint=True)
