"""Embeddings that a model looks up by integers, such as token ids: what is explained is their output."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Lookup:
    """A call of an embedding whose output is an explained input.

    Attributes:
        path: The path of the embedding in the model.
        call: The number of the call among all calls of the embedding in a pass; a decoder may call it again.
        index: The index of the explained input.
    """

    path: str
    call: int = 0
    index: int = 0

    @contextlib.contextmanager
    def replaced(self, model: nn.Module, embeddings: Tensor) -> Iterator[None]:
        """Replace the embedding's output while a copy of the model runs in this block.

        Args:
            model: The copy.
            embeddings: The explained input, shape (N, T, E).
        """
        calls = itertools.count()

        def replace(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
            if next(calls) != self.call:
                return None
            if isinstance(module, nn.EmbeddingBag):
                return _pooled(module, inputs[0], embeddings)
            return embeddings.reshape(output.shape)

        hook = model.get_submodule(self.path).register_forward_hook(replace)
        try:
            yield
        finally:
            hook.remove()


def _pooled(bag: nn.EmbeddingBag, ids: Tensor, embeddings: Tensor) -> Tensor:
    """Pool embeddings (N, T, E) as a bag does, without its padding."""
    pads = torch.zeros_like(ids, dtype=torch.bool) if bag.padding_idx is None else ids == bag.padding_idx
    if bag.mode == "max":
        return embeddings.masked_fill(pads[..., None], -torch.inf).amax(1)
    total = embeddings.masked_fill(pads[..., None], 0).sum(1)
    return total if bag.mode == "sum" else total / (~pads).sum(1, keepdim=True).clamp(min=1)
