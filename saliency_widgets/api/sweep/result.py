"""What a sweep found: a table, the maps, and what to use."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from saliency_widgets.api.sweep.arguments import FINEST, refining
from saliency_widgets.api.sweep.cells import Found
from saliency_widgets.attribution.registry import Method
from saliency_widgets.evaluation.choice import WITHIN, cheapest, knee, losses
from saliency_widgets.evaluation.metrics import METRICS, Metric
from saliency_widgets.evaluation.similarity import spearman
from saliency_widgets.markup import element, joined
from saliency_widgets.params import Param, brief, check_choice, check_list, unknown

if TYPE_CHECKING:
    import pandas as pd

_SAID = (bool, int, float, str, type(None))
_ROWS = 30  # of the table that a notebook shows


@dataclass(frozen=True, eq=False, repr=False)
class Sweep:
    """Settings of a method, each measured on some inputs.

    Attributes:
        method: The method.
        grid: The values of each parameter.
        settings: All combinations, in the order of the grid.
        fixed: The method's other parameters that were given.
        metrics: What was measured.
        cells: What was found, by (number of the input, number of the setting).
        images: What the model saw of each input, uint8 (H, W, 3); None where that is no image.
        quality: The metric that settings are chosen by.
        cost: The metric that is to be kept low.
        within: How much worse than the best the choice may be.
    """

    method: Method
    grid: Mapping[str, Sequence[Any]]
    settings: Sequence[Mapping[str, Any]]
    fixed: Mapping[str, Any]
    metrics: Sequence[Metric]
    cells: Mapping[tuple[int, int], Found]
    images: Sequence[np.ndarray | None]
    quality: str
    cost: str
    within: float = WITHIN.default

    @property
    def inputs(self) -> int:
        """How many inputs there were."""
        return len(self.images)

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row for each input and setting: the parameters, the metrics, and "error" where something went wrong."""
        import pandas as pd

        rows = []
        for (place, number), found in sorted(self.cells.items()):
            numbers = {metric.name: self.number_of(place, number, metric.name) for metric in self.metrics}
            rows.append({"input": place, **self._written(number), **numbers, "error": found.error})
        return pd.DataFrame(rows, columns=["input", *self.grid, *(metric.name for metric in self.metrics), "error"])

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row for each setting: the metrics' means over the inputs.

        An input of which a metric has no number at any setting is left out of its means. NaN where one lacks it here.
        """
        import pandas as pd

        means = {metric.name: self._means(metric.name) for metric in self.metrics}
        return pd.DataFrame([self._written(k) for k in range(len(self.settings))], columns=[*self.grid]).assign(**means)

    def map_of(self, number: int = 0, **setting: Any) -> np.ndarray:
        """A map as it would be shown.

        Args:
            number: Which input.
            **setting: A value of each parameter of the grid.

        Returns:
            float32, shape (H, W) of what the model sees, or (F,) of a row; before clipping and color.

        Raises:
            ValueError: There is no such cell, or it went wrong.
        """
        number = self._numbered("number", number, self.inputs)
        found = self.cells.get((number, self._place(setting)))
        if found is None or found.values is None:
            raise ValueError(f"map_of: there is no map for input {number} and {_named(setting)}" + (
                f": {found.error}" if found is not None else f"; inputs are numbered from 0 to {self.inputs - 1}."
            ))  # fmt: skip
        return found.values

    def with_numbers(self) -> Sweep:
        """The same without the metrics that have no number here, chosen by one that has."""
        known = [m for m in self.metrics if m.name == self.cost or not np.isnan(self._means(m.name)).all()]
        good = [m.name for m in known if not m.cost]
        quality = self.quality if self.quality in good or not good else good[0]
        return replace(self, metrics=known, quality=quality) if good else self

    def by(self, quality: str | None = None, cost: str | None = None, within: float | None = None) -> Self:
        """The same numbers, with settings chosen otherwise.

        Args:
            quality: One of the metrics.
            cost: One of those that are costs.
            within: How much worse than the best the choice may be.

        Raises:
            ValueError: It was not measured, or is out of range.
        """
        for what, name, paid in (("quality", quality, False), ("cost", cost, True)):
            known = [metric.name for metric in self.metrics if metric.cost == paid]
            if name is not None:
                check_choice(what, name, known)
        tolerance = self.within if within is None else WITHIN.check(within)
        return replace(self, quality=quality or self.quality, cost=cost or self.cost, within=tolerance)

    @cached_property
    def groups(self) -> dict[str, list[int]]:
        """The numbers of the settings that differ in samples or steps alone, the coarsest first, by what they share."""
        found: dict[str, list[int]] = {}
        for k in range(len(self.settings)):
            found.setdefault(self.told(k, [name for name in self.grid if name not in self.refining]), []).append(k)
        for places in found.values():
            places.sort(key=lambda k: tuple(self.settings[k][name] for name in self.refining))
        return found

    @property
    def recommended(self) -> dict[str, Any]:
        """The setting worth using: the cheapest whose quality is within the tolerance of the best.

        ``explorer.update(method=sweep.method.name, **sweep.recommended)`` uses it. Empty where nothing was measured.
        """
        place = self.choice
        return {} if place is None else {**self.fixed, **self.settings[place]}

    @cached_property
    def choice(self) -> int | None:
        """The number of the recommended setting; None where there is none."""
        return cheapest(*self._measured, self._better, self.within)

    @cached_property
    def bend(self) -> int | None:
        """The number of the setting at the knee; None where there is none."""
        return knee(*self._measured, self._better)

    @property
    def knee(self) -> dict[str, Any]:
        """Where paying more begins to give little: see :func:`~saliency_widgets.evaluation.choice.knee`."""
        place = self.bend
        return {} if place is None else {**self.fixed, **self.settings[place]}

    @property
    def words(self) -> str:
        """The recommendation in a sentence."""
        quality, cost = self._measured
        place = self.choice
        if place is None:
            return f"No setting could be measured on all inputs: {self._failures()}"
        lost = losses(quality, self._better)
        best = min(np.flatnonzero(lost == 0).tolist(), key=lambda k: cost[k])
        title, chosen = METRICS[self.quality].title.lower(), _capital(self.told(place))
        if place == best and len(self.settings) == 1:
            return f"{chosen}: the only setting, with {quality[place]:.3g} in {title}."
        if place == best:
            return (
                f"{chosen}: the best of the grid in {title} ({quality[place]:.3g}), and nothing cheaper comes within "
                f"{self.within:.0%} of it."
            )
        share = cost[place] / cost[best] if cost[best] else 1.0
        return (
            f"{chosen}: within {_percent(lost[place])} of {self.told(best)} in {title} "
            f"({quality[place]:.3g} beside {quality[best]:.3g}), at {share:.2g} of the cost in "
            f"{METRICS[self.cost].title.lower()}."
        )

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know before believing it."""
        notes = []
        failed = sum(bool(found.error) for found in self.cells.values())
        if failed:
            notes.append(f"{failed} of {len(self.cells)} cells went wrong: {self._failures()}")
        others = [name for name in self.grid if name not in self.refining]
        if self.quality == FINEST and others:
            notes.append(
                f"Similarity compares maps of equal {' and '.join(others)}: it can't tell which of those is better. "
                f"metrics=['insertion', 'similarity'] can."
            )
        silent = int(np.isnan(self._numbers(self.quality)).all(1).sum())
        if silent:
            notes.append(
                f"{silent} of {self.inputs} inputs have no {METRICS[self.quality].title.lower()}, and don't count."
            )
        notes += self._edges()
        if self.inputs == 1:
            notes.append("One input was looked at: another may ask for other settings.")
        return tuple(notes)

    def told(self, number: int, names: Collection[str] | None = None) -> str:
        """A setting as people say it: "noise level 0.12, 32 samples".

        Args:
            number: Which setting.
            names: Which of its parameters; all unless given.

        Raises:
            TypeError, ValueError: There is no such setting or parameter.
        """
        number = self._numbered("number", number, len(self.settings))
        if names is not None:
            names = [check_choice("names", name, list(self.grid)) for name in check_list("names", names, "['seed']")]
        named = {param.name: param for param in self.method.params}
        chosen = {name: value for name, value in self._written(number).items() if names is None or name in names}
        return ", ".join(_spoken(named[name], value) for name, value in chosen.items())

    def _written(self, number: int) -> dict[str, Any]:
        """The values for a table: what is no number and no name is told by its type and its place in the grid."""
        setting = zip(self.grid, self._at(number), self.settings[number].values(), strict=True)
        return {name: v if isinstance(v, _SAID) else f"{type(v).__name__} {at + 1}" for name, at, v in setting}

    def __repr__(self) -> str:
        """What it is about, in one line."""
        return f"Sweep({self.method.name!r}, {len(self.settings)} settings x {self.inputs} inputs: {self.words})"

    def _repr_html_(self) -> str:
        told = element("p", element("b", self.words)), element("ul", *(element("li", note) for note in self.notes))
        ranked = self.summary.sort_values(self.quality, ascending=self._better == "low", kind="stable")
        return joined(told) + ranked.to_html(max_rows=_ROWS, index=False)

    def _edges(self) -> list[str]:
        """Numbers whose best value is the last of the grid: a better one may lie beyond."""
        if self.choice is None:
            return []
        told = []
        for param in self.method.params:
            values = self.grid.get(param.name, ())
            if param.name in self.refining:
                if self.settings[self.choice][param.name] == max(values) != param.limits[1]:
                    told.append(
                        f"{_capital(_spoken(param, max(values)))} are the most of the grid: only more would tell "
                        f"whether they are enough."
                    )
                continue
            if len(values) < 2 or not all(isinstance(v, (int, float)) for v in values):
                continue
            chosen = self.settings[self.choice][param.name]
            if chosen in (min(values), max(values)) and chosen not in param.limits:
                last, next_one = ("smallest", "smaller") if chosen == min(values) else ("largest", "larger")
                told.append(
                    f"{_capital(_spoken(param, chosen))} is the {last} of the grid: a {next_one} one may be better."
                )
        return told

    @property
    def _better(self) -> Any:
        return METRICS[self.quality].better

    @property
    def _measured(self) -> tuple[list[float], list[float]]:
        return self.summary[self.quality].tolist(), self.summary[self.cost].tolist()

    @property
    def refining(self) -> list[str]:
        """The parameters of the grid that only refine: samples, steps."""
        return [param.name for param in refining(self.method) if param.name in self.grid]

    def _at(self, number: int) -> tuple[int, ...]:
        """Where a setting is in the grid: the place of each of its values."""
        return _places(self.grid, number)

    def number_of(self, place: int, setting: int, metric: str) -> float:
        """What a metric says of an input at a setting, both by their numbers; NaN where it says nothing.

        Raises:
            TypeError, ValueError: There is no such input, setting or metric.
        """
        place = self._numbered("place", place, self.inputs)
        setting = self._numbered("setting", setting, len(self.settings))
        check_choice("metric", metric, list(METRICS))
        found = self.cells.get((place, setting))
        return float("nan") if found is None else found.numbers.get(metric, float("nan"))

    @staticmethod
    def _numbered(argument: str, number: Any, count: int) -> int:
        return Param(argument, 0, low=0, high=count - 1, kind="int").check(number)

    def _numbers(self, metric: str) -> np.ndarray:
        """Of each input and setting."""
        settings = range(len(self.settings))
        return np.array([[self.number_of(place, k, metric) for k in settings] for place in range(self.inputs)])

    def _means(self, metric: str) -> np.ndarray:
        """Of each setting, over the inputs that have numbers."""
        numbers = self._numbers(metric)
        known = numbers[~np.isnan(numbers).all(1)]
        return known.mean(0) if len(known) else np.full(len(self.settings), np.nan)

    def _place(self, setting: Mapping[str, Any]) -> int:
        for name in setting:
            if name not in self.grid:
                raise ValueError(unknown("setting", name, list(self.grid)))
        fits = [k for k, known in enumerate(self.settings) if all(_same(known[n], v) for n, v in setting.items())]
        if len(fits) != 1:
            raise ValueError(
                f"setting: expected a value of the grid for each of {list(self.grid)}, got {_named(setting)}, which "
                f"{len(fits)} settings have."
            )
        return fits[0]

    def _failures(self) -> str:
        said = dict.fromkeys(f"{found.failure}: {found.error}" for found in self.cells.values() if found.error)
        return " | ".join(list(said)[:3]) or "the metrics have no value for this method here."


