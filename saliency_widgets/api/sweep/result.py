"""The result of a sweep: a table, the maps, and a recommendation."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from saliency_widgets.api.sweep.arguments import FINEST, refining
from saliency_widgets.api.sweep.cells import CellResult
from saliency_widgets.attribution.registry import Method
from saliency_widgets.evaluation.choice import WITHIN, cheapest, knee, losses
from saliency_widgets.evaluation.metrics import METRICS
from saliency_widgets.evaluation.registry import Metric
from saliency_widgets.evaluation.similarity import spearman
from saliency_widgets.markup import element, joined
from saliency_widgets.params import Param, brief, check_choice, check_list, unknown
from saliency_widgets.session.problem import Problem
from saliency_widgets.session.request import Request

if TYPE_CHECKING:
    import pandas as pd

_PLAIN = (bool, int, float, str, type(None))
_ROWS = 30  # of the table in a notebook


@dataclass(frozen=True, eq=False, repr=False)
class Sweep:
    """The result of ``sw.sweep``: settings of a method, each measured on several inputs.

    Attributes:
        method: The method.
        grid: The values of each parameter.
        settings: All combinations of these values, in the order of the grid.
        fixed: The method's other parameters, as passed.
        metrics: The measured metrics.
        cells: The results, by (index of the input, index of the setting).
        images: Each input as the model saw it, uint8 (H, W, 3); None if it is not an image.
        quality: The metric to choose settings by.
        cost: The metric to minimize.
        within: How much worse than the best the choice may be, as a fraction of the best.
        subjects: Each input that is drawn, but not as an image: its problem and what is explained; otherwise None.
    """

    method: Method
    grid: Mapping[str, Sequence[Any]]
    settings: Sequence[Mapping[str, Any]]
    fixed: Mapping[str, Any]
    metrics: Sequence[Metric]
    cells: Mapping[tuple[int, int], CellResult]
    images: Sequence[np.ndarray | None]
    quality: str
    cost: str
    within: float = WITHIN.default
    subjects: Sequence[tuple[Problem, Request] | None] = ()

    @property
    def inputs(self) -> int:
        """The number of inputs."""
        return len(self.images)

    @cached_property
    def table(self) -> pd.DataFrame:
        """The results, one row per input and setting: the parameters, the metrics, and any error."""
        import pandas as pd

        rows = []
        for (index, setting), result in sorted(self.cells.items()):
            numbers = {metric.name: self.number_of(index, setting, metric.name) for metric in self.metrics}
            rows.append({"input": index, **self._written(setting), **numbers, "error": result.error})
        return pd.DataFrame(rows, columns=["input", *self.grid, *(metric.name for metric in self.metrics), "error"])

    @cached_property
    def summary(self) -> pd.DataFrame:
        """The means of the metrics over the inputs, one row per setting.

        Inputs without any number for a metric are excluded; NaN if another input has no number for the setting.
        """
        import pandas as pd

        means = {metric.name: self._means(metric.name) for metric in self.metrics}
        return pd.DataFrame([self._written(k) for k in range(len(self.settings))], columns=[*self.grid]).assign(**means)

    def map_of(self, number: int = 0, **setting: Any) -> np.ndarray:
        """Return a map as it would be displayed.

        Args:
            number: The index of the input.
            **setting: One value for each parameter of the grid.

        Returns:
            The map before clipping and coloring, float32: shape (H, W) as the model sees it, (F,) for a row, (T,) for a
            text, (C, T) for a signal, or (D, H, W) for a volume.

        Raises:
            ValueError: No such cell exists, or it failed.
        """
        number = self._check_index("number", number, self.inputs)
        result = self.cells.get((number, self._setting_index(setting)))
        if result is None or result.values is None:
            reason = f"; inputs are numbered from 0 to {self.inputs - 1}." if result is None else f": {result.error}"
            raise ValueError(f"map_of: there is no map for input {number} and {_named(setting)}{reason}")
        return result.values

    def with_numbers(self) -> Sweep:
        """Return the sweep without metrics that have no numbers, and with a quality that has some."""
        metrics = [m for m in self.metrics if m.name == self.cost or not np.isnan(self._means(m.name)).all()]
        qualities = [m.name for m in metrics if not m.cost]
        quality = self.quality if self.quality in qualities or not qualities else qualities[0]
        return replace(self, metrics=metrics, quality=quality) if qualities else self

    def by(self, quality: str | None = None, cost: str | None = None, within: float | None = None) -> Self:
        """Return the same measurements, with settings chosen by other criteria.

        Args:
            quality: A metric that is not a cost. Default: unchanged.
            cost: A metric that is a cost. Default: unchanged.
            within: How much worse than the best the choice may be, as a fraction of the best. Default: unchanged.

        Raises:
            ValueError: A metric was not measured, or the tolerance is out of range.
        """
        for argument, name, is_cost in (("quality", quality, False), ("cost", cost, True)):
            if name is not None:
                check_choice(argument, name, [metric.name for metric in self.metrics if metric.cost == is_cost])
        tolerance = self.within if within is None else WITHIN.check(within)
        return replace(self, quality=quality or self.quality, cost=cost or self.cost, within=tolerance)

    @cached_property
    def groups(self) -> dict[str, list[int]]:
        """Indices of settings that differ only in samples or steps, coarsest first, by their shared parameters."""
        shared = [name for name in self.grid if name not in self.refining]
        groups: dict[str, list[int]] = {}
        for k in range(len(self.settings)):
            groups.setdefault(self.describe(k, shared), []).append(k)
        for indices in groups.values():
            indices.sort(key=lambda k: tuple(self.settings[k][name] for name in self.refining))
        return groups

    @property
    def recommended(self) -> dict[str, Any]:
        """The recommended setting: the cheapest whose quality is within the tolerance of the best.

        Apply it by ``explorer.update(method=sweep.method.name, **sweep.recommended)``. Empty if nothing was measured.
        """
        index = self.choice
        return {} if index is None else {**self.fixed, **self.settings[index]}

    @cached_property
    def choice(self) -> int | None:
        """The index of the recommended setting; None if no setting was measured."""
        return cheapest(*self._measured, self._better, self.within)

    @cached_property
    def bend(self) -> int | None:
        """The index of the setting at the knee; None if the settings have no knee."""
        return knee(*self._measured, self._better)

    @property
    def knee(self) -> dict[str, Any]:
        """The setting beyond which higher cost gains little; see :func:`~saliency_widgets.evaluation.choice.knee`."""
        index = self.bend
        return {} if index is None else {**self.fixed, **self.settings[index]}

    @property
    def words(self) -> str:
        """The recommendation in one sentence."""
        quality, cost = self._measured
        index = self.choice
        if index is None:
            return f"No setting could be measured on all inputs: {self._failures()}"
        loss = losses(quality, self._better)
        best = min(np.flatnonzero(loss == 0).tolist(), key=lambda k: cost[k])
        title, chosen = METRICS[self.quality].title.lower(), _capital(self.describe(index))
        if index == best and len(self.settings) == 1:
            return f"{chosen}: the only setting, with {quality[index]:.3g} in {title}."
        if index == best:
            return (
                f"{chosen}: the best {title} in the grid ({quality[index]:.3g}), and no cheaper setting comes within "
                f"{self.within:.0%} of it."
            )
        share = cost[index] / cost[best] if cost[best] else 1.0
        return (
            f"{chosen}: within {_percent(loss[index])} of {self.describe(best)} in {title} "
            f"({quality[index]:.3g} against {quality[best]:.3g}), at {share:.2g} of the cost in "
            f"{METRICS[self.cost].title.lower()}."
        )

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """Caveats about the recommendation."""
        notes = []
        failed = sum(bool(result.error) for result in self.cells.values())
        if failed:
            notes.append(f"{failed} of {len(self.cells)} cells failed: {self._failures()}")
        others = [name for name in self.grid if name not in self.refining]
        if self.quality == FINEST and others:
            notes.append(
                f"Similarity compares maps of equal {' and '.join(others)}: it can't tell which of those is better. "
                f"metrics=['insertion', 'similarity'] can."
            )
        silent = int(np.isnan(self._numbers(self.quality)).all(1).sum())
        if silent:
            notes.append(
                f"{silent} of {self.inputs} inputs have no {METRICS[self.quality].title.lower()}, and are not counted."
            )
        notes += self._edges()
        if self.inputs == 1:
            notes.append("Only one input was measured: another may need other settings.")
        return tuple(notes)

    def describe(self, number: int, names: Collection[str] | None = None) -> str:
        """Return a setting as text, such as "noise level 0.12, 32 samples".

        Args:
            number: The index of the setting.
            names: The parameters to include. Default: all.

        Raises:
            TypeError, ValueError: No such setting or parameter exists.
        """
        number = self._check_index("number", number, len(self.settings))
        if names is not None:
            names = [check_choice("names", name, list(self.grid)) for name in check_list("names", names, "['seed']")]
        named = {param.name: param for param in self.method.params}
        chosen = {name: value for name, value in self._written(number).items() if names is None or name in names}
        return ", ".join(named[name].describe(value) for name, value in chosen.items())

    def _written(self, number: int) -> dict[str, Any]:
        """Return a setting's values for a table, with objects named by their type and position in the grid."""
        setting = zip(self.grid, self._at(number), self.settings[number].values(), strict=True)
        return {name: v if isinstance(v, _PLAIN) else f"{type(v).__name__} {at + 1}" for name, at, v in setting}

    def __repr__(self) -> str:
        """Return a one-line description of the sweep."""
        return f"Sweep({self.method.name!r}, {len(self.settings)} settings x {self.inputs} inputs: {self.words})"

    def _repr_html_(self) -> str:
        parts = element("p", element("b", self.words)), element("ul", *(element("li", note) for note in self.notes))
        ranked = self.summary.sort_values(self.quality, ascending=self._better == "low", kind="stable")
        return joined(parts) + ranked.to_html(max_rows=_ROWS, index=False)

    def _edges(self) -> list[str]:
        """Return notes on parameters whose chosen value is at the edge of the grid, as a better one may lie beyond."""
        if self.choice is None:
            return []
        notes = []
        for param in self.method.params:
            values = self.grid.get(param.name, ())
            if param.name in self.refining:
                if self.settings[self.choice][param.name] == max(values) != param.limits[1]:
                    notes.append(
                        f"{_capital(param.describe(max(values)))} are the most in the grid: only a larger number would "
                        f"show whether they are enough."
                    )
                continue
            if len(values) < 2 or not all(isinstance(v, (int, float)) for v in values):
                continue
            chosen = self.settings[self.choice][param.name]
            if chosen in (min(values), max(values)) and chosen not in param.limits:
                last, next_one = ("smallest", "smaller") if chosen == min(values) else ("largest", "larger")
                notes.append(
                    f"{_capital(param.describe(chosen))} is the {last} in the grid: a {next_one} one may be better."
                )
        return notes

    @property
    def _better(self) -> Any:
        return METRICS[self.quality].better

    @property
    def _measured(self) -> tuple[list[float], list[float]]:
        return self.summary[self.quality].tolist(), self.summary[self.cost].tolist()

    @property
    def refining(self) -> list[str]:
        """The parameters of the grid that only refine the map, such as samples and steps."""
        return [param.name for param in refining(self.method) if param.name in self.grid]

    def _at(self, number: int) -> tuple[int, ...]:
        """Return the position of each value of a setting in the grid."""
        return _grid_indices(self.grid, number)

    def number_of(self, index: int, setting: int, metric: str) -> float:
        """Return the value of a metric for an input and a setting, both by index; NaN if it is missing.

        Raises:
            TypeError, ValueError: No such input, setting or metric exists.
        """
        index = self._check_index("index", index, self.inputs)
        setting = self._check_index("setting", setting, len(self.settings))
        check_choice("metric", metric, list(METRICS))
        result = self.cells.get((index, setting))
        return float("nan") if result is None else result.numbers.get(metric, float("nan"))

    @staticmethod
    def _check_index(argument: str, number: Any, count: int) -> int:
        return Param(argument, 0, low=0, high=count - 1, kind="int").check(number)

    def _numbers(self, metric: str) -> np.ndarray:
        """Return the values of a metric, shape (inputs, settings)."""
        settings = range(len(self.settings))
        return np.array([[self.number_of(index, k, metric) for k in settings] for index in range(self.inputs)])

    def _means(self, metric: str) -> np.ndarray:
        """Return the mean for each setting over the inputs that have any numbers, shape (settings,)."""
        numbers = self._numbers(metric)
        measured = numbers[~np.isnan(numbers).all(1)]
        return measured.mean(0) if len(measured) else np.full(len(self.settings), np.nan)

    def _setting_index(self, setting: Mapping[str, Any]) -> int:
        for name in setting:
            if name not in self.grid:
                raise ValueError(unknown("setting", name, list(self.grid)))
        fits = [k for k, other in enumerate(self.settings) if all(_same(other[n], v) for n, v in setting.items())]
        if len(fits) != 1:
            raise ValueError(
                f"setting: expected a value of the grid for each of {list(self.grid)}, got {_named(setting)}, which "
                f"{len(fits)} settings match."
            )
        return fits[0]

    def _failures(self) -> str:
        errors = dict.fromkeys(f"{result.failure}: {result.error}" for result in self.cells.values() if result.error)
        return " | ".join(list(errors)[:3]) or "the metrics are not defined for this method here."


