"""Errors for scores and gradients that aren't finite, naming the cause among the inputs that a method generates."""

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
    """Raise an error that names the inputs if scores or gradients in this block aren't finite.

    Args:
        query: The model and the caller's inputs, which are checked first.
        argument: The argument that the other inputs in the block derive from.
        points: Some of these other inputs, each with a name, of shape (K * B, ...), checked next.
        elsewhere: The name of the remaining ones.
        remedy: Advice for the user.

    Raises:
        NotFinite: Scores or gradients in the block aren't finite.
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
    """Raise an error if scores or gradients between a baseline and the inputs aren't finite, naming the location.

    Args:
        query: The model and its inputs.
        start: The baseline of each sample, of the inputs' shape.
        baseline: The baseline as the caller passed it.
    """
    name = describe_baseline(baseline)
    points = [(f"at {name}", start)]
    if query.parts:  # one input at its baseline, the others unchanged
        sizes = [part.size for part in query.parts]
        ends, starts = query.inputs.split(sizes, 1), start.split(sizes, 1)
        for k, part in enumerate(query.parts):
            rows = torch.cat([*ends[:k], starts[k], *ends[k + 1 :]], 1)
            points.insert(k, (f"at the baseline of the input {part.name!r}", rows))
    return locate_nonfinite(query, "baseline", points, f"on the integration path from {name} to the inputs", _REMEDY)


_REMEDY = (
    "Choose another baseline: 'mean' or 'blur' for images, a typical row for tables, or a tensor for which the model "
    "returns finite scores."
)


def describe_baseline(baseline: Any) -> str:
    """Describe a baseline in words, as the caller passed it."""
    if isinstance(baseline, str):
        return f"the baseline {baseline!r}"
    if baseline is None:
        return "the default baseline"
    if isinstance(baseline, Callable) and not isinstance(baseline, Tensor):
        return "the baseline that the function returns"
    return f"the baseline that was passed (a {type(baseline).__name__})"
