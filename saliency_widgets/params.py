"""Parameters, stated once: default, range, unit and help. Sliders, checks and docs are read from here."""

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
_COMPARED, _LONGEST = 500, 100  # names, and their letters, that a wrong name is compared with
_ALIKE = 0.75  # the least of difflib's ratio for a name that belongs elsewhere
_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = _BRIEF.maxlong = 80
_YEAR = 366 * 24 * 3600
MANY = 10**6
"""The largest number of samples, rows or repetitions: beyond it a slip of the keyboard is likelier than a wish."""


@dataclass(frozen=True)
class Param:
    """One adjustable number or choice of a method, a reduction or the display.

    Attributes:
        name: The keyword argument's name, the field's standard term.
        default: The value used when the caller gives none.
        low: Where the slider begins (numbers and ranges).
        high: Where it ends.
        minimum: The smallest value that is allowed; ``low`` unless it says otherwise.
        maximum: The largest value that is allowed, often beyond the slider's end; ``high`` unless it says otherwise.
            ``math.inf`` is no limit.
        unit: What one unit is, for labels ("samples", "of the input's range").
        help: One sentence: what moving it does.
        kind: ``"float"``, ``"int"``, ``"choice"``, ``"range"`` (a pair of floats), or the two that also take
            objects: ``"layer"`` (a module path) and ``"open"`` (one of the choices, or a tensor, a function, a stack).
        choices: The names a choice can take, or a function that lists them.
        scale: ``"log2"`` offers powers of two in the menu; any allowed number can be given from Python.
        label: What the control is called; the name with spaces unless given.
        optional: ``None`` is allowed and means "decide for me".
        advanced: Rarely needed: shown folded away.
        continued: Whether single passes of a method give the same at every value of it: a larger value continues the
            work of a smaller one.
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
        """The smallest and the largest value that is allowed; infinite where there is no limit."""
        ends = ((self.minimum, self.low, -math.inf), (self.maximum, self.high, math.inf))
        smallest, largest = (next(end for end in some if end is not None) for some in ends)
        return smallest, largest

    @property
    def title(self) -> str:
        """The name a person reads."""
        return self.label or self.name.replace("_", " ").capitalize()

    def describe(self, value: Any) -> str:
        """Return the parameter and a value as text: "32 samples", "noise level 0.12", "baseline custom tensor"."""
        text = value_text(value)
        if self.kind == "int" and self.unit:
            return f"{text} {self.unit.removesuffix('s') if text == '1' else self.unit}"
        return f"{self.title[:1].lower()}{self.title[1:]} {text}"

    def options(self) -> tuple[str, ...]:
        """The names this parameter can take."""
        return tuple(self.choices() if callable(self.choices) else self.choices)

    def check(self, value: Any) -> Any:
        """Return ``value`` in its proper type.

        Raises:
            TypeError: The value is of the wrong type.
            ValueError: The value is out of range, or is no known choice.
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
        except Exception:  # whatever it raises that is no number, and an integer too large for a float
            wanted = "a whole number" if whole else "a number"
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
    """A parameter that is a number of repetitions: ``low`` and ``high`` are the slider's ends, ``text`` the help."""
    return Param(name, default, low, high, help=text, **{"unit": name, "kind": "int", "maximum": MANY, **fields})


def check_choice(argument: str, value: Any, choices: Sequence[str]) -> str:
    """One of some names.

    Raises:
        TypeError: It is no text.
        ValueError: It is none of them.
    """
    if not isinstance(value, str):
        raise TypeError(f"{argument}: expected one of {_listed(choices)}, got {_shown(value)}.")
    if value not in choices:
        raise ValueError(unknown(argument, value, choices))
    return value


def is_truth_value(value: Any) -> bool:
    """Whether it is True or False, of Python's kind or NumPy's: neither is a number here."""
    return isinstance(value, (bool, np.bool_))


