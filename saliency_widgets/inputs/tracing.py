"""Find the column that each output of a transform depends on, by mixing rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from saliency_widgets.attribution.numerics.noise import seeded

_PAIRS = 24  # random pairs of rows
_EACH = 256  # up to this many outputs, each one gets a separate pair of rows
_VALUES = 32  # distinct values of a column to include
_CELLS = 4_000_000  # cells in one call of the transform
_ALL = 4 * _CELLS  # cells in all calls, except for the required pairs
_SAME = 1e-6  # tolerance, relative to the difference between two rows: rounding may depend on the number of rows

NOWHERE = -1
"""Marks an output without a known column: it is the same in all available rows, and could depend on several columns."""


def trace(
    rows: pd.DataFrame, numbers: Tensor, encode: Callable[[pd.DataFrame], Tensor], transform: Any, *, alone: bool
) -> tuple[Tensor, tuple[str, ...]]:
    """Find the column that each output of the transform depends on.

    Two rows a and b are mixed: some columns from a, the others from b. An output that depends on one column then equals
    that of a or b, depending on which row the column is from. For C columns, 2 log2 C mixtures identify it; an output
    that depends on several columns equals neither, or gives contradictory results. Each output that varies at all is
    tested on rows where it varies.

    Args:
        rows: All available rows.
        numbers: The transform's outputs for them, shape (N, F).
        encode: The function from rows to outputs.
        transform: The transform, whose output names identify the columns of outputs that never vary.
        alone: Whether only the explained rows are available.

    Returns:
        The index of the column of each output, or ``NOWHERE``; and notes.

    Raises:
        ValueError: An output depends on several columns, or more rows are needed to find its column.
    """
    full, seen, a, b = _pairs(rows, numbers, encode)
    columns = torch.full((numbers.shape[1],), NOWHERE, device="cpu")
    mixtures = max(1, (len(full.columns) - 1).bit_length())
    block = max(1, _CELLS // (2 * mixtures * max(len(full.columns), len(columns))))
    for start in range(0, len(a), block):
        _trace_pairs(full, seen, encode, a[start : start + block], b[start : start + block], columns)
    silent = (columns == NOWHERE).nonzero()[:, 0].tolist()
    if silent:
        columns = _assign_constant(columns.tolist(), [*map(str, full.columns)], transform)
    unknown = int((columns == NOWHERE).sum())
    if unknown and alone:
        raise ValueError(
            f"transform: for {unknown} of its {len(columns)} outputs, one row is not enough to find the column "
            f"that they depend on. Pass background= other rows."
        )
    notes: tuple[str, ...] = ()
    if unknown:
        notes = (
            f"{unknown} of the {len(columns)} numbers in the model's input are the same in all available rows, so "
            f"their columns are unknown: they are omitted from the bars.",
        )
    return columns, notes


def _pairs(
    rows: pd.DataFrame, numbers: Tensor, encode: Callable[[pd.DataFrame], Tensor]
) -> tuple[pd.DataFrame, Tensor, np.ndarray, np.ndarray]:
    """Return rows, their outputs, and pairs of rows such that each varying output differs within one of the pairs."""
    count = len(rows)
    low, high = numbers.argmin(0).numpy(), numbers.argmax(0).numpy()
    varies = (numbers.amax(0) > numbers.amin(0)).numpy()
    generator = seeded(0, "tracing")
    drawn = torch.randint(count, (2, _PAIRS), generator=generator, device="cpu").numpy()
    a, b = [*drawn[0], *[0] * _PAIRS], [*drawn[1], *drawn[1]]
    covered = (numbers[a] != numbers[b]).any(0).numpy()
    paired = varies if len(varies) <= _EACH else varies & ~covered
    pairs = [*zip(a, b, strict=True), *zip(low[paired], high[paired], strict=True)]
    # An interaction of two columns may have an effect only where both values are unusual.
    mixtures = 2 * max(1, (len(rows.columns) - 1).bit_length())
    left = _ALL // (mixtures * max(rows.shape[1], numbers.shape[1])) - len(pairs)
    ends = np.unique(np.concatenate([low[paired], high[paired]]))
    unusual = _unusual_rows(rows)
    if left > 0 and len(ends) and len(unusual):
        every = len(ends) * len(unusual)
        some = torch.randperm(every, generator=generator, device="cpu")[:left].numpy() if every < 10 * left else []
        pairs += [(ends[k // len(unusual)], unusual[k % len(unusual)]) for k in some]
    pairs = {(int(one), int(other)): None for one, other in pairs if one != other}
    moved = _changed_row(rows)
    if moved is not None:
        try:
            numbers = torch.cat([numbers, encode(moved)])
        except ValueError:
            pass  # the changed numbers are out of range, for example for an encoder of categories
        else:
            rows = pd.concat([rows, moved], ignore_index=True)
            pairs[0, count] = None
    ends = np.array([*pairs], dtype=int).reshape(-1, 2)
    return rows, numbers, ends[:, 0], ends[:, 1]


def _unusual_rows(rows: pd.DataFrame) -> np.ndarray:
    """Return rows that cover the distinct values of each column, or its extremes if there are many."""
    indices: list[int] = []
    for k in range(len(rows.columns)):
        values = rows.iloc[:, k].drop_duplicates()
        if len(values) > _VALUES and is_measured(values):
            values = values.sort_values().iloc[[0, -1]]
        indices += values.index[:_VALUES].tolist()
    return np.unique(np.array(indices, dtype=int))


def _changed_row(rows: pd.DataFrame) -> pd.DataFrame | None:
    """Return the first row with changed numbers in the constant columns, or None if no column is constant."""
    row = rows.iloc[[0]].copy()
    constant = [k for k in range(len(rows.columns)) if is_measured(rows.iloc[:, k]) and rows.iloc[:, k].nunique() == 1]
    for k in constant:
        row.isetitem(k, rows.iloc[[0], k] + 1)
    return row if constant else None


def _trace_pairs(
    full: pd.DataFrame,
    numbers: Tensor,
    encode: Callable[[pd.DataFrame], Tensor],
    a: np.ndarray,
    b: np.ndarray,
    of: Tensor,
) -> None:
    """Mix pairs of rows, and record in ``of`` the column of each output that differs between them."""
    columns = np.arange(len(full.columns))
    mixtures = max(1, (len(columns) - 1).bit_length())
    # The columns taken from b, for each mixture and its complement.
    bits = (columns[None] >> np.arange(mixtures)[:, None]) & 1
    taken = np.concatenate([bits, 1 - bits]).astype(bool)
    sources = np.where(taken[None], b[:, None, None], a[:, None, None]).reshape(-1, len(columns))
    mixed = {name: full.iloc[sources[:, k], k].reset_index(drop=True) for k, name in enumerate(full.columns)}
    mixed_numbers = encode(pd.DataFrame(mixed, columns=full.columns)).view(len(a), 2 * mixtures, -1)
    start, span = numbers[a][:, None], (numbers[b] - numbers[a])[:, None]
    differs = span.abs() > 1e-9 * torch.maximum(numbers[a].abs(), numbers[b].abs())[:, None]
    share = torch.where(differs, (mixed_numbers - start) / torch.where(differs, span, 1.0), 0.0)
    is_b = (share - 1).abs() < _SAME
    matched = is_b | (share.abs() < _SAME)
    consistent = matched.all(1) & (is_b[:, :mixtures] != is_b[:, mixtures:]).all(1)
    column = (is_b[:, :mixtures].long() << torch.arange(mixtures, device="cpu")[:, None]).sum(1)
    differs = differs[:, 0]
    right = ~differs | (consistent & (column < len(columns)))
    right &= ~differs | (of == NOWHERE) | (column == of)
    # All pairs must agree on one column.
    first = column.masked_fill(~differs, len(columns)).amin(0)
    last = column.masked_fill(~differs, NOWHERE).amax(0)
    wrong = ~right.all(0) | ((first != last) & (last != NOWHERE))
    if bool(wrong.any()):
        raise _several(full, int(wrong.nonzero()[0, 0]))
    of.copy_(torch.where(last != NOWHERE, last, of))


def _several(full: pd.DataFrame, feature: int) -> ValueError:
    return ValueError(
        f"transform: its output {feature} depends on several of the {len(full.columns)} columns, so "
        f"attributions can't be summed back to them. Omit transform=, and explain the transformed row itself."
    )


def _assign_constant(of: list[int], names: list[str], transform: Any) -> Tensor:
    """Assign outputs that never vary to columns, by their names or by the neighboring outputs."""
    result = [*of]
    outputs = _feature_names(transform, len(of))
    matches = None if outputs is None else _matching_columns(outputs, names)
    if matches is not None and any(k not in fits for k, fits in zip(of, matches, strict=True) if k != NOWHERE):
        matches = None  # the names contradict the traced columns
    before, behind = _nearest(of), _nearest(of[::-1])[::-1]
    complete = {*range(len(names))} <= {*of}
    for feature, column in enumerate(of):
        if column != NOWHERE:
            continue
        if matches is not None:
            result[feature] = matches[feature][0] if len(matches[feature]) == 1 else NOWHERE
        elif complete and before[feature] == behind[feature]:
            # The output of a category that is in no row lies between the other outputs of its column.
            result[feature] = before[feature]
    return torch.tensor(result, device="cpu")


def _nearest(of: list[int]) -> list[int]:
    """Return the column of each output, or the last known one before it."""
    last, result = NOWHERE, []
    for column in of:
        last = last if column == NOWHERE else column
        result.append(last)
    return result


def _matching_columns(features: list[str], names: list[str]) -> list[list[int]]:
    """Return the columns that each output's name may refer to: "job_pilot" and "words__job_pilot" match "job"."""
    indices: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        indices.setdefault(name, []).append(index)
    longest = max(map(len, names), default=0)
    result = []
    for feature in features:
        variants = {feature, feature.partition("__")[2] or feature}
        starts = {
            text[:k] for text in variants for k in range(min(len(text), longest) + 1) if text[k : k + 1] in ("_", "")
        }
        result.append(sorted({index for start in starts for index in indices.get(start, ())}))
    return result


def _feature_names(transform: Any, features: int) -> list[str] | None:
    try:
        names = [str(name) for name in transform.get_feature_names_out()]
    except Exception:  # it may raise any error if it has no names
        return None
    return names if len(names) == features else None


def is_measured(column: Any) -> bool:
    """Return whether a column holds numbers other than booleans."""
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
