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


def transport_cost(
    z_r: Tensor, z_g: Tensor, thresholds: Tensor, leaves: Tensor, pairing: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As reference.transport_cost, on the CPU."""
    z_r, z_g, thresholds, leaves = dense(z_r), dense(z_g), dense(thresholds), dense(leaves)
    batch, n, d_out = z_r.shape
    m, d = z_g.shape[1:]
    trees, width = leaves.shape[1:3]
    index = torch.empty(batch, n, dtype=torch.int64)
    cost, used, grad_z = z_r.new_empty(batch), z_r.new_empty(batch), z_r.new_empty(batch, m, d)
    tensors = (z_r, z_g, thresholds, leaves, index, cost, used, grad_z)
    sizes = (batch, n, m, d, trees, width.bit_length() - 1, d_out)
    strides = (tensor.stride(0) for tensor in (z_r, z_g, thresholds, leaves))
    function = getattr(_native.extension, f"transport_cost_cpu_{_native.suffix(z_r)}")
    addresses = (tensor.data_ptr() for tensor in tensors)
    function(*addresses, *sizes, *strides, pairing == "literal", torch.get_num_threads())
    return cost, used, index, grad_z
