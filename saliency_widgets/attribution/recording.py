"""One pass of the inputs whose graph is kept: another class, or another layer, is a backward pass only."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from saliency_widgets.attribution.taps import hookable, tensor_in

T = TypeVar("T")


class Kept(Protocol):
    """What was computed before, for one question; see :class:`saliency_widgets.engine.cache.Scope`."""

    def get(self, key: Hashable) -> Any:
        """What is kept under the key; None where nothing is."""
        ...

    def put(self, key: Hashable, value: Any) -> None:
        """Keep it, if there is room."""
        ...


def once(kept: Kept | None, key: Hashable, work: Callable[[], T]) -> T:
    """What the work gives: kept from before, or done now and kept."""
    if kept is None:
        return work()
    found = kept.get(key)
    if found is None:
        found = work()
        kept.put(key, found)
    return found


class Recording:
    """A pass with its graph.

    Args:
        model: A stand-in, in which nothing but the inputs needs a gradient.
        leaf: The inputs.

    Attributes:
        leaf: The inputs.
        output: What the model returned.
    """

    def __init__(self, model: nn.Module, leaf: Tensor) -> None:
        self.leaf = leaf
        self.output: Any = None
        self._layers: dict[str, list[tuple[Tensor | None, int]]] = {}
        self._hooks = [
            module.register_forward_hook(lambda _module, _inputs, output, path=path: self._seen(path, output))
            for path, module in hookable(model)
        ]

    def _seen(self, path: str, output: Any) -> None:
        tensor = tensor_in(output)
        self._layers.setdefault(path, []).append((tensor, 0 if tensor is None else tensor._version))

    def end(self, output: Any) -> None:
        """The pass is over."""
        self.output = output
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def layer(self, path: str, *, dependent: bool) -> tuple[Tensor, int] | None:
        """A layer's output of its last run, and how often it ran; None where that can't be told from here.

        Args:
            path: Which layer.
            dependent: Whether only runs that depend on the explained input count.
        """
        runs = self._layers.get(path, [])
        if dependent:
            runs = [(tensor, version) for tensor, version in runs if tensor is not None and tensor.requires_grad]
        if not runs:
            return None
        tensor, version = runs[-1]
        # Written to since (an activation in place), it is another layer's by now.
        if tensor is None or not tensor.requires_grad or tensor._version != version or tensor.is_leaf:
            return None
        return tensor, len(runs)

    @property
    def nbytes(self) -> int:
        """Bytes of all that the graph holds on to."""
        held: dict[int, int] = {}
        ahead, known = [tensor.grad_fn for tensor in _outputs(self.output)], set()
        for runs in self._layers.values():
            for tensor, _ in runs:
                if tensor is not None:
                    _count(tensor, held)
        while ahead:
            node = ahead.pop()
            if node is None or node in known:
                continue
            known.add(node)
            ahead += [before for before, _ in node.next_functions]
            for tensor in _saved(node):
                _count(tensor, held)
        return sum(held.values())


def _outputs(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    items = output.values() if isinstance(output, dict) else output if isinstance(output, (tuple, list)) else ()
    return [tensor for item in items for tensor in _outputs(item)] or [
        item for item in getattr(output, "__dict__", {}).values() if isinstance(item, Tensor)
    ]


def _saved(node: Any) -> list[Tensor]:
    found = []
    for name in _names(type(node)):
        try:
            value = getattr(node, name)
        except RuntimeError:  # freed, or written to since
            continue
        found += value if isinstance(value, (tuple, list)) else (value,)
    return [item for item in found if isinstance(item, Tensor)]


@functools.cache
def _names(kind: type) -> tuple[str, ...]:
    """Under which names a node of a graph holds tensors."""
    return tuple(name for name in dir(kind) if name.startswith("_saved_") or name == "saved_tensors")


def _count(tensor: Tensor, held: dict[int, int]) -> None:
    if tensor.layout == torch.strided and not (tensor.is_leaf and isinstance(tensor, nn.Parameter)):
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
