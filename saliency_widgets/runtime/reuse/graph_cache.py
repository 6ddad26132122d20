"""Passes of the inputs whose graph is kept: another class, or another layer, is a backward pass only.

The first image shall be there soon. For the inputs, the pass is recorded without its layers, as telling them apart
takes a sixth of it; for the first layer that is asked for, from that layer on, which takes little more than a forward
pass. Who asks for a second layer looks around: then the whole pass is recorded with all its layers, and serves all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from saliency_widgets.attribution.errors import Cancelled, Unread
from saliency_widgets.runtime.autograd import differentiate
from saliency_widgets.runtime.cancellation import interruptible
from saliency_widgets.runtime.layers.hooks import Tap, exchanged, hookable, tensor_in
from saliency_widgets.runtime.model.isolation import undisturbed
from saliency_widgets.runtime.passes import Passes
from saliency_widgets.runtime.precision import computing

T = TypeVar("T")


class Store(Protocol):
    """What was computed before, for one question; see :class:`saliency_widgets.session.cache.Scope`."""

    def get(self, key: Hashable) -> Any:
        """What is kept under the key; None where nothing is."""
        ...

    def put(self, key: Hashable, value: Any) -> None:
        """Keep it, if there is room."""
        ...


def once(store: Store | None, key: Hashable, work: Callable[[], T]) -> T:
    """What the work gives: kept from before, or done now and kept."""
    if store is None:
        return work()
    result = store.get(key)
    if result is None:
        result = work()
        store.put(key, result)
    return result


Graded = tuple[Tensor, Tensor, Tensor]
"""A tensor of a pass, the gradient of the score with respect to it, and the scores."""
SPATIAL = "spatial layers"
"""What the layers are kept under that were found by looking for them, beside the passes."""
_WHOLE = "graph"
_REQUESTED = "how many layers were requested"
_OURS = -1  # the key of a hook: torch's own count from 0


def of_inputs(passes: Passes, graphs: Store | None) -> Graded | None:
    """The inputs and their gradient, from a recorded pass; None where there can be none.

    Args:
        passes: The model and its inputs.
        graphs: The recorded passes.
    """
    if graphs is None or not _recordable(passes):
        return None

    def compute() -> Graded:
        recording = once(graphs, _WHOLE, lambda: _record(passes, layered=False))
        return _graded(passes, recording, recording.leaf, "inputs")

    return _unless_wrong(compute)


def layer_gradient(passes: Passes, layer: str, graphs: Store | None) -> tuple[Tensor, Tensor, Tensor, int]:
    """The output of a layer, the gradient of the score with respect to it, the scores, and how often it ran.

    Args:
        passes: The model and its inputs.
        layer: Where: see :mod:`~saliency_widgets.runtime.layers.hooks`.
        graphs: The recorded passes; without them, or where none fits, it is a pass: see :meth:`.Passes.layer_gradient`.
    """
    recorded = None if graphs is None or not _recordable(passes) else _of_layer(passes, layer, graphs)
    return passes.layer_gradient(layer) if recorded is None else (*recorded[0], recorded[1])


def _of_layer(passes: Passes, layer: str, graphs: Store) -> tuple[Graded, int] | None:
    dependent = passes.arguments is not None
    showing = passes.showing(layer)
    shown = showing is passes

    def compute() -> tuple[Graded, int]:
        whole: Recording | None = graphs.get(_WHOLE) if shown else None
        whole = whole if whole is not None and whole.layered else None
        tail: Tail | None = graphs.get(("from", layer)) if whole is None else None
        if whole is None and tail is None:
            count = graphs.get(_REQUESTED) or 0
            graphs.put(_REQUESTED, count + 1)
            if shown and count == 1:  # once: it may be too large to be stored
                whole = _record(passes, layered=True)
                graphs.put(_WHOLE, whole)
        run = None if whole is None else whole.layer(layer, dependent=dependent)
        if whole is not None and run is not None:
            return _graded(passes, whole, run[0], f"layer {layer!r}"), run[1]
        tail = tail or once(graphs, ("from", layer), lambda: _record_from(showing, layer, graphs, dependent))
        return _graded(passes, tail, tail.leaf, f"layer {layer!r}"), tail.runs

    return _unless_wrong(compute)


def _recordable(passes: Passes) -> bool:
    limit = passes.memory.limit
    return not passes.memory.by_hand and (limit is None or limit >= passes.batch) and not passes.inspected


def _unless_wrong(compute: Callable[[], T]) -> T | None:
    try:
        return compute()
    except (Cancelled, Unread):
        raise
    except Exception:
        return None  # a pass of its own says what is wrong, and needs less memory


def _graded(passes: Passes, recording: Recording | Tail, leaf: Tensor, what: str) -> Graded:
    passes.check()
    with undisturbed(passes.model), computing(passes.precision, leaf.device), interruptible(passes.check):
        scores = passes.widen(passes.score(recording.output, passes.batch))
        gradient = differentiate(passes.model, scores, leaf, what, keep_graph=True)
    return leaf.detach(), gradient, scores.detach()


def _record(passes: Passes, *, layered: bool) -> Recording:
    with passes.isolated(tuned=True) as model:
        leaf = passes.inputs.detach().requires_grad_(True)
        recording = Recording(model, leaf, layered=layered)
        recording.output = passes.output(model, leaf, range(passes.batch))
    return recording


def _record_from(passes: Passes, layer: str, graphs: Store, dependent: bool) -> Tail:
    inputs = passes.inputs.detach().requires_grad_(dependent)
    # What runs between two runs of the layer needs no graph, where it is known that there will be another.
    spatial = (graphs.get(SPATIAL) or {}).get(layer)
    skipped = 0 if spatial is None else spatial.runs - 1
    with passes.isolated(tuned=True) as model, Tap(model, layer, dependent=dependent, skipped=skipped) as tap:
        output = passes.output(model, inputs, range(passes.batch))
        return Tail(tap.leaf, output, tap.runs)


class Recording:
    """A pass with its graph.

    Args:
        model: A copy of the model, in which nothing but the inputs needs a gradient; it keeps the hooks.
        leaf: The inputs.
        layered: Whether the outputs of its layers are told apart.

    Attributes:
        leaf: The inputs.
        layered: Whether it tells of layers.
        output: What the model returned; set when it has.
    """

    def __init__(self, model: nn.Module, leaf: Tensor, *, layered: bool) -> None:
        self.leaf, self.layered = leaf, layered
        self.output: Any = None
        self._layers: dict[str, list[tuple[Tensor | None, int]]] = {}
        for path, module in hookable(model) if layered else ():
            # As register_forward_hook does, which takes as long as a layer.
            module._forward_hooks[_OURS] = functools.partial(self._seen, path)

    def _seen(self, path: str, _module: nn.Module, _inputs: Any, output: Any) -> Any:
        tensor = tensor_in(output)
        runs = self._layers.setdefault(path, [])
        if tensor is None or not tensor.requires_grad:
            runs.append((tensor, 0 if tensor is None else tensor._version))
            return None
        # What goes on is another tensor: the gradient is that of what the layer returned, as in a pass that is cut
        # there, and not of what goes around it (an identity, an activation in place beside a shortcut).
        instead = torch.ops.aten.alias(tensor)  # view_as would give it other strides, and its gradient another layout
        runs.append((instead, instead._version))
        return exchanged(output, tensor, instead)

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
        seen = [tensor for runs in self._layers.values() for tensor, _ in runs if tensor is not None]
        return _held(self.output, seen)


class Tail:
    """A pass with its graph from one layer on.

    Args:
        leaf: The layer's output, of its last run.
        output: What the model returned.
        runs: How often the layer ran.
    """

    def __init__(self, leaf: Tensor, output: Any, runs: int) -> None:
        self.leaf, self.output, self.runs = leaf, output, runs

    @property
    def nbytes(self) -> int:
        """Bytes of all that the graph holds on to."""
        return _held(self.output, [self.leaf])


def nodes_of(tensors: list[Tensor]) -> Iterator[Any]:
    """All nodes of the graph behind some tensors, each once."""
    ahead, seen = [tensor.grad_fn for tensor in tensors], set()
    while ahead:
        node = ahead.pop()
        if node is not None and node not in seen:
            seen.add(node)
            ahead += [before for before, _ in node.next_functions]
            yield node


def _held(output: Any, tensors: list[Tensor]) -> int:
    held: dict[int, int] = {}
    for tensor in tensors:
        _count(tensor, held)
    for node in nodes_of(_outputs(output)):
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
    tensors = []
    for name in _names(type(node)):
        try:
            value = getattr(node, name)
        except RuntimeError:  # freed, or written to since
            continue
        tensors += value if isinstance(value, (tuple, list)) else (value,)
    return [item for item in tensors if isinstance(item, Tensor)]


@functools.cache
def _names(kind: type) -> tuple[str, ...]:
    """Under which names a node of a graph holds tensors."""
    return tuple(name for name in dir(kind) if name.startswith("_saved_") or name == "saved_tensors")


def _count(tensor: Tensor, held: dict[int, int]) -> None:
    if tensor.layout == torch.strided and not (tensor.is_leaf and isinstance(tensor, nn.Parameter)):
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
