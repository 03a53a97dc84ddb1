"""l2_argmin in the compiled extension, on the CPU and on CUDA: allocates outputs, passes addresses."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _native
from .._checks import widen
from .._native import dense

PRECISIONS = ("exact", "tf32", "bf16")  # as csrc/l2_argmin/l2_argmin.h numbers them


def l2_argmin(x: Tensor, y: Tensor, potential: Tensor | None, precision: str) -> tuple[Tensor, Tensor]:
    """x [B, N, D], y [B, M, D], potential [B, M] or None -> value [B, N], index [B, N]; or all without B.

    The CPU kernel is exact whatever the precision asks for; half precisions are widened to float32 first.
    """
    x, y = dense(widen(x)), dense(widen(y))
    potential = None if potential is None else dense(widen(potential))
    n, d = x.shape[-2:]
    lead = x.shape[:-1]
    value = x.new_empty(*lead)  # plain ints: a torch.Size costs 2 us more
    index = x.new_empty(*lead, dtype=torch.int64)
    batch, x_stride, y_stride = (x.shape[0], x.stride(0), y.stride(0)) if x.dim() == 3 else (1, 0, 0)
    offsets, offsets_stride = (0, 0) if potential is None else (potential.data_ptr(), potential.stride(0))
    arguments = (
        x.data_ptr(), y.data_ptr(), offsets, value.data_ptr(), index.data_ptr(),
        batch, n, y.shape[-2], d, x_stride, y_stride, offsets_stride,
    )  # fmt: skip
    if x.is_cuda:
        code = PRECISIONS.index(precision)
        with torch.cuda.device(x.device):
            space = _native.workspace(_native.extension.l2_argmin_cuda_workspace(*arguments, code), x.device)
            _native.extension.l2_argmin_cuda(*arguments, code, space.data_ptr(), _native.stream(x.device))
    elif x.dtype == torch.float32:
        _native.extension.l2_argmin_cpu_f32(*arguments, torch.get_num_threads())
    else:
        _native.extension.l2_argmin_cpu_f64(*arguments, torch.get_num_threads())
    return value, index