def with_likeness(
    cells: Mapping[tuple[int, int], Found], grid: Mapping[str, Sequence[Any]], finer: Collection[str]
) -> dict[tuple[int, int], Found]:
    """The same cells, each with its map's rank correlation with that of the finest setting that is else equal.

    Args:
        cells: By (number of the input, number of the setting).
        grid: The values of each parameter.
        finer: Those of which the largest value is the finest.
    """
    sizes = [len(values) for values in grid.values()]
    most = {name: max(range(len(grid[name])), key=grid[name].__getitem__) for name in finer}
    found = {}
    for (place, number), cell in cells.items():
        places = [most.get(name, at) for name, at in zip(grid, _places(grid, number), strict=True)]
        finest = cells.get((place, int(np.ravel_multi_index(places, sizes))))
        if cell.values is not None and finest is not None and finest.values is not None:
            like = spearman(torch.from_numpy(cell.values), torch.from_numpy(finest.values))
            cell = replace(cell, numbers={**cell.numbers, FINEST: like})
        found[place, number] = cell
    return found


def _places(grid: Mapping[str, Sequence[Any]], number: int) -> tuple[int, ...]:
    """Where a setting is in the grid: the place of each of its values."""
    return tuple(map(int, np.unravel_index(number, [len(values) for values in grid.values()])))


def _named(setting: Mapping[str, Any]) -> str:
    told = [f"{name!r}: {brief(v) if isinstance(v, _SAID) else f'a {type(v).__name__}'}" for name, v in setting.items()]
    return f"{{{', '.join(told)}}}"


def _spoken(param: Param, value: Any) -> str:
    """A value as people say it: "32 samples", "noise level 0.12"."""
    if param.kind == "int" and param.unit:
        return f"{value} {param.unit.removesuffix('s') if value == 1 else param.unit}"
    told = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{param.title[:1].lower()}{param.title[1:]} {told}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a is b or (a.shape == b.shape and torch.equal(a, b))
    plain = isinstance(a, (int, float, str)) and isinstance(b, (int, float, str, np.generic))
    plain = plain and isinstance(a, bool) == isinstance(b, (bool, np.bool_))
    return a is b or (plain and bool(a == b))


def _percent(lost: float) -> str:
    return f"{max(lost, 0.001):.1%}" if lost < 0.01 else f"{lost:.0%}"
