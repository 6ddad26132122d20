"""``sw.shuffle`` and ``sw.importance``: what features are worth, of one row and over many, asked from Python."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from saliency_widgets.attribution import get_method
from saliency_widgets.attribution.arrays import check_dense
from saliency_widgets.attribution.numerics.noise import SEED
from saliency_widgets.attribution.registry import DEFAULT
from saliency_widgets.attribution.score import SCORE
from saliency_widgets.evaluation.importance import importance as importances
from saliency_widgets.evaluation.shuffling import DRAWS, REPEATS, permutation_importance
from saliency_widgets.evaluation.shuffling import shuffle as shuffled
from saliency_widgets.params import check_switch
from saliency_widgets.session.compute import alone
from saliency_widgets.session.explanation import labels_of, values_of
from saliency_widgets.session.problem import Problem
from saliency_widgets.session.request import Request

if TYPE_CHECKING:
    import pandas as pd


def _read(model: nn.Module, inputs: Any, given: dict[str, Any]) -> Problem:
    problem = Problem(model, inputs, **given)
    if problem.table is None:
        raise ValueError("inputs: expected a row of a table: a Series, a DataFrame, or numbers with feature_names=.")
    return problem


def shuffle(
    model: nn.Module,
    inputs: Any,
    background: Any,
    *,
    draws: int = DRAWS.default,
    seed: int = SEED.default,
    target: Any = None,
    score: str = SCORE.default,
    contrast: Any = None,
    **given: Any,
) -> pd.DataFrame:
    """Take one feature of a row at a time from other rows, and see where the score goes.

    Args:
        model: Any ``torch.nn.Module``; it is left as it was found.
        inputs: One row, as for :func:`explore`.
        background: The other rows.
        draws: From how many of them each feature is taken.
        seed: Of the draw.
        target: As for :func:`attribute`.
        score: As for :func:`attribute`.
        contrast: As for :func:`attribute`.
        **given: "feature_names", "transform", "class_names", "device", "fold" and "precision", as for
            :func:`attribute`.

    Returns:
        One row a feature, the largest first: its ``value``; ``contribution``, by how much the score is higher with it
        than with other rows' values, on average; and the ``error`` of that, from the draws.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: More than one row, a background of other columns, missing values, or an argument out of range.
    """
    import pandas as pd

    problem = _read(model, inputs, {**given, "background": background})
    table = problem.table
    assert table is not None
    if len(table.rows) != 1:
        raise ValueError(f"inputs: expected one row, got {len(table.rows)}. Pass one of them, as df.iloc[[0]].")
    request = Request.of(DEFAULT, {}, target=target, score=score, contrast=contrast)
    with alone():
        runner = problem.runner(problem.resolve(request)[0])
        *_, found = shuffled(runner, draws=DRAWS.check(draws), seed=SEED.check(seed))
    columns = {
        "value": table.rows.iloc[0].to_list(),
        "contribution": found.contribution.cpu().numpy(),
        "error": found.error.cpu().numpy(),
    }
    frame = pd.DataFrame(columns, index=pd.Index(table.names, name="feature"))
    return frame.sort_values("contribution", key=np.abs, ascending=False, kind="stable")


def importance(
    model: nn.Module,
    rows: Any,
    labels: Any = None,
    *,
    method: Any = DEFAULT,
    background: Any = None,
    repeats: int = REPEATS.default,
    seed: int = SEED.default,
    target: Any = None,
    score: str = SCORE.default,
    contrast: Any = None,
    progress: bool = True,
    feature_names: Sequence[str] | None = None,
    params: dict[str, Any] | None = None,
    **given: Any,
) -> pd.DataFrame:
    """Which features matter over many rows: mean absolute attributions, beside permutation importance.

    Args:
        model: Any ``torch.nn.Module``; it is left as it was found.
        rows: The rows that are explained and permuted: a DataFrame, or an array (N, C).
        labels: Of these rows, class indices or names, or values with ``score="value"``; without them, permuting tells
            by how much the score moves, instead of the loss.
        method: How rows are explained.
        background: What baselines come from; the rows themselves unless given.
        repeats: How many permutations.
        seed: Of the permutations.
        target: As for :func:`attribute`; of all rows the same. None is the top prediction of the first row.
        score: As for :func:`attribute`.
        contrast: As for :func:`attribute`.
        progress: Whether a progress bar is shown.
        feature_names: The columns' names, where the rows don't have them.
        params: Parameters of the method.
        **given: "transform", "class_names", "device", "fold" and "precision", as for :func:`attribute`.

    Returns:
        One row a feature, the largest attributions first: ``size``, their mean absolute attribution; ``mean``, with its
        sign; ``permuted``, by how much permuting the feature raises the loss (or moves the score), and ``permuted_std``
        over the repeats.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: Missing values, labels that don't fit, or an argument out of range.
    """
    import pandas as pd

    entry = get_method(method)
    chosen = entry.check_params({} if params is None else params)
    check_switch("progress", progress)
    about = {**given, "feature_names": feature_names}
    problem = _read(model, _first(rows), {**about, "background": rows if background is None else background})
    many = problem if background is None else _read(model, _first(rows), {**about, "background": rows})
    request = Request.of(DEFAULT, {}, target=target, score=score, contrast=contrast)
    with alone():
        resolved, _ = problem.resolve(request)
        for each in (problem, many):  # each runs the model once, which checks the names and fits them to the classes
            each.logits_at(each.version())
        known, loss = labels_of(labels, many, value=score == "value")
        runner, other = problem.runner(resolved), many.runner(resolved)
        assert runner.columns is not None
        around = None if other.columns is None else other.columns.rows
        assert around is not None
        means = moved = None
        total = len(around) + len(runner.columns.names) * REPEATS.check(repeats)
        with tqdm(total=total, disable=not progress, unit="step") as bar:
            for means in importances(runner, around, partial(values_of, entry, chosen)):
                bar.update(means.done - bar.n)
            for moved in permutation_importance(other, known, loss, repeats=repeats, seed=SEED.check(seed)):
                bar.update(len(around) + moved.done - bar.n)
    assert means is not None
    assert moved is not None
    found = {
        "size": means.size.numpy(),
        "mean": means.mean.numpy(),
        "permuted": moved.importance.numpy(),
        "permuted_std": moved.increases.numpy().std(1),
    }
    frame = pd.DataFrame(found, index=pd.Index(runner.columns.names, name="feature"))
    return frame.sort_values("size", ascending=False, kind="stable")


def _first(rows: Any) -> Any:
    """The first of some rows, in the form in which they came."""
    if isinstance(rows, torch.Tensor):
        check_dense(rows, "rows")
    elif hasattr(rows, "iloc"):
        return rows.iloc[:1]
    try:
        return rows[:1]
    except (TypeError, KeyError, IndexError):
        return rows
