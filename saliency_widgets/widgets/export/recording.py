"""What a saved page can step through: which settings, at which values, and the maps of all of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saliency_widgets.attribution import Reduction
from saliency_widgets.attribution.arrays import as_array
from saliency_widgets.attribution.reduction import CHANNEL, SIGN
from saliency_widgets.attribution.registry import Method, unknown_method
from saliency_widgets.attribution.score import SCORE
from saliency_widgets.params import Param, unknown
from saliency_widgets.session import Problem, Request
from saliency_widgets.widgets.base.controls import AUTO, Control
from saliency_widgets.widgets.export.page import Axis, count, size_text
from saliency_widgets.widgets.image.panel import ImagePanel

METHOD, TARGET = "method", "target"
HANDFUL = 5
_MOST = 10_000  # maps of a page, whatever the limit is
_SHARED = (SCORE, SIGN, CHANNEL)
_BACKWARD = 3.0  # a gradient takes about as long as three forward passes


@dataclass(frozen=True)
class PageSize:
    """What a page would be.

    Attributes:
        maps: How many maps.
        bytes: The size of the file, about.
        seconds: How long the maps that are not there yet take, about; None where nothing was measured.
        new: How many maps that are.
    """

    maps: int
    bytes: int
    seconds: float | None
    new: int

    def __str__(self) -> str:
        """In one line."""
        if not self.new:
            return f"{count(self.maps, 'map')}, about {size_text(self.bytes)}, computed already"
        long = "" if self.seconds is None else f", about {_duration(self.seconds)} to compute"
        return f"{count(self.maps, 'map')}, about {size_text(self.bytes)}{long}"


@dataclass(frozen=True)
class Recorded:
    """One setting that is recorded.

    Attributes:
        name: "method", "target", "score", a parameter, "sign" or "channels".
        values: Its values: methods by their name in the menu, classes as indices.
        axis: How it is shown on the page.
    """

    name: str
    values: tuple[Any, ...]
    axis: Axis


@dataclass(frozen=True)
class Entry:
    """One map of the page: what is asked, and how the answer is shown."""

    request: Request
    reduction: Reduction


@dataclass(frozen=True)
class Plan:
    """What is recorded.

    Attributes:
        recorded: The settings with their values.
        entries: The maps by their place on each axis, None where an axis doesn't matter.
        begin: Where the page opens.
    """

    recorded: tuple[Recorded, ...]
    entries: Mapping[tuple[int | None, ...], Entry]
    begin: tuple[int | None, ...]

    @property
    def questions(self) -> list[Request]:
        """The different questions, in the order in which they are to be computed."""
        return list({entry.request.key: entry.request for entry in self.entries.values()}.values())

    @property
    def targets(self) -> tuple[int | None, ...]:
        """The class at each place of the axis of targets; of all maps, where there is none."""
        found = next((one.values for one in self.recorded if one.name == TARGET), None)
        found = (next(iter(self.entries.values())).request.target,) if found is None else found
        return tuple(target if isinstance(target, int) else None for target in found)


def plan(panel: ImagePanel, problem: Problem, record: Mapping[str, Any] | None, pace: int | None) -> Plan:
    """What to compute for a page.

    Args:
        panel: The controls: what isn't recorded stays where they are.
        problem: The model and the input.
        record: Values by the names of settings, or True for a handful of them.
        pace: Rows of one pass, where the controls don't say.

    Raises:
        TypeError: ``record`` is no mapping, or a value is of the wrong type.
        ValueError: A setting that nothing here has, a value out of range, or no values.
    """
    if record is None:
        record = {}
    if not isinstance(record, Mapping):
        raise TypeError(
            f"record: expected a mapping from settings to lists of values, such as {{'noise_level': [0.05, 0.1]}}, "
            f"got a {type(record).__name__}."
        )
    found = _Reader(panel, problem).read({name: given for name, given in record.items() if given is not False})
    recorded = tuple(found)
    count = math.prod(len(one.values) for one in recorded)
    if count > _MOST:
        raise ValueError(f"record: {count:,} maps are more than the {_MOST:,} of one page. Record fewer values.")
    return Plan(recorded, dict(_entries(panel, recorded, pace)), _key(recorded, [one.axis.begin for one in recorded]))


def recordable(panel: ImagePanel, problem: Problem) -> dict[str, int]:
    """What a person can record of the method that is shown, by name, and how many values a handful of it is."""
    reader = _Reader(panel, problem)
    found = {TARGET: len(reader.top_targets())}
    found |= {param.name: len(reader.handful(param)) for param in reader.params() if not param.advanced}
    return {name: number for name, number in found.items() if number > 1}


def offered(panel: ImagePanel) -> dict[str, Param]:
    """Everything that :func:`recordable` may name, whatever method is shown."""
    own = {param.name: param for entry in panel.menu.values() for param in entry.params}
    return {TARGET: Param(TARGET, None, help="The class that is explained."), **own, **{p.name: p for p in _SHARED}}


def estimate(plan: Plan, problem: Problem, there: Callable[[Request], bool], base: int, each: int) -> PageSize:
    """What the page would be.

    Args:
        plan: What is recorded.
        problem: The model and the input.
        there: Whether a question is answered already.
        base: Bytes of the page with one map.
        each: Bytes of one more.
    """
    new = [request for request in plan.questions if not there(request)]
    work: dict[tuple, float] = {}  # single passes are shared by questions that differ in how many there are
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
    """Reads what a caller asks to be recorded."""

    def __init__(self, panel: ImagePanel, problem: Problem) -> None:
        self._panel, self._problem = panel, problem
        self._methods: list[Method] = [panel.menu[panel.selection[METHOD]]]

    def params(self) -> list[Param]:
        """Everything that can be recorded besides the method and the target, of the methods that are recorded."""
        own = dict.fromkeys(param for entry in self._methods for param in entry.params)
        return [*own, *_SHARED]

    def read(self, record: dict[str, Any]) -> Iterator[Recorded]:
        if METHOD in record:
            yield self._of_methods(record.pop(METHOD))
        if TARGET in record:
            yield self._of_targets(record.pop(TARGET))
        by_name: dict[str, list[Param]] = {}
        for param in self.params():
            by_name.setdefault(param.name, []).append(param)
        for name in record:
            if name not in by_name:
                raise ValueError(unknown("record", name, [METHOD, TARGET, *by_name]) + self._whose(name))
        # Those that continue each other's work, and those that need none, change fastest.
        order = sorted(record, key=lambda name: (name in (SIGN.name, CHANNEL.name), by_name[name][0].continued))
        for name in order:
            yield self._of_params(by_name[name], record[name])

    def _whose(self, name: str) -> str:
        owners = [m.title for m in self._panel.menu.values() if name in {param.name for param in m.params}]
        if not owners:
            return ""
        return f" It is a parameter of {', '.join(owners)}: record that method too, or show it first."

    def _of_methods(self, given: Any) -> Recorded:
        menu = self._panel.menu
        names = list(menu) if given is True else _listed(METHOD, given)
        for name in names:
            if name not in menu:
                raise ValueError(unknown_method(name, menu, "record: method"))
        self._methods = [menu[name] for name in names]
        labels = tuple(entry.title for entry in self._methods)
        asked = self._panel.selection[METHOD]
        begin = names.index(asked) if asked in names else 0
        return Recorded(METHOD, tuple(names), Axis(METHOD, "Method", "How attribution is computed.", labels, begin))

    def _of_targets(self, given: Any) -> Recorded:
        shown = self._panel.selection[TARGET]
        given = self.top_targets() if given is True else given
        score = self._panel.selection[SCORE.name]
        indices = [self._problem.choice(target, score) for target in _listed(TARGET, given)]
        indices = list(dict.fromkeys(indices))
        labels = tuple(self._problem.name_of(index, score) for index in indices)
        begin = indices.index(shown) if shown in indices else 0
        return Recorded(TARGET, tuple(indices), Axis(TARGET, "Target", "The class that is explained.", labels, begin))

    def top_targets(self) -> list[int]:
        """The most probable classes, and the one that is explained."""
        shown, top = self._panel.selection[TARGET], [index for index, _, _ in self._panel.predictions]
        return top if shown in top or not isinstance(shown, int) else [shown, *top]

    def _of_params(self, params: Sequence[Param], given: Any) -> Recorded:
        param = params[0]
        values = list(self.handful(param)) if given is True else _listed(param.name, given)
        for one in params:  # of several methods: each must be able to take it
            values = [self._checked(one, value) for value in values]
        values = _distinct(values)
        numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
        ordered = numbers and len(values) > 2 and values == sorted(values)
        only = None
        if not any(param in _SHARED for param in params) and len(self._methods) > 1:
            having = [place for place, entry in enumerate(self._methods) if {*params} & {*entry.params}]
            only = None if len(having) == len(self._methods) else (METHOD, tuple(having))
        labels = tuple(_label(param, value) for value in values)
        begin = _nearest(values, self._panel.control(param).value, numbers)
        axis = Axis(param.name, param.title, param.help, labels, begin, ordered, only)
        return Recorded(param.name, tuple(values), axis)

    def _checked(self, param: Param, value: Any) -> Any:
        try:
            return param.check(None if value == AUTO and param.optional else value)
        except (TypeError, ValueError) as error:
            raise type(error)(f"record: {error}") from None

    def handful(self, param: Param) -> tuple[Any, ...]:
        """Some values over the range of a control, the one where it stands among them."""
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
    if now is None:  # "decide for me" has no size
        return (None,)
    if param.kind == "int" and (param.scale == "log2" or param.continued):
        # What the work grows with: no more of it than the person has chosen.
        halves = [int(now) >> k for k in range(HANDFUL)]
        return tuple(sorted({value for value in halves if value >= max(1, low or 1)}))
    if param.kind == "int":
        return tuple(now + k for k in range(HANDFUL - 1) if now + k <= param.limits[1])
    if low is None or high is None:
        return (now,)
    steps = [low + (high - low) * k / (HANDFUL - 1) for k in range(HANDFUL)]
    return tuple(sorted({*(float(f"{value:.6g}") for value in steps), now}))


def _spread(options: list[Any], now: Any, most: int) -> tuple[Any, ...]:
    """So many of the options, evenly, and the one that is chosen."""
    if len(options) > most:
        options = [options[round(k * (len(options) - 1) / (most - 1))] for k in range(most)]
    return tuple(options if any(option is now or option == now for option in options) else [now, *options])


def _listed(name: str, given: Any) -> list[Any]:
    values = as_array(given, f"record: {name}").tolist() if hasattr(given, "__array__") else given
    if isinstance(values, (str, int, float)) and not isinstance(values, bool):
        values = [values]
    if not isinstance(values, (list, tuple, range)):
        raise TypeError(f"record: {name} takes a list of values, or True for a handful; got a {type(given).__name__}.")
    some = list(itertools.islice(values, _MOST + 1))
    if not some:
        raise ValueError(f"record: {name} has no values. Leave it out, or give at least one.")
    if len(some) > _MOST:
        raise ValueError(f"record: {name} has more than {_MOST:,} values. Record fewer of them.")
    return some


def _distinct(values: Sequence[Any]) -> list[Any]:
    unique: dict[Any, Any] = {}
    for value in values:
        unique.setdefault(value if _is_plain(value) else (id(value),), value)
    return list(unique.values())


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float))


def _nearest(values: Sequence[Any], now: Any, numbers: bool) -> int:
    for place, value in enumerate(values):
        if value is now or (_is_plain(value) and _is_plain(now) and value == now):
            return place
    if numbers and isinstance(now, (int, float)):
        return min(range(len(values)), key=lambda place: abs(values[place] - now))
    return 0


def _label(param: Param, value: Any) -> str:
    if value is None:
        return "auto"
    if isinstance(value, float):
        return f"{value:g}" + (f" {param.unit}" if param.unit == "%" else "")
    return str(value) if _is_plain(value) else f"own {type(value).__name__.lower()}"


def _key(recorded: Sequence[Recorded], at: Sequence[int]) -> tuple[int | None, ...]:
    """The places that matter."""
    where = {one.name: place for one, place in zip(recorded, at, strict=True)}

    def matters(axis: Axis) -> bool:
        return axis.only is None or where[axis.only[0]] in axis.only[1]

    return tuple(place if matters(one.axis) else None for one, place in zip(recorded, at, strict=True))


def _entries(
    panel: ImagePanel, recorded: Sequence[Recorded], pace: int | None
) -> Iterator[tuple[tuple[int | None, ...], Entry]]:
    seen: set[tuple[int | None, ...]] = set()
    for at in itertools.product(*(range(len(one.values)) for one in recorded)):
        key = _key(recorded, at)
        if key in seen:
            continue
        seen.add(key)
        changes = {one.name: one.values[place] for one, place in zip(recorded, key, strict=True) if place is not None}
        yield key, Entry(panel.request(changes).with_chunk_size(pace), panel.reduction_of(changes))
