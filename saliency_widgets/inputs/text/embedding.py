"""Find the embedding of a language model that looks up its tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from saliency_widgets.runtime.lookup import Lookup
from saliency_widgets.runtime.model.isolation import isolated_copy


def find_lookup(model: nn.Module, run: Callable[[nn.Module], Any], ids: Tensor) -> tuple[Lookup, Tensor, Any] | None:
    """Return the embedding that looks up these ids, their embeddings, shape (B, T, E), and the model's output, or None.

    It is the model's ``get_input_embeddings()`` if that takes the ids, or else the first module without submodules that
    does. Embeddings of positions and segments take other integers.

    Args:
        model: The model, which is not changed.
        run: Runs a copy of the model.
        ids: The ids, shape (B, T).
    """
    calls: dict[str, int] = {}
    matches: list[tuple[Lookup, Tensor]] = []

    def watch(path: str) -> Callable[..., None]:
        def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            call = calls[path] = calls.get(path, -1) + 1
            taken = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
            if taken is None or not isinstance(output, Tensor) or not output.is_floating_point():
                return
            if taken.is_floating_point() or taken.numel() != ids.numel():
                return
            if not torch.equal(taken.reshape(ids.shape), ids.to(taken)):
                return
            if isinstance(module, nn.EmbeddingBag):
                output = _look_up(module, ids)
            if output.numel() % ids.numel() == 0:
                matches.append((Lookup(path, call), output.detach().reshape(*ids.shape, -1)))

        return note

    with isolated_copy(model) as copied, torch.no_grad():
        for path, module in copied.named_modules():
            if path and not any(module.children()) and not isinstance(module, torch.jit.ScriptModule):
                module.register_forward_hook(watch(path), with_kwargs=True)
        output = run(copied)
    usual = _input_embeddings(model)
    preferred = [match for match in matches if model.get_submodule(match[0].path) is usual]
    return next(((*match, output) for match in [*preferred, *matches]), None)


def _input_embeddings(model: nn.Module) -> nn.Module | None:
    """Return the embedding that a Hugging Face model names; None for models that name none."""
    get: Any = getattr(model, "get_input_embeddings", None)
    try:
        return get()
    except Exception:  # models of several modalities raise
        return None


@dataclass(frozen=True, eq=False)
class EmbeddingTable:
    """The embeddings of all tokens of a model, computed by a copy of it.

    Attributes:
        model: The model, which is not changed.
        path: The path of the embedding.
    """

    model: nn.Module
    path: str

    @property
    def size(self) -> int | None:
        """The number of tokens; None if the embedding doesn't tell."""
        return getattr(self.model.get_submodule(self.path), "num_embeddings", None)

    def row(self, index: int) -> Tensor:
        """Return the embedding of a token, shape (E,)."""
        return self._rows([torch.tensor([index], device="cpu")], lambda rows: rows[0])[0]

    def rows(self, ids: Tensor) -> Tensor:
        """Return the embeddings of ids, shape (N, T) -> (N, T, E)."""
        return torch.stack(self._rows(list(ids), lambda rows: rows))

    @property
    def mean(self) -> Tensor:
        """The mean of the embeddings of all tokens, shape (E,), float64."""
        return self._moments[0]

    @property
    def deviation(self) -> Tensor:
        """The standard deviation of each number of the embeddings, shape (E,), float64."""
        mean, squares = self._moments
        return (squares - mean.square()).clamp(min=0).sqrt()

    @cached_property
    def _moments(self) -> tuple[Tensor, Tensor]:
        """The means of the embeddings of all tokens and of their squares."""
        size = self.size
        assert size is not None

        def sums(rows: Tensor) -> Tensor:
            wide = rows.double()
            return torch.stack([wide.sum(0), wide.square().sum(0)])

        mean, squares = torch.stack(self._rows(torch.arange(size, device="cpu").split(_ROWS), sums)).sum(0) / size
        return mean, squares

    def _rows(self, parts: Sequence[Tensor], reduce: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """Return the reduced embeddings of each part of the ids."""
        with isolated_copy(self.model) as copied, torch.no_grad():
            module: Any = copied.get_submodule(self.path)
            return [reduce(_look_up(module, ids.to(module.weight.device)[None])[0]) for ids in parts]


def _look_up(module: Any, ids: Tensor) -> Tensor:
    """Return the embedding of each id, shape (N, T, E), which a bag would pool."""
    return nn.functional.embedding(ids, module.weight) if isinstance(module, nn.EmbeddingBag) else module(ids)


_ROWS = 4096  # embeddings in one call
