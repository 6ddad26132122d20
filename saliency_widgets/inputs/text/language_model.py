"""A language model, run on tokens: on those of a text, or on a text that it continues."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from saliency_widgets.attribution.score import scores_in
from saliency_widgets.inputs.text.tokens import IDS, Tokens
from saliency_widgets.runtime.arguments import Arguments
from saliency_widgets.runtime.errors import forward_failure
from saliency_widgets.runtime.model.isolation import isolated_copy

DECODER_IDS = "decoder_input_ids"


@dataclass(frozen=True)
class LanguageModel:
    """A model that takes ids; only copies of it are run.

    Attributes:
        model: The model.
        device: Its device.
    """

    model: nn.Module
    device: torch.device

    def complete(self, tokens: Tokens) -> Tokens:
        """Return tokens with the first id of the decoder, if the model has a decoder and no ids for it were passed.

        Raises:
            ValueError: There are more tokens than the model has positions for.
        """
        _check_length(self.model, tokens)
        config = getattr(self.model, "config", None)
        start = getattr(config, "decoder_start_token_id", None)
        wanted = bool(getattr(config, "is_encoder_decoder", False)) and DECODER_IDS not in tokens.arguments
        if not wanted or not isinstance(start, int):
            return tokens
        ids = torch.full((len(tokens.ids), 1), start, device="cpu")
        return replace(tokens, arguments={**tokens.arguments, DECODER_IDS: ids})

    def call(self, tokens: Tokens) -> Arguments:
        """Return the arguments with which the model takes the tokens: by name if it can, otherwise the ids alone."""
        parameters = inspect.signature(self.model.forward).parameters
        values = {name: value.to(self.device) for name, value in tokens.arguments.items()}
        free = IDS not in parameters and any(one.kind is one.VAR_KEYWORD for one in parameters.values())
        if IDS not in parameters and not free:
            return Arguments((values[IDS],), {}, len(tokens.ids))
        named = {name: value for name, value in values.items() if free or name in parameters}
        return Arguments((), named, len(tokens.ids))

    def run(self, copied: nn.Module, tokens: Tokens) -> Any:
        """Run a copy of the model on the tokens.

        Raises:
            ValueError: The model failed, or has no embedding for an id.
        """
        ids = tokens.ids.to(self.device)
        args, kwargs = self.call(tokens).fill(ids, torch.arange(len(ids), device="cpu"))
        try:
            return copied(*args, **kwargs)
        except Exception as error:
            _check_range(copied, tokens)
            raise forward_failure(copied, error, tuple(ids.shape)) from error

    def output(self, tokens: Tokens) -> Any:
        """Return the model's output for the tokens, without gradients."""
        with isolated_copy(self.model) as copied, torch.no_grad():
            return self.run(copied, tokens)

    def continued(self, tokens: Tokens, count: int) -> Tokens:
        """Return tokens with up to ``count`` more, each the most probable next one, up to the end of the text.

        Args:
            tokens: The tokens of one text.
            count: The largest number of new tokens.

        Raises:
            ValueError: There are several texts, or the model doesn't have enough positions.
        """
        if len(tokens.ids) != 1:
            raise ValueError(f"max_new_tokens: expected one text to continue, got {len(tokens.ids)}.")
        for _ in range(count):
            scores = scores_in(self.output(tokens), 1)
            best = scores[:, -1].argmax(-1, keepdim=True).cpu()
            tokens = self._extended(tokens, best)
            if int(best) == tokens.vocabulary.get("end", -1):
                break
        return tokens

    def _extended(self, tokens: Tokens, ids: Tensor) -> Tokens:
        if DECODER_IDS in tokens.arguments:
            longer = torch.cat([tokens.arguments[DECODER_IDS].cpu(), ids], 1)
            return replace(tokens, arguments={**tokens.arguments, DECODER_IDS: longer})
        arguments = {
            name: torch.cat([value.cpu(), value[:, -1:].cpu()], 1) if value.shape == tokens.ids.shape else value
            for name, value in tokens.arguments.items()
        }
        arguments[IDS] = torch.cat([tokens.ids, ids], 1)
        longer = tokens.extended(arguments)
        _check_length(self.model, longer)
        return longer


def most_positions(model: nn.Module) -> int | None:
    """Return the largest number of tokens that a model has positions for; None if unknown."""
    configs = (getattr(module, "config", None) for module in model.modules())  # the encoder may be a submodule
    limits = (getattr(config, "max_position_embeddings", None) for config in configs)
    return next((limit for limit in limits if isinstance(limit, int) and limit > 0), None)


def _check_length(model: nn.Module, tokens: Tokens) -> None:
    """Raise ValueError if there are more tokens than the model has positions for."""
    most, length = most_positions(model), tokens.ids.shape[1]
    if most is not None and most < length:
        raise ValueError(
            f"inputs: the text has {length} tokens, but the model has positions for {most}. Pass a shorter text, or "
            f"truncated ids."
        )


def _check_range(model: nn.Module, tokens: Tokens) -> None:
    """Raise ValueError for an id that no embedding of the model has."""
    sizes = [m.num_embeddings for m in model.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag))]
    outside = ((tokens.ids < 0) | (tokens.ids >= max(sizes, default=0))).nonzero()
    if sizes and len(outside):
        row, column = outside[0].tolist()
        raise ValueError(
            f"inputs: the id {int(tokens.ids[row, column])} ({tokens.pieces[row][column]!r}) is out of range: the "
            f"model's largest embedding has {max(sizes)} tokens. Does the tokenizer belong to another model?"
        )
