"""Read lists and grids of methods, values and settings, for sweeps, comparisons, evaluations and pages."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from saliency_widgets.attribution.arrays import check_dense
from saliency_widgets.attribution.registry import Method
from saliency_widgets.params import Param, brief, check_list, check_mapping, unknown
from saliency_widgets.runtime.model.version import identity

Params = Mapping[str, Sequence[Param]]
"""The parameters of several methods by name; methods may share a name but differ in its range."""

_SETTINGS = "[{'n_steps': 16}, {'n_steps': 64}], or lists of values by name such as {'n_steps': [16, 64]}"


@dataclass(frozen=True, eq=False)
class Axis:
    """Variants, each with a unique label."""

    labels: list[str]
    values: list[Any]

    def __len__(self) -> int:
        return len(self.values)


class Grid(dict[str, list[Any]]):
    """Checked values by parameter name; the settings are all combinations of them."""

    @property
    def count(self) -> int:
        """The number of settings."""
        return math.prod(map(len, self.values()))

    def settings(self, most: int | None = None) -> list[dict[str, Any]]:
        """Return the first ``most`` settings, or all; the last parameter changes fastest."""
        combinations = itertools.islice(itertools.product(*self.values()), most)
        return [dict(zip(self, values, strict=True)) for values in combinations]


def params_of(methods: Iterable[Method]) -> dict[str, list[Param]]:
    """Return the parameters of several methods by name."""
    result: dict[str, list[Param]] = {}
    for param in dict.fromkeys(param for method in methods for param in method.params):
        result.setdefault(param.name, []).append(param)
    return result


def applicable(method: Method, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values whose names are parameters of a method."""
    names = {param.name for param in method.params}
    return {name: value for name, value in values.items() if name in names}


def check_names(argument: str, names: Iterable[str], params: Params, fixed: Collection[str] = ()) -> None:
    """Check that all names are parameters, and that none of them is also passed as a single value.

    Raises:
        TypeError: A name is unknown.
        ValueError: A parameter is passed twice.
    """
    for name in names:
        if name not in params:
            raise TypeError(unknown(argument, name, list(params)))
        if name in fixed:
            raise ValueError(f"{argument}: {brief(name)} is also passed as a single value. Pass it only once.")


def read_list(argument: str, values: Any, example: str = "[8, 32]") -> list[Any]:
    """Return the items of a list, an array or a tensor, with scalars of arrays and tensors as Python numbers.

    Raises:
        TypeError: The argument is not a list.
        ValueError: The list is empty or too long.
    """
    if isinstance(values, Tensor):
        check_dense(values, argument)
    items = check_list(argument, values, example)
    if not items:
        raise ValueError(f"{argument}: it is empty. Pass at least one.")
    return [item.item() if getattr(item, "ndim", None) == 0 else item for item in items]


def read_axis(
    argument: str, values: Any, label: Callable[[Any], str], *, single: Callable[[Any], bool], example: str
) -> Axis:
    """Read one variant, a list of them, or a mapping from labels to them.

    Args:
        argument: The argument's name, for errors.
        values: The argument.
        label: Returns the label of an unlabeled variant; raises if its argument is not a variant.
        single: Returns whether its argument is one variant rather than a list.
        example: An example of a valid list, for errors.

    Raises:
        TypeError: The argument is none of these.
        ValueError: There are no variants.
    """
    if isinstance(values, Mapping):
        items = read_list(argument, list(values.values()), example)
    else:
        items = [values] if single(values) else read_list(argument, values, example)
    labels = list(map(label, items))
    return Axis(distinct(list(map(str, values)) if isinstance(values, Mapping) else labels), items)


def read_grid(argument: str, grid: Any, params: Params, fixed: Collection[str] = ()) -> Grid:
    """Read lists of values by parameter name; each value must be valid for all parameters of that name.

    Raises:
        TypeError: The grid is not a mapping to lists, a parameter is unknown, or a value has the wrong type.
        ValueError: A value is out of range or repeated, or there are no values.
    """
    grid = check_mapping(argument, grid)
    check_names(argument, grid, params, fixed)
    if not grid:
        raise ValueError(f"{argument}: it is empty. Pass values for at least one of {list(params)}.")
    result = Grid()
    for name, values in grid.items():
        what = f"{argument}: {name}"
        result[name] = [_checked(argument, params[name], value) for value in read_list(what, values)]
        if len({identity(value) for value in result[name]}) < len(result[name]):
            raise ValueError(f"{what}: a value is repeated: {brief(values)}. Pass each once.")
    return result


def read_settings(settings: Any, params: Params, fixed: Collection[str], most: int) -> tuple[Axis, int]:
    """Read settings: lists of values by parameter, a list of mappings from parameters to values, or these by label.

    Returns:
        The settings, limited to the first ``most`` if they are combinations of lists, and their total number.
    """
    if settings is None:
        return Axis([""], [{}]), 1
    labeled = isinstance(settings, Mapping) and settings and all(isinstance(v, Mapping) for v in settings.values())
    if isinstance(settings, Mapping) and not labeled:
        grid = read_grid("settings", settings, params, fixed)
        combinations = grid.settings(most)
        return Axis(distinct([_describe(one, params) for one in combinations]), combinations), grid.count
    label = partial(_describe, params=params, fixed=fixed)
    axis = read_axis("settings", settings, label, single=lambda _: False, example=_SETTINGS)
    checked = [{name: _checked("settings", params[name], value) for name, value in one.items()} for one in axis.values]
    return Axis(axis.labels, checked), len(checked)


def over_limit(argument: str, counts: Mapping[str, int], limit: int, first: Callable[[], Any], advice: str) -> str:
    """Return the error message for more maps than the limit, with an estimate of their time.

    Args:
        argument: The name of the argument or function.
        counts: The factors of the number of maps, by plural noun.
        limit: The limit.
        first: Computes one map, to measure its time.
        advice: Another way to save time.
    """
    count = math.prod(counts.values())
    product = " x ".join(f"{number:,} {name}" for name, number in counts.items() if number > 1)
    start = time.perf_counter()
    try:
        first()
        seconds = time.perf_counter() - start
        estimate = f"About {_duration(seconds * count)} here, one at a time: {seconds:.2g} s for one."
    except (TypeError, ValueError) as error:
        estimate = f"One of them failed here: {error}"
    return (
        f"{argument}: {count:,} maps ({product}) are over the limit of {limit:,}. {estimate} To compute all of them, "
        f"pass limit={count}; {advice}"
    )


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(1, seconds):.0f} seconds"


def distinct(labels: Sequence[str]) -> list[str]:
    """Return the labels, with repeated labels numbered."""
    numbers: dict[str, int] = {}
    result: dict[str, None] = {}
    for label in labels:
        unique = label
        while unique in result:
            numbers[label] = numbers.get(label, 1) + 1
            unique = f"{label} #{numbers[label]}"
        result[unique] = None
    return list(result)


def _checked(argument: str, params: Sequence[Param], value: Any) -> Any:
    try:
        for param in params:
            value = param.check(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{argument}: {error}") from None
    return value


def _describe(setting: Any, params: Params, fixed: Collection[str] = ()) -> str:
    setting = check_mapping("settings", setting)
    check_names("settings", setting, params, fixed)
    return ", ".join(params[name][0].describe(value) for name, value in setting.items()) or "default"
