"""soft_forest in the compiled extension, on the CPU: allocates outputs, passes addresses."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _native
from .._native import dense
from ..l2_argmin.reference import widen


def soft_forest(z: Tensor, thresholds: Tensor, leaves: Tensor) -> Tensor:
    """z [B, N, d], thresholds [B, T, 2^D - 1], leaves [B, T, 2^D, d_out] -> [B, N, d_out]."""
    arguments, kept = _forest(z, thresholds, leaves)
    out = kept[0].new_empty(*z.shape[:2], leaves.shape[-1])
    function = getattr(_native.extension, f"soft_forest_cpu_{_suffix(out)}")
    function(*arguments, out.data_ptr(), torch.get_num_threads())
    return out.to(z.dtype)


def soft_forest_backward(
    grad_out: Tensor, z: Tensor, thresholds: Tensor, leaves: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of sum(grad_out * soft_forest(...)) to z, thresholds and leaves."""
    arguments, kept = _forest(z, thresholds, leaves)
    grad_out = widen(grad_out).contiguous()
    grads = [kept[0].new_empty(tensor.shape) for tensor in (z, thresholds, leaves)]
    function = getattr(_native.extension, f"soft_forest_backward_cpu_{_suffix(grad_out)}")
    function(*arguments, grad_out.data_ptr(), *(grad.data_ptr() for grad in grads), torch.get_num_threads())
    grad_z, grad_thresholds, grad_leaves = (grad.to(z.dtype) for grad in grads)
    return grad_z, grad_thresholds, grad_leaves


def _forest(z: Tensor, thresholds: Tensor, leaves: Tensor) -> tuple[tuple[int, ...], tuple[Tensor, ...]]:
    """The arguments that describe the forest, and the tensors that they point into."""
    kept = tuple(dense(widen(tensor)) for tensor in (z, thresholds, leaves))
    batch, n, d = z.shape
    trees, width, d_out = leaves.shape[1:]
    addresses = (tensor.data_ptr() for tensor in kept)
    strides = (tensor.stride(0) for tensor in kept)
    return (*addresses, batch, n, d, trees, width.bit_length() - 1, d_out, *strides), kept


def _suffix(tensor: Tensor) -> str:
    return "f32" if tensor.dtype == torch.float32 else "f64"
