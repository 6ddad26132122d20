"""Passes of the inputs with a stored autograd graph, so that another class or layer takes only a backward pass.

The first image should appear soon. For the inputs, a pass is recorded without its layers, because recording them takes
a sixth of its time. For the first layer requested, a pass is recorded from that layer on, which takes little more than
a forward pass. More requests usually follow a second one: the whole pass is then recorded and serves all layers.
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
    """Results stored for one request; see :class:`saliency_widgets.session.cache.Scope`."""

    def get(self, key: Hashable) -> Any:
        """Return the value stored under the key, or None."""
        ...

    def put(self, key: Hashable, value: Any) -> None:
        """Store a value, if there is room."""
        ...


def once(store: Store | None, key: Hashable, work: Callable[[], T]) -> T:
    """Return the stored result, or compute and store it."""
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
"""The key of the spatial layers, which are stored together with the passes."""
_WHOLE = "graph"
_REQUESTED = "how many layers were requested"
_OURS = -1  # the key of a hook: torch's own keys count up from 0


def of_inputs(passes: Passes, graphs: Store | None) -> Graded | None:
    """Return the inputs, their gradient and the scores from a recorded pass; None if it can't be recorded.

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
    """Return a layer's output, the gradient of the score with respect to it, the scores, and how often it ran.

    Args:
        passes: The model and its inputs.
        layer: The layer's name: see :mod:`~saliency_widgets.runtime.layers.hooks`.
        graphs: The recorded passes; if none can be used, a separate pass is run: see :meth:`.Passes.layer_gradient`.
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
            if shown and count == 1:  # only once, as it may be too large to be stored
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
        return None  # a separate pass reports the problem, and needs less memory


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
    # Code between two runs of the layer needs no graph, if it is known that another run follows.
    spatial = (graphs.get(SPATIAL) or {}).get(layer)
    skipped = 0 if spatial is None else spatial.runs - 1
    with passes.isolated(tuned=True) as model, Tap(model, layer, dependent=dependent, skipped=skipped) as tap:
        output = passes.output(model, inputs, range(passes.batch))
        return Tail(tap.leaf, output, tap.runs)


class Recording:
    """A recorded pass with its autograd graph.

    Args:
        model: A copy of the model in which only the inputs require a gradient; the hooks are left on it.
        leaf: The inputs.
        layered: Whether the outputs of the layers are recorded.

    Attributes:
        leaf: The inputs.
        layered: Whether the outputs of the layers are recorded.
        output: The model's output; set after the pass.
    """

    def __init__(self, model: nn.Module, leaf: Tensor, *, layered: bool) -> None:
        self.leaf, self.layered = leaf, layered
        self.output: Any = None
        self._layers: dict[str, list[tuple[Tensor | None, int]]] = {}
        for path, module in hookable(model) if layered else ():
            # Does the same as register_forward_hook, which takes as long as a layer.
            module._forward_hooks[_OURS] = functools.partial(self._seen, path)

    def _seen(self, path: str, _module: nn.Module, _inputs: Any, output: Any) -> Any:
        tensor = tensor_in(output)
        runs = self._layers.setdefault(path, [])
        if tensor is None or not tensor.requires_grad:
            runs.append((tensor, 0 if tensor is None else tensor._version))
            return None
        # The pass continues with another tensor, so that the gradient is that of the layer's output, as in a pass that
        # is cut there, without the paths around it (an identity, an in-place activation next to a shortcut).
        instead = torch.ops.aten.alias(tensor)  # view_as would change the strides, and the layout of the gradient
        runs.append((instead, instead._version))
        return exchanged(output, tensor, instead)

    def layer(self, path: str, *, dependent: bool) -> tuple[Tensor, int] | None:
        """Return the output of a layer's last run and how often it ran; None if the recording doesn't contain them.

        Args:
            path: The layer's path.
            dependent: Whether only runs that depend on the explained input count.
        """
        runs = self._layers.get(path, [])
        if dependent:
            runs = [(tensor, version) for tensor, version in runs if tensor is not None and tensor.requires_grad]
        if not runs:
            return None
        tensor, version = runs[-1]
        # A tensor that was modified since (an in-place activation) is the output of another layer by now.
        if tensor is None or not tensor.requires_grad or tensor._version != version or tensor.is_leaf:
            return None
        return tensor, len(runs)

    @property
    def nbytes(self) -> int:
        """The number of bytes that the graph holds."""
        seen = [tensor for runs in self._layers.values() for tensor, _ in runs if tensor is not None]
        return _held(self.output, seen)


class Tail:
    """A recorded pass with its autograd graph from one layer on.

    Args:
        leaf: The output of the layer's last run.
        output: The model's output.
        runs: How often the layer ran.
    """

    def __init__(self, leaf: Tensor, output: Any, runs: int) -> None:
        self.leaf, self.output, self.runs = leaf, output, runs

    @property
    def nbytes(self) -> int:
        """The number of bytes that the graph holds."""
        return _held(self.output, [self.leaf])


def nodes_of(tensors: list[Tensor]) -> Iterator[Any]:
    """Yield all nodes of the graph behind some tensors, each once."""
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
        except RuntimeError:  # freed, or modified in place since
            continue
        tensors += value if isinstance(value, (tuple, list)) else (value,)
    return [item for item in tensors if isinstance(item, Tensor)]


@functools.cache
def _names(kind: type) -> tuple[str, ...]:
    """Return the attributes in which a class of graph nodes holds tensors."""
    return tuple(name for name in dir(kind) if name.startswith("_saved_") or name == "saved_tensors")


def _count(tensor: Tensor, held: dict[int, int]) -> None:
    if tensor.layout == torch.strided and not (tensor.is_leaf and isinstance(tensor, nn.Parameter)):
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
