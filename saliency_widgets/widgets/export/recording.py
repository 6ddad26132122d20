"""The recorded settings of a saved page: their values, and the maps of all combinations."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saliency_widgets.api.grid import Grid, params_of, read_grid, read_list
from saliency_widgets.attribution import Reduction
from saliency_widgets.attribution.reduction import CHANNEL, SIGN
from saliency_widgets.attribution.registry import Method, unknown_method
from saliency_widgets.attribution.score import SCORE
from saliency_widgets.params import Param, check_mapping, unknown, value_text
from saliency_widgets.session import Problem, Request
from saliency_widgets.widgets.base.controls import AUTO, Control
from saliency_widgets.widgets.export.page import Axis, count, size_text
from saliency_widgets.widgets.map.panel import MapPanel

METHOD, TARGET = "method", "target"
HANDFUL = 5
_MOST = 10_000  # maps of a page, regardless of the limit
_SHARED = (SCORE, SIGN, CHANNEL)
_BACKWARD = 3.0  # a gradient takes about as long as three forward passes


@dataclass(frozen=True)
class PageSize:
    """The estimated size of a page.

    Attributes:
        maps: The number of maps.
        bytes: The approximate size of the file.
        seconds: The approximate time to compute the missing maps; None if no time was measured.
        new: The number of missing maps.
    """

    maps: int
    bytes: int
    seconds: float | None
    new: int

    def __str__(self) -> str:
        """Describe the size in one line."""
        if not self.new:
            return f"{count(self.maps, 'map')}, about {size_text(self.bytes)}, already computed"
        time = "" if self.seconds is None else f", about {_duration(self.seconds)} to compute"
        return f"{count(self.maps, 'map')}, about {size_text(self.bytes)}{time}"


@dataclass(frozen=True)
class Recorded:
    """A recorded setting.

    Attributes:
        name: "method", "target", "score", a parameter, "sign" or "channels".
        values: The recorded values: methods by their name in the menu, classes as indices.
        axis: The setting's control on the page.
    """

    name: str
    values: tuple[Any, ...]
    axis: Axis


@dataclass(frozen=True)
class Entry:
    """One map of the page, as its request and reduction."""

    request: Request
    reduction: Reduction


@dataclass(frozen=True)
class Plan:
    """The recorded settings and maps.

    Attributes:
        recorded: The settings with their values.
        entries: The maps, by the index on each axis, which is None for an axis that doesn't apply.
        begin: The indices with which the page opens.
    """

    recorded: tuple[Recorded, ...]
    entries: Mapping[tuple[int | None, ...], Entry]
    begin: tuple[int | None, ...]

    @property
    def requests(self) -> list[Request]:
        """The different requests, in the order of computation."""
        return list({entry.request.key: entry.request for entry in self.entries.values()}.values())

    @property
    def targets(self) -> tuple[int | None, ...]:
        """The class at each index of the axis "target"; without that axis, the class of all maps."""
        targets = next((one.values for one in self.recorded if one.name == TARGET), None)
        targets = (next(iter(self.entries.values())).request.target,) if targets is None else targets
        return tuple(target if isinstance(target, int) else None for target in targets)


def plan(panel: MapPanel, problem: Problem, record: Mapping[str, Any] | None, pace: int | None) -> Plan:
    """Plan the maps of a page.

    Args:
        panel: The controls, which hold the settings that aren't recorded.
        problem: The model and the input.
        record: For each setting a list of values, or True for a few values.
        pace: The number of rows per pass, if the controls don't set it.

    Raises:
        TypeError: ``record`` is not a mapping, a setting is unknown, or a value is of the wrong type.
        ValueError: A value is out of range or repeated, a list is empty, or there are too many values or maps.
    """
    chosen = {name: values for name, values in check_mapping("record", record).items() if values is not False}
    recorded = tuple(_Reader(panel, problem).read(chosen))
    count = math.prod(len(one.values) for one in recorded)
    if count > _MOST:
        raise ValueError(f"record: {count:,} maps exceed the limit of {_MOST:,} for one page. Record fewer values.")
    return Plan(recorded, dict(_entries(panel, recorded, pace)), _key(recorded, [one.axis.begin for one in recorded]))


def recordable(panel: MapPanel, problem: Problem) -> dict[str, int]:
    """Return the recordable settings of the displayed method, with the number of values that True stands for."""
    reader = _Reader(panel, problem)
    counts = {TARGET: len(reader.top_targets())}
    counts |= {param.name: len(reader.handful(param)) for param in reader.params() if not param.advanced}
    return {name: number for name, number in counts.items() if number > 1}


def offered(panel: MapPanel) -> dict[str, Param]:
    """Return every setting that :func:`recordable` may return for any method."""
    params = {param.name: param for entry in panel.menu.values() for param in entry.params}
    return {TARGET: Param(TARGET, None, help="The class that is explained."), **params, **{p.name: p for p in _SHARED}}


def estimate(plan: Plan, problem: Problem, there: Callable[[Request], bool], base: int, each: int) -> PageSize:
    """Estimate the size of the page.

    Args:
        plan: The recorded settings and maps.
        problem: The model and the input.
        there: A function that returns whether the map of a request is already available.
        base: The size in bytes of the page with one map.
        each: The size in bytes of each further map.
    """
    new = [request for request in plan.requests if not there(request)]
    work: dict[tuple, float] = {}  # requests that differ only in the number of passes share passes
    for request in new:
        key = request.pass_key, str(request.target), request.score
        work[key] = max(work.get(key, 0), _gradients(request))
    seconds = problem.memory.seconds * _BACKWARD * sum(work.values())
    size = base + each * (len(plan.entries) - 1)
    return PageSize(len(plan.entries), size, seconds if math.isfinite(seconds) else None, len(new))


def _gradients(request: Request) -> float:
    counts = [value for name, value in request.params if name.startswith("n_") and isinstance(value, int)]
    return math.prod(counts)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class _Reader:
    """A reader of the ``record`` argument."""

    def __init__(self, panel: MapPanel, problem: Problem) -> None:
        self._panel, self._problem = panel, problem
        self._methods: list[Method] = [panel.menu[panel.selection[METHOD]]]

    def params(self) -> list[Param]:
        """Return the recordable parameters of the recorded methods, and the score, sign and channels."""
        params = dict.fromkeys(param for entry in self._methods for param in entry.params)
        return [*params, *_SHARED]

    def read(self, record: dict[str, Any]) -> Iterator[Recorded]:
        if METHOD in record:
            yield self._of_methods(record.pop(METHOD))
        if TARGET in record:
            yield self._of_targets(record.pop(TARGET))
        by_name = {**params_of(self._methods), **{param.name: [param] for param in _SHARED}}
        for name in record:
            if name not in by_name:
                raise TypeError(unknown("record", name, [METHOD, TARGET, *by_name]) + self._whose(name))
        chosen = {name: self._values(by_name[name][0], values) for name, values in record.items()}
        grid = read_grid("record", chosen, by_name) if chosen else Grid()
        # Settings whose maps continue one another, or need no computation, vary fastest.
        order = sorted(grid, key=lambda name: (name in (SIGN.name, CHANNEL.name), by_name[name][0].continued))
        for name in order:
            yield self._recorded(by_name[name], grid[name])

    def _whose(self, name: str) -> str:
        owners = [m.title for m in self._panel.menu.values() if name in {param.name for param in m.params}]
        if not owners:
            return ""
        return f" It is a parameter of {', '.join(owners)}: record that method too, or select it first."

    def _of_methods(self, values: Any) -> Recorded:
        menu = self._panel.menu
        names = list(menu) if values is True else _listed(METHOD, values)
        for name in names:
            if name not in menu:
                raise ValueError(unknown_method(name, menu, "record: method"))
        self._methods = [menu[name] for name in names]
        labels = tuple(entry.title for entry in self._methods)
        shown = self._panel.selection[METHOD]
        begin = names.index(shown) if shown in names else 0
        return Recorded(METHOD, tuple(names), Axis(METHOD, "Method", "How attribution is computed.", labels, begin))

    def _of_targets(self, values: Any) -> Recorded:
        shown = self._panel.selection[TARGET]
        values = self.top_targets() if values is True else values
        score = self._panel.selection[SCORE.name]
        indices = [self._problem.choice(target, score) for target in _listed(TARGET, values)]
        indices = list(dict.fromkeys(indices))
        labels = tuple(self._problem.name_of(index, score) for index in indices)
        begin = indices.index(shown) if shown in indices else 0
        return Recorded(TARGET, tuple(indices), Axis(TARGET, "Target", "The class that is explained.", labels, begin))

    def top_targets(self) -> list[int]:
        """Return the most probable classes and the explained class."""
        shown, top = self._panel.selection[TARGET], [index for index, _, _ in self._panel.predictions]
        return top if shown in top or not isinstance(shown, int) else [shown, *top]

    def _values(self, param: Param, chosen: Any) -> list[Any]:
        if chosen is True:
            return list(self.handful(param))
        automatic = param.optional
        return [None if automatic and isinstance(v, str) and v == AUTO else v for v in _listed(param.name, chosen)]

    def _recorded(self, params: Sequence[Param], values: list[Any]) -> Recorded:
        param = params[0]
        numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
        ordered = numbers and len(values) > 2 and values == sorted(values)
        only = None
        if not any(param in _SHARED for param in params) and len(self._methods) > 1:
            having = [index for index, entry in enumerate(self._methods) if {*params} & {*entry.params}]
            only = None if len(having) == len(self._methods) else (METHOD, tuple(having))
        labels = tuple(_label(param, value) for value in values)
        begin = _nearest(values, self._panel.control(param).value, numbers)
        axis = Axis(param.name, param.title, param.help, labels, begin, ordered, only)
        return Recorded(param.name, tuple(values), axis)

    def handful(self, param: Param) -> tuple[Any, ...]:
        """Return a few values over the range of a control, including the current one."""
        control = self._panel.control(param)
        now = control.value
        if param.kind in ("choice", "open", "layer"):
            options = [value for _, value in control.widget.options if isinstance(value, str)]
            return _spread([None if value == AUTO else value for value in options], now, HANDFUL + 3)
        if param.kind not in ("int", "float"):
            return (now,)
        return _numbers(param, control)


def _numbers(param: Param, control: Control) -> tuple[Any, ...]:
    now, low, high = control.value, param.low, param.high
    if now is None:  # automatic
        return (None,)
    if param.kind == "int" and (param.scale == "log2" or param.continued):
        # The cost grows with the value, so never exceed the user's choice.
        halves = [int(now) >> k for k in range(HANDFUL)]
        return tuple(sorted({value for value in halves if value >= max(1, low or 1)}))
    if param.kind == "int":
        return tuple(now + k for k in range(HANDFUL - 1) if now + k <= param.limits[1])
    if low is None or high is None:
        return (now,)
    steps = [low + (high - low) * k / (HANDFUL - 1) for k in range(HANDFUL)]
    return tuple(sorted({*(float(f"{value:.6g}") for value in steps), now}))


def _spread(options: list[Any], now: Any, most: int) -> tuple[Any, ...]:
    """Return at most ``most`` evenly spaced options, plus the current one."""
    if len(options) > most:
        options = [options[round(k * (len(options) - 1) / (most - 1))] for k in range(most)]
    return tuple(options if any(option is now or option == now for option in options) else [now, *options])


def _listed(name: str, chosen: Any) -> list[Any]:
    single = isinstance(chosen, (str, int, float)) and not isinstance(chosen, bool)
    return [chosen] if single else read_list(f"record: {name}", chosen)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float))


def _nearest(values: Sequence[Any], now: Any, numbers: bool) -> int:
    for index, value in enumerate(values):
        if value is now or (_is_plain(value) and _is_plain(now) and value == now):
            return index
    if numbers and isinstance(now, (int, float)):
        return min(range(len(values)), key=lambda index: abs(values[index] - now))
    return 0


def _label(param: Param, value: Any) -> str:
    return value_text(value) + (" %" if isinstance(value, float) and param.unit == "%" else "")


def _key(recorded: Sequence[Recorded], at: Sequence[int]) -> tuple[int | None, ...]:
    """Return the indices, with None for each axis that doesn't apply."""
    where = {one.name: index for one, index in zip(recorded, at, strict=True)}

    def applies(axis: Axis) -> bool:
        return axis.only is None or where[axis.only[0]] in axis.only[1]

    return tuple(index if applies(one.axis) else None for one, index in zip(recorded, at, strict=True))


def _entries(
    panel: MapPanel, recorded: Sequence[Recorded], pace: int | None
) -> Iterator[tuple[tuple[int | None, ...], Entry]]:
    seen: set[tuple[int | None, ...]] = set()
    for at in itertools.product(*(range(len(one.values)) for one in recorded)):
        key = _key(recorded, at)
        if key in seen:
            continue
        seen.add(key)
        changes = {one.name: one.values[index] for one, index in zip(recorded, key, strict=True) if index is not None}
        yield key, Entry(panel.request(changes).with_chunk_size(pace), panel.reduction_of(changes))
