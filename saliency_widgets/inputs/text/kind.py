"""Texts as inputs of language models: what is explained are the embeddings of their tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from saliency_widgets.attribution import Kind, Reduction
from saliency_widgets.attribution.baselines import noise, zero
from saliency_widgets.attribution.features import Features, runs_of
from saliency_widgets.attribution.kind import Baseline
from saliency_widgets.attribution.positions import Positions
from saliency_widgets.attribution.registry import Method
from saliency_widgets.attribution.score import is_function
from saliency_widgets.inputs.options import Options
from saliency_widgets.inputs.prepared import Prepared
from saliency_widgets.inputs.text.embedding import EmbeddingTable, find_lookup
from saliency_widgets.inputs.text.language_model import LanguageModel, most_positions
from saliency_widgets.inputs.text.others import ids_of_others
from saliency_widgets.inputs.text.positions import find_positions
from saliency_widgets.inputs.text.together import explained_names, joined, prepare_others
from saliency_widgets.inputs.text.tokens import IDS, Tokens, read_tokens
from saliency_widgets.runtime.arguments import Arguments
from saliency_widgets.runtime.lookup import Lookup

_LISTED = 5  # unknown tokens in a message


@dataclass(frozen=True)
class TokenReduction(Reduction):
    """A reduction of embeddings to tokens.

    Attributes:
        words: Whether each token gets the sum over the tokens of its word.
    """

    words: bool = False


@dataclass(frozen=True)
class TokenFeatures(Features):
    """The tokens of texts, labeled by their pieces, in groups of the same word."""

    channels_title = "Embedding"

    def sign_for(self, method: Method) -> str:
        """Return both signs if the values add up to the score, or else the sign of the method's paper."""
        return "signed" if method.additive else method.sign

    def channels_for(self, sign: str) -> str:
        """Return the sum for signed maps, the norm for all others."""
        return "sum" if sign == "signed" else "L2"

    def reduce(self, values: Tensor, reduction: Reduction, shape: tuple[int, ...]) -> Tensor:
        """Reduce the values of each embedding to one per token; those of a layer are interpolated over the tokens.

        Args:
            values: Shape (B, T, E), or those of a layer, (B, K, 1, t).
            reduction: How signs and the numbers of an embedding are reduced.
            shape: The shape of the embeddings, (B, T, E).

        Returns:
            Shape (B, T).

        Raises:
            ValueError: The values belong neither to the embeddings nor to a layer over the tokens.
        """
        if values.shape[1:] == shape[1:]:
            values = values.transpose(1, 2)[:, :, None]
        elif values.ndim != 4 or values.shape[2] != 1:
            raise ValueError(
                f"values: expected one per number of the embeddings, of shape {tuple(shape[1:])}, or those of a layer "
                f"over the tokens, got shape {tuple(values.shape[1:])}. Read the numbers from .values."
            )
        tokens = reduction(values, (1, shape[1]))[:, 0]
        if self.groups is None or not isinstance(reduction, TokenReduction) or not reduction.words:
            return tokens
        runs = torch.tensor([runs_of(groups) for groups in self.groups[: len(tokens)]], device=tokens.device)
        return torch.zeros_like(tokens).scatter_add_(1, runs, tokens).gather(1, runs)


