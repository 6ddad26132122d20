"""Counts and faults of an attack."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

_EXAMPLES = 5  # of each fault


@dataclass
class Figures:
    """The figures of one attack.

    Attributes:
        counts: Counts and measurements by name, such as moves, files, MB of growth.
        faults: Counts of faults by name. Faults that did not occur are listed with 0.
        examples: The first few examples of each fault, with the seed and step that reproduce it.
    """

    counts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def expect_none_of(self, *names: str) -> None:
        """List faults with a count of 0, so that the table shows what was checked."""
        for name in names:
            self.faults[name] += 0

    def fault(self, name: str, example: str) -> None:
        """Count a fault, and keep the first few examples."""
        self.faults[name] += 1
        examples = self.examples.setdefault(name, [])
        if len(examples) < _EXAMPLES:
            examples.append(example)


class Attack(Protocol):
    """The function ``attack(seed, seconds)`` of each attack module: the same seed gives the same moves."""

    def __call__(self, seed: int, seconds: float) -> Figures: ...
