"""How a model is called: which of its arguments are explained, and the values of the others.

Methods always see a single tensor. If several inputs are explained together, that tensor holds them flattened and
concatenated; each input keeps its own range, baseline and shape.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from saliency_widgets.attribution.input_parts import InputPart, split_parts
from saliency_widgets.attribution.kind import Kind, baseline_of
from saliency_widgets.params import unknown
from saliency_widgets.runtime.lookup import Lookup


@dataclass(frozen=True)
class Slot:
    """A placeholder for an explained input among the arguments.

    Attributes:
        index: The index of the explained input.
    """

    index: int = 0


@dataclass(frozen=True)
class Arguments:
    """The model's arguments, with slots for the explained inputs.

    Attributes:
        args: Positional arguments; slots may be nested in dicts, lists, tuples and dataclasses.
        kwargs: Keyword arguments.
        batch: B, the batch size. Held tensors with B rows are repeated with the samples; others are passed in full.
        parts: The inputs that are explained together; empty for a single input in its own shape. An input with one
            number per sample, shape (B,), is a part even if it is the only input: methods see (B, 1).
        name: The name of the explained input, if the model takes other inputs too.
        lookups: The embeddings whose outputs are explained inputs; their ids are among the arguments.
    """

    args: tuple[Any, ...] = (Slot(),)
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    batch: int = 1
    parts: tuple[InputPart, ...] = ()
    name: str | None = None
    lookups: tuple[Lookup, ...] = ()

    @property
    def several(self) -> tuple[InputPart, ...]:
        """The parts if there are several, else an empty tuple."""
        return self.parts if len(self.parts) > 1 else ()

    def fill(
        self, rows: Tensor | Sequence[Tensor], samples: Tensor, *, channels_last: bool = False
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments for some rows, with all tensors copied, because some models write to their inputs.

        Args:
            rows: The explained tensor, shape (N, ...); or the explained inputs one by one, each in its own shape.
            samples: The index of the sample that each row belongs to, shape (N,).
            channels_last: Whether images use the channels-last memory format.
        """

        def copied(piece: Tensor) -> Tensor:
            return (
                piece.clone(memory_format=torch.channels_last) if channels_last and piece.ndim == 4 else piece.clone()
            )

        pieces = [copied(piece) for piece in (self.split(rows) if isinstance(rows, Tensor) else rows)]

        def filled(node: Any) -> Any:
            if isinstance(node, Slot):
                return pieces[node.index]
            if isinstance(node, Tensor):
                batched = node.ndim > 0 and node.shape[0] == self.batch
                return node.index_select(0, samples.to(node.device)) if batched else node.clone()
            return mapped(filled, node)

        return tuple(map(filled, self.args)), {name: filled(value) for name, value in self.kwargs.items()}

    def run(
        self,
        model: nn.Module,
        rows: Tensor | Sequence[Tensor],
        samples: Tensor,
        *,
        channels_last: bool = False,
    ) -> Any:
        """Run a copy of the model on some rows and return its output. See :meth:`fill` for the arguments."""
        args, kwargs = self.fill(rows, samples, channels_last=channels_last)
        if not self.lookups:
            return model(*args, **kwargs)
        pieces = self.split(rows) if isinstance(rows, Tensor) else rows
        with contextlib.ExitStack() as stack:
            for lookup in self.lookups:
                stack.enter_context(lookup.replaced(model, pieces[lookup.index].clone()))
            return model(*args, **kwargs)

    def tiled(self, times: int) -> Arguments:
        """Return the arguments for a batch that repeats the samples block by block."""

        def again(node: Any) -> Any:
            if isinstance(node, Tensor) and node.ndim > 0 and node.shape[0] == self.batch:
                return node.repeat(times, *[1] * (node.ndim - 1))
            return mapped(again, node)

        kwargs = {name: again(value) for name, value in self.kwargs.items()}
        return replace(self, args=tuple(map(again, self.args)), kwargs=kwargs, batch=self.batch * times)

    def alone(self, part: InputPart, rows: Tensor) -> tuple[Arguments, Tensor]:
        """Return arguments that explain one of several inputs, with the others held at these rows, and that input."""
        pieces = self.split(rows)
        index = self.parts.index(part)

        def held(node: Any) -> Any:
            if isinstance(node, Slot):
                return Slot() if node.index == index else pieces[node.index]
            return mapped(held, node)

        kwargs = {name: held(value) for name, value in self.kwargs.items()}
        lookups = tuple(replace(lookup, index=0) for lookup in self.lookups if lookup.index == index)
        args = tuple(map(held, self.args))
        return Arguments(args, kwargs, self.batch, name=part.name, lookups=lookups), pieces[index]

    def split(self, rows: Tensor) -> list[Tensor]:
        """Split the explained tensor into the inputs, each in its own shape."""
        return split_parts(self.parts, rows)

    def kinds(self, kind: Kind) -> dict[str, Kind]:
        """Return the kind of each explained input, by name.

        Args:
            kind: The kind of a single explained input.
        """
        return {part.name: part.kind for part in self.parts} or {self.name or "": kind}

    def baseline(self, value: Any, rows: Tensor, seed: int, kind: Kind) -> Tensor:
        """Return the baseline of each row: see :func:`~saliency_widgets.attribution.kind.baseline_of`.

        Args:
            value: The caller's baseline; for several inputs, one for all or one for each: see :meth:`by_input`.
            rows: The explained tensor.
            seed: The seed of a random baseline.
            kind: The kind of a single explained input.

        Raises:
            TypeError, ValueError: A mapping for a single input, a name that no input has, or an invalid baseline.
        """
        each = self.by_input(value, "baseline")

        def of(x: Tensor, part: InputPart | None) -> Tensor:
            name, what = (self.name, kind) if part is None else (part.name, part.kind)
            return baseline_of(value if each is None else each.get(name or ""), x, what, seed)

        return self.each(of, rows)

    def named_baseline(self, value: Any, kind: Kind) -> Any:
        """Return a baseline as settings record it, with defaults replaced by their names.

        Returns:
            ``value`` if it applies to all inputs. For None or a value for each input, gaps are filled with the name of
            the input's default: the result is one name if all inputs have the same, else a mapping from input names.
        """
        by_input = {} if value is None else self.by_input(value, "baseline")
        if by_input is None:
            return value
        each = {
            name: next(iter(what.baselines)) if by_input.get(name) is None else by_input[name]
            for name, what in self.kinds(kind).items()
        }
        first, *others = each.values()
        alike = isinstance(first, str) and all(isinstance(other, str) and other == first for other in others)
        return first if alike or not others else each

    def baselines(self, kind: Kind) -> tuple[str, ...]:
        """Return the baseline names that every explained input accepts, the first input's default first."""
        first, *others = (what.baselines for what in self.kinds(kind).values())
        return tuple(name for name in first if all(name in other for other in others))

    def by_input(self, value: Any, argument: str) -> dict[str, Any] | None:
        """Return the caller's value for each explained input, by input name; None if one value applies to all.

        Args:
            value: A mapping from names or prefixes ("xs" covers "xs.0" and "xs.1"); a tuple with one value for each
                explained input, in order; or either of these, nested like the inputs. A mapping may omit inputs.
            argument: The name of the argument, for the error.

        Raises:
            TypeError: A mapping, but the only input has no name.
            ValueError: A name that no explained input has, or a tuple of the wrong length.
        """
        names = [part.name for part in self.parts] or [self.name or ""]
        if isinstance(value, list) and argument == "baseline" and len(names) > 1:
            value = tuple(value)
        if not isinstance(value, (Mapping, tuple)):
            return None
        if names == [""]:
            if isinstance(value, Mapping):
                raise TypeError(
                    f"{argument}: a mapping requires several inputs, but there is only one. Pass the tensor itself."
                )
            return None
        if isinstance(value, Mapping):
            items = [(str(key), item) for key, item in value.items()]
        else:
            tops = list(dict.fromkeys(name.partition(".")[0] for name in names))
            order = next((some for some in (names, tops) if len(some) == len(value)), None)
            if order is None:
                raise ValueError(
                    f"{argument}: a tuple must have one item for each explained input, {names}; got {len(value)}. Pass "
                    f"a mapping from names to omit some."
                )
            items = list(zip(order, value, strict=True))
        result: dict[str, Any] = {}

        def assign(name: str, item: Any) -> None:
            inside = [other for other in names if other == name or other.startswith(f"{name}.")]
            if not inside and (item is None or self._holds(name)):  # a held argument
                return
            if not inside:
                raise ValueError(unknown(argument, name, names))
            nested = isinstance(item, Mapping) or (entries(item) is not None and inside != [name])
            for key, inner in entries(item) or () if nested else ():
                assign(f"{name}.{key}", inner)
            result.update(dict.fromkeys(() if nested else inside, item))

        for name, item in items:
            assign(name, item)
        return result

    def _holds(self, name: str) -> bool:
        """Return whether a held argument has this path; positional ones, unnamed here, match below the first key."""
        top, *path = name.split(".")
        for node in [self.kwargs[top]] if top in self.kwargs else self.args if path else ():
            for key in path:
                node = {str(k): inner for k, inner in entries(node) or ()}.get(key, _ABSENT)
            if node is not _ABSENT:
                return True
        return False

    def spread(self, rows: Tensor, kind: Kind) -> Tensor:
        """Return the range of each row, broadcastable to the rows, for each input: see :meth:`.Kind.spread`."""
        return self.each(lambda x, part: (kind if part is None else part.kind).spread(x), rows)

    def each(self, make: Callable[[Tensor, InputPart | None], Tensor], rows: Tensor) -> Tensor:
        """Compute a tensor like ``rows``, input by input.

        Args:
            make: A function from an explained input and its part (None for a single input) to a tensor that broadcasts.
            rows: The explained tensor.
        """
        if not self.parts:
            return make(rows, None)
        pieces = zip(self.split(rows), self.parts, strict=True)
        made = [make(piece, part).expand_as(piece) for piece, part in pieces]
        return torch.cat([piece.reshape(len(rows), -1) for piece in made], 1).to(rows.dtype)


