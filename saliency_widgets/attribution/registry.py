"""The definition of an attribution method, and the discovery of all methods.

A method is one file in ``attribution/methods/`` with a generator decorated by :func:`method`. Its menu entry, sliders,
documentation and contract tests are derived from it.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import math
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol, TypeVar

from torch import Tensor

from saliency_widgets.params import Param, check_mapping, figure, unknown

Need = Literal["relu", "layer", "image"]
T = TypeVar("T")

FLAT = "the score does not change with the input here (a saturated output, or units that are all inactive)"
"""The meaning of a map of zeros, unless the method defines its own."""

DEFAULT = "integrated_gradients"
"""The default method: it accounts for the whole score, and reports how much of it is missing."""


@dataclass(frozen=True)
class Estimate:
    """A running estimate, valid by itself and improved by each one that follows.

    Attributes:
        values: Signed attribution, of the inputs' shape, or (B, 1, h, w) at a layer's resolution.
        done: Units of work done so far.
        total: Units of work in total.
        evaluations: Gradients of the model computed per sample.
        score: The explained score of each sample, shape (B,), if the method computes it.
        delta: sum(values) - (score of the inputs - score of the baseline), shape (B,), where completeness holds.
        standard_error: The standard error of each value, where samples are averaged.
        agreement: Rank correlation of the maps of two halves of the samples, shape (B,), where samples are averaged.
        map_error: Estimated relative error of the map (L1), shape (B,), if the method estimates it.
        layer: The layer that the values belong to, or whose resolution they have.
        parts: For a layer with several output tensors, their names and the shape of one sample of each. The values lie
            side by side.
        notes: Caveats for the user.
    """

    values: Tensor
    done: int = 1
    total: int = 1
    evaluations: int = 1
    score: Tensor | None = None
    delta: Tensor | None = None
    standard_error: Tensor | None = None
    agreement: Tensor | None = None
    map_error: Tensor | None = None
    layer: str | None = None
    parts: Mapping[str, tuple[int, ...]] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Method:
    """An attribution method.

    Attributes:
        name: Its name in code.
        title: Its name in the interface.
        help: A one-line description.
        params: Its parameters.
        run: The generator: (query, **params) -> running estimates.
        unit: The unit of work that is counted while it runs.
        pointwise: Whether it takes one gradient per input and returns values of the inputs' shape, so that SmoothGrad
            can average it.
        sign: The part of the values that the method's paper shows: see :mod:`~saliency_widgets.attribution.reduction`.
        gradients: Whether it needs gradients of the inputs; if not, it can explain whole numbers and truth values.
        needs: Its requirements besides gradients: "relu" (its backward rule is about ReLUs), "layer" (a layer with a
            spatial output), "image" (inputs on a grid). The check-up names the methods that a model doesn't support.
        aliases: Other names for it, from which the method is suggested.
        doc: The whole documentation, with formula and source.
        blank: The meaning of a map of zeros, if it differs from ``FLAT``.
        additive: Whether the values are parts of the score or of its change, so that they may be summed with their
            signs, as those of an embedding; the values of other methods are slopes.
    """

    name: str
    title: str
    help: str
    params: tuple[Param, ...]
    run: Callable[..., Iterator[Estimate]]
    unit: str = "steps"
    pointwise: bool = False
    sign: str = "absolute"
    needs: tuple[Need, ...] = ()
    aliases: tuple[str, ...] = ()
    doc: str = ""
    blank: str = ""
    gradients: bool = True
    additive: bool = False

    def check_params(self, values: Mapping[str, Any], others: Sequence[str] = ()) -> dict[str, Any]:
        """Return all parameters: the passed values, checked, and defaults for the rest.

        Args:
            values: The passed values.
            others: Other arguments of the same call, one of which may have been meant.

        Raises:
            TypeError: A parameter that the method doesn't have, or a value of the wrong type.
            ValueError: A value out of range.
        """
        params = {param.name: param for param in self.params}
        for name in check_mapping("params", values):
            if name not in params:
                raise TypeError(unknown(f"parameter of {self.name}", name, list(params) or ["none"], others=others))
        return {name: param.check(values.get(name, param.default)) for name, param in params.items()}


def method(*, title: str, **fields: Any) -> Callable[[Callable[..., Iterator[Estimate]]], Method]:
    """Turn a generator into an attribution method, with the first line of its docstring as its help.

    Args:
        title: Its name in the interface.
        **fields: Further attributes of :class:`Method`.
    """

    def wrap(run: Callable[..., Iterator[Estimate]]) -> Method:
        doc = inspect.getdoc(run) or ""
        about = {"name": run.__name__, "help": doc.partition("\n")[0], "doc": doc, "params": (), **fields}
        return Method(title=title, run=run, **about)

    return wrap


class Methods(Mapping[str, Method]):
    """A mapping from name to method, printed as a table of their parameters."""

    def __init__(self, methods: Mapping[str, Method]) -> None:
        self._methods = dict(methods)

    def __getitem__(self, name: str) -> Method:
        return self._methods[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._methods)

    def __len__(self) -> int:
        return len(self._methods)

    def __repr__(self) -> str:
        lines = []
        for entry in self._methods.values():
            lines.append(f"{entry.name}: {entry.help}")
            for param in entry.params:
                low, high = ("" if end is None else figure(end) for end in (param.low, param.high))
                span = f", {low or 'up'} to {high}" if high else f", at least {low}" if low else ""
                beyond = " on the slider, and beyond" if param.limits[1] > (param.high or math.inf) else ""
                choices = f", one of {', '.join(param.options())}" if param.options() else ""
                lines.append(f"    {param.name} = {param.default!r}{span} {param.unit}".rstrip() + beyond + choices)
        return "\n".join(lines)


def methods() -> Methods:
    """Return all attribution methods: those of the modules in ``attribution/methods/``.

    Returns:
        A mapping from name to :class:`Method`, with its help and its parameters' defaults and slider ranges.
    """
    entries = discovered("saliency_widgets.attribution.methods", Method)
    return Methods({entry.name: entry for entry in sorted(entries, key=lambda entry: entry.name)})


def discovered(package: str, kind: type[T]) -> Sequence[T]:
    """Return the objects with a function ``run`` that the modules of a package define.

    Args:
        package: The package's name.
        kind: The class of the objects.
    """
    room = importlib.import_module(package)
    # Called at each move of a slider, so the result is cached until a file is added or removed.
    return _discover(room, kind, tuple((path, Path(path).stat().st_mtime_ns) for path in room.__path__))


@functools.lru_cache(8)
def _discover(package: ModuleType, kind: type[Any], _state: tuple) -> tuple[Any, ...]:
    return tuple(
        value
        for module in modules_in(package)
        for value in vars(module).values()
        if isinstance(value, kind) and value.run.__module__ == module.__name__
    )


def modules_in(package: ModuleType) -> list[ModuleType]:
    """Import and return the modules of a package."""
    names = [info.name for info in pkgutil.iter_modules(package.__path__)]
    return [importlib.import_module(f"{package.__name__}.{name}") for name in names]


class Bridge(Protocol):
    """The methods of another library: an object named ``BRIDGE`` in a module of ``bridges/``.

    Attributes:
        prefix: The prefix of its methods' names, such as "captum.".
    """

    prefix: str

    def names(self) -> list[str]:
        """Return the names of its methods, without the prefix; empty if the library is not installed."""
        ...

    def by_name(self, name: str) -> Method:
        """Return the method of that name, which includes the prefix."""
        ...

    def accepts(self, value: Any) -> bool:
        """Return whether a value is an object of that library that :meth:`from_object` accepts."""
        ...

    def from_object(self, value: Any) -> Method:
        """Return the method that an object of that library computes."""
        ...


@functools.cache
def bridges() -> tuple[Bridge, ...]:
    """Return the libraries whose methods can be used: those of the modules in ``bridges/``."""
    modules = modules_in(importlib.import_module("saliency_widgets.bridges"))
    return tuple(module.BRIDGE for module in modules if hasattr(module, "BRIDGE"))


def get_method(name: Any) -> Method:
    """Return the method of that name.

    Args:
        name: A method's name; "captum." and the name of one of captum's classes; a captum object; or a method itself.

    Raises:
        ImportError: The method is captum's, and captum is not installed.
        TypeError: ``name`` is none of these.
        ValueError: No method has this name.
    """
    if isinstance(name, Method):
        return name
    entries = methods()
    if isinstance(name, str) and name in entries:
        return entries[name]
    for bridge in bridges():
        if isinstance(name, str) and name.startswith(bridge.prefix):
            return bridge.by_name(name)
        if bridge.accepts(name):
            return bridge.from_object(name)
    if not isinstance(name, str):
        raise TypeError(f"method: expected a name such as 'smoothgrad', got a {type(name).__name__}.")
    raise ValueError(unknown_method(name, entries))


def unknown_method(name: Any, entries: Mapping[str, Method], argument: str = "method") -> str:
    """Return the message for an unknown method, which suggests the closest one by name, title or alias.

    Args:
        name: The unknown name.
        entries: The available methods.
        argument: The argument's name, for the message.
    """
    aliases: dict[str, str] = {}
    if argument == "method":
        for bridge in bridges():
            for other in bridge.names():
                aliases |= dict.fromkeys((other, bridge.prefix + other), bridge.prefix + other)
    aliases |= {alias: name for name, entry in entries.items() for alias in (name, entry.title, *entry.aliases)}
    return unknown(argument, name, list(entries), aliases)
