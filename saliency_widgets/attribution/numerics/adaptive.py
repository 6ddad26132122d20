"""Adaptive quadrature on the path from a baseline to an input, refined where the gradient changes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from saliency_widgets.attribution.arrays import on_host
from saliency_widgets.attribution.numerics.float16_store import Half, full

_START = 8
# Weight of an interval's share in the completeness residual, a single number, relative to its share in the map change,
# which covers every pixel. Measured at 65 evaluations: 1 raises the map's error by a sixth, 0 doubles completeness's.
_RESIDUAL = 0.25
# An interval's error relative to the change when its parent was bisected: sqrt(1/6) = 0.41 if the gradient is a random
# walk; 0.47 measured in a network.
_LEFT_OVER = 0.5
_NARROWEST = 2**-16  # a jump of the score is missed at any width, so narrower intervals get no more nodes for it


@dataclass(slots=True)
class _Interval:
    """Two neighboring nodes, numbered in order of evaluation, and the reasons to bisect between them."""

    low: int
    high: int
    residual: float
    change: float


@dataclass(slots=True)
class _Sample:
    """One sample's nodes (t, with the score and its slope along the path) and the intervals between them."""

    t: list[float] = field(default_factory=list)
    score: list[float] = field(default_factory=list)
    slope: list[float] = field(default_factory=list)
    intervals: list[_Interval] = field(default_factory=list)
    rests: bool = False

    def split(self, low: int, middle: int, high: int, change: float) -> None:
        for p, q in ((low, middle), (middle, high)):
            width = self.t[q] - self.t[p]
            missed = abs(width * (self.slope[p] + self.slope[q]) / 2 - (self.score[q] - self.score[p]))
            self.intervals.append(_Interval(p, q, missed if width > _NARROWEST else 0.0, change))

    def sort(self) -> None:
        """Sort intervals by urgency, so that a smaller budget's last round is the beginning of a larger one's."""
        residual = _RESIDUAL / (sum(i.residual for i in self.intervals) or 1.0)
        change = 1 / (sum(i.change for i in self.intervals) or 1.0)
        # Ties go to the widest, then to the leftmost: a linear model's intervals are all tied.
        self.intervals.sort(key=lambda i: (self.t[i.low] - self.t[i.high], self.t[i.low]))
        self.intervals.sort(key=lambda i: max(residual * i.residual, change * i.change), reverse=True)


