"""Parameters with default, range, unit and help, defined once for sliders, checks and documentation."""

from __future__ import annotations

import difflib
import math
import operator
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, SupportsIndex, cast

import numpy as np

Kind = Literal["float", "int", "choice", "layer", "open", "range"]
_COMPARED, _LONGEST = 500, 100  # the most names that a wrong name is compared with, and their most letters
_ALIKE = 0.75  # the smallest difflib ratio at which a name that belongs elsewhere is suggested
_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = _BRIEF.maxlong = 80
_YEAR = 366 * 24 * 3600
MANY = 10**6
"""The largest number of samples, rows or repetitions: a larger one is more likely a typing error."""


@dataclass(frozen=True)
class Param:
    """One adjustable number or choice of a method, a reduction or the display.

    Attributes:
        name: The keyword argument's name, the field's standard term.
        default: The value used if the caller passes none.
        low: The lower end of the slider (numbers and ranges).
        high: The upper end of the slider.
        minimum: The smallest allowed value; ``low`` by default.
        maximum: The largest allowed value, often beyond the slider's end; ``high`` by default, ``math.inf`` for no
            limit.
        unit: The unit, for labels ("samples", "of the input's range").
        help: One sentence on the effect of changing it.
        kind: ``"float"``, ``"int"``, ``"choice"``, ``"range"`` (a pair of floats), ``"layer"`` (a module path) or
            ``"open"`` (one of the choices, or an object: a tensor, a function, a stack).
        choices: The names to choose from, or a function that lists them.
        scale: ``"log2"`` offers powers of two in the menu; from Python, any allowed number can be passed.
        label: The label of the control; by default the name with spaces.
        optional: Whether ``None`` is allowed, for an automatic choice.
        advanced: Whether it is rarely needed, and hidden until the user unfolds the advanced controls.
        continued: Whether a method's passes are the same at every value, so that a larger value continues the work of
            a smaller one.
    """

    name: str
    default: Any
    low: float | None = None
    high: float | None = None
    unit: str = ""
    help: str = ""
    kind: Kind = "float"
    choices: tuple[str, ...] | Callable[[], Sequence[str]] = ()
    scale: Literal["linear", "log2"] = "linear"
    label: str = ""
    optional: bool = False
    advanced: bool = False
    continued: bool = False
    minimum: float | None = None
    maximum: float | None = None

    @property
    def limits(self) -> tuple[float, float]:
        """The smallest and the largest allowed value; infinite without a limit."""
        ends = ((self.minimum, self.low, -math.inf), (self.maximum, self.high, math.inf))
        smallest, largest = (next(end for end in some if end is not None) for some in ends)
        return smallest, largest

    @property
    def title(self) -> str:
        """The name in the interface."""
        return self.label or self.name.replace("_", " ").capitalize()

    def describe(self, value: Any) -> str:
        """Return the parameter and a value as text: "32 samples", "noise level 0.12", "baseline custom tensor"."""
        text = value_text(value)
        if self.kind == "int" and self.unit:
            return f"{text} {self.unit.removesuffix('s') if text == '1' else self.unit}"
        return f"{self.title[:1].lower()}{self.title[1:]} {text}"

    def options(self) -> tuple[str, ...]:
        """Return the names to choose from."""
        return tuple(self.choices() if callable(self.choices) else self.choices)

    def check(self, value: Any) -> Any:
        """Return ``value`` in its proper type.

        Raises:
            TypeError: The value is of the wrong type.
            ValueError: The value is out of range, or is not one of the choices.
        """
        if value is None and self.optional:
            return None
        if self.kind == "choice" or (self.kind == "open" and isinstance(value, str)):
            return check_choice(self.name, value, self.options())
        if self.kind == "open":
            return value
        if self.kind == "layer":
            if not isinstance(value, str):
                raise TypeError(f"{self.name}: expected a module path such as 'features.7', got {_shown(value)}.")
            return value
        if self.kind == "range":
            if not (isinstance(value, (tuple, list)) and len(value) == 2):
                raise TypeError(f"{self.name}: expected a pair (low, high), got {_shown(value)}.")
            low, high = (self._check_number(v) for v in value)
            if low > high:
                raise ValueError(f"{self.name}: the first number must not exceed the second, got {brief(value)}.")
            return (low, high)
        return self._check_number(value)

    def _check_number(self, value: Any) -> float | int:
        whole = self.kind == "int"
        if whole and isinstance(value, float) and value.is_integer():
            value = int(value)
        try:
            if is_truth_value(value) or isinstance(value, str):
                raise TypeError
            number: float = operator.index(cast(SupportsIndex, value)) if whole else float(value)
        except Exception:  # objects that aren't numbers may raise anything; so may an integer too large for a float
            wanted = "an integer" if whole else "a number"
            raise TypeError(f"{self.name}: expected {wanted} {self._range()}, got {_shown(value)}.") from None
        smallest, largest = self.limits
        finite = whole or math.isfinite(number)
        if not finite or not smallest <= number <= largest:
            what = "a number" if finite else "a finite number"
            raise ValueError(f"{self.name}: expected {what} {self._range()}, got {brief(number)}.")
        return number

    def _range(self) -> str:
        smallest, largest = self.limits
        if math.isfinite(smallest) and math.isfinite(largest):
            return f"from {figure(smallest)} to {figure(largest)}"
        if math.isfinite(smallest):
            return f"of at least {figure(smallest)}"
        return f"of at most {figure(largest)}" if math.isfinite(largest) else "without limits"


