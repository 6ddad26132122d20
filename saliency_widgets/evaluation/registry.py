"""The registry of trust tests.

A test is one file in ``evaluation/`` with a generator of running results, decorated with :func:`trust_test`. Its tab in
the explorers, its columns in ``sw.evaluate`` and its metrics in ``sw.sweep`` are created from that.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from saliency_widgets.attribution import Attribution, Kind
from saliency_widgets.attribution.numerics.quadrature import coarse_to_fine
from saliency_widgets.attribution.registry import discovered
from saliency_widgets.evaluation.explanation import Explanation
from saliency_widgets.params import Param
from saliency_widgets.runtime.runner import Runner

Need = Literal["map", "region", "background"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Running:
    """An estimate that is valid on its own and is refined by the next one.

    Attributes:
        done: The number of finished units of work: points, draws, maps or rows.
        total: The total number of units of work.
    """

    done: int = 1
    total: int = 1

    @property
    def complete(self) -> bool:
        """Return whether all units of work are finished."""
        return self.done >= self.total


@dataclass(frozen=True)
class Columns:
    """The numbers that ``sw.evaluate`` reads from one run of a test.

    Attributes:
        numbers: By column, a function from the last result (None if the test yielded none) to a number. It raises a
            ValueError with the reason if the number is undefined.
        settings: Fixed arguments of this run, which the user can't change.
    """

    numbers: Mapping[str, Callable[[Any], float]]
    settings: Mapping[str, Any] = field(default_factory=dict)


def defined(value: float, why: str) -> float:
    """Return the number of a column.

    Raises:
        ValueError: The number is NaN; the message is ``why``.
    """
    if value != value:
        raise ValueError(why)
    return value


@dataclass(frozen=True, eq=False)
class Measured:
    """A finished map of one input, with the data needed to measure it.

    Attributes:
        explanation: The map, and the model behind it.
        attribution: The method's result.
        seconds: The time that the map took, in seconds.
        peak: Measures the peak memory in MiB; NaN if unknown.
        settings: The parameters of trust tests.
    """

    explanation: Explanation
    attribution: Attribution
    seconds: float
    peak: Callable[[], float]
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Metric:
    """A number computed from a map, by which ``sw.sweep`` compares settings.

    Attributes:
        name: The name in code.
        title: The name in the interface.
        better: Whether high or low values are better.
        help: A description in one sentence.
        measure: Computes the number, NaN if undefined; None for a metric that compares with a finer map.
        cost: Whether the metric is a cost rather than a quality.
        exact: Whether the number is the same on another machine.
        unit: The unit of the number.
    """

    name: str
    title: str
    better: Literal["high", "low"]
    help: str
    measure: Callable[[Measured], float] | None
    cost: bool = False
    exact: bool = True
    unit: str = ""


@dataclass(frozen=True, eq=False)
class TrustTest:
    """A test of whether a map can be trusted.

    Attributes:
        name: The identifier of the test.
        title: The title of its tab.
        run: The generator: (explanation, **params) -> running results.
        params: Its parameters; the panel has a control for each that is not advanced.
        how_to_read: Instructions for reading its view; by kind of input where they differ. "{noun}" and "{feature}" are
            the kind's words.
        kinds: The kinds of input whose explorers show it; all if empty. ``sw.evaluate`` runs every test with columns.
        needs: Requirements: inputs whose attributions are drawn as a map, a marked region, or the rows of a background.
        columns: The columns in ``sw.evaluate``, one entry for each run.
        metrics: The metrics in ``sw.sweep``.
        of_map: Whether it tests the map, and not only the score.
        urgent: Whether the user waits for the result, as for the score under a brush.
        view: The name of its view in ``widgets/trust/``; "numbers" lists its columns.
        order: The sort key of tabs and columns, before the name.
    """

    name: str
    title: str
    run: Callable[..., Iterator[Any]]
    params: tuple[Param, ...]
    how_to_read: str | Mapping[str, str]
    kinds: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()
    columns: tuple[Columns, ...] = ()
    metrics: tuple[Metric, ...] = ()
    of_map: bool = True
    urgent: bool = False
    view: str = "numbers"
    order: int = 0

    def fits(self, kind: Kind) -> bool:
        """Return whether explorers of a kind of input show the test."""
        return (not self.kinds or kind.name in self.kinds) and (kind.drawn or "map" not in self.needs)

    def reading(self, kind: Kind) -> str:
        """Return the instructions for reading the view, for a kind of input."""
        how = self.how_to_read
        text = how if isinstance(how, str) else how.get(kind.name, next(iter(how.values())))
        return text.format(noun=kind.noun, feature=kind.feature)

    def begin(self, explanation: Explanation, values: Mapping[str, Any], **settings: Any) -> Iterator[Any]:
        """Start the test.

        Args:
            explanation: The map.
            values: Parameter values by name, possibly including those of other tests; missing ones have their default.
            **settings: Further arguments of the run.
        """
        params = {param.name: values.get(param.name, param.default) for param in self.params}
        return self.run(explanation, **{**params, **settings})


def trust_test(
    name: str, *, columns: Mapping[str, Callable[[Any], float]] | tuple[Columns, ...] = (), **fields: Any
) -> Callable[[Callable[..., Iterator[Any]]], TrustTest]:
    """Turn a generator into a :class:`TrustTest`; a mapping as ``columns`` holds the numbers of a single run."""
    runs = (Columns(columns),) if isinstance(columns, Mapping) else columns
    return lambda run: TrustTest(name, run=run, columns=runs, **fields)


def trust_tests() -> dict[str, TrustTest]:
    """Return the trust tests of all modules in ``evaluation/``, by name."""
    tests = discovered("saliency_widgets.evaluation", TrustTest)
    return {test.name: test for test in sorted(tests, key=lambda test: (test.order, test.name))}


def refined(
    runner: Runner,
    count: int,
    compute: Callable[[list[int]], tuple[Tensor, ...]],
    *,
    key: Callable[[list[int]], Hashable],
    first: Sequence[int],
    chunk_size: int | None,
) -> Iterator[tuple[list[int], list[Tensor]]]:
    """Compute the points of a line chunk by chunk: the ends first, then the points between them.

    Args:
        runner: The runner that chooses the rows per pass, and caches the results of passes.
        count: The number of points.
        compute: Maps the indices of some points to tensors with one row per point.
        key: Returns the cache key for these indices.
        first: The numbers of points in the first passes.
        chunk_size: Rows per pass.

    Yields:
        The indices of the points computed so far, in order, and the tensors with one row for each.
    """
    order = coarse_to_fine(count)
    rows: dict[int, tuple[Tensor, ...]] = {}
    for chunk in runner.chunks(count, chunk_size, first=first):
        indices = [order[k] for k in chunk]
        values = runner.once(key(indices), lambda indices=indices: compute(indices))
        rows.update(zip(indices, zip(*values, strict=True), strict=True))
        indices = sorted(rows)
        yield indices, [torch.stack(column) for column in zip(*(rows[k] for k in indices), strict=True)]
