"""Find the embedding of a language model that looks up its tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from saliency_widgets.runtime.lookup import Lookup
from saliency_widgets.runtime.model.isolation import isolated_copy


def find_lookup(model: nn.Module, run: Callable[[nn.Module], Any], ids: Tensor) -> tuple[Lookup, Tensor] | None:
    """Return the embedding that looks up these ids, and their embeddings, shape (B, T, E); None if there is none.

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
                output = nn.functional.embedding(ids, module.weight)
            if output.numel() % ids.numel() == 0:
                matches.append((Lookup(path, call), output.detach().reshape(*ids.shape, -1)))

        return note

    with isolated_copy(model) as copied, torch.no_grad():
        for path, module in copied.named_modules():
            if path and not any(module.children()) and not isinstance(module, torch.jit.ScriptModule):
                module.register_forward_hook(watch(path), with_kwargs=True)
        run(copied)
    usual = _input_embeddings(model)
    preferred = [match for match in matches if model.get_submodule(match[0].path) is usual]
    return next(iter([*preferred, *matches]), None)


def _input_embeddings(model: nn.Module) -> nn.Module | None:
    """Return the embedding that a Hugging Face model names; None for models that name none."""
    get: Any = getattr(model, "get_input_embeddings", None)
    try:
        return get()
    except Exception:  # models of several modalities raise
        return None


def embed(model: nn.Module, path: str, ids: Tensor) -> Tensor:
    """Return the embeddings of ids, shape (N, E), computed by an embedding of a copy of the model.

    Args:
        model: The model, which is not changed.
        path: The path of the embedding.
        ids: The ids, shape (N,).
    """
    with isolated_copy(model) as copied, torch.no_grad():
        module: Any = copied.get_submodule(path)
        ids = ids.to(module.weight.device)
        if isinstance(module, nn.EmbeddingBag):
            return nn.functional.embedding(ids, module.weight)
        return module(ids[None])[0]