def check_switch(argument: str, value: Any) -> bool:
    """True or False, and nothing that only looks like it.

    Raises:
        TypeError: It is neither.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{argument}: expected True or False, got {_shown(value)}.")
    return value


def check_text(argument: str, value: Any) -> str:
    """A text that can be written to a file and sent to a page.

    Raises:
        TypeError: It is no text.
        ValueError: It holds halves of characters (surrogates), as broken file names do.
    """
    if not isinstance(value, str):
        raise TypeError(f"{argument}: expected a text, got {_shown(value)}.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{argument}: expected a text, and letter {error.start} of it is half a character.") from None
    return value


def check_mapping(argument: str, value: Any) -> dict[str, Any]:
    """Values by their names; nothing where it is None.

    Raises:
        TypeError: It is no mapping, or its keys are no texts.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise TypeError(f"{argument}: expected a mapping from names to values, got {_shown(value)}.")
    return dict(value)


def check_list(argument: str, value: Any, example: str) -> list[Any]:
    """Several of something, a certain number of them.

    Args:
        argument: Its name, for the error.
        value: A list, a tuple, an array, or anything else that has a length.
        example: What could be passed, for the error.

    Raises:
        TypeError: It is none of these: one text, an iterator without end, a mapping, a set.
        ValueError: It is longer than any that is meant.
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
    """Look at the length of what goes through it one by one: of a range that is work without end.

    Raises:
        TypeError: It has a length that can't be read.
        ValueError: It is longer than any that is meant.
    """
    try:
        count = len(value)
    except OverflowError:  # of a range, longer than can be counted
        count = MANY + 1
    except Exception as error:
        raise TypeError(f"{argument}: its length can't be read: {type(error).__name__}: {error}.") from error
    if count > MANY:
        raise ValueError(f"{argument}: expected at most {MANY} of them, got {_shown(value)}. Pass fewer.")


def figure(number: float) -> str:
    """A limit as people write it: whole numbers with all their digits."""
    return str(int(number)) if float(number).is_integer() else f"{number:g}"


def unknown(
    what: str,
    name: str,
    names: Sequence[str],
    aliases: Mapping[str, str] | None = None,
    others: Sequence[str] = (),
) -> str:
    """The sentence for a name that is not known: what was meant, or what there is.

    Args:
        what: The argument, for the sentence.
        name: The name.
        names: The names there are.
        aliases: From what others call it to one of these names; case and punctuation don't matter.
        others: Further names that may have been meant, and are too many to be listed.
    """
    close = _close(name, names, aliases or {}, others) if isinstance(name, str) else []
    hint = f"Did you mean {_listed(close)}?" if close else f"Known: {_listed(names)}."
    if not names:
        hint = "There is nothing to be named here: leave it out."
    return f"{what}: {brief(name)} is not known. {hint}"


def _close(name: str, names: Sequence[str], aliases: Mapping[str, str], others: Sequence[str]) -> list[str]:
    """The names that were probably meant; difflib's work grows with the square of what it compares."""
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
    """A name as it is compared where case and punctuation don't matter: "Grad-CAM++" is "gradcamplusplus"."""
    letters = str(name).lower().replace("+", "plus").replace("×", "x")
    return "".join(filter(str.isalnum, letters)) or letters


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(brief(name) for name in names[:12])
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def brief(value: Any) -> str:
    """A value as code, cut where it is long; where it can't be written, its type."""
    try:
        return _BRIEF.repr(value)
    except Exception:  # an integer of many digits, or whatever an object's own __repr__ raises
        return f"a {type(value).__name__}"


def _shown(value: Any) -> str:
    text = brief(value)
    return f"{text} ({type(value).__name__})" if len(text) < 60 else f"a {type(value).__name__}"


MAPS = Param("limit", None, low=1, kind="int", maximum=math.inf, help="How many maps at most.")
TIMEOUT = Param(
    "timeout", None, low=0.0, maximum=_YEAR, optional=True, unit="s", help="How long to wait; without end unless given."
)
