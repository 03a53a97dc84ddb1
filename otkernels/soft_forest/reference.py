"""The definition of soft_forest and of its gradients, in plain differentiable PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor


def soft_forest(z: Tensor, thresholds: Tensor, leaves: Tensor) -> Tensor:
    """F(z) = (1/T) sum_t sum_l mu[t, l](z) leaf[t, l]   (POT-GAN, section 4.2, Fig. 2).

    z [B, N, d], thresholds [B, T, 2^D - 1], leaves [B, T, 2^D, d_out] -> [B, N, d_out].
    """
    mu, _, _ = routing(z, thresholds)
    return mu.flatten(2) @ leaves.flatten(1, 2) / leaves.shape[1]


def routing(z: Tensor, thresholds: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Leaf weights mu [B, N, T, 2^D], and per level the reach and the left share of its nodes [B, N, T, 2^level].

    Node n of tree t compares feature (t (2^D - 1) + n) mod d with its threshold; sigmoid(z - threshold) goes left. The
    right share is sigmoid(threshold - z), which keeps its digits where the left share is close to 1.
    """
    trees, nodes = thresholds.shape[1:]
    logit = z[..., features(trees, nodes, z.shape[-1], z.device)].unflatten(-1, (trees, nodes)) - thresholds[:, None]
    reach = torch.ones_like(logit[..., :1]) if nodes else z.new_ones(*z.shape[:2], trees, 1)  # [B, N, T, 1]
    reaches, lefts = [], []
    while reach.shape[-1] <= nodes:
        width = reach.shape[-1]
        level = logit[..., width - 1 : 2 * width - 1]
        reaches.append(reach)
        lefts.append(level.sigmoid())
        reach = torch.stack((reach * level.sigmoid(), reach * (-level).sigmoid()), -1).flatten(-2)
    return reach, reaches, lefts


def features(trees: int, nodes: int, d: int, device: torch.device) -> Tensor:
    """The feature that each node compares: [T * nodes] int64."""
    return torch.arange(trees * nodes, device=device) % d


def soft_forest_backward(
    grad_out: Tensor, z: Tensor, thresholds: Tensor, leaves: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of sum(grad_out * soft_forest(z, thresholds, leaves)): shapes of z, thresholds, leaves.

    With V(leaf) = <grad_out, leaf> / T and V(node) = p V(left) + (1 - p) V(right), the gradient of a node's share p is
    reach (V(left) - V(right)): no division by p, so saturated and deep trees stay finite.
    """
    trees, nodes = thresholds.shape[1:]
    mu, reaches, lefts = routing(z, thresholds)
    grad_leaves = (mu.flatten(2).mT @ grad_out / trees).view_as(leaves)
    value = (grad_out @ leaves.flatten(1, 2).mT / trees).view_as(mu)
    levels = []
    for reach, p in zip(reversed(reaches), reversed(lefts), strict=True):
        left, right = value.unflatten(-1, (-1, 2)).unbind(-1)
        levels.append(reach * p * (1 - p) * (left - right))
        value = right + p * (left - right)
    if not levels:
        return torch.zeros_like(z), torch.zeros_like(thresholds), grad_leaves
    grad_logit = torch.cat(levels[::-1], -1)  # [B, N, T, nodes]
    index = features(trees, nodes, z.shape[-1], z.device)
    grad_z = torch.zeros_like(z).index_add(-1, index, grad_logit.flatten(2))
    return grad_z, -grad_logit.sum(1), grad_leaves
