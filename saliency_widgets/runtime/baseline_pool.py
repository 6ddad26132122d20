"""The pool of baselines that Expected Gradients draws from, read from the caller's value input by input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from saliency_widgets.attribution.arrays import as_numbers
from saliency_widgets.attribution.baselines import BACKGROUND, BASELINES
from saliency_widgets.attribution.input_parts import InputPart
from saliency_widgets.attribution.kind import Kind
from saliency_widgets.attribution.query import Query, constant_inputs
from saliency_widgets.runtime.arguments import Arguments

Entry = Tensor | tuple[Tensor | None, ...] | None
"""A baseline in the form that methods see, or a tuple with one for each input; None is noise, drawn each time."""

_DEEPEST = 8  # levels of nested lists


class DrawnBaselines:
    """A pool of baselines, which implements :class:`~saliency_widgets.attribution.query.BaselinePool`.

    Args:
        query: The model and its inputs.
        arguments: How the model is called with the inputs.
        kind: The kind of the inputs, with the background that baselines may come from.
        value: The caller's baselines: see ``expected_gradients``.
        seed: The seed of random baselines.

    Raises:
        TypeError: Baselines of an unsupported type.
        ValueError: No baselines, an unknown name, a shape that doesn't fit, numbers that aren't finite, or inputs
            with different numbers of baselines (one always fits).
    """

    def __init__(self, query: Query, arguments: Arguments, kind: Kind, value: Any, seed: int) -> None:
        self._query, self._arguments, self._kind, self._background = query, arguments, kind, kind.background
        self._value, self._seed = value, seed
        self._entries = self._read()
        self.size = len(self._entries)
        self.constant = self._constant()

    def is_noise(self, index: int) -> bool:
        """Return whether a baseline, or a part of it, is noise that is drawn again for each sample."""
        entry = self._entries[index]
        return any(x is None for x in (entry if isinstance(entry, tuple) else (entry,)))

    def draw(self, index: int, seed: int) -> Tensor:
        """Return a baseline for each sample, in the inputs' shape; ``seed`` is the seed of noise."""
        query, entry = self._query, self._entries[index]
        if entry is None:
            return query.baseline("noise", seed)
        if isinstance(entry, Tensor):
            return entry.expand_as(query.inputs)
        fresh = {part.name: "noise" for part, x in zip(query.parts, entry, strict=True) if x is None}
        pieces = zip(self._arguments.split(query.baseline(fresh, seed)), entry, strict=True)
        rows = [(noise if x is None else x.expand_as(noise)).reshape(len(query.inputs), -1) for noise, x in pieces]
        return torch.cat(rows, 1)

    def describe(self, index: int) -> str:
        """Return a description of a baseline."""
        if self.is_noise(index):
            return "a baseline of uniform noise"
        if isinstance(self._value, str) and self._value != BACKGROUND:
            return f"the baseline {self._value!r}"
        if self._background is not None and self._value in (None, BACKGROUND):
            return f"row {index} of the background"
        return f"number {index} of the baselines"

    def _constant(self) -> list[str]:
        """Return the names of the inputs that are compared with noise but whose range is 0."""
        if isinstance(self._entries, Tensor):
            return []
        query = self._query
        fresh = [entry for entry in self._entries if not isinstance(entry, Tensor)]
        names = set(constant_inputs(query)) if fresh else set()
        if not query.parts:
            return [] if self._kind.bounded else [*names]
        noisy = [part for k, part in enumerate(query.parts) if any(x is None or x[k] is None for x in fresh)]
        return [part.name for part in noisy if not part.kind.bounded and part.name in names]

    def _read(self) -> Sequence[Entry] | Tensor:
        parts, value = self._query.parts, self._value
        if not parts and not isinstance(value, Mapping):
            return self._entries_of(value, None)
        named = self._arguments.by_input(value, "baselines")
        if named is None:
            return self._entries_of(value, None)
        if not parts:
            return self._entries_of(next(iter(named.values()), None), None)
        pools = [self._entries_of(named.get(part.name), part) for part in parts]
        count = max(map(len, pools))
        if any(len(pool) not in (1, count) for pool in pools):
            counts = {part.name: len(pool) for part, pool in zip(parts, pools, strict=True)}
            raise ValueError(
                f"baselines: row k of all inputs is drawn together, so all must have the same number of rows, or one; "
                f"got {counts}."
            )
        return [tuple(pool[k % len(pool)] for pool in pools) for k in range(count)]

    def _entries_of(self, value: Any, part: InputPart | None, depth: int = 0) -> Sequence[Tensor | None] | Tensor:
        """Return the baselines of all inputs as methods see them, or those of a single part in its own shape."""
        if isinstance(value, (list, tuple)):
            if not value:
                raise ValueError("baselines: the list is empty. Pass at least one, or omit it for noise.")
            if depth == _DEEPEST:
                raise ValueError("baselines: the lists are nested too deeply. Pass a flat list.")
            return [entry for item in value for entry in self._entries_of(item, part, depth + 1)]
        if value is None or isinstance(value, str):
            return self._named(value, part)
        if not hasattr(value, "__array__"):
            raise TypeError(
                f"baselines: expected a name, a tensor of several inputs or a list of both, got a "
                f"{type(value).__name__}."
            )
        inputs = self._query.inputs
        stack = as_numbers(value, "baselines")
        # One number for each sample has shape (B,), though methods see (B, 1).
        sample = inputs if self._query.parts else self._arguments.split(inputs)[0]
        shape = tuple(sample.shape[1:]) if part is None else part.shape
        if stack.shape == shape:
            stack = stack[None]
        if stack.ndim == 0 or tuple(stack.shape[1:]) != shape or not len(stack):
            raise ValueError(self._misshapen(stack, shape, part))
        stack = stack.detach().to(inputs)
        if not torch.isfinite(stack).all():
            raise ValueError("baselines: they hold NaN or infinite values. Remove or fix them.")
        return list(stack[:, None])

    def _named(self, value: str | None, part: InputPart | None) -> Sequence[Tensor | None] | Tensor:
        name = BASELINES.check(value) or self._kind.default_pool
        if name == BACKGROUND and self._background is not None:
            return self._background.to(self._query.inputs)[:, None]
        if name == BACKGROUND:
            raise ValueError("baselines: there is no background. Pass background= rows of your data.")
        if name == "noise":
            return [None]
        try:
            whole = self._query.baseline(name if part is None else {part.name: name}, self._seed)
        except ValueError as error:
            raise ValueError(str(error).replace("baseline:", "baselines:", 1)) from error
        return [whole if part is None else self._arguments.split(whole)[self._query.parts.index(part)]]

    def _misshapen(self, stack: Tensor, shape: tuple[int, ...], part: InputPart | None) -> str:
        if self._query.parts and part is None:
            shapes = [f"{part.name!r}: {('K', *part.shape)}".replace("'K'", "K") for part in self._query.parts]
            return (
                f"baselines: each input needs separate baselines. Pass a mapping from names to stacks, "
                f"{{{', '.join(shapes)}}}, or a tuple of them; got one stack of shape {tuple(stack.shape)}."
            )
        of = "" if part is None else f" for {part.name!r}"
        wanted = f"(K, {', '.join(map(str, shape))})".replace(", )", ",)")
        return (
            f"baselines: expected a stack of shape {wanted}{of}, K transformed inputs, got shape "
            f"{tuple(stack.shape)}. Apply the transform to each and combine them with torch.stack."
        )
