"""fit_transport in the compiled extension, on the CPU and on CUDA: allocates outputs, passes addresses."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _native
from .._native import dense
from .state import AdamState


def fit_transport(
    z_r: Tensor,
    z_g: Tensor,
    thresholds: Tensor,
    leaves: Tensor,
    state: AdamState,
    iters: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    pairing: str,
) -> tuple[Tensor, Tensor]:
    """As reference.fit_transport; leaves and state must be dense."""
    z_r, z_g, thresholds = dense(z_r), dense(z_g), dense(thresholds)
    batch, n, d_out = z_r.shape
    m, d = z_g.shape[1:]
    trees, width = leaves.shape[1:3]
    index = torch.empty(batch, n, dtype=torch.int64, device=z_r.device)
    cost = z_r.new_empty(batch, iters)
    tensors = (z_r, z_g, thresholds, leaves, *state, index, cost)
    sizes = (batch, n, m, d, trees, width.bit_length() - 1, d_out, iters)
    arguments = (
        *(tensor.data_ptr() for tensor in tensors), *sizes, z_r.stride(0), z_g.stride(0), thresholds.stride(0),
        pairing == "literal", lr, *betas, eps,
    )  # fmt: skip
    if z_r.is_cuda:
        with torch.cuda.device(z_r.device):
            space = _native.workspace(_native.extension.fit_transport_cuda_workspace(*arguments), z_r.device)
            _native.extension.fit_transport_cuda(*arguments, space.data_ptr(), _native.stream(z_r.device))
    else:
        getattr(_native.extension, f"fit_transport_cpu_{_native.suffix(z_r)}")(*arguments, torch.get_num_threads())
    return index, cost
