"""Which of the wrong values are valid for an argument after all: its default, what its parameter allows, and a table.

The package's own checks are not used, so that values which they accept by mistake are detected.
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
_EMPTY = {"[]", "()", "no rows", "no columns"}  # empty collections of any type
_CONSTANT = {"5", "0", "-1", "10**30", "2.5", "-0.5", "scalar"}  # numbers that float32 can represent
_FUNCTIONS = {"type", "raises", "module"}

VALID: dict[str, set[str]] = {
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
    "sampling_rate": {"5", "10**30", "2.5", "1e300", "scalar"},  # rows of numbers are a signal too
}
"""Valid values by the name of the argument, in any call."""

VALID_IN: dict[tuple[str, str], set[str]] = {
    # Words outside of the vocabulary are unknown ones; two integers are ids.
    **{(f"{call} (text)", "inputs"): _TEXTS - {"''"} | {"surrogate", "(1, 2)"} for call in ("attribute", "explore")},
    **{(f"{call} (text)", "background"): _TEXTS - {"''"} | {"surrogate"} for call in ("attribute", "explore")},
    **{(f"{call} (text)", "class_names"): {"(1, 2)"} for call in ("attribute", "explore")},
    ("tokens.by_token", "words"): {"True"},
    ("attribute (rows)", "class_names"): {"(1, 2)"},
    ("attribute (rows)", "baselines"): {"[None]"},  # None is the default, as one of several baselines
    ("importance", "class_names"): {"(1, 2)"},
    ("shuffle", "class_names"): {"(1, 2)"},
    ("explore (rows)", "class_names"): {"(1, 2)"},
    ("Explorer (rows)", "class_names"): {"(1, 2)"},
    ("explorer.save_png", "scale"): {"5", "2.5"},
    ("from_captum", "abs"): {"True"},  # this and the next four are passed on to captum
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
    # True means a handful of values. What a function does is only seen when the page is made.
    ("explorer.page_size({...})", "value"): {"True", "5", "0", "10**30", "2.5", "1e300", "(1, 2)", "scalar"},
    ("explorer.page_size({[...]})", "value"): {"None", "0"} | _FUNCTIONS,
}
"""Valid values by the names of the call and the argument."""


def is_valid(call: str, argument: str, name: str, value: Any, defaults: Sequence[Any]) -> bool:
    """Whether a value is valid for an argument.

    Args:
        call: The name of the call.
        argument: The name of the argument.
        name: The name of the value.
        value: The value.
        defaults: The argument's defaults, and its value in a call that succeeds.
    """
    if name in VALID.get(argument, ()) or name in VALID_IN.get((call, argument), ()):
        return True
    if any(_is_default(value, default) for default in defaults):
        return True
    return any(_fits(param, value) for param in _params().get(argument, ()))


def _is_default(value: Any, default: Any) -> bool:
    plain = (type(None), bool, int, float, str, tuple)
    return type(value) is type(default) and isinstance(value, plain) and value == default


@functools.cache
def _params() -> dict[str, list[Param]]:
    """All parameters that the package defines, by name."""
    result: dict[str, list[Param]] = {}
    for info in pkgutil.walk_packages(saliency_widgets.__path__, "saliency_widgets."):
        for value in vars(importlib.import_module(info.name)).values():
            for param in value if isinstance(value, Sequence) else (value,):
                if isinstance(param, Param):
                    result.setdefault(param.name, []).append(param)
    return result


def _fits(param: Param, value: Any) -> bool:
    """Whether a parameter allows a value; for parameters that take objects, the tables decide."""
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
