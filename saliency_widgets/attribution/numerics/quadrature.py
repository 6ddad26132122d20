"""Quadrature rules on [0, 1], and the order in which their nodes are visited.

A rule approximates the integral of g over [0, 1] by sum_j w_j g(t_j), with sum_j w_j = 1. Each rule is a function.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

Rule = tuple[Tensor, Tensor]


def trapezoid(n_steps: int) -> Rule:
    """Return the trapezoid rule: n + 1 nodes j/n, weights 1/n, halved at both ends. Rule 2n contains the nodes of n."""
    nodes = torch.linspace(0, 1, n_steps + 1, dtype=torch.float64, device="cpu")
    weights = torch.full((n_steps + 1,), 1 / n_steps, dtype=torch.float64, device="cpu")
    weights[0] = weights[-1] = 0.5 / n_steps
    return nodes, weights


def midpoint(n_steps: int) -> Rule:
    """Return the midpoint rule: n nodes (j + 1/2)/n of equal weight."""
    nodes = (torch.arange(n_steps, dtype=torch.float64, device="cpu") + 0.5) / n_steps
    return nodes, torch.full((n_steps,), 1 / n_steps, dtype=torch.float64, device="cpu")


def gauss_legendre(n_steps: int) -> Rule:
    """Return the Gauss-Legendre rule: n nodes, exact for polynomials up to degree 2n - 1.

    The nodes are the roots of the Legendre polynomial P_n, computed by Newton's method from Tricomi's approximation
    cos(pi (i - 1/4) / (n + 1/2)); the weights are 1 / ((1 - x^2) P_n'(x)^2) (Abramowitz and Stegun 25.4.29, halved
    for an interval of length 1). This takes milliseconds, an eigenvalue solver seconds.
    """
    x = torch.cos(math.pi * (torch.arange(n_steps, 0, -1, dtype=torch.float64, device="cpu") - 0.25) / (n_steps + 0.5))
    slope = torch.ones_like(x)
    for _ in range(4):  # quadratic convergence: from 4e-3 or better to rounding
        before, here = torch.ones_like(x), x
        for k in range(2, n_steps + 1):
            before, here = here, ((2 * k - 1) * x * here - (k - 1) * before) / k
        slope = n_steps * (x * here - before) / (x**2 - 1)
        x = x - here / slope
    return (x + 1) / 2, 1 / ((1 - x**2) * slope**2)


def clenshaw_curtis(n_steps: int) -> Rule:
    """Return the Clenshaw-Curtis rule: n + 1 nodes (1 - cos(pi j / n)) / 2 with both ends, exact up to degree n.

    The weights integrate the cosine series through the nodes (Clenshaw and Curtis, "A method for numerical integration
    on an automatic computer", 1960); n = 1 is the trapezoid rule.
    """
    j = torch.arange(n_steps + 1, dtype=torch.float64, device="cpu")
    k = torch.arange(1, n_steps // 2 + 1, dtype=torch.float64, device="cpu")
    share = torch.zeros(n_steps, dtype=torch.float64, device="cpu")
    share[1 : len(k) + 1] = torch.where(2 * k == n_steps, 1.0, 2.0) / (4 * k**2 - 1)
    series = torch.fft.fft(share).real  # sum_k share_k cos(2 pi j k / n), without a matrix of n^2 cosines
    weights = (1 - torch.cat([series, series[:1]])) / n_steps
    weights[0] = weights[0] / 2
    weights[-1] = weights[-1] / 2
    return (1 - torch.cos(math.pi * j / n_steps)) / 2, weights


RULES: dict[str, Callable[[int], Rule]] = {
    "trapezoid": trapezoid,
    "midpoint": midpoint,
    "gauss_legendre": gauss_legendre,
    "clenshaw_curtis": clenshaw_curtis,
}


def coarse_to_fine(count: int, most: int | None = None) -> list[int]:
    """Return the indices 0 ... count - 1 from coarse to fine: the last, the first, the middle, the quarters ...

    Any prefix of this order covers the whole interval evenly. With the trapezoid rule of 2^k steps, every prefix of
    2^j + 1 nodes is exactly the rule of 2^j steps.

    Args:
        count: The number of indices.
        most: The maximum number of open gaps: beyond it, gaps are filled one after another, which bounds the memory of
            a caller that stores their ends. The beginning of the order is the same.
    """
    order = [count - 1, 0][: max(1, min(count, 2))]
    gaps = deque([(0, count - 1)])
    while gaps:
        low, high = gaps.popleft()
        if high - low < 2:
            continue
        middle = (low + high) // 2
        order.append(middle)
        if most is None or len(gaps) < most:
            gaps += [(low, middle), (middle, high)]
        else:
            gaps.extendleft([(middle, high), (low, middle)])
    return order
