"""The schema of a stored state: rules for its fields. Everything that is loaded is checked against these tables."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from saliency_widgets import render
from saliency_widgets.attribution.reduction import CHANNEL, SIGN
from saliency_widgets.attribution.registry import get_method
from saliency_widgets.attribution.result import Attribution
from saliency_widgets.attribution.score import SCORE
from saliency_widgets.inputs.volume.features import SLICES
from saliency_widgets.params import Param

Rule = tuple[str, Callable[[Any], bool]]
"""A description of the expected value, and a predicate that checks a value."""

_LONGEST = 200  # maximum characters of a name, because unknown names are compared with all valid ones


def is_digest(value: Any) -> bool:
    """Return whether a value has the form of a 128-bit digest."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{32}", value) is not None


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST


def _is_many(kind: type, fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind) and all(map(fits, value))


def _params_of(method: str) -> dict[str, Param] | None:
    """Return the parameters of a method by name; None for a captum method that is not available."""
    name = method.partition(" #")[0]  # menus number methods of equal name
    try:
        return {param.name: param for param in get_method(name).params}
    except (ImportError, ValueError):
        if name.startswith("captum.") and name.removeprefix("captum.").isidentifier():
            return None
        raise


def _is_method(value: Any) -> bool:
    if not _is_name(value):
        return False
    _params_of(value)  # raises with a helpful message
    return True


def _is_target(value: Any) -> bool:
    alone = _is_many(tuple, _is_whole)
    return _is_whole(value) or alone(value) or _is_many(list, lambda item: _is_whole(item) or alone(item))(value)


def _is_explain(value: Any) -> bool:
    return _is_whole(value) or _is_name(value) or _is_many(list, lambda v: _is_whole(v) or _is_name(v))(value)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _is_real(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _is_pixels(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"black", "white"} and all(map(_is_tensor, value.values()))


def _is_row(value: Any) -> bool:
    return hasattr(value, "iloc") and value.ndim == 2 and len(value) == 1


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, Tensor) and value.dtype == torch.int64 and value.ndim == 2)


def _is_model(value: Any) -> bool:
    fields = isinstance(value, dict) and set(value) == {"class", "fingerprint"}
    return (
        fields and isinstance(value["class"], str) and (value["fingerprint"] is None or is_digest(value["fingerprint"]))
    )


def _is_columns(value: Any) -> bool:
    if not isinstance(value, dict) or set(value) != {"names", "of", "rows", "median"}:
        return False
    names, of = value["names"], value["of"]
    if not _is_many(tuple, lambda v: isinstance(v, str))(names) or not isinstance(of, Tensor) or of.ndim != 1:
        return False
    placed = of.dtype == torch.int64 and bool(((of >= -1) & (of < len(names))).all())
    wide = all(
        value[name] is None or (_is_real(value[name]) and value[name].ndim == ndim and value[name].shape[-1] == len(of))
        for name, ndim in (("rows", 2), ("median", 1))
    )
    return placed and wide


def _are_of(items: tuple[tuple[Any, ...], ...], shape: tuple[int, ...]) -> bool:
    """Return whether there is one item for each token of each text."""
    return len(items) == shape[0] and all((len(row),) == shape[1:2] for row in items)


def _of(param: Param) -> Rule:
    def fits(value: Any) -> bool:
        if isinstance(value, str) and not _is_name(value):
            return False
        param.check(value)
        return True

    return f"a value of {param.name}", fits


def _or_null(rule: Rule) -> Rule:
    return f"{rule[0]}, or null", lambda value: value is None or rule[1](value)


_TEXT: Rule = "a string", lambda value: isinstance(value, str)
_NAMES: Rule = "a list of names", _is_many(list, lambda value: isinstance(value, str))
_COUNT: Rule = "a non-negative integer", _is_whole
_FLAG: Rule = "true or false", lambda value: isinstance(value, bool)
_METHOD: Rule = "the name of a method", _is_method
_TARGET: Rule = "a class, or an index", _is_target
_REAL: Rule = "a tensor of real numbers", _is_real
_SHAPE: Rule = "a shape", _is_many(tuple, _is_whole)
_EACH: Rule = "a number for each sample, or null", lambda value: value is None or (_is_real(value) and value.ndim == 1)

