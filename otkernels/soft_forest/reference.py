"""The definition of soft_forest, of its gradients and of theirs, in plain differentiable PyTorch."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def soft_forest(z: Tensor, thresholds: Tensor, leaves: Tensor) -> Tensor:
    """F(z) = (1/T) sum_t sum_l mu[t, l](z) leaf[t, l]   (POT-GAN, section 4.2, Fig. 2).

    z [B, N, d], thresholds [B, T, 2^D - 1], leaves [B, T, 2^D, d_out] -> [B, N, d_out].
    """
    mu, _ = routing(z, thresholds)
    return mu.flatten(2) @ leaves.flatten(1, 2) / leaves.shape[1]


class Level(NamedTuple):
    """What a level's nodes receive and their two shares of it, [B, N, T, 2^level] each."""

    reach: Tensor
    left: Tensor
    right: Tensor


def routing(z: Tensor, thresholds: Tensor) -> tuple[Tensor, list[Level]]:
    """Leaf weights mu [B, N, T, 2^D], and what happens on each level.

    Node n of tree t compares feature (t (2^D - 1) + n) mod d with its threshold; sigmoid(z - threshold) goes left. The
    right share is sigmoid(threshold - z), which keeps its digits where the left share is close to 1.
    """
    trees, nodes = thresholds.shape[1:]
    logit = _by_node(z, trees, nodes) - thresholds[:, None]
    reach = torch.ones_like(logit[..., :1]) if nodes else z.new_ones(*z.shape[:2], trees, 1)  # [B, N, T, 1]
    levels = []
    for level in _levels(logit):
        levels.append(Level(reach, level.sigmoid(), (-level).sigmoid()))
        reach = _join(reach * levels[-1].left, reach * levels[-1].right)
    return reach, levels


def soft_forest_backward(
    grad_out: Tensor, z: Tensor, thresholds: Tensor, leaves: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of sum(grad_out * soft_forest(z, thresholds, leaves)): shapes of z, thresholds, leaves.

    With V(leaf) = <grad_out, leaf> / T and V(node) = p V(left) + q V(right), the gradient of a node's z - threshold is
    reach p q (V(left) - V(right)): no division by a share, so saturated and deep trees stay finite.
    """
    trees = thresholds.shape[1]
    mu, levels = routing(z, thresholds)
    grad_leaves = (mu.flatten(2).mT @ grad_out / trees).view_as(leaves)
    value = (grad_out @ leaves.flatten(1, 2).mT / trees).view_as(mu)
    grads = []
    for reach, p, q in reversed(levels):
        left, right = _split(value)
        grads.append(reach * p * q * (left - right))
        value = p * left + q * right
    return *_sum_nodes(grads, z, thresholds), grad_leaves


def soft_forest_double_backward(
    dz: Tensor | None,
    dthresholds: Tensor | None,
    dleaves: Tensor | None,
    grad_out: Tensor,
    z: Tensor,
    thresholds: Tensor,
    leaves: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of <dz, grad_z> + <dthresholds, grad_thresholds> + <dleaves, grad_leaves>, where the grads are those of
    soft_forest_backward: shapes of grad_out, z, thresholds, leaves. None stands for zeros.

    That sum is the derivative of <grad_out, soft_forest> along (dz, dthresholds, dleaves). So the results are the
    forward pass and the backward pass, differentiated along them: a node's left share has the tangent
    dp = p q (dz - dthreshold), its reach dreach from the root down, its value dV from the leaves up.
    """
    trees, nodes = thresholds.shape[1:]
    mu, levels = routing(z, thresholds)
    dlogit = _by_node(torch.zeros_like(z) if dz is None else dz, trees, nodes)
    if dthresholds is not None:
        dlogit = dlogit - dthresholds[:, None]
    dmu, tangents = _routing_tangent(levels, dlogit, torch.zeros_like(mu[..., :1]))
    grad_leaves = (dmu.flatten(2).mT @ grad_out / trees).view_as(leaves)
    grad_grad_out = dmu.flatten(2) @ leaves.flatten(1, 2) / trees
    value = (grad_out @ leaves.flatten(1, 2).mT / trees).view_as(mu)
    dvalue = torch.zeros_like(value)
    if dleaves is not None:
        grad_grad_out = grad_grad_out + mu.flatten(2) @ dleaves.flatten(1, 2) / trees
        dvalue = (grad_out @ dleaves.flatten(1, 2).mT / trees).view_as(mu)
    grads = []
    for (reach, p, q), (dleft, dslope) in zip(reversed(levels), reversed(tangents), strict=True):
        (left, right), (dv_left, dv_right) = _split(value), _split(dvalue)
        grads.append(dslope * (left - right) + reach * p * q * (dv_left - dv_right))
        value = p * left + q * right
        dvalue = p * dv_left + q * dv_right + dleft * (left - right)
    return grad_grad_out, *_sum_nodes(grads, z, thresholds), grad_leaves


def _routing_tangent(levels: list[Level], dlogit: Tensor, dreach: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """The tangent of mu, and per level those of the left share and of reach p q; dreach [B, N, T, 1] is the root's."""
    tangents = []
    for (reach, p, q), dlevel in zip(levels, _levels(dlogit), strict=True):
        dleft = p * q * dlevel
        tangents.append((dleft, dreach * p * q + reach * (q - p) * dleft))
        dreach = _join(dreach * p + reach * dleft, dreach * q - reach * dleft)
    return dreach, tangents


def _by_node(z: Tensor, trees: int, nodes: int) -> Tensor:
    """The feature that each node compares: [B, N, T, nodes]. Repeated, not gathered, as _sum_nodes sums them."""
    periods = -(-trees * nodes // z.shape[-1])
    return z.repeat(1, 1, periods)[..., : trees * nodes].unflatten(-1, (trees, nodes))


def _sum_nodes(grads: list[Tensor], z: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of z - threshold per level, the lowest first, to those of z and thresholds.

    Features recur with period d, so their sums are plain ones: index_add would not be deterministic on CUDA.
    """
    if not grads:
        return torch.zeros_like(z), torch.zeros_like(thresholds)
    grad_logit = torch.cat(grads[::-1], -1)  # [B, N, T, nodes]
    columns, d = grad_logit.flatten(2), z.shape[-1]
    grad_z = F.pad(columns, (0, -columns.shape[-1] % d)).unflatten(-1, (-1, d)).sum(-2)
    return grad_z, -grad_logit.sum(1)


def _levels(by_node: Tensor) -> list[Tensor]:
    """Nodes, numbered breadth-first, level by level."""
    depth = (by_node.shape[-1] + 1).bit_length() - 1
    return [by_node[..., 2**level - 1 : 2 ** (level + 1) - 1] for level in range(depth)]


def _join(left: Tensor, right: Tensor) -> Tensor:
    """Left and right children, in the order of the level below."""
    return torch.stack((left, right), -1).flatten(-2)


def _split(below: Tensor) -> tuple[Tensor, Tensor]:
    """The left and the right children on a level."""
    left, right = below.unflatten(-1, (-1, 2)).unbind(-1)
    return left, right
