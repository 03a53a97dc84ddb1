"""l2_topk in the compiled extension, on the CPU: allocates outputs, passes addresses."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _native
from .._checks import widen
from .._native import dense


def l2_topk(x: Tensor, y: Tensor, k: int, potential: Tensor | None) -> tuple[Tensor, Tensor]:
    """x [B, N, D], y [B, M, D], potential [B, M] or None -> value [B, N, k], index [B, N, k]; or all without B.

    Half precisions are widened to float32 first.
    """
    x, y = dense(widen(x)), dense(widen(y))
    potential = None if potential is None else dense(widen(potential))
    n, d = x.shape[-2:]
    shape = (*x.shape[:-1], k)
    value = x.new_empty(shape)
    index = x.new_empty(shape, dtype=torch.int64)
    batch, x_stride, y_stride = (x.shape[0], x.stride(0), y.stride(0)) if x.dim() == 3 else (1, 0, 0)
    offsets, offsets_stride = (0, 0) if potential is None else (potential.data_ptr(), potential.stride(0))
    call = getattr(_native.extension, f"l2_topk_cpu_{_native.suffix(x)}")
    call(
        x.data_ptr(), y.data_ptr(), offsets, value.data_ptr(), index.data_ptr(),
        batch, n, y.shape[-2], d, k, x_stride, y_stride, offsets_stride, torch.get_num_threads(),
    )  # fmt: skip
    return value, index