STATE: Mapping[str, Rule] = {
    "saliency_widgets": _TEXT,
    "saved": _TEXT,
    "kind": ("a kind of input", lambda value: value in ("image", "signal", "table", "text", "volume")),
    "model": ("its class and fingerprint", _is_model),
    "class": _or_null(_TEXT),
    "class_names": _or_null(_NAMES),
    "controls": ("controls by name", lambda value: isinstance(value, dict)),
    "attribution": ("an attribution", lambda value: isinstance(value, Attribution)),
    "inputs": ("a tensor", _is_tensor),
    "pixels": _or_null(("black and white pixels", _is_pixels)),
    "row": _or_null(("one row of a table", _is_row)),
    "text": _or_null(("a text, or its ids", _is_text)),
    "code": _TEXT,
}
_REQUIRED: Mapping[str, Rule] = {"method": _METHOD, "target": _TARGET, "score": _of(SCORE)}
CONTROLS: Mapping[str, Rule] = {
    **_REQUIRED,
    **{param.name: _of(param) for param in (SIGN, CHANNEL, *render.DISPLAY)},
    "per": ("'token' or 'word'", lambda value: value in ("token", "word")),
}
SETTINGS: Mapping[str, Rule] = {
    **_REQUIRED,
    "contrast": _or_null(_TARGET),
    "explain": ("an input", _is_explain),
    "device": ("the name of a device", _is_name),
    "fold": _FLAG,
    "precision": ("the name of a precision", _is_name),
    "cuda_graphs": _FLAG,
    "feature_names": _NAMES,
    "class_names": _NAMES,
    "sampling_rate": ("a positive number", lambda value: type(value) in (int, float) and 0 < value < math.inf),
    "channel_names": _NAMES,
    "slices": ("how slices follow each other", lambda value: value in SLICES),
    "time_axis": ("'first' or 'last'", lambda value: value in ("first", "last")),
    "background": ("other rows, signals or texts", lambda value: not isinstance(value, (bool, int, float))),
    "max_new_tokens": _COUNT,
}
ATTRIBUTION: Mapping[str, Rule] = {
    "values": _REAL,
    "settings": ("settings by name", lambda value: isinstance(value, dict)),
    "score": _EACH,
    "delta": _EACH,
    "standard_error": _or_null(_REAL),
    "evaluations": _COUNT,
    "layer": _or_null(_TEXT),
    "input_shape": _SHAPE,
    "notes": ("notes", _is_many(tuple, lambda value: isinstance(value, str))),
    "default_sign": _of(SIGN),
    "done": _COUNT,
    "total": _COUNT,
    "unit": _TEXT,
    "transformed": _FLAG,
    "parts": (
        "shapes by name",
        lambda value: isinstance(value, dict) and _is_many(list, _SHAPE[1])([*value.values()]) and _NAMES[1]([*value]),
    ),
    "agreement": _EACH,
    "map_error": _EACH,
    "columns": _or_null(("the columns of a table", _is_columns)),
    "labels": _or_null(("the tokens of each text", _is_many(tuple, _is_many(tuple, lambda v: isinstance(v, str))))),
    "groups": _or_null(("the words of each text", _is_many(tuple, _is_many(tuple, lambda v: type(v) is int)))),
}
# Rules that relate fields of an attribution to each other; each may rely on the rules before it.
_TOGETHER: tuple[tuple[str, Callable[[Mapping[str, Any]], bool]], ...] = (
    ("input_shape: must begin with the number of samples", lambda f: bool(f["input_shape"]) and f["values"].ndim > 0),
    (
        "values: must have the inputs' shape unless a layer is set",
        lambda f: f["layer"] is not None or bool(f["parts"]) or tuple(f["values"].shape) == f["input_shape"],
    ),
    (
        "parts: their sizes must add up to the number of values",
        lambda f: not f["parts"] or f["values"].shape[1:] == (sum(map(math.prod, f["parts"].values())),),
    ),
    (
        "standard_error: must have the shape of the values",
        lambda f: f["standard_error"] is None or f["standard_error"].shape == f["values"].shape,
    ),
    *(
        (
            f"{name}: must have one value per sample, or a single one for all",
            lambda f, name=name: f[name] is None or len(f[name]) in (1, f["input_shape"][0]),
        )
        for name in ("score", "delta", "agreement", "map_error")
    ),
    (
        "labels: must be one for each token",
        lambda f: f["labels"] is None or _are_of(f["labels"], f["input_shape"]),
    ),
    (
        "groups: must be one for each token",
        lambda f: f["groups"] is None or (f["labels"] is not None and _are_of(f["groups"], f["input_shape"])),
    ),
    (
        "settings: must be those of a text, of a signal or of a volume, not of two of them",
        lambda f: (f["labels"] is not None) + len({"slices", "time_axis"} & set(f["settings"])) <= 1,
    ),
    (
        "columns: must match the inputs' features",
        lambda f: f["columns"] is None or f["input_shape"][1:] == (len(f["columns"]["of"]),),
    ),
)


