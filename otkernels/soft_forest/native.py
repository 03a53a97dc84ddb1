"""soft_forest in the compiled extension, on the CPU and on CUDA: allocates outputs, passes addresses."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _native
from .._checks import widen
from .._native import dense


def soft_forest(z: Tensor, thresholds: Tensor, leaves: Tensor) -> Tensor:
    """z [B, N, d], thresholds [B, T, 2^D - 1], leaves [B, T, 2^D, d_out] -> [B, N, d_out]."""
    arguments, kept = _forest(z, thresholds, leaves)
    out = kept[0].new_empty(*z.shape[:2], leaves.shape[-1])
    if out.is_cuda:
        with torch.cuda.device(out.device):
            space = _native.workspace(_native.extension.soft_forest_cuda_workspace(*arguments), out.device)
            _native.extension.soft_forest_cuda(*arguments, out.data_ptr(), space.data_ptr(), _native.stream(out.device))
    else:
        function = getattr(_native.extension, f"soft_forest_cpu_{_native.suffix(out)}")
        function(*arguments, out.data_ptr(), torch.get_num_threads())
    return out.to(z.dtype)


def soft_forest_backward(
    grad_out: Tensor, z: Tensor, thresholds: Tensor, leaves: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of sum(grad_out * soft_forest(...)) to z, thresholds and leaves."""
    arguments, kept = _forest(z, thresholds, leaves)
    grad_out = widen(grad_out).contiguous()
    grads = [kept[0].new_empty(tensor.shape) for tensor in (z, thresholds, leaves)]
    addresses = (grad_out.data_ptr(), *(grad.data_ptr() for grad in grads))
    if grad_out.is_cuda:
        device = grad_out.device
        with torch.cuda.device(device):
            space = _native.workspace(_native.extension.soft_forest_backward_cuda_workspace(*arguments), device)
            _native.extension.soft_forest_backward_cuda(
                *arguments, *addresses, space.data_ptr(), _native.stream(device)
            )
    else:
        function = getattr(_native.extension, f"soft_forest_backward_cpu_{_native.suffix(grad_out)}")
        function(*arguments, *addresses, torch.get_num_threads())
    grad_z, grad_thresholds, grad_leaves = (grad.to(z.dtype) for grad in grads)
    return grad_z, grad_thresholds, grad_leaves


def soft_forest_double_backward(
    dz: Tensor | None,
    dthresholds: Tensor | None,
    dleaves: Tensor | None,
    grad_out: Tensor,
    z: Tensor,
    thresholds: Tensor,
    leaves: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of <dz, grad_z> + <dthresholds, grad_thresholds> + <dleaves, grad_leaves>; None stands for zeros."""
    arguments, kept = _forest(z, thresholds, leaves)
    dz = torch.zeros_like(z) if dz is None else dz
    inputs = [None if t is None else widen(t).contiguous() for t in (grad_out, dz, dthresholds, dleaves)]
    grads = [kept[0].new_empty(tensor.shape) for tensor in (grad_out, z, thresholds, leaves)]
    addresses = [0 if tensor is None else tensor.data_ptr() for tensor in (*inputs, *grads)]
    if z.is_cuda:
        with torch.cuda.device(z.device):
            size = _native.extension.soft_forest_double_backward_cuda_workspace(*arguments)
            space = _native.workspace(size, z.device)
            _native.extension.soft_forest_double_backward_cuda(
                *arguments, *addresses, space.data_ptr(), _native.stream(z.device)
            )
    else:
        function = getattr(_native.extension, f"soft_forest_double_backward_cpu_{_native.suffix(kept[0])}")
        function(*arguments, *addresses, torch.get_num_threads())
    grad_grad_out, grad_z, grad_thresholds, grad_leaves = (grad.to(z.dtype) for grad in grads)
    return grad_grad_out, grad_z, grad_thresholds, grad_leaves


def _forest(z: Tensor, thresholds: Tensor, leaves: Tensor) -> tuple[tuple[int, ...], tuple[Tensor, ...]]:
    """The arguments that describe the forest, and the tensors that they point into."""
    kept = tuple(dense(widen(tensor)) for tensor in (z, thresholds, leaves))
    batch, n, d = z.shape
    trees, width, d_out = leaves.shape[1:]
    addresses = (tensor.data_ptr() for tensor in kept)
    strides = (tensor.stride(0) for tensor in kept)
    return (*addresses, batch, n, d, trees, width.bit_length() - 1, d_out, *strides), kept
