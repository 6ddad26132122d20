"""Which of the wrong values are right for an argument after all: its default, what its parameter allows, and a table.

This is said anew here, and not with the package's own checks: what they let through by mistake must be seen.
"""

from __future__ import annotations

import functools
import importlib
import math
import pkgutil
from collections.abc import Sequence
from typing import Any

import torch

import saliency_widgets
from saliency_widgets.params import Param

_TEXTS = {"''", "'x'", "'A'*300", "NUL"}
_EMPTY = {"[]", "()", "no rows", "no columns"}  # lists with nothing in them, of whatever kind
_CONSTANT = {"5", "0", "-1", "10**30", "2.5", "-0.5", "scalar"}  # numbers that float32 holds
_FUNCTIONS = {"type", "raises", "module"}

RIGHT: dict[str, set[str]] = {
    "target": {"0"},
    "contrast": {"0"},
    "classes": {"0", "[None]", "(1, 2)"},
    "baseline": _CONSTANT,
    "fill": _CONSTANT,
    "methods": _EMPTY,
    "names": _EMPTY,
    "params": {"None", "{}"},
    "record": {"{}"},
    "title": _TEXTS,
    "caption": _TEXTS,
    "path": {"'x'", "bytes"},
    "store": {"'x'"},
    "sample": {"0"},
    "number": {"0"},
    "place": {"0"},
    "setting": {"0"},
}
"""Of arguments by name, wherever they are."""

RIGHT_OF: dict[tuple[str, str], set[str]] = {
    ("attribute (rows)", "class_names"): {"(1, 2)"},
    ("attribute (rows)", "baselines"): {"[None]"},  # None is the default among others
    ("importance", "class_names"): {"(1, 2)"},
    ("shuffle", "class_names"): {"(1, 2)"},
    ("explore (rows)", "class_names"): {"(1, 2)"},
    ("Explorer (rows)", "class_names"): {"(1, 2)"},
    ("explorer.save_png", "scale"): {"5", "2.5"},
    ("from_captum", "abs"): {"True"},  # this and those of the next four are captum's own
    ("attribute(from_captum)", "baselines"): {"None"} | _CONSTANT,
    ("attribute(from_captum)", "strides"): {"None"},
    ("attribute(from_captum)", "show_progress"): {"True"},
    ("attribute(from_captum)", "perturbations_per_eval"): {"5"},
    ("rows.edit", "a"): _CONSTANT - {"scalar"} | {"True"},
    ("attribute(target=[...])", "value"): {"0"},
    ("attribute(inputs={...})", "value"): _CONSTANT - {"scalar"} | {"True"},
    # Names of classes are often numbers or truth values, as scikit-learn's classes_ are.
    ("attribute(class_names=[...])", "value"): _TEXTS | _CONSTANT - {"scalar"} | {"True", "1e300", "inf", "surrogate"},
    ("evaluate(params={...})", "value"): {"5"},
    ("sweep(grid={...})", "value"): {"(1, 2)"},
    ("sweep(grid={[...]})", "value"): {"5", "scalar"},
    ("compare(settings={...})", "value"): {"(1, 2)", "{}"},
    ("compare(settings=[...])", "value"): {"{}"},
    ("compare(classes=[...])", "value"): {"None", "0"},
    ("explore(labels=[...])", "value"): {"0", "True"},
    # True is a handful of values. What a function does is seen when the page is made.
    ("explorer.page_size({...})", "value"): {"True", "5", "0", "10**30", "2.5", "1e300", "(1, 2)", "scalar"},
    ("explorer.page_size({[...]})", "value"): {"None", "0"} | _FUNCTIONS,
}
"""Of arguments of one call, by its name and theirs."""


def is_right(call: str, argument: str, name: str, value: Any, defaults: Sequence[Any]) -> bool:
    """Whether a value is right for an argument.

    Args:
        call: The name of what is called.
        argument: Its argument's.
        name: The value's.
        value: It.
        defaults: What the argument is where nobody says, and in a call that works.
    """
    if name in RIGHT.get(argument, ()) or name in RIGHT_OF.get((call, argument), ()):
        return True
    if any(_is_default(value, default) for default in defaults):
        return True
    return any(_fits(param, value) for param in _params().get(argument, ()))


def _is_default(value: Any, default: Any) -> bool:
    plain = (type(None), bool, int, float, str, tuple)
    return type(value) is type(default) and isinstance(value, plain) and value == default


@functools.cache
def _params() -> dict[str, list[Param]]:
    """All parameters that the package states, by their names."""
    result: dict[str, list[Param]] = {}
    for info in pkgutil.walk_packages(saliency_widgets.__path__, "saliency_widgets."):
        for value in vars(importlib.import_module(info.name)).values():
            for param in value if isinstance(value, Sequence) else (value,):
                if isinstance(param, Param):
                    result.setdefault(param.name, []).append(param)
    return result


def _fits(param: Param, value: Any) -> bool:
    """Whether a parameter allows a value; of those that take objects, the table says it."""
    if value is None:
        return param.optional
    if param.kind in ("choice", "open"):
        return isinstance(value, str) and value in param.options()
    if param.kind == "range":
        return (
            isinstance(value, (tuple, list)) and len(value) == 2 and _in_limits(param, *value) and value[0] <= value[1]
        )
    return param.kind in ("float", "int") and _in_limits(param, value)


def _in_limits(param: Param, *values: Any) -> bool:
    low, high = param.limits
    return all(_is_number(param, value) and low <= value <= high for value in values)


def _is_number(param: Param, value: Any) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return param.kind == "int" or abs(value) < 10**300
    if isinstance(value, torch.Tensor):
        return param.kind == "float" and value.ndim == 0 and not value.is_complex()
    return isinstance(value, float) and math.isfinite(value) and (param.kind != "int" or value.is_integer())