def with_similarity(
    cells: Mapping[tuple[int, int], CellResult], grid: Mapping[str, Sequence[Any]], finer: Collection[str]
) -> dict[tuple[int, int], CellResult]:
    """Return the cells with an added similarity: the rank correlation with the finest setting that is otherwise equal.

    Args:
        cells: By (index of the input, index of the setting).
        grid: The values of each parameter.
        finer: The parameters whose largest value is the finest.
    """
    sizes = [len(values) for values in grid.values()]
    most = {name: max(range(len(grid[name])), key=grid[name].__getitem__) for name in finer}
    result = {}
    for (index, setting), cell in cells.items():
        positions = [most.get(name, at) for name, at in zip(grid, _grid_indices(grid, setting), strict=True)]
        finest = cells.get((index, int(np.ravel_multi_index(positions, sizes))))
        if cell.values is not None and finest is not None and finest.values is not None:
            similarity = spearman(torch.from_numpy(cell.values), torch.from_numpy(finest.values))
            cell = replace(cell, numbers={**cell.numbers, FINEST: similarity})
        result[index, setting] = cell
    return result


def _grid_indices(grid: Mapping[str, Sequence[Any]], number: int) -> tuple[int, ...]:
    """Return the position of each value of a setting in the grid."""
    return tuple(map(int, np.unravel_index(number, [len(values) for values in grid.values()])))


def _named(setting: Mapping[str, Any]) -> str:
    items = [
        f"{name!r}: {brief(v) if isinstance(v, _PLAIN) else f'a {type(v).__name__}'}" for name, v in setting.items()
    ]
    return f"{{{', '.join(items)}}}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a is b or (a.shape == b.shape and torch.equal(a, b))
    plain = isinstance(a, (int, float, str)) and isinstance(b, (int, float, str, np.generic))
    plain = plain and isinstance(a, bool) == isinstance(b, (bool, np.bool_))
    return a is b or (plain and bool(a == b))


def _percent(loss: float) -> str:
    return f"{max(loss, 0.001):.1%}" if loss < 0.01 else f"{loss:.0%}"
