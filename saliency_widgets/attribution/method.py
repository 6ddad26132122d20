"""What an attribution method is, and how the methods are found.

A method is one file in ``attribution/methods/``: a generator under the decorator :func:`method`. Its menu entry,
sliders, documentation and contract tests follow from it.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import math
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from torch import Tensor

from saliency_widgets.params import Param, check_mapping, figure, unknown

Need = Literal["relu", "layer", "picture"]

FLAT = "the score does not move with the input here (a saturated output, or units that are all off)"
"""What a map of zeros means, unless the method says otherwise."""

DEFAULT = "integrated_gradients"
"""The method that is used where none is named: it accounts for the whole score, and says what it misses."""


@dataclass(frozen=True)
class Estimate:
    """A running estimate: valid by itself, better with each one that follows.

    Attributes:
        values: Signed attribution, of the inputs' shape, or (B, 1, h, w) at a layer's resolution.
        done: Units of work behind it.
        total: Units of work in all.
        evaluations: Gradients of the model spent per sample.
        score: The explained score of each sample, shape (B,), where it is known.
        delta: sum(values) - (score of the inputs - score of the baseline), shape (B,), where completeness holds.
        standard_error: Of each value, where samples are averaged.
        agreement: Rank correlation of the maps of two halves of the samples, shape (B,), where samples are averaged.
        map_error: Estimated error of the map, relative to it (L1), shape (B,), where it can be told.
        layer: The layer that the values are of, or whose resolution they have.
        parts: Of a layer that gives several tensors: their names and shapes of one sample. The values lie side by side.
        notes: What a reader should know before believing it.
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
        name: What it is called in code.
        title: What it is called by people.
        help: What it shows, in one line.
        params: Its parameters.
        run: The generator: (call, **params) -> running estimates.
        unit: What is counted while it runs.
        pointwise: One gradient per input and a result of the inputs' shape: it can be averaged by SmoothGrad.
        sign: The part of the values that the method's paper shows: see
            :mod:`~saliency_widgets.attribution.reduction`.
        gradients: Whether it needs gradients of the inputs; without, whole numbers and truth values can be explained.
        needs: What it takes besides gradients: "relu" (its backward rule is about ReLUs), "layer" (a layer with a
            spatial output), "picture" (inputs with places beside each other). The check-up names
            the methods whose needs a model doesn't meet.
        aliases: What others call it; suggested where one of these names is passed.
        doc: The whole documentation, with formula and source.
        blank: What a map of zeros means, where that is not ``FLAT``.
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

    def check_params(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All parameters, the given ones checked, the others by default.

        Raises:
            TypeError: A parameter that the method doesn't have, or a value of the wrong type.
            ValueError: A value out of range.
        """
        known = {param.name: param for param in self.params}
        for name in check_mapping("params", given):
            if name not in known:
                raise TypeError(unknown(f"parameter of {self.name}", name, list(known) or ["none"]))
        return {name: param.check(given.get(name, param.default)) for name, param in known.items()}


def method(
    *,
    title: str,
    params: tuple[Param, ...] = (),
    unit: str = "steps",
    pointwise: bool = False,
    sign: str = "absolute",
    needs: tuple[Need, ...] = (),
    aliases: tuple[str, ...] = (),
    blank: str = "",
) -> Callable[[Callable[..., Iterator[Estimate]]], Method]:
    """Make a generator an attribution method; the first line of its docstring is its help."""

    def wrap(run: Callable[..., Iterator[Estimate]]) -> Method:
        doc = inspect.getdoc(run) or ""
        return Method(
            name=run.__name__,
            title=title,
            help=doc.partition("\n")[0],
            params=params,
            run=run,
            unit=unit,
            pointwise=pointwise,
            sign=sign,
            needs=needs,
            aliases=aliases,
            doc=doc,
            blank=blank,
        )

    return wrap


class Methods(Mapping[str, Method]):
    """The methods by name; printed, a table of their parameters."""

    def __init__(self, found: Mapping[str, Method]) -> None:
        self._found = dict(found)

    def __getitem__(self, name: str) -> Method:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def __repr__(self) -> str:
        lines = []
        for entry in self._found.values():
            lines.append(f"{entry.name}: {entry.help}")
            for param in entry.params:
                low, high = ("" if end is None else figure(end) for end in (param.low, param.high))
                span = f", {low or 'up'} to {high}" if high else f", at least {low}" if low else ""
                beyond = " on the slider, and beyond" if param.limits[1] > (param.high or math.inf) else ""
                choices = f", one of {', '.join(param.options())}" if param.options() else ""
                lines.append(f"    {param.name} = {param.default!r}{span} {param.unit}".rstrip() + beyond + choices)
        return "\n".join(lines)


def methods() -> Methods:
    """All attribution methods, found by looking into ``attribution/methods/``.

    Returns:
        A mapping from name to :class:`Method`: parameters with defaults and the ranges of their sliders, help.
    """
    room = importlib.import_module("saliency_widgets.attribution.methods")
    # Asked for at each move of a slider: looked through again when a file has come or gone.
    return _found_in(room, tuple((path, Path(path).stat().st_mtime_ns) for path in room.__path__))


@functools.lru_cache(1)
def _found_in(room: ModuleType, _state: tuple) -> Methods:
    found: dict[str, Method] = {}
    for info in pkgutil.iter_modules(room.__path__):
        module = importlib.import_module(f"{room.__name__}.{info.name}")
        for entry in vars(module).values():
            if isinstance(entry, Method) and entry.run.__module__ == module.__name__:
                found[entry.name] = entry
    return Methods(dict(sorted(found.items())))


def get_method(name: Any) -> Method:
    """The method of that name.

    Args:
        name: A name; "captum." and the name of one of its classes; an object of captum's; or a method itself.

    Raises:
        ImportError: A method of captum's, which is not installed.
        TypeError: It is none of these.
        ValueError: There is no such method.
    """
    if isinstance(name, Method):
        return name
    if callable(getattr(name, "attribute", None)) or (isinstance(name, str) and name.startswith("captum.")):
        from saliency_widgets.attribution.captum_bridge import captum_method, from_captum  # it builds upon this module

        return captum_method(name) if isinstance(name, str) else from_captum(name)
    if not isinstance(name, str):
        raise TypeError(f"method: expected a name such as 'smoothgrad', got a {type(name).__name__}.")
    known = methods()
    if name not in known:
        raise ValueError(unknown_method(name, known))
    return known[name]


def unknown_method(name: Any, entries: Mapping[str, Method], what: str = "method") -> str:
    """The sentence for a method that is not known: what was meant, by name, title or what others call it.

    Args:
        name: What was passed.
        entries: The methods there are.
        what: The argument's name, for the sentence.
    """
    from saliency_widgets.attribution.captum_bridge import captum_names  # it builds upon this module

    aliases = {alias: f"captum.{n}" for n in captum_names() for alias in (n, f"captum.{n}")} if what == "method" else {}
    aliases |= {alias: name for name, entry in entries.items() for alias in (name, entry.title, *entry.aliases)}
    return unknown(what, name, list(entries), aliases)
