"""What a matching costs and what its potentials prove; and which problems have a matching at all."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

LARGEST = 1e150  # of a coordinate: squares beyond it leave float64 (kLargest of cpu.cpp)
Solution = tuple[Tensor, Tensor, Tensor]  # index [B, N], u [B, N], v [B, M]
Certified = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # the same, primal [B] and dual [B]


def primal_cost(x: Tensor, y: Tensor, potential: Tensor | None, index: Tensor) -> Tensor:
    """sum_i |x_i - y_sigma(i)|^2 - potential_sigma(i) in float64 [...]; NaN where an index is -1. Differentiable."""
    lead, (m, d) = index.shape[:-1], y.shape[-2:]
    pair = index.clamp_min(0)
    if lead:
        pair = pair + m * torch.arange(math.prod(lead), device=index.device).view(*lead, 1)
    pair = pair.flatten()
    matched = y.reshape(-1, d).index_select(0, pair).view(*index.shape, d)
    x = x.double().contiguous()  # torch sums in an order that follows the strides
    cost = (x - matched.double()).square().sum(-1)  # [..., N]
    if potential is not None:
        cost = cost - potential.reshape(-1).index_select(0, pair).view(index.shape).double()
    return torch.where(index < 0, torch.nan, cost).sum(-1)


def unsolved(x: Tensor, y: Tensor) -> Certified:
    """index -1 and NaN everywhere; with N = 0 there is nothing to match, and all is 0."""
    fill = torch.nan if x.shape[1] else 0.0
    index = torch.full(x.shape[:2], -1, device=x.device)
    u, v, cost = (
        torch.full(shape, fill, dtype=torch.float64, device=x.device)
        for shape in (x.shape[:2], y.shape[:2], x.shape[:1])
    )
    return index, u, v, cost, cost.clone()


def certified(
    solve: Callable[[Tensor, Tensor, Tensor | None], Solution], x: Tensor, y: Tensor, potential: Tensor | None
) -> Certified:
    """What ``solve`` finds where a problem holds no NaN, infinity or number beyond LARGEST, with primal and dual."""
    tensors = [tensor for tensor in (x, y, potential) if tensor is not None]
    solvable = torch.stack([(tensor.flatten(1).abs().double() <= LARGEST).all(1) for tensor in tensors]).all(0)
    if not solvable.all():
        result = unsolved(x, y)
        if solvable.any():
            offsets = None if potential is None else potential[solvable]
            for whole, part in zip(result, certified(solve, x[solvable], y[solvable], offsets), strict=True):
                whole[solvable] = part
        return result
    index, u, v = solve(x, y, potential)
    return index, u, v, primal_cost(x, y, potential, index), u.sum(-1) + v.sum(-1)
