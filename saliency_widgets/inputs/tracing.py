"""Which column each number that a transform gives comes from: told by changing columns, and looking."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

_BASE = 16  # rows of which columns are exchanged among each other
_VALUES = 64  # of a column of numbers; of one of words, each is tried
_CELLS = 4_000_000  # of one call of the transform

NOWHERE = -1
"""Of a number that is the same in all rows at hand, and could be several columns'."""


def trace(
    row: pd.DataFrame, background: pd.DataFrame | None, encode: Callable[[pd.DataFrame], Tensor], transform: Any
) -> tuple[Tensor, tuple[str, ...]]:
    """Find the column behind each number.

    Each value that a column has anywhere in the background is put into a row, so that the numbers of rare categories
    move too.

    Args:
        row: The rows that are explained.
        background: Others, or None.
        encode: From rows to what the model sees.
        transform: What is in it, asked for the names of its numbers where one never moved.

    Returns:
        The number of the column of each feature, or ``NOWHERE``; and what a reader should know.

    Raises:
        ValueError: A number comes from several columns, or there are no other rows that would tell.
    """
    full = row if background is None else pd.concat([row, background], ignore_index=True)
    try:
        moved = _moved(full, encode, apart=True)
    except ValueError:  # a number moved to one that nobody has: of an encoder of categories, too far
        moved = _moved(full, encode, apart=False)
    behind: list[list[int]] = [found.nonzero()[:, 0].tolist() for found in moved.T]
    mixed = next((feature for feature, places in enumerate(behind) if len(places) > 1), None)
    if mixed is not None:
        several = ", ".join(str(full.columns[place]) for place in behind[mixed][:4])
        raise ValueError(
            f"transform: number {mixed} of what it gives comes from several columns ({several}), so attributions can't "
            f"be summed back. Leave transform= out, and explain the transformed row itself."
        )
    of = [places[0] if places else NOWHERE for places in behind]
    lost = [feature for feature, place in enumerate(of) if place == NOWHERE]
    if lost:
        of = _guessed(of, [*map(str, full.columns)], transform)
    gone = [feature for feature in lost if of[feature] == NOWHERE]
    if gone and background is None:
        raise ValueError(
            f"transform: of {len(gone)} of the {len(of)} numbers that it gives, one row alone doesn't tell which "
            f"column they come from. Pass background= other rows."
        )
    notes: tuple[str, ...] = ()
    if gone:
        notes = (
            f"{len(gone)} of the {len(of)} numbers that the model sees are the same in all rows at hand, and could be "
            f"several columns': they are left out of the bars.",
        )
    return torch.tensor(of, device="cpu"), notes


def _moved(full: pd.DataFrame, encode: Callable[[pd.DataFrame], Tensor], *, apart: bool) -> Tensor:
    """Whether each number moves with each column, truth values (C, F)."""
    constant = [place for place, count in enumerate(full.nunique().to_list()) if count == 1]
    if apart and constant:
        full = _with_another(full, constant)
    count = len(full) - bool(apart and constant)  # without that other row
    base = np.unique(np.linspace(0, count - 1, _BASE).round().astype(int))
    before = encode(full.iloc[base].reset_index(drop=True))
    where = {int(place): k for k, place in enumerate(base)}
    found: list[Tensor] = []
    block: list[tuple[int, np.ndarray, np.ndarray]] = []

    def look() -> None:
        """Put all changes of a block through the transform at once."""
        which = np.concatenate([rows for _, rows, _ in block])
        ends = np.cumsum([len(rows) for _, rows, _ in block])
        takes = {
            place: (end - len(rows), end, sources) for (place, rows, sources), end in zip(block, ends, strict=True)
        }
        columns = {}
        for place, name in enumerate(full.columns):
            source = which.copy()
            if place in takes:
                start, end, sources = takes[place]
                source[start:end] = sources
            columns[name] = full.iloc[source, place].reset_index(drop=True)
        numbers = [where[int(row)] for row in which]
        changed = encode(pd.DataFrame(columns, columns=full.columns)) != before[torch.tensor(numbers, device="cpu")]
        found.extend(part.any(0) for part in changed.split(np.diff(ends, prepend=0).tolist()))
        block.clear()

    for place in range(len(full.columns)):
        rows, sources = _changes(full.iloc[:, place], base, count, apart=apart and place in constant)
        if not len(rows):
            rows, sources = base[:1], base[:1]  # nothing to be seen
        block.append((place, rows, sources))
        if sum(len(rows) for _, rows, _ in block) * full.shape[1] > _CELLS:
            look()
    if block:
        look()
    return torch.stack(found)


def _changes(column: Any, base: np.ndarray, count: int, *, apart: bool) -> tuple[np.ndarray, np.ndarray]:
    """Rows that get another value in a column, and the rows it is taken from."""
    if apart:
        return base[:1], np.array([count])
    known = column.iloc[:count].drop_duplicates()
    values = known.index.to_numpy()
    if is_measured(column) and len(values) > _VALUES:
        ranked = known.sort_values().index.to_numpy()
        values = ranked[np.linspace(0, len(ranked) - 1, _VALUES).round().astype(int)]
    return np.concatenate([base, np.repeat(base[:1], len(values))]), np.concatenate([np.roll(base, 1), values])


def _with_another(full: pd.DataFrame, constant: list[int]) -> pd.DataFrame:
    """The rows, and one more in which columns of numbers that are all the same hold others."""
    other = full.iloc[[0]].copy()
    for place in constant:
        if is_measured(full.iloc[:, place]):
            other.isetitem(place, full.iloc[[0], place] + 1)
    return pd.concat([full, other], ignore_index=True)


def _guessed(of: list[int], names: list[str], transform: Any) -> list[int]:
    """Numbers that never moved: to the column that their name tells, or that could be theirs alone."""
    found = [*of]
    known = _feature_names(transform, len(of))
    silent = [place for place in range(len(names)) if place not in of]
    for feature, place in enumerate(of):
        if place != NOWHERE:
            continue
        if known is not None:
            told = known[feature].partition("__")[2] or known[feature]
            fits = [k for k, name in enumerate(names) if told == name or told.startswith(f"{name}_")]
            longest = max((len(names[k]) for k in fits), default=0)
            fits = [k for k in fits if len(names[k]) == longest]
            found[feature] = fits[0] if len(fits) == 1 else NOWHERE
        elif not silent:
            # A category that no row has lies among the others of its column.
            before = next((p for p in reversed(of[:feature]) if p != NOWHERE), None)
            behind = next((p for p in of[feature:] if p != NOWHERE), None)
            found[feature] = before if before is not None and before == behind else NOWHERE
    return found


def _feature_names(transform: Any, features: int) -> list[str] | None:
    try:
        names = [str(name) for name in transform.get_feature_names_out()]
    except Exception:  # of whatever kind it is: it doesn't tell
        return None
    return names if len(names) == features else None


def is_measured(column: Any) -> bool:
    """Whether a column holds numbers that are no truth values."""
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
