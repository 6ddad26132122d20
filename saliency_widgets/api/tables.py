"""``sw.shuffle`` and ``sw.importance``: the contributions of features, to one row and over many rows."""

from __future__ import annotations

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
from saliency_widgets.evaluation.explanation import values_of
from saliency_widgets.evaluation.importance import importance as importances
from saliency_widgets.evaluation.shuffling import DRAWS, REPEATS, permutation_importance
from saliency_widgets.evaluation.shuffling import shuffle as shuffled
from saliency_widgets.inputs.options import takes_options
from saliency_widgets.params import check_switch
from saliency_widgets.session.compute import neutral_modes
from saliency_widgets.session.explanation import labels_of
from saliency_widgets.session.problem import Problem
from saliency_widgets.session.request import Request

if TYPE_CHECKING:
    import pandas as pd


def _read(model: nn.Module, inputs: Any, options: dict[str, Any]) -> Problem:
    problem = Problem(model, inputs, **options)
    if problem.table is None:
        raise ValueError("inputs: expected a row of a table: a Series, a DataFrame, or numbers with feature_names=.")
    return problem


@takes_options("feature_names", "transform", "class_names", "device", "fold", "precision")
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
    **options: Any,
) -> pd.DataFrame:
    """Replace one feature of a row at a time with values from other rows, and measure the change in the score.

    Args:
        model: Any ``torch.nn.Module``; it is not changed.
        inputs: One row, as for :func:`explore`.
        background: The other rows.
        draws: The number of other rows that each feature's values are taken from.
        seed: The seed of the draw.
        target: As for :func:`attribute`.
        score: As for :func:`attribute`.
        contrast: As for :func:`attribute`.
        **options: "feature_names", "transform", "class_names", "device", "fold" and "precision", as for
            :func:`attribute`.

    Returns:
        One row per feature, largest absolute contribution first: ``value``; ``contribution``, how much higher the score
        is on average than with values of other rows; and ``error``, its standard error over the draws.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: There is more than one row, the background has different columns, values are missing, or an argument
            is out of range.
    """
    import pandas as pd

    problem = _read(model, inputs, {**options, "background": background})
    table = problem.table
    assert table is not None
    if len(table.rows) != 1:
        raise ValueError(f"inputs: expected one row, got {len(table.rows)}. Pass one of them, such as df.iloc[[0]].")
    request = Request.of(DEFAULT, {}, target=target, score=score, contrast=contrast)
    with neutral_modes():
        runner = problem.runner(problem.resolve(request)[0])
        *_, result = shuffled(runner, draws=DRAWS.check(draws), seed=SEED.check(seed))
    columns = {
        "value": table.rows.iloc[0].to_list(),
        "contribution": result.contribution.cpu().numpy(),
        "error": result.error.cpu().numpy(),
    }
    frame = pd.DataFrame(columns, index=pd.Index(table.names, name="feature"))
    return frame.sort_values("contribution", key=np.abs, ascending=False, kind="stable")


@takes_options("feature_names", "transform", "class_names", "device", "fold", "precision")
def importance(  # noqa: PLR0913
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
    params: dict[str, Any] | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Measure feature importance over many rows, by mean absolute attributions and by permutation.

    Args:
        model: Any ``torch.nn.Module``; it is not changed.
        rows: The rows to explain and permute: a DataFrame, or an array of shape (N, C).
        labels: Class indices or names of these rows, or values with ``score="value"``. Without labels, permutation
            importance is the mean absolute change in the score instead of the increase in the loss.
        method: The attribution method, as for :func:`attribute`.
        background: The rows that define baselines. Default: ``rows``.
        repeats: The number of permutations of each feature.
        seed: The seed of the permutations.
        target: As for :func:`attribute`, the same for all rows. None is the top prediction for the first row.
        score: As for :func:`attribute`.
        contrast: As for :func:`attribute`.
        progress: Whether to show a progress bar.
        params: Parameters of the method.
        **options: "feature_names", "transform", "class_names", "device", "fold" and "precision", as for
            :func:`attribute`.

    Returns:
        One row per feature, the largest ``size`` first: ``size``, the mean absolute attribution; ``mean``, the signed
        mean; ``permuted``, how much permuting the feature increases the loss (or changes the score); and
        ``permuted_std``, its standard deviation over the repeats.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: Values are missing, labels don't fit, or an argument is out of range.
    """
    import pandas as pd

    entry = get_method(method)
    chosen = entry.check_params({} if params is None else params)
    check_switch("progress", progress)
    problem = _read(model, _first(rows), {**options, "background": rows if background is None else background})
    explained = problem if background is None else _read(model, _first(rows), {**options, "background": rows})
    request = Request.of(DEFAULT, {}, target=target, score=score, contrast=contrast)
    with neutral_modes():
        resolved, _ = problem.resolve(request)
        for each in (problem, explained):  # runs the model once, which checks the class names
            _ = each.logits
        tensor, loss = labels_of(labels, explained, score)
        runner, explained_runner = problem.runner(resolved), explained.runner(resolved)
        columns, background_rows = runner.kind.columns, explained_runner.kind.background
        assert columns is not None
        assert background_rows is not None
        averages = permuted = None
        total = len(background_rows) + len(columns.names) * REPEATS.check(repeats)
        with tqdm(total=total, disable=not progress, unit="step") as bar:
            for averages in importances(runner, background_rows, partial(values_of, entry, chosen)):
                bar.update(averages.done - bar.n)
            for permuted in permutation_importance(
                explained_runner, tensor, loss, repeats=repeats, seed=SEED.check(seed)
            ):
                bar.update(len(background_rows) + permuted.done - bar.n)
    assert averages is not None
    assert permuted is not None
    measures = {
        "size": averages.size.numpy(),
        "mean": averages.mean.numpy(),
        "permuted": permuted.importance.numpy(),
        "permuted_std": permuted.increases.numpy().std(1),
    }
    frame = pd.DataFrame(measures, index=pd.Index(columns.names, name="feature"))
    return frame.sort_values("size", ascending=False, kind="stable")


def _first(rows: Any) -> Any:
    """Return the first row, in the same type of container."""
    if isinstance(rows, torch.Tensor):
        check_dense(rows, "rows")
    elif hasattr(rows, "iloc"):
        return rows.iloc[:1]
    try:
        return rows[:1]
    except (TypeError, KeyError, IndexError):
        return rows