def value_text(value: Any) -> str:
    """Return a parameter's value as text: "0.12", "blur", "auto" for None, "custom tensor" for an object."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None:
        return "auto"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if isinstance(value, (str, int)) else f"custom {type(value).__name__.lower()}"


def count_param(name: str, default: int, low: int, high: int, text: str, **fields: Any) -> Param:
    """Return a parameter for a number of repetitions; ``low`` and ``high`` are the slider's ends, ``text`` the help."""
    return Param(name, default, low, high, help=text, **{"unit": name, "kind": "int", "maximum": MANY, **fields})


def check_choice(argument: str, value: Any, choices: Sequence[str]) -> str:
    """Check that a value is one of some names, and return it.

    Raises:
        TypeError: The value is not a string.
        ValueError: The value is not one of the names.
    """
    if not isinstance(value, str):
        raise TypeError(f"{argument}: expected one of {_listed(choices)}, got {_shown(value)}.")
    if value not in choices:
        raise ValueError(unknown(argument, value, choices))
    return value


def is_truth_value(value: Any) -> bool:
    """Return whether a value is Python's or NumPy's True or False, which don't count as numbers here."""
    return isinstance(value, (bool, np.bool_))


def check_switch(argument: str, value: Any) -> bool:
    """Check that a value is True or False, not merely truthy or falsy, and return it.

    Raises:
        TypeError: The value is neither.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{argument}: expected True or False, got {_shown(value)}.")
    return value


def check_text(argument: str, value: Any) -> str:
    """Check that a value is a string that can be encoded for a file or a web page, and return it.

    Raises:
        TypeError: The value is not a string.
        ValueError: The string contains lone surrogates, as broken file names do.
    """
    if not isinstance(value, str):
        raise TypeError(f"{argument}: expected a string, got {_shown(value)}.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{argument}: expected a string, but character {error.start} is a lone surrogate.") from None
    return value


def check_mapping(argument: str, value: Any) -> dict[str, Any]:
    """Return a mapping from names to values as a dict, empty for None.

    Raises:
        TypeError: The value is not a mapping, or its keys are not strings.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise TypeError(f"{argument}: expected a mapping from names to values, got {_shown(value)}.")
    return dict(value)


