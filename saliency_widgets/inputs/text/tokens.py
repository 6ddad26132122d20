"""Tokens: a text or ids, read with the caller's tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saliency_widgets.attribution.arrays import check_dense
from saliency_widgets.params import brief, check_text

IDS = "input_ids"
_NAMED = {"pad": "pad_token_id", "mask": "mask_token_id", "unknown": "unk_token_id", "end": "eos_token_id"}
_SPACES = ("Ġ", "▁")  # marks of a space before a token
_UNKNOWN = ("[UNK]", "<unk>", "<UNK>", "unk", "UNK")


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens of texts of equal length.

    Attributes:
        ids: The ids, shape (B, T).
        pieces: The text of each token of each sample.
        gaps: The text before each token that belongs to no token, such as a space.
        words: The index of the word that each token belongs to, -1 for special tokens; None if unknown.
        special: Whether each token is special (a separator, padding), shape (B, T).
        arguments: Everything that the tokenizer returned for the model, by name; the ids alone if there is no more.
        vocabulary: The ids of special tokens by name: "pad", "mask", "unknown", "end".
        names: A function from ids to the name of each.
        text: The text of a single sample; None if ids were passed.
        spans: The part of :attr:`text` that each token stands for, from and to; empty for special tokens, and without
            any if the tokenizer doesn't tell.
    """

    ids: Tensor
    pieces: tuple[tuple[str, ...], ...]
    gaps: tuple[tuple[str, ...], ...]
    words: tuple[tuple[int, ...], ...] | None
    special: Tensor
    arguments: Mapping[str, Tensor]
    vocabulary: Mapping[str, int]
    names: Callable[[Iterable[int]], tuple[str, ...]]
    text: str | None = None
    spans: tuple[tuple[int, int], ...] = ()

    @property
    def padding(self) -> Tensor:
        """Whether each token is padding, by the attention mask, shape (B, T)."""
        mask = self.arguments.get("attention_mask")
        return torch.zeros_like(self.special) if mask is None or mask.shape != self.ids.shape else mask == 0

    def shown(self, sample: int) -> dict[str, list[Any]]:
        """Return the tokens of one sample for the page: their pieces, the gaps before them, and their ids."""
        return {
            "pieces": list(self.pieces[sample]),
            "gaps": list(self.gaps[sample]),
            "ids": self.ids[sample].tolist(),
            "special": self.special[sample].tolist(),
        }

    def edited(self, chosen: Iterable[int], replacement: str, *, each: bool = False) -> str:
        """Return the text with some tokens replaced.

        Args:
            chosen: The indices of the tokens.
            replacement: The text in place of tokens that follow each other; "" to delete them.
            each: Whether it replaces each token instead.

        Raises:
            ValueError: The text is unknown, or a token stands for no part of it.
        """
        if self.text is None or not self.spans:
            raise ValueError("edit: single tokens can be edited only in a text that a tokenizer has read. Pass text=.")
        runs: list[list[int]] = []
        for index in sorted(set(chosen)):
            start, stop = self.spans[index] if 0 <= index < len(self.spans) else (0, 0)
            if start == stop:
                raise ValueError(f"edit: token {index} stands for no part of the text. Choose another.")
            if runs and not each and self.spans[index - 1][1] == runs[-1][1]:
                runs[-1][1] = stop
            else:
                runs.append([start, stop])
        text = self.text
        for start, stop in reversed(runs):
            # With a deleted word goes one of the spaces around it.
            gap = not replacement and text[stop : stop + 1] == " " and text[max(0, start - 1) : start] in ("", " ")
            text = text[:start] + replacement + text[stop + gap :]
        return text

    def extended(self, arguments: Mapping[str, Tensor]) -> Tokens:
        """Return these tokens of one text, followed by those with which the ids among the arguments go on.

        Args:
            arguments: What the model takes, with the longer ids.
        """
        ids = arguments[IDS]
        added = self.names(ids[0, self.ids.shape[1] :].tolist())
        gaps = ["" if piece[:1] in (" ", "##") or not piece.strip() else " " for piece in added]
        new = ids.shape[1] - self.ids.shape[1]
        return replace(
            self,
            ids=ids,
            pieces=((*self.pieces[0], *added),),
            gaps=((*self.gaps[0], *gaps),),
            words=None,
            special=torch.cat([self.special, torch.zeros(1, new, dtype=torch.bool)], 1),
            arguments=arguments,
        )


def read_tokens(inputs: Any, tokenizer: Any) -> Tokens:
    """Read a text, words, or ids.

    Args:
        inputs: A text; a list of texts, or of words if the tokenizer is a mapping; ids, shape (T,) or (B, T); or what
            the tokenizer returns, a mapping with "input_ids".
        tokenizer: A Hugging Face tokenizer, a mapping from words to ids, or a function from a text to ids.

    Raises:
        TypeError: The inputs or the tokenizer have an unsupported type.
        ValueError: The text is empty, a word is unknown, or texts differ in length and the tokenizer can't pad them.
    """
    if hasattr(tokenizer, "convert_ids_to_tokens"):
        return _with_tokenizer(inputs, tokenizer)
    if isinstance(tokenizer, Mapping):
        return _with_vocabulary(inputs, tokenizer)
    if callable(tokenizer):
        return _with_function(inputs, tokenizer)
    raise TypeError(
        f"tokenizer: expected a Hugging Face tokenizer, a mapping from words to ids, or a function from a text to ids, "
        f"got a {type(tokenizer).__name__}."
    )


