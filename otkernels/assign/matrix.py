"""Small assignment problems, by their whole cost matrices, many at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _native
from .._native import dense
from .certificate import Certified


def solve(x: Tensor, y: Tensor, potential: Tensor | None) -> Certified:
    """x [B, N, D], y [B, M, D], potential [B, M] or None -> index [B, N], u [B, N], v [B, M], primal [B], dual [B].

    Computed on the host. Problems that hold a NaN, an infinity or a number beyond 1e150 get index -1 and NaN.
    """
    device = x.device
    x, y = dense(x.cpu()), dense(y.cpu())  # in this order: the copy of overlapping rows may have other strides
    potential = None if potential is None else dense(potential.cpu())
    batch, n, d = x.shape
    m = y.shape[1]
    index = torch.empty(batch, n, dtype=torch.int64)
    u, v = torch.empty(batch, n, dtype=torch.float64), torch.empty(batch, m, dtype=torch.float64)
    primal, dual = torch.empty(batch, dtype=torch.float64), torch.empty(batch, dtype=torch.float64)
    offsets, offsets_stride = (0, 0) if potential is None else (potential.data_ptr(), potential.stride(0))
    getattr(_native.extension, f"assign_dense_cpu_{_native.suffix(x)}")(
        x.data_ptr(), y.data_ptr(), offsets, index.data_ptr(), u.data_ptr(), v.data_ptr(), primal.data_ptr(),
        dual.data_ptr(), batch, n, m, d, x.stride(0), y.stride(0), offsets_stride, torch.get_num_threads(),
    )  # fmt: skip
    if device.type != "cpu":
        index, u, v, primal, dual = (part.to(device) for part in (index, u, v, primal, dual))
    return index, u, v, primal, dual