def check_names(where: str, fields: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
    """Check that exactly the expected fields are present.

    Raises:
        ValueError: A field is missing or unknown; the message names it.
    """
    if set(fields) != set(rules):
        raise ValueError(f"{where}: {min(set(fields) ^ set(rules))[:_LONGEST]!r} is missing, or unknown.")


def check_state(state: Mapping[str, Any]) -> None:
    """Check the values of a state's fields.

    Raises:
        ValueError: A value breaks a rule; the message names the field.
    """
    for name, rule in STATE.items():
        _check_value(name, state[name], rule)
    _check_settings("controls", state["controls"], CONTROLS)
    if (state["row"] is not None) != (state["kind"] == "table"):
        raise ValueError("row: must be present if and only if kind is 'table'.")
    if (state["text"] is not None) != (state["kind"] == "text"):
        raise ValueError("text: must be present if and only if kind is 'text'.")
    target, names = state["attribution"].settings["target"], state["class_names"]
    if names is not None and isinstance(target, int) and target >= len(names):
        raise ValueError(f"settings/target: there are {len(names)} classes, got {target}.")


def check_attribution(fields: Mapping[str, Any]) -> None:
    """Check the fields of an attribution, as :func:`check_state` does for a state."""
    check_names("attribution", fields, ATTRIBUTION)
    for name, rule in ATTRIBUTION.items():
        _check_value(f"attribution/{name}", fields[name], rule)
    _check_settings("settings", fields["settings"], SETTINGS)
    for sentence, holds in _TOGETHER:
        if not holds(fields):
            raise ValueError(f"attribution/{sentence}.")


def _check_settings(where: str, settings: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
    """Check settings, some of which are parameters of the method."""
    for name, rule in _REQUIRED.items():
        _check_value(f"{where}/{name}", settings.get(name), rule)
    params = _params_of(settings["method"])
    for name, value in settings.items():
        if name in rules:
            _check_value(f"{where}/{name}", value, rules[name])
        elif params is not None and name in params:
            _check_value(f"{where}/{name}", value, _of(params[name]))
        elif params is not None or not (name.isidentifier() and _is_name(name)):
            raise ValueError(f"{where}: {settings['method']} has no parameter {name[:_LONGEST]!r}.")


def _check_value(where: str, value: Any, rule: Rule) -> None:
    expected, fits = rule
    try:
        if fits(value):
            return
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error
    shown = repr(value) if value is None or isinstance(value, (bool, int, float)) else f"a {type(value).__name__}"
    raise ValueError(f"{where}: expected {expected}, got {shown}.")