# ---- Hugging Face


def _with_tokenizer(inputs: Any, tokenizer: Any) -> Tokens:
    texts = _texts(inputs)
    arguments, spans, words = (_arguments(inputs), None, None) if texts is None else _encode(texts, tokenizer)
    ids = arguments[IDS]
    special_ids = set(getattr(tokenizer, "all_special_ids", ()))
    special = torch.tensor([[one in special_ids for one in row] for row in ids.tolist()], dtype=torch.bool)
    if texts is not None and bool(special.all()):
        raise ValueError("inputs: the text is empty. Pass a text with at least one token.")
    named = [[_name_of(index, tokenizer) for index in row] for row in ids.tolist()]
    if texts is None or spans is None:
        shown = [_clean(row) for row in named]
    else:
        shown = [_spanned(*one) for one in zip(texts, spans, named, strict=True)]
    pieces, gaps = zip(*shown, strict=True)
    named_ids = {name: getattr(tokenizer, attribute, None) for name, attribute in _NAMED.items()}
    vocabulary = {name: index for name, index in named_ids.items() if index is not None}
    names = partial(_names_with, tokenizer)
    text = texts[0] if texts is not None and len(texts) == 1 else None
    parts = tuple((start, stop) for start, stop in spans[0]) if spans is not None and text is not None else ()
    return Tokens(ids, pieces, gaps, words, special, arguments, vocabulary, names, text, parts)


def _encode(texts: list[str], tokenizer: Any) -> tuple[dict[str, Tensor], Any, Any]:
    """Return what a tokenizer returns for the model, each token's span in its text, and the words of the tokens."""
    pads = getattr(tokenizer, "pad_token_id", None) is not None
    if not pads and len({len(tokenizer(text)[IDS]) for text in texts}) > 1:
        raise ValueError(
            "inputs: the texts have different numbers of tokens, and the tokenizer has no padding token. Set "
            "tokenizer.pad_token, or pass one text."
        )
    fast = bool(getattr(tokenizer, "is_fast", False))
    encoded = tokenizer(texts, return_tensors="pt", padding=pads and len(texts) > 1, return_offsets_mapping=fast)
    spans = encoded.pop("offset_mapping").tolist() if fast else None
    arguments = {name: value for name, value in encoded.items() if isinstance(value, Tensor)}
    if not arguments[IDS].numel():
        raise ValueError("inputs: the text is empty. Pass a text with at least one token.")
    if not fast:
        return arguments, spans, None
    words = [[-1 if word is None else word for word in encoded.word_ids(k)] for k in range(len(texts))]
    return arguments, spans, tuple(map(tuple, words))


def _name_of(index: int, tokenizer: Any) -> str:
    """Return a token's name; the id itself if the tokenizer doesn't have it."""
    name = tokenizer.convert_ids_to_tokens(index) if index >= 0 else None
    return str(index) if name is None else name


def _names_with(tokenizer: Any, ids: Iterable[int]) -> tuple[str, ...]:
    """Return readable names of tokens; a space before a word is part of its name."""
    names = [_name_of(index, tokenizer) for index in ids]
    return tuple(" " + name[1:] if name[:1] in _SPACES else name for name in names)


Pieces = tuple[tuple[str, ...], tuple[str, ...]]


def _spanned(text: str, spans: Sequence[Sequence[int]], names: Sequence[str]) -> Pieces:
    """Return each token's part of the text, and the text between the tokens; a token without a part has its name."""
    pieces, gaps, end = [], [], 0
    for (start, stop), name in zip(spans, names, strict=True):
        if start == stop:
            pieces.append(name)
            gaps.append("")
            continue
        surface = text[max(start, end) : stop]  # tokens of the bytes of one character have the same span
        pieces.append(surface if surface else name)
        gaps.append(text[end:start] if start > end else "")
        end = max(end, stop)
    return tuple(pieces), tuple(gaps)


def _clean(names: Sequence[str]) -> Pieces:
    """Return readable pieces for tokens by name: marks of WordPiece, byte-level BPE and SentencePiece are removed."""
    pieces, gaps = [], []
    marked = any(name[:1] in _SPACES for name in names)
    for index, name in enumerate(names):
        joined = name.startswith("##")
        spaced = name[:1] in _SPACES
        pieces.append(name[2:] if joined else name[1:] or " " if spaced else name)
        gaps.append("" if index == 0 or joined or (marked and not spaced) else " ")
    return tuple(pieces), tuple(gaps)


# ---- other tokenizers