class AdaptiveTrapezoid:
    r"""Nested trapezoid rule for Integrated Gradients, refined where completeness or the map hasn't converged.

    .. math:: a = (x - x') \sum_{[p, q]} \frac{q - p}{2} \left( g(p) + g(q) \right), \qquad
              g(t) = \nabla F(x' + t (x - x'))

    over intervals [p, q] that cover [0, 1], initially 8 equal ones. Each round bisects the intervals with the largest
    share in either of two sums over all intervals, and every node remains in use:

    * completeness residual: the difference between F(q) - F(p) and the interval's trapezoid of <g, x - x'>;
    * map change: the L1 norm of the change in the map when the interval's parent was bisected.

    The first is up to date, but misses errors of pixels that cancel; the second covers every pixel, but is a generation
    old. Neither modifies the values: the completeness error is reported as ``delta`` and never distributed.

    Each sample of a batch has separate nodes, so its result doesn't depend on its neighbors. One gradient is stored per
    node, in the form passed to :meth:`tell`; sums are in float32 or wider.

    Args:
        path: x - x', shape (B, ...).
        n_steps: n, for at most n + 1 evaluations. A larger budget only continues a smaller one of 8 or more; below 8,
            this is the plain trapezoid rule of n steps.
        per_round: Bisections per round; beyond 64 times as many nodes, a 64th of the nodes.
    """

    def __init__(self, path: Tensor, n_steps: int, per_round: int = 8):
        self._dtype = path.dtype
        self._path = path.to(torch.promote_types(path.dtype, torch.float32))
        self._total = torch.zeros_like(self._path)
        self._size = torch.zeros(len(path), dtype=self._total.dtype, device="cpu")  # of the values, L1
        self._n_steps, self._per_round = n_steps, per_round
        self._gradients: list[Tensor | Half] = []
        self._samples = [_Sample() for _ in path]
        self._nodes = torch.empty(0, len(path), dtype=torch.float64, device="cpu")

    @property
    def done(self) -> int:
        """The number of evaluations per sample so far."""
        return len(self._gradients)

    @property
    def values(self) -> Tensor:
        """The attribution so far, (B, ...); valid after the first :meth:`tell`."""
        return (self._path * self._total).to(self._dtype)

    @property
    def delta(self) -> Tensor | None:
        """Sum of the values minus (F(x) - F(x')), (B,); None before both ends are done, NaN if frozen before that."""
        if self.done < 2:
            return None
        scores = [s.score[0] - s.score[1] if len(s.score) > 1 else math.nan for s in self._samples]
        return (self._path * self._total).flatten(1).sum(1) - self._total.new_tensor(scores)

    @property
    def error(self) -> Tensor | None:
        """Estimated relative L1 error of the values, (B,), on the host; None until intervals have been bisected."""
        if self.done <= _START:
            return None
        # Added in quadrature: the errors of intervals are independent.
        changes = [[i.change for i in s.intervals] or [math.nan] for s in self._samples]
        lost = _LEFT_OVER * self._size.new_tensor([math.hypot(*c) for c in changes])
        return torch.where(lost == 0, 0.0, lost / self._size)

    def rest(self, which: Tensor) -> None:
        """Permanently freeze the samples where ``which``, bool of shape (B,), is True."""
        for sample, rests in zip(self._samples, which.tolist(), strict=True):
            sample.rests |= rests

    def ask(self) -> Tensor:
        """Return the next nodes, float64 (K, B) on the CPU, with 1 for frozen samples; K is 0 at the end."""
        left = 0 if all(s.rests for s in self._samples) else self._n_steps + 1 - self.done
        n = min(self._n_steps, _START)
        nodes = [[1.0], [j / n for j in range(n)], []][min(self.done, 2)]
        count = min(left, len(nodes) or min(max(self._per_round, self.done // 64), self.done - 1))
        self._nodes = torch.ones(count, len(self._samples), dtype=torch.float64, device="cpu")
        for b, sample in enumerate(self._samples):
            if count and not sample.rests:
                sample.sort()
                middles = [(sample.t[i.low] + sample.t[i.high]) / 2 for i in sample.intervals[:count]]
                self._nodes[:, b] = torch.tensor(nodes or middles, dtype=torch.float64, device="cpu")
        return self._nodes

    def tell(self, parts: Sequence[Tensor | Half], scores: Tensor) -> None:
        """Add the results at the nodes of the last :meth:`ask`, in their order.

        Args:
            parts: The gradients, (K, B, ...) in one piece or several, stored without copying.
            scores: The scores, (K, B).
        """
        first = self.done
        for part in parts:
            self._gradients += part.unbind()
        slopes = [(full(g) * self._path).flatten(1).sum(1) for g in self._gradients[first:]]
        families = []  # sample, low, middle and high node
        for b, sample in enumerate(self._samples):
            if sample.rests:
                continue
            sample.t += self._nodes[:, b].tolist()
            if first < 2:
                families += self._begin(b, self.done - 1)
            else:
                parents, sample.intervals = sample.intervals[: len(slopes)], sample.intervals[len(slopes) :]
                families += [(b, i.low, first + k, i.high) for k, i in enumerate(parents)]
        changes = []
        for b, low, middle, high in families:
            t = self._samples[b].t
            new = self._gradients[low][b].to(self._total.dtype) + self._gradients[high][b]
            new.mul_((t[low] - t[high]) / 4).add_(self._gradients[middle][b], alpha=(t[high] - t[low]) / 2)
            if first > 1:
                self._total[b].add_(new)
            changes.append(torch.linalg.vector_norm(new.mul_(self._path[b]), 1))
        size = (self._path * self._total).abs().flatten(1).sum(1)
        score, slope, self._size, *changes = on_host(scores, torch.stack(slopes), size, *changes)
        for b, sample in enumerate(self._samples):
            if not sample.rests:
                sample.score += score[:, b].tolist()
                sample.slope += slope[:, b].tolist()
        for (b, *family), change in zip(families, changes, strict=True):
            self._samples[b].split(*family, float(change))

    def _begin(self, b: int, n: int) -> list[tuple[int, int, int, int]]:
        """Apply the rule of n steps and return it as bisected pairs; node 0 is the right end, 1 ... n from the left."""
        self._total[b] = self._gradients[0][b].to(self._total) / max(2 * n, 1)
        for node in range(1, n + 1):
            self._total[b].add_(self._gradients[node][b], alpha=(0.5 if node == 1 else 1.0) / n)
        return [(b, j, j + 1, (j + 2) % (n + 1)) for j in range(1, n, 2)] if n == _START else []
