"""Which column each number that a transform gives comes from: told by mixing rows, and looking."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from saliency_widgets.attribution.numerics.noise import seeded

_PAIRS = 24  # of rows drawn at random
_EACH = 256  # numbers, up to which each has a pair of rows of its own
_VALUES = 32  # of a column, each of which is looked for in a row
_CELLS = 4_000_000  # of one call of the transform
_ALL = 4 * _CELLS  # of all of them together, but for the pairs that must be
_SAME = 1e-6  # of the difference between two rows: a transform may round by how many rows it is given

NOWHERE = -1
"""Of a number that is the same in all rows at hand, and could be several columns'."""


def trace(
    rows: pd.DataFrame, numbers: Tensor, encode: Callable[[pd.DataFrame], Tensor], transform: Any, *, alone: bool
) -> tuple[Tensor, tuple[str, ...]]:
    """Find the column behind each number.

    Two rows a and b are mixed: some columns of a, the others of b. A number that comes from one column is then a's or
    b's, whichever that column is from. Of C columns, 2 log2 C ways of mixing tell which one; a number that comes from
    several is neither, or contradicts itself. Each number that varies at all is looked at in rows where it does.

    Args:
        rows: All rows at hand.
        numbers: What the transform gives for them, shape (N, F).
        encode: From rows to that.
        transform: Asked for the names of its numbers where one never varies.
        alone: Whether there are no rows but those that are explained.

    Returns:
        The number of the column of each feature, or ``NOWHERE``; and what a reader should know.

    Raises:
        ValueError: A number comes from several columns, or there are no other rows that would tell.
    """
    full, seen, a, b = _pairs(rows, numbers, encode)
    of = torch.full((numbers.shape[1],), NOWHERE, device="cpu")
    ways = max(1, (len(full.columns) - 1).bit_length())
    block = max(1, _CELLS // (2 * ways * max(len(full.columns), len(of))))
    for start in range(0, len(a), block):
        _look(full, seen, encode, a[start : start + block], b[start : start + block], of)
    silent = (of == NOWHERE).nonzero()[:, 0].tolist()
    if silent:
        of = _guessed(of.tolist(), [*map(str, full.columns)], transform)
    gone = int((of == NOWHERE).sum())
    if gone and alone:
        raise ValueError(
            f"transform: of {gone} of the {len(of)} numbers that it gives, one row alone doesn't tell which column "
            f"they come from. Pass background= other rows."
        )
    notes: tuple[str, ...] = ()
    if gone:
        notes = (
            f"{gone} of the {len(of)} numbers that the model sees are the same in all rows at hand, and could be "
            f"several columns': they are left out of the bars.",
        )
    return of, notes


def _pairs(
    rows: pd.DataFrame, numbers: Tensor, encode: Callable[[pd.DataFrame], Tensor]
) -> tuple[pd.DataFrame, Tensor, np.ndarray, np.ndarray]:
    """The rows, what the transform gives for them, and pairs of them between which all numbers vary that do."""
    count = len(rows)
    low, high = numbers.argmin(0).numpy(), numbers.argmax(0).numpy()
    varies = (numbers.amax(0) > numbers.amin(0)).numpy()
    generator = seeded(0, "tracing")
    drawn = torch.randint(count, (2, _PAIRS), generator=generator, device="cpu").numpy()
    a, b = [*drawn[0], *[0] * _PAIRS], [*drawn[1], *drawn[1]]
    told = (numbers[a] != numbers[b]).any(0).numpy()
    own = varies if len(varies) <= _EACH else varies & ~told
    pairs = [*zip(a, b, strict=True), *zip(low[own], high[own], strict=True)]
    # What two columns do together may be seen only where both are unusual.
    ways = 2 * max(1, (len(rows.columns) - 1).bit_length())
    left = _ALL // (ways * max(rows.shape[1], numbers.shape[1])) - len(pairs)
    ends = np.unique(np.concatenate([low[own], high[own]]))
    unusual = _unusual(rows)
    if left > 0 and len(ends) and len(unusual):
        every = len(ends) * len(unusual)
        some = torch.randperm(every, generator=generator, device="cpu")[:left].numpy() if every < 10 * left else []
        pairs += [(ends[k // len(unusual)], unusual[k % len(unusual)]) for k in some]
    pairs = {(int(one), int(other)): None for one, other in pairs if one != other}
    moved = _moved(rows)
    if moved is not None:
        try:
            numbers = torch.cat([numbers, encode(moved)])
        except ValueError:
            pass  # numbers that nobody has: of an encoder of categories, too far
        else:
            rows = pd.concat([rows, moved], ignore_index=True)
            pairs[0, count] = None
    ends = np.array([*pairs], dtype=int).reshape(-1, 2)
    return rows, numbers, ends[:, 0], ends[:, 1]


def _unusual(rows: pd.DataFrame) -> np.ndarray:
    """Rows in which the columns take their several values, or of many, the least and the greatest."""
    found: list[int] = []
    for place in range(len(rows.columns)):
        known = rows.iloc[:, place].drop_duplicates()
        if len(known) > _VALUES and is_measured(known):
            known = known.sort_values().iloc[[0, -1]]
        found += known.index[:_VALUES].tolist()
    return np.unique(np.array(found, dtype=int))


def _moved(rows: pd.DataFrame) -> pd.DataFrame | None:
    """The first row with other numbers in the columns that hold the same everywhere; None where there are none."""
    found = rows.iloc[[0]].copy()
    constant = [
        place
        for place in range(len(rows.columns))
        if is_measured(rows.iloc[:, place]) and rows.iloc[:, place].nunique() == 1
    ]
    for place in constant:
        found.isetitem(place, rows.iloc[[0], place] + 1)
    return found if constant else None


def _look(
    full: pd.DataFrame,
    numbers: Tensor,
    encode: Callable[[pd.DataFrame], Tensor],
    a: np.ndarray,
    b: np.ndarray,
    of: Tensor,
) -> None:
    """Mix some pairs of rows in all ways, and note the column of each number that differs between them."""
    columns = np.arange(len(full.columns))
    ways = max(1, (len(columns) - 1).bit_length())
    # Of each way and its opposite: which columns are b's.
    bits = (columns[None] >> np.arange(ways)[:, None]) & 1
    taken = np.concatenate([bits, 1 - bits]).astype(bool)
    sources = np.where(taken[None], b[:, None, None], a[:, None, None]).reshape(-1, len(columns))
    mixed = {name: full.iloc[sources[:, k], k].reset_index(drop=True) for k, name in enumerate(full.columns)}
    found = encode(pd.DataFrame(mixed, columns=full.columns)).view(len(a), 2 * ways, -1)
    start, span = numbers[a][:, None], (numbers[b] - numbers[a])[:, None]
    differs = span.abs() > 1e-9 * torch.maximum(numbers[a].abs(), numbers[b].abs())[:, None]
    share = torch.where(differs, (found - start) / torch.where(differs, span, 1.0), 0.0)
    is_b = (share - 1).abs() < _SAME
    known = is_b | (share.abs() < _SAME)
    consistent = known.all(1) & (is_b[:, :ways] != is_b[:, ways:]).all(1)
    place = (is_b[:, :ways].long() << torch.arange(ways, device="cpu")[:, None]).sum(1)
    differs = differs[:, 0]
    right = ~differs | (consistent & (place < len(columns)))
    right &= ~differs | (of == NOWHERE) | (place == of)
    # All pairs must name one column.
    first = place.masked_fill(~differs, len(columns)).amin(0)
    last = place.masked_fill(~differs, NOWHERE).amax(0)
    wrong = ~right.all(0) | ((first != last) & (last != NOWHERE))
    if bool(wrong.any()):
        raise _several(full, int(wrong.nonzero()[0, 0]))
    of.copy_(torch.where(last != NOWHERE, last, of))


def _several(full: pd.DataFrame, feature: int) -> ValueError:
    return ValueError(
        f"transform: number {feature} of what it gives comes from several of the {len(full.columns)} columns, so "
        f"attributions can't be summed back to them. Leave transform= out, and explain the transformed row itself."
    )


def _guessed(of: list[int], names: list[str], transform: Any) -> Tensor:
    """Numbers that never vary: to the column that their name tells, or that could be theirs alone."""
    found = [*of]
    known = _feature_names(transform, len(of))
    told = None if known is None else _columns_called(known, names)
    if told is not None and any(place not in fits for place, fits in zip(of, told, strict=True) if place != NOWHERE):
        told = None  # these names mean something else
    before, behind = _nearest(of), _nearest(of[::-1])[::-1]
    every = {*range(len(names))} <= {*of}
    for feature, place in enumerate(of):
        if place != NOWHERE:
            continue
        if told is not None:
            found[feature] = told[feature][0] if len(told[feature]) == 1 else NOWHERE
        elif every and before[feature] == behind[feature]:
            # A category that no row has lies among the others of its column.
            found[feature] = before[feature]
    return torch.tensor(found, device="cpu")


def _nearest(of: list[int]) -> list[int]:
    """The last column that is known before each number, or its own."""
    last, found = NOWHERE, []
    for place in of:
        last = last if place == NOWHERE else place
        found.append(last)
    return found


def _columns_called(features: list[str], names: list[str]) -> list[list[int]]:
    """The columns that numbers' names may mean: "job_pilot" and "words__job_pilot" are both of "job"."""
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    longest = max(map(len, names), default=0)
    found = []
    for feature in features:
        told = {feature, feature.partition("__")[2] or feature}
        starts = {one[:k] for one in told for k in range(min(len(one), longest) + 1) if one[k : k + 1] in ("_", "")}
        found.append(sorted({place for start in starts for place in places.get(start, ())}))
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
