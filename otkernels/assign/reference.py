"""The definition of assign: shortest augmenting paths on the whole cost matrix, in plain PyTorch and float64."""

from __future__ import annotations

import torch
from torch import Tensor

from .certificate import Certified, Solution, certified


def assign(x: Tensor, y: Tensor, potential: Tensor | None, tolerance: float = 0.0) -> Certified:
    """The injective sigma that minimises sum_i |x_i - y_sigma(i)|^2 - potential_sigma(i), and its dual potentials.

    x [B, N, D], y [B, M, D], N <= M, potential [B, M] or None -> index [B, N] int64, u [B, N], v [B, M], primal [B] and
    dual [B] float64. Always exact: every tolerance is met.
    """
    return certified(_solve_all, x, y, potential)


def _solve_all(x: Tensor, y: Tensor, potential: Tensor | None) -> Solution:
    x, y = x.double().contiguous(), y.double().contiguous()  # torch sums in an order that follows the strides
    cost = (x[:, :, None] - y[:, None]).square().sum(-1)  # [B, N, M]
    if potential is not None:
        cost = cost - potential.double()[:, None]
    solved = [solve(matrix.cpu()) for matrix in cost]
    index, u, v = (torch.stack(parts).to(x.device) for parts in zip(*solved, strict=True))
    return index, u, v


def solve(cost: Tensor) -> Solution:
    """cost [N, M] -> index [N], u [N], v [M]; rows are matched one after another along shortest augmenting paths."""
    n, m = cost.shape
    u, v = cost.new_zeros(n), cost.new_zeros(m)
    index, owner = [-1] * n, [-1] * m
    for row in range(n):
        u[row] = (cost[row] - v).min()
        distance = cost.new_full((m,), torch.inf)
        source = torch.zeros(m, dtype=torch.int64)
        closed = torch.zeros(m, dtype=torch.bool)
        i, reached = row, 0.0
        while True:  # Dijkstra's algorithm: the nearest open column, until it is free
            through = reached + cost[i] - u[i] - v
            shorter = (through < distance) & ~closed
            distance, source = torch.where(shorter, through, distance), torch.where(shorter, i, source)
            j = int(distance.masked_fill(closed, torch.inf).argmin())
            reached = float(distance[j])
            if owner[j] < 0:
                break
            closed[j], i = True, owner[j]
        nearer = (reached - distance)[closed].clamp_min(0)  # below 0 by rounding alone: v only falls
        v[closed] -= nearer
        u[[owner[k] for k in closed.nonzero()[:, 0].tolist()]] += nearer
        u[row] += reached
        while True:  # the path's columns move on
            i = int(source[j])
            owner[j], index[i], j = i, j, index[i]
            if i == row:
                break
    if n == m:
        u, v = u + v.mean(), v - v.mean()
    return torch.tensor(index), u, v
