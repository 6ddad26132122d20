"""Quadrature rules on [0, 1], and the order in which their nodes are visited.

A rule approximates the integral of g over [0, 1] by sum_j w_j g(t_j), with sum_j w_j = 1. One function a rule.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

Rule = tuple[Tensor, Tensor]


def trapezoid(n_steps: int) -> Rule:
    """Trapezoid rule: n + 1 nodes j/n, weights 1/n, half of that at both ends. Nested: n's nodes are in 2n's."""
    nodes = torch.linspace(0, 1, n_steps + 1, dtype=torch.float64)
    weights = torch.full((n_steps + 1,), 1 / n_steps, dtype=torch.float64)
    weights[0] = weights[-1] = 0.5 / n_steps
    return nodes, weights


def midpoint(n_steps: int) -> Rule:
    """Midpoint rule: n nodes (j + 1/2)/n of equal weight."""
    nodes = (torch.arange(n_steps, dtype=torch.float64) + 0.5) / n_steps
    return nodes, torch.full((n_steps,), 1 / n_steps, dtype=torch.float64)


def gauss_legendre(n_steps: int) -> Rule:
    """Gauss-Legendre rule: n nodes, exact for polynomials up to degree 2n - 1.

    Nodes and weights by Golub and Welsch (1969): eigenvalues and first components of the eigenvectors of the
    Jacobi matrix with off-diagonal b_k = k / sqrt(4k^2 - 1).
    """
    k = torch.arange(1, n_steps, dtype=torch.float64)
    off = k / torch.sqrt(4 * k**2 - 1)
    values, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return (values + 1) / 2, vectors[0] ** 2


RULES: dict[str, Callable[[int], Rule]] = {
    "trapezoid": trapezoid,
    "midpoint": midpoint,
    "gauss_legendre": gauss_legendre,
}


def coarse_to_fine(count: int) -> list[int]:
    """The indices 0 ... count - 1, far apart first: the last, the first, the middle, the quarters ...

    Any beginning of this order covers the whole interval evenly. With the trapezoid rule of 2^k steps, every
    beginning of 2^j + 1 nodes is exactly the rule of 2^j steps.
    """
    order = [count - 1, 0][: max(1, min(count, 2))]
    gaps = deque([(0, count - 1)])
    while gaps:
        low, high = gaps.popleft()
        if high - low < 2:
            continue
        middle = (low + high) // 2
        order.append(middle)
        gaps += [(low, middle), (middle, high)]
    return order