_ABSENT = object()


def entries(node: Any) -> list[tuple[Any, Any]] | None:
    """Return the items of a mapping, list, tuple or dataclass, by key, index or field; None for anything else."""
    if isinstance(node, Mapping):
        return list(node.items())
    if isinstance(node, PackedSequence):  # its data interleaves the samples
        return None
    if isinstance(node, (list, tuple)):
        return list(enumerate(node))
    if is_dataclass(node) and not isinstance(node, type):
        return [(part.name, getattr(node, part.name)) for part in fields(node)]
    return None


def mapped(change: Callable[[Any], Any], node: Any) -> Any:
    """Return a container of the same type with every item changed; return anything else unchanged."""
    items = entries(node)
    if items is None:
        return node
    made = {key: change(item) for key, item in items}
    unchanged = is_dataclass(node) and all(made[key] is item for key, item in items)
    return node if unchanged else rebuilt(node, made)


def rebuilt(node: Any, items: Mapping[Any, Any]) -> Any:
    """Return a container like ``node`` with other items: see :func:`entries`.

    Args:
        node: The container, which is not modified.
        items: The new items, by the same keys.
    """
    values = list(items.values())
    if type(node) in (list, tuple):
        return type(node)(values)
    if isinstance(node, tuple):
        return type(node)(*values) if hasattr(node, "_fields") else node  # torch.Size holds numbers only
    if type(node) is dict:
        return dict(items)
    try:
        made = copy.copy(node)  # with the extra attributes of a caller's subclass
        if isinstance(node, list):
            made[:] = values
        for key, value in () if isinstance(node, list) else items.items():
            if isinstance(node, Mapping):
                made[key] = value
            else:
                object.__setattr__(made, key, value)
    except TypeError:  # a read-only mapping
        return dict(items)
    return made
