"""Other texts as baselines of a text: their tokens take the places of its tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from saliency_widgets.inputs.text.tokens import Tokens, read_tokens

_FILLERS = ("pad", "mask", "unknown")


def ids_of_others(texts: Any, tokens: Tokens, tokenizer: Any) -> Tensor:
    """Return the ids of other texts in the places of a text's tokens.

    Special tokens of the text stay, so that a classifier finds its separators where they are. A shorter text is
    followed by padding.

    Args:
        texts: A text, or a list of texts.
        tokens: The tokens of the explained text.
        tokenizer: The tokenizer of all of them.

    Returns:
        Shape (N, T).

    Raises:
        TypeError: They are not texts.
        ValueError: There are none, one is longer than the explained text, or nothing can pad a shorter one.
    """
    listed = [texts] if isinstance(texts, str) else texts
    if not isinstance(listed, (list, tuple)) or not all(isinstance(text, str) for text in listed):
        raise TypeError(f"background: expected a text or a list of texts, got a {type(texts).__name__}.")
    if not listed:
        raise ValueError("background: the list is empty. Pass at least one text, or omit it.")
    if len(tokens.ids) != 1:
        raise ValueError(f"background: expected one text to explain, got {len(tokens.ids)}. Pass one of them.")
    return torch.cat([_in_place_of(tokens, _read(text, tokenizer), text) for text in listed])


def _read(text: str, tokenizer: Any) -> Tensor:
    try:
        other = read_tokens(text, tokenizer)
    except ValueError as error:
        raise ValueError(f"background: {str(error).removeprefix('inputs: ')}") from error
    return other.ids[0][~other.special[0]]


def _in_place_of(tokens: Tokens, other: Tensor, text: str) -> Tensor:
    free = ~tokens.special[0]
    places = int(free.sum())
    missing = places - len(other)
    if missing < 0:
        raise ValueError(
            f"background: {text[:40]!r} has {len(other)} tokens, but there are {places} places in the explained text. "
            f"Pass a shorter text."
        )
    filler = next((tokens.vocabulary[name] for name in _FILLERS if name in tokens.vocabulary), None)
    if missing and filler is None:
        raise ValueError(
            f"background: {text[:40]!r} has {len(other)} tokens instead of {places}, and the tokenizer has no token to "
            f"pad it with. Pass a text of {places} tokens."
        )
    ids = tokens.ids.clone()
    ids[0, free] = torch.cat([other, torch.full((missing,), filler or 0, device="cpu").to(other)])
    return ids
