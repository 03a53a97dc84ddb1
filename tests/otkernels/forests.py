"""How far a soft forest, its gradients and theirs may be from their values in float64: the bounds of csrc/soft_forest.

u is the unit roundoff of the dtype that is computed in, and float64's own for the values that are compared with. X,
the largest |z - threshold| of a row's nodes, is taken for each row; beyond 750 a share is 0 or 1 in float64 as well.
"""

from __future__ import annotations

import torch
from torch import Tensor

from otkernels.soft_forest import reference


def _unit(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps / 2 + 2.0**-53


def _largest_logit(z: Tensor, thresholds: Tensor) -> Tensor:
    """X: [B, N, 1]."""
    logit = reference._by_node(z, *thresholds.shape[1:]) - thresholds[:, None]
    if not logit.numel():
        return z.new_zeros(*z.shape[:2], 1)
    return logit.abs().nan_to_num(nan=0.0).clamp_max(750).flatten(2).amax(2, keepdim=True)


def first_bounds(
    grad_out: Tensor, z: Tensor, thresholds: Tensor, leaves: Tensor, *, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For out and the gradients to z, thresholds and leaves, from the terms of soft_forest.h and double_backward.h.

    A share errs by (X + 9) u, so a leaf's weight by D (X + 10) u; sums of K = T 2^D, d_out and N terms by one u each.
    """
    grad_out, z, thresholds, leaves = (t.double() for t in (grad_out, z, thresholds, leaves))
    (_, trees, nodes), (n, d), d_out = thresholds.shape, z.shape[1:], leaves.shape[-1]
    depth, k, u, x = (nodes + 1).bit_length() - 1, trees * (nodes + 1), _unit(dtype), _largest_logit(z, thresholds)
    mu, levels = reference.routing(z, thresholds)
    routed, node = depth * (x + 10), (depth + 2) * (x + 12) + d_out + 3
    out = (routed + k + 3) * (mu.flatten(2) @ leaves.abs().flatten(1, 2)) / trees
    to_leaves = (mu.flatten(2).mT @ ((routed + n + 3) * grad_out.abs())).view_as(leaves) / trees
    s = (grad_out.abs() @ leaves.abs().flatten(1, 2).mT / trees).view_as(mu)
    sizes = []
    for r, p, q in reversed(levels):
        sl, sr = reference._split(s)
        sizes.append(node[..., None] * r * p * q * (sl + sr))
        s = p * sl + q * sr
    to_z, to_thresholds = reference._sum_nodes(sizes, z, thresholds)
    return (
        u * out,
        u * (1 + (trees * nodes / d + 1) / node) * to_z,
        u * (1 + n / 24) * to_thresholds.abs(),
        u * to_leaves,
    )


def second_bounds(*inputs: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """For the double backward pass: the bounds of csrc/soft_forest/double_backward.h, with the letters used there."""
    dz, dthresholds, dleaves, grad_out, z, thresholds, leaves = (t if t is None else t.double() for t in inputs)
    dz, dthresholds, dleaves = (
        torch.zeros_like(p) if t is None else t
        for t, p in zip((dz, dthresholds, dleaves), (z, thresholds, leaves), strict=True)
    )
    u = _unit(dtype)
    (_, trees, nodes), (n, d), d_out = thresholds.shape, z.shape[1:], leaves.shape[-1]
    depth, k = (nodes + 1).bit_length() - 1, trees * (nodes + 1)
    mu, levels = reference.routing(z, thresholds)
    x = _largest_logit(z, thresholds)
    length = reference._by_node(dz.abs(), trees, nodes) + dthresholds.abs()[:, None]
    big_r, below = [torch.zeros_like(mu[..., :1])], reference._levels(length)
    for (r, p, q), here in zip(levels, below, strict=True):
        big_r.append(reference._join(big_r[-1] * p + r * p * q * here, big_r[-1] * q + r * p * q * here))
    routed = (depth + 1) * (x + 11)
    node, of_out, of_leaves = (depth + 2) * (x + 12) + d_out + 3, routed + 3 * k + 5, routed + n + 20
    if grad_out.is_cuda:
        node = (depth + 3) * (x + 12) + 8 * d_out + 100 + 2**depth / 128
        of_out, of_leaves = routed + 17 * k + 140, routed + 9 * (n + 64) + 72
    out_bound = big_r[-1].flatten(2) @ leaves.abs().flatten(1, 2) + mu.flatten(2) @ dleaves.abs().flatten(1, 2)
    leaf_bound = (big_r[-1].flatten(2).mT @ (of_leaves * grad_out.abs())).view_as(leaves)
    s = (grad_out.abs() @ leaves.abs().flatten(1, 2).mT / trees).view_as(mu)
    big_q = (grad_out.abs() @ dleaves.abs().flatten(1, 2).mT / trees).view_as(mu)
    sizes = []
    for (r, p, q), here, reach in zip(reversed(levels), reversed(below), reversed(big_r[:-1]), strict=True):
        (sl, sr), (ql, qr) = reference._split(s), reference._split(big_q)
        sizes.append(node[..., None] * p * q * ((reach + r * here) * (sl + sr) + r * (ql + qr)))
        s, big_q = p * sl + q * sr, p * ql + q * qr + p * q * here * (sl + sr)
    z_size, threshold_size = reference._sum_nodes(sizes, z, thresholds)
    return (
        of_out * u * out_bound / trees,
        (1 + (trees * nodes / d + 1) / node) * u * z_size,
        (1 + n / 24) * u * threshold_size.abs(),  # a node's own factor is at least 2 * 12
        u * leaf_bound / trees,
    )


def lost_to_underflow(depth: int, *tensors: Tensor, dtype: torch.dtype) -> float:
    """What shares and products below the smallest normal number may take, where the dtype makes them 0.

    A weight loses that number at each of its at most 2 D + 3 factors, and each product of a sum with it; terms are
    at most as many as the tensors have elements together, and as large as the product of their largest elements.
    """
    most = 1.0
    for tensor in tensors:
        most *= 1 + tensor.double().nan_to_num(posinf=0, neginf=0).abs().amax().item() if tensor.numel() else 1
    return (2 * depth + 3) * torch.finfo(dtype).smallest_normal * (1 + sum(t.numel() for t in tensors)) * most