def _with_vocabulary(inputs: Any, vocabulary: Mapping[Any, Any]) -> Tokens:
    arguments: Mapping[str, Tensor] | None = None
    text: str | None = None
    if isinstance(inputs, str):
        text, words = inputs, [inputs.split()]
    elif isinstance(inputs, (list, tuple)) and inputs and all(isinstance(item, str) for item in inputs):
        text, words = " ".join(inputs), [list(inputs)]
    else:
        arguments = _arguments(inputs)
        names = {index: str(word) for word, index in vocabulary.items()}
        words = [[names.get(index, str(index)) for index in row] for row in arguments[IDS].tolist()]
    if not words[0]:
        raise ValueError("inputs: the text is empty. Pass a text with at least one word.")
    unknown = next((vocabulary[name] for name in _UNKNOWN if name in vocabulary), None)
    if arguments is None:
        missing = [word for word in words[0] if word not in vocabulary]
        if missing and unknown is None:
            raise ValueError(f"inputs: {brief(missing[0])} is not in the vocabulary. Pass other words, or ids.")
        arguments = {IDS: torch.tensor([[vocabulary.get(word, unknown) for word in words[0]]])}
    by_id = {index: str(word) for word, index in vocabulary.items()}
    tokens = _plain(arguments, words, {} if unknown is None else {"unknown": unknown}, by_id)
    return tokens if text is None else replace(tokens, text=text, spans=_spans_of(text, words[0]))


def _spans_of(text: str, words: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Return where each word stands in a text that holds them in this order."""
    spans, end = [], 0
    for word in words:
        start = text.index(word, end)
        end = start + len(word)
        spans.append((start, end))
    return tuple(spans)


def _with_function(inputs: Any, tokenizer: Callable[[str], Any]) -> Tokens:
    text = inputs if isinstance(inputs, str) else None
    if isinstance(inputs, str):
        try:
            inputs = tokenizer(inputs)
        except Exception as error:
            raise ValueError(f"tokenizer: it raised {type(error).__name__} for the text: {error}.") from error
        if isinstance(inputs, str) or (isinstance(inputs, (list, tuple)) and any(isinstance(i, str) for i in inputs)):
            raise TypeError("tokenizer: it must return ids, got texts. Pass a function from a text to integers.")
    arguments = _arguments(inputs)
    pieces = [[str(index) for index in row] for row in arguments[IDS].tolist()]
    return replace(_plain(arguments, pieces, {}, {}), text=text)


def _plain(
    arguments: Mapping[str, Tensor],
    pieces: Sequence[Sequence[str]],
    vocabulary: Mapping[str, int],
    words: Mapping[Any, str],
) -> Tokens:
    gaps = tuple(("", *[" "] * (len(row) - 1)) for row in pieces)
    each = tuple(tuple(range(len(row))) for row in pieces)
    special = torch.zeros(arguments[IDS].shape, dtype=torch.bool)
    names = lambda ids: tuple(words.get(index, str(index)) for index in ids)  # noqa: E731
    return Tokens(arguments[IDS], tuple(map(tuple, pieces)), gaps, each, special, arguments, vocabulary, names)


def _texts(inputs: Any) -> list[str] | None:
    """Return one or several texts as a list; None for ids."""
    if isinstance(inputs, str):
        return [check_text("inputs", inputs)]
    if isinstance(inputs, (list, tuple)) and inputs and all(isinstance(item, str) for item in inputs):
        return list(inputs)
    return None


def _arguments(inputs: Any) -> dict[str, Tensor]:
    """Return ids, and what comes with them, as tensors with a batch dimension."""
    named = inputs if isinstance(inputs, Mapping) else {IDS: inputs}
    if IDS not in named:
        raise ValueError(f"inputs: expected a mapping with 'input_ids', got the keys {[*named]}.")
    return {str(name): _batched(str(name), value) for name, value in named.items() if value is not None or name == IDS}


def _batched(name: str, value: Any) -> Tensor:
    argument = "inputs" if name == IDS else f"inputs[{name!r}]"
    if isinstance(value, (list, tuple)) and all(isinstance(item, Integral) for item in value):
        value = np.asarray(value, dtype=np.int64)
    expected = f"{argument}: expected a text, ids or the tokenizer's output, got a {type(value).__name__}"
    if not isinstance(value, (Tensor, np.ndarray, list, tuple)):
        raise TypeError(f"{expected}.")
    try:
        tensor = value if isinstance(value, Tensor) else torch.from_numpy(np.asarray(value))
    except (TypeError, ValueError) as error:
        raise TypeError(f"{expected}: {error}.") from error
    check_dense(tensor, argument)
    whole = not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)
    if name == IDS and (not whole or tensor.ndim not in (1, 2)):
        raise TypeError(
            f"{argument}: expected ids as integers of shape (T,) or (B, T), got {tensor.dtype} of shape "
            f"{tuple(tensor.shape)}."
        )
    if name == IDS and not tensor.numel():
        raise ValueError("inputs: there are no ids. Pass at least one.")
    with torch.inference_mode(False):
        return (tensor[None] if tensor.ndim == 1 else tensor).detach().clone()
