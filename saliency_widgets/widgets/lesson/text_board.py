"""The computations of a lesson on a text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from saliency_widgets.attribution import Attribution, Reduction, get_method
from saliency_widgets.inputs import TextKind
from saliency_widgets.session.frames import coded
from saliency_widgets.widgets.base.kind_view import view_of
from saliency_widgets.widgets.lesson.board import GRADIENT, Board
from saliency_widgets.widgets.lesson.page import Page

_FEW = 5  # tokens to follow through the steps
_NUMBERS = 16  # of each vector
_LONGEST = 16  # characters of a token on a button


class TextBoard(Board):
    """The results for a text; the steps follow a few of its tokens, and of their vectors a few numbers.

    Attributes:
        kind: The tokens and the table of embeddings.
        few: The tokens to follow, in order: the words with the largest sums of gradient times embedding.
        chosen: The numbers of each vector to show, in order: those with the largest products in the tokens to follow.
    """

    look: ClassVar[Mapping[str, Any]] = {"scene": True}
    longest = 48  # a class at a position is named by two tokens

    @property
    def kind(self) -> TextKind:  # noqa: D102
        kind = self.problem.kind
        assert isinstance(kind, TextKind)
        return kind

    @property
    def scene(self) -> dict[str, Any]:
        """The tokens for the page, see ``js/src/text/flow.ts``; "unknown" marks those that the tokenizer lacks."""
        unknown = self.kind.tokens.vocabulary.get("unknown")
        shown = view_of("text").still(self.problem.prepared, self.request(GRADIENT))
        return {**shown, "unknown": [index == unknown for index in shown["ids"]]}

    def seen(self, page: Page, caption: str) -> dict[str, Any]:
        """Return a panel with the tokens."""
        return page.tokens(caption)

    def reduction_of(self, method: str) -> Reduction:
        """Return the explorer's default: the signed sum of values that add up to the score, or else the norm."""
        return self.kind.features.reduction_for(get_method(method))

    @property
    def vectors(self) -> Tensor:
        """The embeddings of the tokens, shape (T, E)."""
        return self.problem.tensor[0]

    @property
    def slopes(self) -> Tensor:
        """The gradient of the score by the embeddings, shape (T, E)."""
        return self.gradient.values[0]

    @property
    def product(self) -> Attribution:
        """Gradient times embedding."""
        return self.attribution("input_x_gradient")

    @property
    def sums(self) -> Tensor:
        """The sum of gradient times embedding of each token, shape (T,)."""
        return self.product.values[0].sum(-1)

    @property
    def words(self) -> Tensor:
        """Whether each token is a word or a part of one; all tokens if there is none, shape (T,)."""
        tokens = self.kind.tokens
        letters = torch.tensor([any(map(str.isalnum, piece)) for piece in tokens.pieces[0]])
        words = letters & ~tokens.special[0] & ~tokens.padding[0]
        return words if bool(words.any()) else torch.ones_like(words)

    @cached_property
    def few(self) -> list[int]:  # noqa: D102
        words = self.words.to(self.sums.device)
        return strongest(torch.where(words, self.sums.abs(), -1.0), min(_FEW, int(words.sum())))

    @cached_property
    def chosen(self) -> list[int]:  # noqa: D102
        return strongest(self.product.values[0][self.few].abs().sum(0), _NUMBERS)

    def piece(self, token: int) -> str:
        """Return the name of a token, with its place if another one reads the same."""
        pieces = [piece.strip() or repr(piece) for piece in self.kind.tokens.pieces[0]]
        name = pieces[token] if len(pieces[token]) <= _LONGEST else f"{pieces[token][: _LONGEST - 1]}…"
        return name if pieces.count(pieces[token]) == 1 else f"{name} ({token + 1})"

    def each_of_few(self, page: Page) -> Iterator[tuple[int, str]]:
        """Let the page's control choose one of the tokens to follow, at first the strongest, and yield each."""
        page.set_control("Token", start=int(self.sums[self.few].abs().argmax()))
        for token in self.few:
            yield token, self.piece(token)

    def strip(self, page: Page, name: str, caption: str, values: Tensor, token: int) -> dict[str, Any]:
        """Return a panel with the shown numbers of the tokens to follow, one row for each token, one of them marked."""
        shown, axes = values[self.few][:, self.chosen], ([self.piece(row) for row in self.few], self.columns)
        return page.numbers(name, caption, lambda: coded(shown, signed=True), axes, self.few.index(token))

    def vector(self, page: Page, caption: str, values: Tensor) -> dict[str, Any]:
        """Return a panel with the shown numbers of one token's values, shape (E,)."""
        return page.vector(caption, values[self.chosen].tolist(), self.columns, self.shown_numbers)

    @property
    def columns(self) -> list[str]:
        """The names of the shown numbers."""
        return [f"number {column + 1}" for column in self.chosen]

    @property
    def shown_numbers(self) -> str:
        """How many of the numbers of a vector are shown."""
        size = self.vectors.shape[1]
        return f"all {size} numbers" if len(self.chosen) == size else f"{len(self.chosen)} of the {size} numbers"


def strongest(sizes: Tensor, most: int) -> list[int]:
    """Return the places of the largest sizes, ascending; of equal ones, the first."""
    return sorted(sizes.argsort(descending=True, stable=True)[:most].tolist())
