"""How a model is called: which of its arguments are explained, and what the others are.

Methods see one tensor, whatever the model takes. Where several inputs are explained together, that tensor holds them
side by side, flat; each keeps its own range, baseline and shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from saliency_widgets.attribution.baselines import PixelRange, baseline_of, baselines_for, default_baseline
from saliency_widgets.attribution.columns import Columns
from saliency_widgets.params import unknown


@dataclass(frozen=True)
class Slot:
    """Where an explained input goes.

    Attributes:
        index: Which of the explained inputs.
    """

    index: int = 0


@dataclass(frozen=True)
class Part:
    """One of several inputs that are explained together.

    Attributes:
        name: Its name or position among the model's arguments.
        shape: Of one sample.
        pixels: What black and white look like in it; None where nothing tells.
    """

    name: str
    shape: tuple[int, ...]
    pixels: PixelRange | None = None

    @property
    def size(self) -> int:
        """Numbers of one sample."""
        return int(torch.Size(self.shape).numel())


@dataclass(frozen=True)
class Arguments:
    """The model's arguments, with slots for what is explained.

    Attributes:
        args: Positional arguments; slots may be inside dicts, lists and tuples.
        kwargs: Keyword arguments.
        batch: B: held tensors with B rows are repeated with the samples, others are given as they are.
        parts: What is explained together; empty where it is one input, in its own shape.
        name: The name of the explained input, where there are others beside it.
    """

    args: tuple[Any, ...] = (Slot(),)
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    batch: int = 1
    parts: tuple[Part, ...] = ()
    name: str | None = None

    @property
    def explained(self) -> str | list[str] | None:
        """The names of what is explained, as ``explain=`` takes them; None for a model of one input."""
        return [part.name for part in self.parts] if self.parts else self.name

    def fill(
        self, rows: Tensor, samples: Tensor, *, channels_last: bool = False
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments for some rows; nothing in them is the caller's, as some models write to what they are given.

        Args:
            rows: The explained tensor, shape (N, ...).
            samples: Which sample each row belongs to, shape (N,).
            channels_last: Whether pictures are laid out so in memory.
        """

        def own(piece: Tensor) -> Tensor:
            return (
                piece.clone(memory_format=torch.channels_last) if channels_last and piece.ndim == 4 else piece.clone()
            )

        pieces = [own(piece) for piece in self.split(rows)]

        def filled(node: Any) -> Any:
            if isinstance(node, Slot):
                return pieces[node.index]
            if isinstance(node, Tensor):
                batched = node.ndim > 0 and node.shape[0] == self.batch
                return node.index_select(0, samples.to(node.device)) if batched else node.clone()
            return _mapped(filled, node)

        return tuple(map(filled, self.args)), {name: filled(value) for name, value in self.kwargs.items()}

    def tiled(self, times: int) -> Arguments:
        """For a batch that repeats the samples block by block."""

        def again(node: Any) -> Any:
            if isinstance(node, Tensor) and node.ndim > 0 and node.shape[0] == self.batch:
                return node.repeat(times, *[1] * (node.ndim - 1))
            return _mapped(again, node)

        kwargs = {name: again(value) for name, value in self.kwargs.items()}
        return replace(self, args=tuple(map(again, self.args)), kwargs=kwargs, batch=self.batch * times)

    def alone(self, part: Part, rows: Tensor) -> tuple[Arguments, Tensor]:
        """One of several inputs explained, the others held as they are in these rows; and that input."""
        pieces = self.split(rows)
        index = self.parts.index(part)

        def held(node: Any) -> Any:
            if isinstance(node, Slot):
                return Slot() if node.index == index else pieces[node.index]
            return _mapped(held, node)

        kwargs = {name: held(value) for name, value in self.kwargs.items()}
        return Arguments(tuple(map(held, self.args)), kwargs, self.batch, name=part.name), pieces[index]

    def split(self, rows: Tensor) -> list[Tensor]:
        """The explained inputs, each in its own shape."""
        if not self.parts:
            return [rows]
        flat = rows.split([part.size for part in self.parts], dim=1)
        return [piece.reshape(-1, *part.shape) for piece, part in zip(flat, self.parts, strict=True)]

    def baseline(
        self, value: Any, rows: Tensor, seed: int, *, pixels: PixelRange | None, columns: Columns | None
    ) -> Tensor:
        """The baseline of each row: see :func:`~saliency_widgets.attribution.baselines.baseline_of`.

        Args:
            value: As a person gives it; of several inputs, the same for each, or a mapping from their names.
            rows: The explained tensor.
            seed: Of a random one.
            pixels: What black and white look like, where one input is explained.
            columns: What is known of the table, likewise.

        Raises:
            TypeError, ValueError: A mapping for one input, or with a name that no input has; and as there.
        """
        names = [part.name for part in self.parts] or [self.name or ""]
        for name in value if isinstance(value, Mapping) else ():
            if names == [""]:
                raise TypeError("baseline: a mapping is for several inputs, and there is one. Pass the tensor itself.")
            if name not in names:
                raise ValueError(unknown("baseline", str(name), names))

        def of(x: Tensor, part: Part | None) -> Tensor:
            name, shown = (self.name, pixels) if part is None else (part.name, part.pixels)
            own = value.get(name) if isinstance(value, Mapping) else value
            return baseline_of(own, x, shown, seed, columns if part is None else None)

        return self.each(of, rows)

    def named_baseline(self, value: Any, *, pixels: PixelRange | None, columns: Columns | None) -> Any:
        """A baseline as settings say it: what a person leaves open, by its name.

        Returns:
            ``value``; of None and of a mapping with gaps, the name of each input's default: one name where it is the
            same for all, or a mapping from the inputs' names.
        """
        if value is not None and not isinstance(value, Mapping):
            return value
        shown = {part.name: (part.pixels, None) for part in self.parts} or {self.name or "": (pixels, columns)}
        given = {name: (value or {}).get(name) for name in shown}
        each = {name: default_baseline(*shown[name]) if given[name] is None else given[name] for name in shown}
        first, *others = each.values()
        alike = isinstance(first, str) and all(isinstance(other, str) and other == first for other in others)
        return first if alike or not others else each

    def baselines(self, rows: Tensor, *, pixels: PixelRange | None, columns: Columns | None) -> tuple[str, ...]:
        """The names that mean something for every explained input, the first one's default first."""
        if not self.parts:
            return baselines_for(rows, pixels, columns)
        first, *others = (
            baselines_for(piece, part.pixels) for piece, part in zip(self.split(rows), self.parts, strict=True)
        )
        return tuple(name for name in first if all(name in other for other in others))

    def spread(self, rows: Tensor, known: Tensor | None) -> Tensor:
        """The range max - min of each row, broadcastable to them; of each of several inputs its own.

        Args:
            rows: The explained tensor.
            known: The range of each feature, where that is told by other rows.
        """

        def of(x: Tensor, _part: Part | None) -> Tensor:
            if known is not None:
                return known.to(x)[None]
            flat = x.flatten(1)
            return (flat.amax(1) - flat.amin(1)).view(-1, *[1] * (x.ndim - 1))

        return self.each(of, rows)

    def each(self, make: Callable[[Tensor, Part | None], Tensor], rows: Tensor) -> Tensor:
        """A tensor like ``rows``, made input by input.

        Args:
            make: From an explained input, and what is known of it, to a tensor that broadcasts to it.
            rows: The explained tensor.
        """
        if not self.parts:
            return make(rows, None)
        pieces = zip(self.split(rows), self.parts, strict=True)
        return torch.cat([make(piece, part).expand_as(piece).flatten(1) for piece, part in pieces], 1)


def _mapped(change: Callable[[Any], Any], node: Any) -> Any:
    if isinstance(node, Mapping):
        return {key: change(value) for key, value in node.items()}
    if isinstance(node, list):
        return [change(item) for item in node]
    return tuple(change(item) for item in node) if type(node) is tuple else node
