"""The definition of l2_topk: squared distances summed from differences and sorted, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from .._checks import widen
from ..l2_argmin.reference import value_at

_CHUNK_ELEMENTS = 1 << 22  # of the [rows, M, D] differences held at a time: memory stays O((N + M) k)


def l2_topk(x: Tensor, y: Tensor, k: int, potential: Tensor | None) -> tuple[Tensor, Tensor]:
    """The k least |x_i - y_j|^2 - potential_j of each row in ascending order, the lowest j first among equal ones.

    x [B, N, D], y [B, M, D], potential [B, M] or None -> value [B, N, k], index [B, N, k] int64. Differentiable.
    A row of costs with a NaN gives -1 and NaN throughout.
    """
    index = least(x, y, k, potential)
    return torch.stack([value_at(x, y, potential, chosen) for chosen in index.unbind(-1)], -1), index


@torch.no_grad()
def least(x: Tensor, y: Tensor, k: int, potential: Tensor | None) -> Tensor:
    x, y = x.contiguous(), y.contiguous()  # as l2_argmin's: copies of a point then cost the same to the bit
    batch, n, d = x.shape
    rows = max(1, _CHUNK_ELEMENTS // max(1, batch * y.shape[1] * d))
    index = torch.empty(batch, n, k, dtype=torch.int64, device=x.device)
    for start in range(0, n, rows):
        difference = widen(x[:, start : start + rows, None]) - widen(y[:, None])  # [B, rows, M, D]
        cost = difference.square().sum(-1)
        if potential is not None:
            cost = cost - widen(potential[:, None])
        lowest = cost.sort(dim=-1, stable=True).indices[..., :k]
        index[:, start : start + rows] = torch.where(cost.isnan().any(-1, keepdim=True), -1, lowest)
    return index
