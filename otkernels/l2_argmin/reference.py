"""The definition of l2_argmin: squared distances summed from differences, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from .._checks import widen

_CHUNK_ELEMENTS = 1 << 22  # of the [rows, M, D] differences held at a time: memory stays O(N + M)


def l2_argmin(x: Tensor, y: Tensor, potential: Tensor | None, precision: str = "exact") -> tuple[Tensor, Tensor]:
    """value_i = min_j |x_i - y_j|^2 - potential_j and the lowest j that attains it.

    x [B, N, D], y [B, M, D], potential [B, M] or None -> value [B, N], index [B, N] int64.
    Differentiable. Every precision is met: nothing is more exact. A row of costs with a NaN gives -1 and NaN.
    """
    index = argmin(x, y, potential)
    return value_at(x, y, potential, index), index


@torch.no_grad()
def argmin(x: Tensor, y: Tensor, potential: Tensor | None) -> Tensor:
    x, y = x.contiguous(), y.contiguous()  # or torch sums some pairs in another order, and copies of a point differ
    batch, n, d = x.shape
    rows = max(1, _CHUNK_ELEMENTS // max(1, batch * y.shape[1] * d))
    index = torch.empty(batch, n, dtype=torch.int64, device=x.device)
    for start in range(0, n, rows):
        difference = widen(x[:, start : start + rows, None]) - widen(y[:, None])  # [B, rows, M, D]
        cost = difference.square().sum(-1)
        if potential is not None:
            cost = cost - widen(potential[:, None])
        lowest = cost.argmin(-1)
        index[:, start : start + rows] = torch.where(cost.isnan().any(-1), -1, lowest)
    return index


def value_at(x: Tensor, y: Tensor, potential: Tensor | None, index: Tensor) -> Tensor:
    """|x_i - y_j|^2 - potential_j at j = index_i, NaN where index_i is -1: [B, N], differentiable."""
    safe, x = index.clamp_min(0), x.contiguous()
    value = (widen(x) - widen(y).gather(1, safe[..., None].expand_as(x))).square().sum(-1)
    if potential is not None:
        value = value - widen(potential).gather(1, safe)
    return torch.where(index < 0, torch.nan, value)
