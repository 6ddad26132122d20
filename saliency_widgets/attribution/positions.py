"""Positions: for models that score classes at each token of a text, the tokens whose scores can be explained."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Role = Literal["label", "mask", "next"]


@dataclass(frozen=True, eq=False)
class Positions:
    """The positions of a model's output, shape (B, T, K).

    Attributes:
        role: What a position scores: the "label" of its token, the token behind a "mask" there, or the "next" token.
        pieces: The text of the token at each position of each sample.
        ids: The ids of these tokens, shape (B, T).
        default: The position of each sample that is explained if none is chosen.
        names: Returns the name of each class, where the classes are the tokens of a vocabulary; otherwise None.
        generated: Whether the tokens are those of a decoder instead of the explained ones.
    """

    role: Role
    pieces: tuple[tuple[str, ...], ...]
    ids: Tensor
    default: tuple[int, ...]
    names: Callable[[], tuple[str, ...]] | None = None
    generated: bool = False

    @property
    def count(self) -> int:
        """T, the number of positions."""
        return self.ids.shape[1]

    def split(self, value: Any, argument: str, default: Tensor | None = None) -> tuple[Tensor, Any]:
        """Return the position of each sample, shape (B,), and the class at these positions.

        Args:
            value: A tuple (position, class), or one for each sample in a list; or a class, or None, at the default
                positions.
            argument: The argument's name, for the error.
            default: The default positions, shape (B,). Default: :attr:`default`.

        Raises:
            ValueError: A position is out of range.
        """
        usual = torch.tensor(self.default, device="cpu") if default is None else default
        items = value if isinstance(value, list) else [value] * len(usual)
        if not all(isinstance(item, tuple) and len(item) == 2 for item in items) or len(items) != len(usual):
            return usual, value
        positions = [operator.index(item[0]) for item in items]
        outside = next((one for one in positions if not 0 <= one < self.count), None)
        if outside is not None:
            raise ValueError(
                f"{argument}: position {outside} is out of range, the model scores positions 0 to {self.count - 1}. A "
                f"tuple is (position, class)."
            )
        classes = [item[1] for item in items]
        return torch.tensor(positions, device="cpu"), classes if isinstance(value, list) else classes[0]

    def explain(self, token: int) -> tuple[int, int | None]:
        """Return the position and the class that explain a token; the class is None if it is the top one there.

        Args:
            token: The index of a token of the first sample; T for the token after the text.

        Raises:
            ValueError: No token precedes it, so nothing can explain it.
        """
        if self.role != "next":
            return token, None
        if token == 0:
            raise ValueError("target: nothing precedes the first token, so there is nothing to explain it by.")
        return token - 1, int(self.ids[0, token]) if token < self.count else None

    def token(self, position: int) -> int:
        """Return the index of the token whose score a position holds; T for the token after the text."""
        return position + 1 if self.role == "next" else position

    def label(self, name: str, position: int) -> str:
        """Return the name of a class at a position."""
        piece = self.pieces[0][position].strip() if position < self.count else "…"  # an event of a longer text
        if self.role == "label":
            return f"{name} for “{piece}”"
        return f"“{name.strip() or repr(name)}” {'after' if self.role == 'next' else 'for'} “{piece}”"