@dataclass(frozen=True, eq=False)
class TextKind(Kind):
    """The embeddings of a text's tokens, shape (T, E).

    Attributes:
        tokens: The tokens.
        table: The embeddings of all tokens of the model.
        positions: The positions at which the model scores classes; None if it scores the whole text.
        others: The embeddings of other texts in the places of this one's tokens, shape (N, T, E); None without any.
        full: Whether the text fills all positions of the model.
    """

    name = noun = "text"
    feature = "token"
    mark = "A strong color"
    drawn = True
    one_size = False
    tokens: Tokens = field()
    table: EmbeddingTable = field()
    positions: Positions | None = None
    others: Tensor | None = None
    full: bool = False

    @staticmethod
    def accepts(inputs: Any, options: Options) -> bool:  # noqa: ARG004
        """Return whether there is a tokenizer."""
        return options.tokenizer is not None

    @staticmethod
    def prepare(
        model: nn.Module,
        inputs: Any,
        options: Options,
        *,
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> Prepared:
        """Read a text, and look up the embeddings of its tokens: see :func:`prepare_text`."""
        return prepare_text(model, inputs, options, device=device, dtype=dtype)

    @property
    def features(self) -> TokenFeatures:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The tokens."""
        return TokenFeatures(self.tokens.pieces, self.tokens.words)

    def token_of(self, target: Any) -> int | None:
        """Return the index of the token of the first text whose score a target is; None for that of the whole text."""
        if self.positions is None or is_function(target):
            return None
        return self.positions.token(int(self.positions.split(target, "target")[0][0]))

    @property
    def ignored(self) -> Tensor | None:
        """The padding, shape (B, T); None without any."""
        padding = self.tokens.padding
        return padding if bool(padding.any()) else None

    @property
    def cautions(self) -> tuple[tuple[str, str], ...]:
        """Unknown tokens, and a text that may have been truncated."""
        ids = self.tokens.ids.flatten().tolist()
        pieces = [piece for row in self.tokens.pieces for piece in row]
        unknown = [p for index, p in zip(ids, pieces, strict=True) if index == self.tokens.vocabulary.get("unknown")]
        warnings = []
        if unknown:
            shown = ", ".join(repr(piece) for piece in dict.fromkeys(unknown[:_LISTED]))
            warnings.append((
                f"{len(unknown)} of {len(ids)} tokens are unknown to the tokenizer ({shown}): they all have the same "
                f"embedding, so the model can't tell them apart.",
                "Use the tokenizer that the model was trained with, or other words.",
            ))  # fmt: skip
        if self.full:
            warnings.append((
                f"The text fills all {self.tokens.ids.shape[1]} positions of the model: it may have been truncated, "
                f"and what was cut off has no attribution.",
                "Check the length of the text, or explain its parts.",
            ))  # fmt: skip
        return tuple(warnings)

    @property
    def state(self) -> tuple[Any, ...]:
        """The tokens, the position that is explained by default, and the other texts."""
        tokens, at = self.tokens, self.positions
        scored = None if at is None else (at.role, at.default, at.generated)
        return tokens.ids, tokens.special, tokens.padding, dict(tokens.vocabulary), scored, self.others

    @property
    def default_fill(self) -> str:
        """The default fill: the mask token, or else the default baseline."""
        return "mask" if "mask" in self.tokens.vocabulary else next(iter(self.baselines))

    @property
    def background(self) -> Tensor | None:
        """The embeddings of other texts, shape (N, T, E); None without any."""
        return self.others

    @property
    def baselines(self) -> Mapping[str, Baseline]:
        """The baselines by name: padding first, if any. A baseline of tokens preserves special tokens.

        "text" is the first of the other texts.
        """
        rows: dict[str, Callable[[], Tensor]] = {
            name: partial(self.table.row, index) for name, index in self.tokens.vocabulary.items() if name != "end"
        }
        if self.table.size is not None:
            rows["mean"] = lambda: self.table.mean
        texts: dict[str, Baseline] = {} if self.others is None else {"text": self._first_of_others}
        return {
            **{name: self._except_special(row) for name, row in rows.items()},
            **texts,
            "zero": zero,
            "noise": noise,
        }

    def _first_of_others(self, inputs: Tensor, _seed: int) -> Tensor:
        assert self.others is not None
        return self.others[:1].to(inputs).expand_as(inputs).clone()

    def spread(self, inputs: Tensor) -> Tensor:
        """Return the standard deviation of each number of an embedding over all tokens of the model, shape (1, 1, E).

        The range of the inputs if the number of tokens is unknown.
        """
        return super().spread(inputs) if self.table.size is None else self.table.deviation.to(inputs)

    def _except_special(self, row: Callable[[], Tensor]) -> Baseline:
        def make(inputs: Tensor, _seed: int) -> Tensor:
            return torch.where(self.tokens.special.to(inputs.device)[..., None], inputs, row().to(inputs))

        return make

    def why_no_baseline(self, name: str, inputs: Tensor) -> str:  # noqa: ARG002
        """Return an error message that names the baselines of this text."""
        if name in ("pad", "mask", "unknown"):
            return f"baseline: the tokenizer has no {name!r} token. Use one of {list(self.baselines)}."
        if name == "text":
            return "baseline: 'text' is the first of the other texts. Pass them as background=."
        return f"baseline: {name!r} isn't defined for texts. Use one of {list(self.baselines)}, or a tensor."

    def shape_of(self, inputs: Tensor) -> tuple[int, ...]:
        """Return the number of tokens."""
        return (inputs.shape[1],)

    def reduce(self, values: Tensor, reduction: Reduction, inputs: Tensor) -> Tensor:
        """Reduce the values of each embedding to one per token, shape (B, T)."""
        return self.features.reduce(values, reduction, tuple(inputs.shape))

    def broadcast(self, masks: Tensor) -> Tensor:
        """Add the embedding's dimension to masks of tokens."""
        return masks[..., None]


def prepare_text(
    model: nn.Module, inputs: Any, options: Options, *, device: torch.device, dtype: torch.dtype | None = None
) -> Prepared:
    """Read a text, and look up the embeddings of its tokens; other inputs may be explained with it, or given it.

    Args:
        model: The model, which takes ids.
        inputs: A text, ids, or the tokenizer's output: see :func:`read_tokens`. A mapping may hold images, too.
        options: The options, among them the tokenizer.
        device: The model's device.
        dtype: The model's dtype, for other inputs.

    Raises:
        TypeError: The inputs or the tokenizer have an unsupported type.
        ValueError: The text is empty or too long, an id is out of range, the model fails, or no embedding takes the
            ids.
    """
    for name in ("feature_names", "slices", *(() if isinstance(inputs, Mapping) else ("transform",))):
        if getattr(options, name) is not None:
            raise ValueError(f"{name}: it doesn't apply to a text. Omit it, or omit tokenizer=.")
    names = explained_names(inputs, options)
    with_text = prepare_others(model, inputs, names, options, device, dtype)
    if with_text:
        inputs = {**inputs, **{name: one.tensor for name, one in with_text.items()}}
    language = LanguageModel(model, device)
    tokens = language.complete(read_tokens(inputs, options.tokenizer))
    lookup, embeddings, positions = _read(language, tokens)
    if options.max_new_tokens:
        if positions is None or positions.role != "next":
            raise ValueError("max_new_tokens: the model doesn't predict the next token of the text. Omit it.")
        tokens = language.continued(tokens, options.max_new_tokens)
        lookup, embeddings, positions = _read(language, tokens)
    arguments = language.call(tokens)
    called = Arguments(arguments.args, arguments.kwargs, len(tokens.ids), name="text", lookups=(lookup,))
    table = EmbeddingTable(model, lookup.path)
    others = None
    if options.background is not None:
        others = table.rows(ids_of_others(options.background, tokens, options.tokenizer))
    kind = TextKind(tokens, table, positions, others, full=tokens.ids.shape[1] == most_positions(model))
    text = Prepared(embeddings.clone(), kind, arguments=called, from_weights=True)
    return text if names == [IDS] else joined(text, with_text, names)


def _read(language: LanguageModel, tokens: Tokens) -> tuple[Lookup, Tensor, Positions | None]:
    """Return the embedding that looks up the tokens, their embeddings, and the positions that the model scores."""
    match = find_lookup(language.model, partial(language.run, tokens=tokens), tokens.ids.to(language.device))
    if match is None:
        raise ValueError(
            "inputs: no embedding of the model takes the ids, so there is nothing to explain. Pass the embeddings "
            "themselves, without tokenizer=."
        )
    lookup, embeddings, output = match
    size = EmbeddingTable(language.model, lookup.path).size
    return lookup, embeddings, find_positions(output, tokens, size, language.output)
