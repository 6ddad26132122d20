"""Inspect Captum's objects and classes before they are used."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from saliency_widgets.params import Param

_MOVES = "The size of the hidden patch, which moves in steps of half its size."
WINDOW = Param("window", default=0.125, low=0.02, high=1.0, minimum=0.0, unit="of each side", help=_MOVES)


def arguments_of(calls: list[Callable]) -> dict[str, inspect.Parameter]:
    """Return the parameters of the outermost call, and of the inner calls that its ``**kwargs`` are passed to."""
    arguments: dict[str, inspect.Parameter] = {}
    for k, attribute in enumerate(calls):
        parameters = inspect.signature(attribute).parameters.values()
        handed_on = [p.name for p in parameters if p.kind == p.VAR_KEYWORD and k < len(calls) - 1]
        arguments |= {p.name: p for p in parameters if p.name not in ("self", *arguments, *handed_on)}
        if all(p.kind != p.VAR_KEYWORD for p in parameters):
            break
    return arguments


def slider_of(name: str, default: float, text: str) -> Param:
    """Return a slider around the default: integers up to 10 times, floats up to 4 times; Captum checks the value."""
    if isinstance(default, int):
        low, high = min(default, 1), max(10 * default, 10)
        return Param(name, default, low=low, high=high, maximum=math.inf, kind="int", help=text)
    low, high = min(4 * default, 0.0), 4 * default if default > 0 else 1.0
    return Param(name, default, low=low, high=high, minimum=-math.inf, maximum=math.inf, help=text)


def patches(shapes: list[tuple[int, ...]], share: float) -> dict[str, Any]:
    """Return Captum's arguments for patches of all channels and a share of each side, in steps of half a patch."""
    sizes = []
    for shape in shapes:
        channels = len(shape) > 1
        sizes.append(shape[:channels] + tuple(max(1, round(side * share)) for side in shape[channels:]))
    steps = [tuple(max(1, n // 2) for n in size) for size in sizes]
    return {"sliding_window_shapes": single(sizes), "strides": single(steps)}


def held_by(attribution: Any, *names: str) -> Iterator[Any]:
    """Yield the attributes with some names of a Captum object and of the Captum objects inside it."""
    for name, value in vars(attribution).items():
        if name in names:
            yield from value if isinstance(value, list) else [value]
        elif callable(getattr(value, "attribute", None)):
            yield from held_by(value, *names)


def unwrapped_model(model: Any) -> Any:
    """Return the module of a bound ``forward``, or inside ``torch.compile`` and ``DataParallel``."""
    if inspect.ismethod(model):
        return unwrapped_model(model.__self__) if model.__name__ in ("forward", "__call__") else None
    wrapped = isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel))
    inner = model.module if wrapped else getattr(model, "_orig_mod", None)
    return model if inner is None else unwrapped_model(inner)


def kinds_of(chain: list[Any]) -> frozenset[str]:
    """Return the class names of a chain of nested objects or classes, and of the innermost one's bases."""
    types = [link if inspect.isclass(link) else type(link) for link in chain]
    return frozenset(base.__name__ for base in types[-1].__mro__) | {kind.__name__ for kind in types}


def single(items: list) -> Any:
    """Return the only item, or several items as a tuple, which is the form that Captum takes and returns."""
    return items[0] if len(items) == 1 else tuple(items)
