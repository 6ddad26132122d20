"""Scores and gradients that aren't finite, with the inputs that caused it: a method runs others than the caller's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from saliency_widgets.attribution.errors import NotFinite
from saliency_widgets.attribution.query import Query


@contextlib.contextmanager
def locate_nonfinite(
    query: Query, argument: str, points: Iterable[tuple[str, Tensor]], elsewhere: str, remedy: str
) -> Iterator[None]:
    """Where scores or gradients in this block aren't finite, raise an error that says for which inputs.

    Args:
        query: The model and its inputs, which are checked first.
        argument: The argument that the other inputs come from.
        points: Some of these, each with a name, of shape (K * B, ...).
        elsewhere: The name of all others.
        remedy: What to do.

    Raises:
        NotFinite: Scores or gradients in the block, or else those at one of the points, aren't finite.
    """
    try:
        yield
    except NotFinite as error:
        where, what = elsewhere, error.what
        query.gradient(query.inputs)
        for name, rows in points:
            try:
                query.gradient(rows)
            except NotFinite as again:
                where, what = name, again.what
                break
        raise NotFinite(
            f"{argument}: the model's {what} is NaN or infinite {where}, though not for the inputs. {remedy}", what
        ) from error


def check_integration_path(query: Query, start: Tensor, baseline: Any) -> contextlib.AbstractContextManager[None]:
    """Where scores or gradients between a baseline and the inputs aren't finite, say whether the baseline is why.

    Args:
        query: The model and its inputs.
        start: The baseline of each sample, of the inputs' shape.
        baseline: As it was passed.
    """
    name = describe_baseline(baseline)
    points = [(f"at {name}", start)]
    if query.parts:  # one input alone at its baseline, the others as they are
        sizes = [part.size for part in query.parts]
        ends, starts = query.inputs.split(sizes, 1), start.split(sizes, 1)
        for k, part in enumerate(query.parts):
            rows = torch.cat([*ends[:k], starts[k], *ends[k + 1 :]], 1)
            points.insert(k, (f"at the baseline of the input {part.name!r}", rows))
    return locate_nonfinite(query, "baseline", points, f"on the integration path from {name} to the inputs", _REMEDY)


_REMEDY = (
    "Choose another baseline: 'mean' or 'blur' for images, a typical row for tables, or a tensor on which the model "
    "gives numbers."
)


def describe_baseline(baseline: Any) -> str:
    """A baseline in words, as it was passed."""
    if isinstance(baseline, str):
        return f"the baseline {baseline!r}"
    if baseline is None:
        return "the default baseline"
    if isinstance(baseline, Callable) and not isinstance(baseline, Tensor):
        return "the baseline that the function returns"
    return f"the baseline that was passed (a {type(baseline).__name__})"
