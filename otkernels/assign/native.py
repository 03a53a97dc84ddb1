"""assign in the compiled extension: small problems by the whole matrix, large ones by lists of each row's best columns."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _native
from .._native import dense
from ..l2_argmin.reference import widen
from . import sparse

MOST_DENSE = 1 << 17  # entries of a cost matrix beyond which lists are faster


def assign(x: Tensor, y: Tensor, potential: Tensor | None, tolerance: float) -> tuple[Tensor, Tensor, Tensor]:
    """x [B, N, D], y [B, M, D] finite, N <= M, potential [B, M] or None -> index [B, N], u [B, N], v [B, M].

    Matrices and augmenting paths are the host's; a GPU finds the lists (l2_topk) and prices them.
    """
    x, y = widen(x), widen(y)
    potential = None if potential is None else widen(potential)
    if x.shape[1] * y.shape[1] <= MOST_DENSE:
        solved = _dense(x.cpu(), y.cpu(), None if potential is None else potential.cpu())
        return solved if x.device.type == "cpu" else tuple(part.to(x.device) for part in solved)
    parts = [
        sparse.solve(x[entry], y[entry], None if potential is None else potential[entry], tolerance)
        for entry in range(x.shape[0])
    ]
    index, u, v = (torch.stack(part).to(x.device) for part in zip(*parts, strict=True))
    return index, u, v


def _dense(x: Tensor, y: Tensor, potential: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    x, y = dense(x), dense(y)
    potential = None if potential is None else dense(potential)
    batch, n, d = x.shape
    m = y.shape[1]
    index = x.new_empty(batch, n, dtype=torch.int64)
    u, v = x.new_empty(batch, n, dtype=torch.float64), x.new_empty(batch, m, dtype=torch.float64)
    offsets, offsets_stride = (0, 0) if potential is None else (potential.data_ptr(), potential.stride(0))
    getattr(_native.extension, f"assign_dense_cpu_{_native.suffix(x)}")(
        x.data_ptr(), y.data_ptr(), offsets, index.data_ptr(), u.data_ptr(), v.data_ptr(),
        batch, n, m, d, x.stride(0), y.stride(0), offsets_stride, torch.get_num_threads(),
    )  # fmt: skip
    return index, u, v
