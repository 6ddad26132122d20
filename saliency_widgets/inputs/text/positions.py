"""What a language model scores: the whole text, the label of each token, or the token at each position."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from saliency_widgets.attribution.positions import Positions, Role
from saliency_widgets.attribution.score import scores_in
from saliency_widgets.inputs.text.language_model import DECODER_IDS
from saliency_widgets.inputs.text.tokens import IDS, Tokens

_SAME = 1e-4  # of the largest score
_FEW = 8  # tokens


def find_positions(
    output: Any, tokens: Tokens, vocabulary: int | None, run: Callable[[Tokens], Any]
) -> Positions | None:
    """Return the positions at which a model scores classes; None if it scores the whole text.

    Args:
        output: The model's output for the tokens.
        tokens: The tokens.
        vocabulary: The number of tokens that the model has embeddings for, if known.
        run: Runs the model on other tokens of the same number, to see whether scores depend on what follows.
    """
    decoded = tokens.arguments.get(DECODER_IDS)
    scores = _scores(output, tokens.ids if decoded is None else decoded)
    if scores is None:
        return None
    if decoded is not None:
        pieces = tuple(tokens.names(row) for row in decoded.tolist())
        last = (decoded.shape[1] - 1,) * len(decoded)
        names = partial(tokens.names, range(scores.shape[2]))
        return Positions("next", pieces, decoded.cpu(), last, names, generated=True)
    classes = scores.shape[2]
    if vocabulary is None or classes < vocabulary:
        return _positions("label", tokens, None, [_first(row) for row in tokens.special.tolist()])
    names = partial(tokens.names, range(classes))
    masks = tokens.ids == tokens.vocabulary.get("mask", -1)
    if bool(masks.any(1).all()):
        return _positions("mask", tokens, names, masks.int().argmax(1).tolist())
    if _looks_ahead(scores, tokens, run):
        return _positions("mask", tokens, names, [_first(row) for row in tokens.special.tolist()])
    return _positions("next", tokens, names, [_last(row) for row in tokens.padding.tolist()])


def _positions(
    role: Role, tokens: Tokens, names: Callable[[], tuple[str, ...]] | None, default: list[int]
) -> Positions:
    return Positions(role, tokens.pieces, tokens.ids, tuple(default), names)


def _scores(output: Any, ids: Tensor) -> Tensor | None:
    """Return scores of shape (B, T, K) for ids of shape (B, T) in the output; None if it has no such scores."""
    try:
        scores = scores_in(output, len(ids))
    except TypeError:
        return None
    fits = scores.ndim == 3 and scores.shape[:2] == ids.shape and scores.is_floating_point()
    return scores if fits else None


def _looks_ahead(scores: Tensor, tokens: Tokens, run: Callable[[Tokens], Any]) -> bool:
    """Return whether the scores before the last token change with the last token, unlike those of a causal model."""
    if tokens.ids.shape[1] < 2:
        return False
    if tokens.ids.shape[1] > 2 * _FEW and not bool(tokens.padding[:, :_FEW].any()):
        beginning = _beginning_of(tokens)
        try:  # two passes of a few tokens are faster than one of all
            few = _scores(run(beginning), beginning.ids)
        except ValueError:  # the model takes texts of only one length
            few = None
        if few is not None:
            scores, tokens = few, beginning
    ids = tokens.ids.clone()
    ids[:, -1] = (ids[:, -1] == 0).to(ids)  # another token: the first, or the second in its place
    other = _scores(run(replace(tokens, ids=ids, arguments={**tokens.arguments, IDS: ids})), ids)
    if other is None:
        return True
    before, after = scores[:, :-1].double(), other[:, :-1].double()
    return bool((before - after).abs().max() > _SAME * before.abs().max())


def _beginning_of(tokens: Tokens) -> Tokens:
    """Return the first tokens, with as much of what the model takes for each token."""
    arguments = {
        name: value[:, :_FEW] if value.shape == tokens.ids.shape else value for name, value in tokens.arguments.items()
    }
    return replace(tokens, ids=tokens.ids[:, :_FEW], arguments=arguments)


def _first(skipped: list[bool]) -> int:
    return skipped.index(False) if False in skipped else 0


def _last(skipped: list[bool]) -> int:
    return len(skipped) - 1 - _first(skipped[::-1])
