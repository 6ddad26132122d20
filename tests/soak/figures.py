"""What an attack counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

_EXAMPLES = 5  # of each fault


@dataclass
class Figures:
    """The figures of one attack.

    Attributes:
        counts: What was done and measured, by name: moves, files, MB grown.
        faults: What must never happen, by name. Each is listed, also at 0.
        examples: The first few of each fault, with the seed and step that show it again.
    """

    counts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def expect_none_of(self, *names: str) -> None:
        """List faults at 0, so that the table shows what was looked for."""
        for name in names:
            self.faults[name] += 0

    def fault(self, name: str, example: str) -> None:
        """Count a fault, and keep the first few examples."""
        self.faults[name] += 1
        examples = self.examples.setdefault(name, [])
        if len(examples) < _EXAMPLES:
            examples.append(example)


class Attack(Protocol):
    """What each module of this folder has: ``attack(seed, seconds)``, the same moves for the same seed."""

    def __call__(self, seed: int, seconds: float) -> Figures: ...
