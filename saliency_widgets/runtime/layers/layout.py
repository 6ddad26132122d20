"""Layouts for reading an activation whose elements have coordinates as channels on a grid that covers the image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """A way to read a layer's output as channels on a grid that covers the image.

    Attributes:
        shape: The shape of the output for one sample.
        batch: The dimension of samples.
        channel: The dimension of channels.
        grid: The grid's height and width; of a volume, its depth, height and width.
        order: The index of each cell in the other dimensions, row by row; None if they already are the grid.
        flat: Whether the image is one pixel high, as a signal is.
    """

    shape: tuple[int, ...]
    batch: int
    channel: int
    grid: tuple[int, ...]
    order: tuple[int, ...] | None = None
    flat: bool = False

    @property
    def planar(self) -> bool:
        """Whether each side of the grid has a dimension; of a signal, whether channels come before time."""
        if self.flat and len(self.shape) == 3:
            return self.channel == 1
        sides = [n for dim, n in enumerate(self.shape) if dim not in (self.batch, self.channel)]
        return len(sides) == len(self.grid) and (self.order is None or min(sides) > 1)

    @property
    def image(self) -> bool:
        """Whether the output is (N, channels, height, width), not tokens or channels last."""
        return self.planar and self.channel == 1

    @property
    def shuffled(self) -> bool:
        """Whether the cells are not stored consecutively in row order."""
        return self.order is not None and self.order != tuple(range(self.order[0], self.order[0] + len(self.order)))

    def fits(self, output: Tensor, batch: int) -> bool:
        """Return whether an output for ``batch`` samples has this layout."""
        shape = list(self.shape)
        shape[self.batch] = batch
        return list(output.shape) == shape

    def read(self, output: Tensor) -> Tensor:
        """Return the output as (B, K, h, w), or (B, K, d, h, w)."""
        if self.order is None and self.channel == 1:
            return output
        cells = output.movedim((self.batch, self.channel), (0, 1)).flatten(2)
        if self.order is not None:
            first, count = self.order[0], len(self.order)
            cells = cells[:, :, list(self.order)] if self.shuffled else cells[:, :, first : first + count]
        return cells.unflatten(2, self.grid)


DIMENSIONS = {4: ((0, 1), (0, 3)), 3: ((0, 2), (1, 2), (0, 1))}  # of samples and of channels
_ROUNDED = 16  # steps per pixel: means of the same pixels in another order differ by rounding
# Maximum distance between the edges of grid and image, in cells; edges are off if every second token is taken twice.
_MARGIN = 0.38


Filled = tuple[tuple[int, int], tuple[int, ...] | None]


def filled_grid(cells: Tensor, size: tuple[float, float]) -> Filled | None:
    """Return height and width of the grid that cells, (h, w) or in any order, fill, and the order; None for no grid."""
    plain = _plain_grid(cells, size) if cells.ndim == 2 else None
    return (plain, None) if plain is not None else _ordered(cells.flatten(), size)


def _plain_grid(cells: Tensor, size: tuple[float, float]) -> tuple[int, int] | None:
    """Return the height and width of cells that are stored row by row, (h, w); None if they are not."""
    rows, columns = cells.real[:, 0], cells.imag[0]
    near = 1 / _ROUNDED
    if not bool(((cells.real - rows[:, None]).abs() < near).all() & ((cells.imag - columns).abs() < near).all()):
        return None  # also if any is NaN
    if cells.numel() < 2 or not all(_covers(axis, length) for axis, length in zip((rows, columns), size, strict=True)):
        return None
    return cells.shape[0], cells.shape[1]


def _covers(lines: Tensor, length: float) -> bool:
    """Return whether the centers of rows or columns are evenly spaced and reach both edges of the image."""
    step = length if len(lines) == 1 else float(lines[-1] - lines[0]) / (len(lines) - 1)
    if step <= 0 or bool(((lines.diff() - step).abs() > 0.1 * step + 2 / _ROUNDED).any()):
        return False
    edges = abs(float(lines[0]) - step / 2), abs(length - step / 2 - float(lines[-1]))
    return max(edges) <= (_MARGIN * step if len(lines) > 1 else length / 16) + 1 / _ROUNDED


def _ordered(cells: Tensor, size: tuple[float, float]) -> Filled | None:
    """Return the grid that cells in any order fill, without those that have no position; None if they fill no grid."""
    valid = ~cells.real.isnan()
    centers = cells[valid]
    if len(centers) < 2:
        return None
    lines, ranks = zip(
        *((coordinate * _ROUNDED).round().unique(return_inverse=True) for coordinate in (centers.real, centers.imag)),
        strict=True,
    )
    height, width = len(lines[0]), len(lines[1])
    if len(centers) != height * width or not all(
        _covers(line / _ROUNDED, length) for line, length in zip(lines, size, strict=True)
    ):
        return None
    cell = ranks[0] * width + ranks[1]
    order = cell.argsort()
    if not torch.equal(cell[order], torch.arange(len(cell), device="cpu")):
        return None
    return (height, width), tuple(valid.nonzero()[:, 0][order].tolist())