def check_list(argument: str, value: Any, example: str) -> list[Any]:
    """Return an ordered collection as a list.

    Args:
        argument: The argument's name, for the error.
        value: A list, a tuple, an array, or any other iterable that has a length.
        example: An example of a valid value, for the error.

    Raises:
        TypeError: ``value`` is something else, such as a string, an iterator, a mapping or a set.
        ValueError: ``value`` has more than a million items.
    """
    unordered = isinstance(value, (str, bytes, Mapping, set, frozenset))
    if unordered or not isinstance(value, Iterable) or not isinstance(value, Sized):
        raise TypeError(f"{argument}: expected a list such as {example}, got {_shown(value)}.")
    check_length(argument, value)
    try:
        return list(value)
    except Exception as error:
        raise TypeError(f"{argument}: it can't be read: {type(error).__name__}: {error}. Pass {example}.") from error


def check_length(argument: str, value: Any) -> None:
    """Check a collection's length before iterating over it, which would hardly end for a huge range.

    Raises:
        TypeError: The length can't be read.
        ValueError: The collection has more than a million items.
    """
    try:
        count = len(value)
    except OverflowError:  # a range longer than len() can return
        count = MANY + 1
    except Exception as error:
        raise TypeError(f"{argument}: its length can't be read: {type(error).__name__}: {error}.") from error
    if count > MANY:
        raise ValueError(f"{argument}: expected at most {MANY} items, got {_shown(value)}. Pass fewer.")


def figure(number: float) -> str:
    """Format a limit, with all digits if it is a whole number."""
    return str(int(number)) if float(number).is_integer() else f"{number:g}"


def unknown(
    what: str,
    name: str,
    names: Sequence[str],
    aliases: Mapping[str, str] | None = None,
    others: Sequence[str] = (),
) -> str:
    """Return the message for an unknown name, with similar names or else all names.

    Args:
        what: The argument's name, for the message.
        name: The unknown name.
        names: The available names.
        aliases: A mapping from other terms to these names; case and punctuation are ignored.
        others: Further names that may have been meant, but are too many to list.
    """
    close = _close(name, names, aliases or {}, others) if isinstance(name, str) else []
    hint = f"Did you mean {_listed(close)}?" if close else f"Known: {_listed(names)}."
    if not names:
        hint = "No name is accepted here; omit it."
    return f"{what}: {brief(name)} is not known. {hint}"


def _close(name: str, names: Sequence[str], aliases: Mapping[str, str], others: Sequence[str]) -> list[str]:
    """Return the names that were probably meant; lengths are limited, as difflib takes quadratic time."""
    if len(name) > _LONGEST:
        return []
    elsewhere = [] if name in others else difflib.get_close_matches(name, others, n=1, cutoff=_ALIKE)
    if elsewhere:
        return elsewhere
    compared = names
    if len(names) > _COMPARED:
        start = name[:1].lower()
        compared = list(islice((one for one in names if one[:1].lower() == start), _COMPARED))
    compared = [one for one in compared if len(one) <= _LONGEST]
    spelled = {spelling(one): one for one in compared} | {spelling(alias): one for alias, one in aliases.items()}
    if spelling(name) in spelled:
        return [spelled[spelling(name)]]
    close = difflib.get_close_matches(name, compared, n=3, cutoff=0.5)
    return close or [spelled[one] for one in difflib.get_close_matches(spelling(name), list(spelled), n=1)]


def spelling(name: str) -> str:
    """Normalize a name for comparison without case and punctuation: "Grad-CAM++" becomes "gradcamplusplus"."""
    letters = str(name).lower().replace("+", "plus").replace("×", "x")
    return "".join(filter(str.isalnum, letters)) or letters


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(brief(name) for name in names[:12])
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def brief(value: Any) -> str:
    """Return a value as code, shortened if long; if its repr fails, its type."""
    try:
        return _BRIEF.repr(value)
    except Exception:  # an integer with too many digits, or an object's __repr__, which may raise anything
        return f"a {type(value).__name__}"


def _shown(value: Any) -> str:
    text = brief(value)
    return f"{text} ({type(value).__name__})" if len(text) < 60 else f"a {type(value).__name__}"


MAPS = Param("limit", None, low=1, kind="int", maximum=math.inf, help="The maximum number of maps.")
TIMEOUT = Param(
    "timeout", None, low=0.0, maximum=_YEAR, optional=True, unit="s", help="How long to wait; no limit by default."
)
